// SPDX-License-Identifier: Apache-2.0
// Axis arithmetic only: the gradient of every norm is that of normalize() over the norm's axes.
#include "anynorm/norms.hpp"
#include "norm_axes.hpp"
#include "running.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

/// What all norms hand on to the engine as it is.
template <class Options>
void pass_on(const char* caller, const Options& options, NormalizeBackwardOptions& engine) {
    engine.caller = caller;
    engine.num_threads = options.num_threads;
    if constexpr (requires { options.fusion; }) {
        engine.activation = options.fusion.activation;
        if (options.fusion.grad_sum.given()) engine.grad_sum = options.fusion.grad_sum;
    }
    if (options.given.given()) engine.given = options.given;
    engine.excluded = options.excluded;
}

/// The gradients with those of the parameters placed along x.
Gradients placed(const char* caller, const Gradients& gradients, const Axes& axes, const std::int64_t* shape,
                 int rank) {
    Gradients result;
    result.grad_input = gradients.grad_input;
    check_parameter(caller, "grad_weight", gradients.grad_weight, shape, axes.size);
    check_parameter(caller, "grad_bias", gradients.grad_bias, shape, axes.size);
    place(gradients.grad_weight, axes, rank, result.grad_weight);
    place(gradients.grad_bias, axes, rank, result.grad_bias);
    return result;
}

template <class Options>
void channel_norm_backward(const char* caller, bool per_sample, bool input_statistics, const TensorView& grad_output,
                           const TensorView& x, const Gradients& gradients, const Options& options) {
    const int channel = check_channels(caller, x, options.channel_axis, max_rank, per_sample);
    const std::int64_t channels = x.shape[channel];
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_running(caller, options.running, channels);
    const Grouping sets = sets_over(all_axes_except(x.rank, per_sample ? 0 : channel, channel), options);
    check_unsplit(caller, sets.selection, options.running);
    NormalizeBackwardOptions engine;
    place(options.weight, {channel}, x.rank, engine.weight);
    place(options.bias, {channel}, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    if (!input_statistics) {
        engine.frozen = true;
        if (!options.given.given()) {
            if (!options.running.mean.given())
                fail(caller, "running_mean and running_var, whose statistics are used", "none");
            running_as_moments(options.running, x.shape[0], per_sample, engine.given);
        }
    }
    normalize_backward(grad_output, x, sets, placed(caller, gradients, {channel}, &channels, x.rank), engine);
}

}  // namespace

void layer_norm_backward(const TensorView& grad_output, const TensorView& x, const Axes& axes,
                         const Gradients& gradients, const LayerNormOptions& options) {
    constexpr const char* caller = "layer_norm_backward";
    check_view(caller, "x", x);
    const NormalizedAxes normalized(caller, x, axes);
    check_parameter(caller, "weight", options.weight, normalized.shape, normalized.axes.size);
    check_parameter(caller, "bias", options.bias, normalized.shape, normalized.axes.size);
    NormalizeBackwardOptions engine;
    place(options.weight, normalized.axes, x.rank, engine.weight);
    place(options.bias, normalized.axes, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    normalize_backward(grad_output, x, sets_over(normalized.axes, options),
                       placed(caller, gradients, normalized.axes, normalized.shape, x.rank), engine);
}

void rms_norm_backward(const TensorView& grad_output, const TensorView& x, const Axes& axes, const Gradients& gradients,
                       const RmsNormOptions& options) {
    constexpr const char* caller = "rms_norm_backward";
    check_view(caller, "x", x);
    if (gradients.grad_bias.given()) fail(caller, "no grad_bias, for want of a bias", "one");
    const NormalizedAxes normalized(caller, x, axes);
    check_parameter(caller, "weight", options.weight, normalized.shape, normalized.axes.size);
    NormalizeBackwardOptions engine;
    place(options.weight, normalized.axes, x.rank, engine.weight);
    engine.eps = options.eps.value_or(epsilon_for(x.dtype));
    engine.center = false;
    pass_on(caller, options, engine);
    normalize_backward(grad_output, x, sets_over(normalized.axes, options),
                       placed(caller, gradients, normalized.axes, normalized.shape, x.rank), engine);
}

void group_norm_backward(const TensorView& grad_output, const TensorView& x, std::int64_t num_groups,
                         const Gradients& gradients, const GroupNormOptions& options) {
    constexpr const char* caller = "group_norm_backward";
    const int channel = check_channels(caller, x, options.channel_axis, max_rank - 1, true);
    const std::int64_t channels = x.shape[channel];
    check_groups(caller, num_groups, channels);
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_view(caller, "grad_output", grad_output);
    check_shape(caller, "grad_output", grad_output, x.shape, x.rank);
    if (gradients.grad_input.given()) {
        check_view(caller, "grad_input", gradients.grad_input);
        check_shape(caller, "grad_input", gradients.grad_input, x.shape, x.rank);
    }
    if (options.fusion.grad_sum.given()) {
        check_view(caller, "grad_sum", options.fusion.grad_sum);
        check_shape(caller, "grad_sum", options.fusion.grad_sum, x.shape, x.rank);
    }
    NormalizeBackwardOptions engine;
    place(options.weight, {channel}, x.rank, engine.weight);
    place(options.bias, {channel}, x.rank, engine.bias);
    engine.eps = options.eps;
    pass_on(caller, options, engine);
    Gradients grouped = placed(caller, gradients, {channel}, &channels, x.rank);
    TensorView grouped_output = grad_output, grouped_x = x;
    for (TensorView* view : {&grouped_output, &grouped_x, &grouped.grad_input, &grouped.grad_weight, &grouped.grad_bias,
                             &engine.weight, &engine.bias, &engine.grad_sum}) {
        split(*view, channel, num_groups);
    }
    Grouping sets = sets_over(all_axes_except(grouped_x.rank, 0, channel), options);
    split(caller, sets.selection, x, channel, num_groups);
    normalize_backward(grouped_output, grouped_x, sets, grouped, engine);
}

void instance_norm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                            const InstanceNormOptions& options) {
    channel_norm_backward("instance_norm_backward", true, options.use_input_stats, grad_output, x, gradients, options);
}

void batch_norm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                         const BatchNormOptions& options) {
    channel_norm_backward("batch_norm_backward", false, options.training, grad_output, x, gradients, options);
}

}  // namespace anynorm::inline ANYNORM_ABI
