// SPDX-License-Identifier: Apache-2.0
#include "anynorm/normalize.hpp"
#include "gradients.hpp"
#include "overlap.hpp"
#include "parallel.hpp"
#include "selected.hpp"
#include "selected_gradients.hpp"
#include "statistics_views.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

void check_inputs(const char* caller, const TensorView& grad_output, const TensorView& x, AxisSet reduced,
                  const Selection& selection, const NormalizeBackwardOptions& options) {
    check_view(caller, "grad_output", grad_output);
    check_shape(caller, "grad_output", grad_output, x.shape, x.rank);
    for (const Named& parameter : {Named{"weight", options.weight}, Named{"bias", options.bias}}) {
        if (!parameter.view.given()) continue;
        check_view(caller, parameter.what, parameter.view);
        check_broadcasts(caller, parameter.what, parameter.view, x);
    }
    check_activation(caller, options.activation);
    if (options.grad_sum.given()) {
        check_view(caller, "grad_sum", options.grad_sum);
        check_shape(caller, "grad_sum", options.grad_sum, x.shape, x.rank);
    }
    check_eps(caller, options.eps);
    const MomentsView& given = options.given;
    if (!given.given()) {
        if (options.frozen) fail(caller, "the moments that are frozen", "none");
        return;
    }
    if (!given.count.given() || !given.mean.given() || !given.m2.given()) {
        fail(caller, "given moments with count, mean and m2", "some of them");
    }
    if (selection.any()) return check_selected_statistics(caller, given, selection, x, reduced);
    check_statistics(caller, given, x, reduced);
}

void check_gradients(const char* caller, const TensorView& grad_output, const TensorView& x, const Selection& selection,
                     const Gradients& gradients, const NormalizeBackwardOptions& options) {
    const Named outputs[] = {{"grad_input", gradients.grad_input},
                             {"grad_weight", gradients.grad_weight},
                             {"grad_bias", gradients.grad_bias}};
    for (const Named& output : outputs) {
        if (!output.view.given()) continue;
        check_view(caller, output.what, output.view);
        if (&output == outputs) {
            check_shape(caller, output.what, output.view, x.shape, x.rank);
        } else {
            check_broadcasts(caller, output.what, output.view, x);
        }
    }
    if (gradients.grad_weight.given() && options.weight.given()) {
        check_shape(caller, "grad_weight", gradients.grad_weight, options.weight.shape, options.weight.rank);
    }
    if (gradients.grad_bias.given() && options.bias.given()) {
        check_shape(caller, "grad_bias", gradients.grad_bias, options.bias.shape, options.bias.rank);
    }
    if (options.grad_sum.given() && !gradients.grad_input.given()) fail(caller, "grad_input with grad_sum", "none");
    constexpr int in_place = 3;  // that grad_input may be
    const Named inputs[] = {{"grad_output", grad_output},
                            {"x", x},
                            {"grad_sum", options.grad_sum},
                            {"weight", options.weight},
                            {"bias", options.activation == Activation::none ? TensorView{} : options.bias},
                            {"the given count", options.given.count},
                            {"the given mean", options.given.mean},
                            {"the given m2", options.given.m2},
                            {"the given mean_low", options.given.mean_low}};
    for (const Named& output : outputs) {
        if (!output.view.given()) continue;
        check_output(caller, output.what, output.view);
        if (selection.any()) check_selection_apart(caller, output.what, output.view, selection);
        for (const Named& input : inputs) {
            const bool may_be_same = &output == outputs && &input < inputs + in_place;
            if (!input.view.given() || (may_be_same && same_view(output.view, input.view))) continue;
            check_apart(caller, output.what, output.view, input.what, input.view);
        }
        for (const Named* other = outputs; other < &output; ++other) {
            if (other->view.given()) check_apart(caller, output.what, output.view, other->what, other->view);
        }
    }
}

/// The gradients of a sum over no elements.
void store_zeros(const TensorView& gradient) {
    if (!gradient.given() || gradient.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(gradient));
    const Nest nest = make_nest(gradient, 0, strides);
    const double zero = 0;
    walk(nest, nest.depth,
         [&](const std::int64_t* offset) { store(elements_of(gradient), offset[op_x], 1, &zero, 1); });
}

}  // namespace

void normalize_backward(const TensorView& grad_output, const TensorView& x, const Grouping& sets,
                        const Gradients& gradients, const NormalizeBackwardOptions& options) {
    const char* caller = options.caller;
    check_view(caller, "x", x);
    const AxisSet reduced = check_axes(caller, sets.reduce, x.rank);
    check_threads(caller, options.num_threads);
    RowRanges rising;
    if (sets.selection.any()) {
        rising = check_selection(caller, sets.selection, x, reduced, options.num_threads);
        check_excluded(caller, options.excluded);
    }
    check_inputs(caller, grad_output, x, reduced, sets.selection, options);
    check_gradients(caller, grad_output, x, sets.selection, gradients, options);
    const kernels::KernelTable& table = active_kernels();
    if (x.size() == 0) {
        store_zeros(gradients.grad_weight);
        store_zeros(gradients.grad_bias);
        return;
    }
    GradientCall call;
    call.x = elements_of(x);
    call.grad_output = elements_of(grad_output);
    call.weight = elements_of(options.weight);
    call.activation = options.activation;
    call.grad_sum = elements_of(options.grad_sum);
    call.table = &table;
    const bool reads_bias = options.activation != Activation::none && options.bias.given();
    if (reads_bias) call.bias = elements_of(options.bias);
    call.grad_input = elements_of(gradients.grad_input);
    call.grad_weight = elements_of(gradients.grad_weight);
    call.grad_bias = elements_of(gradients.grad_bias);
    call.given = elements_of(options.given);
    call.eps = options.eps;
    call.center = options.center;
    call.frozen = options.frozen;

    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    strides.set(op_grad_output, own_strides(grad_output));
    if (gradients.grad_input.given()) strides.set(op_y, own_strides(gradients.grad_input));
    if (options.grad_sum.given()) strides.set(op_grad_sum, own_strides(options.grad_sum));
    if (options.weight.given()) strides.set(op_weight, broadcast_strides(options.weight, x));
    if (reads_bias) strides.set(op_bias, broadcast_strides(options.bias, x));
    if (gradients.grad_weight.given()) strides.set(op_grad_weight, broadcast_strides(gradients.grad_weight, x));
    if (gradients.grad_bias.given()) strides.set(op_grad_bias, broadcast_strides(gradients.grad_bias, x));
    ThreadShare threads(options.num_threads);
    if (sets.selection.any()) {
        const Selection selection = with_segments(sets.selection, rising);
        const Nest nest = make_selected_nest(x, reduced, selection, strides);
        const Nest moments = make_moments_nest(x, gradients.grad_input, reduced, selection, options.given);
        return run_selected_gradients(nest, {call, selection, options.given, moments, options.excluded},
                                      threads.count());
    }
    add_statistics_strides(strides, options.given, x, reduced);
    Plan plan = make_gradient_plan(make_nest(x, reduced, strides), call, threads.count());
    threads.keep(plan.threads);
    run_gradient_plan(plan, call, table);
}

}  // namespace anynorm::inline ANYNORM_ABI
