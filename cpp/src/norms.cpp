// SPDX-License-Identifier: Apache-2.0
// Axis arithmetic only: every norm is written the way a user would write one of their own, on the public headers.
#include "anynorm/norms.hpp"

#include <memory>
#include <string>

#include "anynorm/normalize.hpp"
#include "norm_axes.hpp"
#include "running.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

/// What all norms hand on to the engine as it is.
template <class Options>
void pass_on(const char* caller, const Options& options, NormalizeOptions& engine) {
    engine.caller = caller;
    engine.num_threads = options.num_threads;
    if (options.given.given()) engine.given = options.given;
    if (options.moments.given()) engine.moments = options.moments;
    if (options.fusion.any()) engine.fusion = options.fusion;
}

double element(const TensorView& view, std::int64_t offset) {
    return view.dtype == DType::f32 ? static_cast<double>(static_cast<const float*>(view.data)[offset])
                                    : static_cast<const double*>(view.data)[offset];
}

void set_element(const TensorView& view, std::int64_t offset, double value) {
    if (view.dtype == DType::f32) {
        static_cast<float*>(view.data)[offset] = static_cast<float>(value);
    } else {
        static_cast<double*>(view.data)[offset] = value;
    }
}

/// Running statistics are written after y: they must be apart from everything else the call touches.
void check_running_output(const char* caller, const RunningStatistics& running, const TensorView& x,
                          const TensorView& y, const TensorView& weight, const TensorView& bias,
                          const MomentsView& moments) {
    check_apart(caller, "running_mean", running.mean, "running_var", running.var);
    struct Named {
        const char* what;
        const TensorView& view;
    };
    for (const Named& written : {Named{"running_mean", running.mean}, Named{"running_var", running.var}}) {
        check_output(caller, written.what, written.view);
        for (const Named& other : {Named{"x", x}, Named{"output", y}, Named{"weight", weight}, Named{"bias", bias}}) {
            check_apart(caller, written.what, written.view, other.what, other.view);
        }
        check_moments_apart(caller, moments, written.what, written.view);
    }
}

/// The same for the terms of a sum that is normalized.
void check_running_apart(const char* caller, const RunningStatistics& running, const Fusion& fusion) {
    if (!fusion.residual.given()) return;
    for (const TensorView* view : {&fusion.residual, &fusion.sum}) {
        const char* what = view == &fusion.sum ? "sum" : "residual";
        check_apart(caller, "running_mean", running.mean, what, *view);
        check_apart(caller, "running_var", running.var, what, *view);
    }
}

/// A view of statistics without the axes that were averaged over, which it may have at length 1.
TensorView compact(const TensorView& view, const Axes& kept, int rank) {
    if (!view.given() || view.rank != rank || kept.size == rank) return view;
    TensorView result;
    result.data = view.data;
    result.dtype = view.dtype;
    result.rank = kept.size;
    for (int i = 0; i < kept.size; ++i) {
        result.shape[i] = view.shape[kept.values[i]];
        result.strides[i] = view.strides[kept.values[i]];
    }
    return result;
}

/// The moments of a call as they are needed to update running statistics: the caller's views where they are given,
/// memory of our own elsewhere.
class BatchMoments {
  public:
    BatchMoments(const MomentsView& wanted, const TensorView& x, const Axes& kept) : views(wanted) {
        std::int64_t shape[2] = {}, sets = 1;
        for (int i = 0; i < kept.size; ++i) sets *= shape[i] = x.shape[kept.values[i]];
        own_ = std::make_unique<double[]>(static_cast<std::size_t>(3 * sets));
        double* memory = own_.get();
        for (TensorView* each : {&views.count, &views.mean, &views.m2}) {
            const std::span<const std::int64_t> compact_shape(shape, static_cast<std::size_t>(kept.size));
            *each = each->given() ? compact(*each, kept, x.rank) : view(memory, compact_shape);
            memory += sets;
        }
    }

    MomentsView views;

  private:
    std::unique_ptr<double[]> own_;
};

/// Statistics of shape (C) or (N, C).
double statistic(const TensorView& view, std::int64_t sample, std::int64_t channel) {
    return element(view,
                   view.rank == 1 ? channel * view.strides[0] : sample * view.strides[0] + channel * view.strides[1]);
}

/// Given moments that running statistics are to learn from have an unbiased variance.
void check_trainable(const char* caller, const MomentsView& given, const TensorView& x, const Axes& kept,
                     std::uint32_t reduced) {
    if (!given.count.given()) return;  // normalize() refuses moments that are not complete
    check_statistics(caller, given, x, reduced);
    const TensorView count = compact(given.count, kept, x.rank);
    for (std::int64_t i = 0; i < count.size(); ++i) {
        const std::int64_t channels = count.shape[count.rank - 1];
        const double n = statistic(count, i / channels, i % channels);
        if (!(n > 1)) fail(caller, "moments of more than one value per channel to train with", number_text(n));
    }
}

/// running = (1 - momentum) * running + momentum * average over samples, with the unbiased variance.
void update_running(const RunningStatistics& running, const MomentsView& batch, std::int64_t samples,
                    std::int64_t channels) {
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        double mean = 0, var = 0;
        for (std::int64_t sample = 0; sample < samples; ++sample) {
            mean += statistic(batch.mean, sample, channel);
            var += statistic(batch.m2, sample, channel) / (statistic(batch.count, sample, channel) - 1);
        }
        const double share = running.momentum / static_cast<double>(samples);
        const std::int64_t mean_at = channel * running.mean.strides[0], var_at = channel * running.var.strides[0];
        set_element(running.mean, mean_at, (1 - running.momentum) * element(running.mean, mean_at) + share * mean);
        set_element(running.var, var_at, (1 - running.momentum) * element(running.var, var_at) + share * var);
    }
}

}  // namespace

void layer_norm(const TensorView& x, const TensorView& y, const Axes& axes, const LayerNormOptions& options) {
    constexpr const char* caller = "layer_norm";
    check_view(caller, "x", x);
    const NormalizedAxes normalized(caller, x, axes);
    check_parameter(caller, "weight", options.weight, normalized.shape, normalized.axes.size);
    check_parameter(caller, "bias", options.bias, normalized.shape, normalized.axes.size);
    NormalizeOptions engine;
    place(options.weight, normalized.axes, x.rank, engine.weight);
    place(options.bias, normalized.axes, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    normalize(x, {.reduce = normalized.axes}, y, engine);
}

void rms_norm(const TensorView& x, const TensorView& y, const Axes& axes, const RmsNormOptions& options) {
    constexpr const char* caller = "rms_norm";
    check_view(caller, "x", x);
    const NormalizedAxes normalized(caller, x, axes);
    check_parameter(caller, "weight", options.weight, normalized.shape, normalized.axes.size);
    NormalizeOptions engine;
    place(options.weight, normalized.axes, x.rank, engine.weight);
    const bool sums = options.fusion.residual.given();
    engine.eps = options.eps.value_or(epsilon_for(sums ? options.fusion.sum.dtype : x.dtype));
    engine.center = false;
    pass_on(caller, options, engine);
    normalize(x, {.reduce = normalized.axes}, y, engine);
}

void group_norm(const TensorView& x, const TensorView& y, std::int64_t num_groups, const GroupNormOptions& options) {
    constexpr const char* caller = "group_norm";
    const int channel = check_channels(caller, x, options.channel_axis, max_rank - 1, true);
    const std::int64_t channels = x.shape[channel];
    check_groups(caller, num_groups, channels);
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_result(caller, "output", y);
    check_shape(caller, "output", y, x.shape, x.rank);
    check_residual(caller, options.fusion, x);

    NormalizeOptions engine;
    place(options.weight, {channel}, x.rank, engine.weight);
    place(options.bias, {channel}, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    TensorView grouped_x = x, grouped_y = y;
    for (TensorView* view :
         {&grouped_x, &grouped_y, &engine.weight, &engine.bias, &engine.fusion.residual, &engine.fusion.sum}) {
        split(*view, channel, num_groups);
    }
    normalize(grouped_x, {.reduce = all_axes_except(grouped_x.rank, 0, channel)}, grouped_y, engine);
}

namespace {

/// Instance norm has a set for each sample and channel, batch norm for each channel; all else they share.
struct ChannelNorm {
    const char* caller;
    bool per_sample;
    bool input_statistics;
};

template <class Options>
void channel_norm(const ChannelNorm& norm, const TensorView& x, const TensorView& y, const Options& options) {
    const char* caller = norm.caller;
    const int channel = check_channels(caller, x, options.channel_axis, max_rank, norm.per_sample);
    const std::int64_t channels = x.shape[channel];
    const std::int64_t samples = norm.per_sample ? x.shape[0] : 1;
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_running(caller, options.running, channels);
    const bool updates = norm.input_statistics && options.running.mean.given();

    NormalizeOptions engine;
    place(options.weight, {channel}, x.rank, engine.weight);
    place(options.bias, {channel}, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    const Axes kept = norm.per_sample ? Axes{0, channel} : Axes{channel};
    const Grouping sets{.reduce = all_axes_except(x.rank, kept.values[0], channel)};
    if (!norm.input_statistics && !options.given.given()) {
        if (!options.running.mean.given())
            fail(caller, "running_mean and running_var, whose statistics are used", "none");
        running_as_moments(options.running, samples, norm.per_sample, engine.given);
    }
    // One element has no unbiased variance to learn; a batch of such sets would be normalized to nothing but bias.
    const bool trains = updates || (norm.input_statistics && !norm.per_sample);
    if (trains && !options.given.given() && x.size() > 0 && x.size() == channels * samples) {
        fail(caller, "more than one value per channel to train with", "x of shape " + shape_text(x));
    }
    if (!updates) {
        normalize(x, sets, y, engine);
        return;
    }

    check_running_output(caller, options.running, x, y, options.weight, options.bias, options.moments);
    check_running_output(caller, options.running, x, y, options.weight, options.bias, options.given);
    check_running_apart(caller, options.running, options.fusion);
    const std::uint32_t reduced = check_axes(caller, sets.reduce, x.rank);
    check_moments_output(caller, options.moments, x, reduced);
    if (options.given.given()) check_trainable(caller, options.given, x, kept, reduced);
    const BatchMoments batch(options.moments, x, kept);
    engine.moments = batch.views;
    normalize(x, sets, y, engine);
    if (x.size() > 0) update_running(options.running, batch.views, samples, channels);
}

}  // namespace

void instance_norm(const TensorView& x, const TensorView& y, const InstanceNormOptions& options) {
    channel_norm({.caller = "instance_norm", .per_sample = true, .input_statistics = options.use_input_stats}, x, y,
                 options);
}

void batch_norm(const TensorView& x, const TensorView& y, const BatchNormOptions& options) {
    channel_norm({.caller = "batch_norm", .per_sample = false, .input_statistics = options.training}, x, y, options);
}

}  // namespace anynorm::inline ANYNORM_ABI
