// SPDX-License-Identifier: Apache-2.0
// Axis arithmetic only: every norm is written the way a user would write one of their own, on the public headers.
#include "anynorm/norms.hpp"

#include <memory>
#include <string>
#include <type_traits>

#include "anynorm/normalize.hpp"
#include "batch_renorm.hpp"
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
    if constexpr (requires { options.fusion; }) {
        if (options.fusion.any()) engine.fusion = options.fusion;
    }
    if constexpr (requires { options.excluded; }) engine.excluded = options.excluded;
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
/// memory of our own elsewhere, for what the mean has lost if pooled moments keep it.
class BatchMoments {
  public:
    BatchMoments(const MomentsView& wanted, const TensorView& x, const Axes& kept, bool pools_low) : views(wanted) {
        std::int64_t shape[2] = {}, sets = 1;
        for (int i = 0; i < kept.size; ++i) sets *= shape[i] = x.shape[kept.values[i]];
        own_ = std::make_unique<double[]>(static_cast<std::size_t>((pools_low ? 4 : 3) * sets));
        double* memory = own_.get();
        const std::span<const std::int64_t> compact_shape(shape, static_cast<std::size_t>(kept.size));
        for (TensorView* each : {&views.count, &views.mean, &views.m2, &views.mean_low}) {
            if (!each->given() && each == &views.mean_low && !pools_low) continue;
            *each = each->given() ? compact(*each, kept, x.rank) : view(memory, compact_shape);
            memory += sets;
        }
    }

    MomentsView views;

  private:
    std::unique_ptr<double[]> own_;
};

/// Given moments that a running variance is to learn from have one, unless the caller does without.
template <class Options>
void check_given(const char* caller, const Options& options, const TensorView& x, const Axes& kept,
                 std::uint32_t reduced) {
    const MomentsView& given = options.given;
    if (!given.count.given()) return;  // normalize() refuses moments that are not complete
    check_statistics(caller, given, x, reduced);
    if (options.one_element == OneElement::raise)
        check_counts(caller, options.running, {compact(given.count, kept, x.rank), {}, {}});
}

/// Batch norm with the parameters that r and d make of the caller's. `engine` is that of batch norm.
void renormalize(const TensorView& x, const Grouping& sets, const TensorView& y, int channel,
                 const BatchRenormOptions& options, NormalizeOptions& engine) {
    const RenormLimits limits{options.r_max, options.d_max};
    if (limits.closed()) return normalize(x, sets, y, engine);
    check_shape(engine.caller, "output", y, x.shape, x.rank);
    check_eps(engine.caller, options.eps);
    check_threads(engine.caller, options.num_threads);
    Renorm renorm(engine.caller, x, sets, channel, options.given, options.num_threads);
    renorm.fold(limits, options.running, options.eps, options.weight, options.bias);
    engine.given = renorm.batch();
    place(renorm.weight(), {channel}, x.rank, engine.weight);
    place(renorm.bias(), {channel}, x.rank, engine.bias);
    normalize(x, sets, y, engine);
    // To the engine the statistics are given, and those have no weights.
    if (options.moments.weight2.given() && sets.selection.sample_weight.given() && !options.given.given())
        renorm.store_weight2(compact(options.moments.weight2, {channel}, x.rank));
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
    normalize(x, sets_over(normalized.axes, options), y, engine);
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
    normalize(x, sets_over(normalized.axes, options), y, engine);
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
    Grouping sets = sets_over(all_axes_except(grouped_x.rank, 0, channel), options);
    split(caller, sets.selection, x, channel, num_groups);
    split(caller, "scale", engine.fusion.scales, x, channel, num_groups);
    split(caller, "zero_point", engine.fusion.zero_points, x, channel, num_groups);
    normalize(grouped_x, sets, grouped_y, engine);
}

namespace {

/// Instance norm has a set for each sample and channel, batch norm and renorm for each channel; all else they share.
struct ChannelNorm {
    const char* caller;
    bool per_sample;
    bool input_statistics;
};

template <class Options>
RunningUpdate channel_norm(const ChannelNorm& norm, const TensorView& x, const TensorView& y, const Options& options) {
    const char* caller = norm.caller;
    const int channel = check_channels(caller, x, options.channel_axis, max_rank, norm.per_sample);
    const std::int64_t channels = x.shape[channel];
    const std::int64_t samples = norm.per_sample ? x.shape[0] : 1;
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_running(caller, options.running, channels);

    NormalizeOptions engine;
    place(options.weight, {channel}, x.rank, engine.weight);
    place(options.bias, {channel}, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    const Axes kept = norm.per_sample ? Axes{0, channel} : Axes{channel};
    const Grouping sets = sets_over(all_axes_except(x.rank, kept.values[0], channel), options);
    check_unsplit(caller, sets.selection, options.running);
    if (!norm.input_statistics && !options.given.given()) {
        if (!options.running.mean.given())
            fail(caller, "running_mean and running_var, whose statistics are used", "none");
        running_as_moments(options.running, samples, norm.per_sample, engine.given);
    }
    // One element has no unbiased variance to learn; a batch of such sets is normalized to nothing but bias.
    const bool refuses = options.one_element == OneElement::raise && norm.input_statistics && !sets.selection.any();
    if (refuses && (options.running.mean.given() || !norm.per_sample) && !options.given.given() && x.size() > 0 &&
        x.size() == channels * samples) {
        fail(caller, "more than one value per channel to train with", "x of shape " + shape_text(x));
    }
    if (!norm.input_statistics || !learns(options.running)) {
        normalize(x, sets, y, engine);
        return {};
    }

    check_result(caller, "output", y);
    const Fusion& fusion = engine.fusion;
    if (fusion.residual.given()) check_residual(caller, fusion, x);
    check_running_output(caller, options.running,
                         {{"x", &x},
                          {"output", &y},
                          {"weight", &options.weight},
                          {"bias", &options.bias},
                          {"residual", &fusion.residual},
                          {"sum", &fusion.sum},
                          {"scale", &fusion.scales},
                          {"zero_point", &fusion.zero_points},
                          {"labels", &sets.selection.labels},
                          {"segments", &sets.selection.segments},
                          {"where", &sets.selection.where},
                          {"sample_weight", &sets.selection.sample_weight}},
                         {&options.moments, &options.given});
    const std::uint32_t reduced = check_axes(caller, sets.reduce, x.rank);
    check_moments_output(caller, options.moments, x, reduced);
    if (options.given.given()) check_given(caller, options, x, kept, reduced);
    const BatchMoments batch(options.moments, x, kept, options.running.pooled.mean_low.given());
    engine.moments = batch.views;
    if constexpr (std::is_same_v<Options, BatchRenormOptions>) {
        renormalize(x, sets, y, channel, options, engine);
    } else {
        normalize(x, sets, y, engine);
    }
    if (x.size() == 0) return {};
    return learn(caller, options.running, batch.views);
}

}  // namespace

RunningUpdate instance_norm(const TensorView& x, const TensorView& y, const InstanceNormOptions& options) {
    return channel_norm({.caller = "instance_norm", .per_sample = true, .input_statistics = options.use_input_stats}, x,
                        y, options);
}

RunningUpdate batch_norm(const TensorView& x, const TensorView& y, const BatchNormOptions& options) {
    return channel_norm({.caller = "batch_norm", .per_sample = false, .input_statistics = options.training}, x, y,
                        options);
}

RunningUpdate batch_renorm(const TensorView& x, const TensorView& y, const BatchRenormOptions& options) {
    constexpr const char* caller = "batch_renorm";
    const int channel = check_channels(caller, x, options.channel_axis, max_rank, false);
    check_renorm(caller, {options.r_max, options.d_max}, options.running, x.shape[channel]);
    return channel_norm({.caller = caller, .per_sample = false, .input_statistics = options.training}, x, y, options);
}

}  // namespace anynorm::inline ANYNORM_ABI
