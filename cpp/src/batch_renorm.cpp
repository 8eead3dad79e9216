// SPDX-License-Identifier: Apache-2.0
#include "batch_renorm.hpp"

#include <algorithm>
#include <cmath>

#include "elements.hpp"
#include "norm_axes.hpp"
#include "running.hpp"
#include "selection.hpp"
#include "validate.hpp"

namespace anynorm::detail {

namespace {

double channel_of(const TensorView& view, std::int64_t channel, int axis = 0) {
    return element_at(elements_of(view), channel * view.strides[axis]);
}

}  // namespace

void check_renorm(const char* caller, const RenormLimits& limits, const RunningStatistics& running,
                  std::int64_t channels) {
    if (!(limits.r_max >= 1)) fail(caller, "r_max of at least 1", number_text(limits.r_max));
    if (!(limits.d_max >= 0)) fail(caller, "d_max of at least 0", number_text(limits.d_max));
    check_running(caller, running, channels);
    if (!running.mean.given()) fail(caller, "running_mean and running_var", "none");
}

Renorm::Renorm(const char* caller, const TensorView& x, const Grouping& sets, int channel, const MomentsView& given,
               int num_threads)
    : channels_(x.shape[channel]), memory_(std::make_unique<double[]>(static_cast<std::size_t>(9 * channels_))) {
    const AxisSet reduced = check_axes(caller, sets.reduce, x.rank);
    if (sets.selection.any()) check_selection(caller, sets.selection, x, reduced);
    if (!given.given()) {
        MomentsView batch = this->batch();
        if (sets.selection.sample_weight.given()) batch.weight2 = seen(8);
        moments(x, sets, batch, {.num_threads = num_threads});
        return;
    }
    if (!given.count.given() || !given.mean.given() || !given.m2.given()) {
        fail(caller, "given moments with count, mean and m2", "some of them");
    }
    check_statistics(caller, given, x, reduced);
    double* to = memory_.get();
    for (const TensorView* from : {&given.count, &given.mean, &given.m2}) {
        const int axis = from->rank == x.rank ? channel : 0;  // with the averaged axes, or without them
        for (std::int64_t c = 0; c < channels_; ++c) *to++ = channel_of(*from, c, axis);
    }
    if (!given.mean_low.given()) return;
    const int axis = given.mean_low.rank == x.rank ? channel : 0;
    for (std::int64_t c = 0; c < channels_; ++c) part(7)[c] = channel_of(given.mean_low, c, axis);
}

void Renorm::fold(const RenormLimits& limits, const RunningStatistics& running, double eps, const TensorView& weight,
                  const TensorView& bias) {
    for (std::int64_t c = 0; c < channels_; ++c) {
        const Moments set{part(0)[c], part(1)[c], part(2)[c], part(7)[c]};
        double r = 1, d = 0;
        if (set.count > 0) {  // no elements: nothing to correct, and gradients of 0
            const double running_sigma = std::sqrt(channel_of(running.var, c) + eps);
            r = std::clamp(std::sqrt(set.variance() + eps) / running_sigma, 1 / limits.r_max, limits.r_max);
            const double distance = (set.mean - channel_of(running.mean, c)) + set.mean_low;
            d = std::clamp(distance / running_sigma, -limits.d_max, limits.d_max);
        }
        const double w = weight.given() ? channel_of(weight, c) : 1;
        part(3)[c] = r;
        part(4)[c] = d;
        part(5)[c] = w * r;
        part(6)[c] = w * d + (bias.given() ? channel_of(bias, c) : 0);
    }
}

void Renorm::store_weight2(const TensorView& to) const {
    copy_strided(static_cast<double*>(to.data), to.strides[0], static_cast<const double*>(part(8)), 1, channels_);
}

}  // namespace anynorm::detail

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

/// The engine writes sums of ours; the gradients made of them are the caller's, and not seen by its checks.
void check_parameter_gradients(const char* caller, const TensorView& grad_output, const TensorView& x,
                               const Gradients& gradients, const BatchRenormOptions& options) {
    for (const Named& output : {Named{"grad_weight", gradients.grad_weight}, Named{"grad_bias", gradients.grad_bias}}) {
        if (!output.view.given()) continue;
        check_output(caller, output.what, output.view);
        for (const Named& other : {Named{"grad_output", grad_output}, Named{"x", x}, Named{"weight", options.weight},
                                   Named{"grad_input", gradients.grad_input}}) {
            check_apart(caller, output.what, output.view, other.what, other.view);
        }
        check_moments_apart(caller, options.given, output.what, output.view);
        check_selection_apart(caller, output.what, output.view, options.selection);
    }
    check_apart(caller, "grad_weight", gradients.grad_weight, "grad_bias", gradients.grad_bias);
}

/// gradient[c] = value(c), rounded once.
template <class Value>
void store_channels(const TensorView& gradient, const Value& value) {
    if (!gradient.given()) return;
    for (std::int64_t c = 0; c < gradient.shape[0]; ++c) {
        const double exact = value(c);
        store(elements_of(gradient), c * gradient.strides[0], 1, &exact, 1);
    }
}

}  // namespace

void batch_renorm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                           const BatchRenormOptions& options) {
    constexpr const char* caller = "batch_renorm_backward";
    const RenormLimits limits{options.r_max, options.d_max};
    const int channel = check_channels(caller, x, options.channel_axis, max_rank, false);
    const std::int64_t channels = x.shape[channel];
    check_parameter(caller, "weight", options.weight, &channels, 1);
    check_parameter(caller, "bias", options.bias, &channels, 1);
    check_parameter(caller, "grad_weight", gradients.grad_weight, &channels, 1);
    check_parameter(caller, "grad_bias", gradients.grad_bias, &channels, 1);
    check_renorm(caller, limits, options.running, channels);

    NormalizeBackwardOptions engine;
    engine.eps = options.eps;
    engine.num_threads = options.num_threads;
    engine.caller = caller;
    engine.excluded = options.excluded;
    if (options.given.given()) engine.given = options.given;
    Gradients placed{.grad_input = gradients.grad_input};
    const Grouping sets = sets_over(all_axes_except(x.rank, channel, channel), options);
    check_unsplit(caller, sets.selection, options.running);
    if (!options.training) {
        engine.frozen = true;
        if (!options.given.given()) running_as_moments(options.running, 1, false, engine.given);
        place(options.weight, {channel}, x.rank, engine.weight);
        place(gradients.grad_weight, {channel}, x.rank, placed.grad_weight);
        place(gradients.grad_bias, {channel}, x.rank, placed.grad_bias);
        normalize_backward(grad_output, x, sets, placed, engine);
        return;
    }

    check_view(caller, "grad_output", grad_output);
    check_shape(caller, "grad_output", grad_output, x.shape, x.rank);
    if (gradients.grad_input.given()) {
        check_view(caller, "grad_input", gradients.grad_input);
        check_shape(caller, "grad_input", gradients.grad_input, x.shape, x.rank);
        check_moments_apart(caller, options.given, "grad_input", gradients.grad_input);
        check_apart(caller, "grad_input", gradients.grad_input, "weight", options.weight);
    }
    check_eps(caller, options.eps);
    check_threads(caller, options.num_threads);
    check_parameter_gradients(caller, grad_output, x, gradients, options);
    Renorm renorm(caller, x, sets, channel, options.given, options.num_threads);
    renorm.fold(limits, options.running, options.eps, options.weight, {});
    engine.given = renorm.batch();
    place(renorm.weight(), {channel}, x.rank, engine.weight);
    const std::unique_ptr<double[]> sums = std::make_unique<double[]>(static_cast<std::size_t>(2 * channels));
    double *const of_products = sums.get(), *const of_terms = of_products + channels;
    if (gradients.grad_weight.given()) place(view(of_products, {channels}), {channel}, x.rank, placed.grad_weight);
    place(view(of_terms, {channels}), {channel}, x.rank, placed.grad_bias);
    normalize_backward(grad_output, x, sets, placed, engine);
    store_channels(gradients.grad_weight,
                   [&](std::int64_t c) { return renorm.r(c) * of_products[c] + renorm.d(c) * of_terms[c]; });
    store_channels(gradients.grad_bias, [&](std::int64_t c) { return of_terms[c]; });
}

}  // namespace anynorm::inline ANYNORM_ABI
