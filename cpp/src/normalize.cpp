// SPDX-License-Identifier: Apache-2.0
#include "anynorm/normalize.hpp"

#include <algorithm>

#include "epilogue.hpp"
#include "overlap.hpp"
#include "parallel.hpp"
#include "schedule.hpp"
#include "selected.hpp"
#include "short_rows.hpp"
#include "statistics_views.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

void check_given(const char* caller, const MomentsView& given, const TensorView& x, const Grouping& sets,
                 AxisSet reduced) {
    if (!given.given()) return;
    if (!given.count.given() || !given.mean.given() || !given.m2.given()) {
        fail(caller, "given moments with count, mean and m2", "some of them");
    }
    if (sets.selection.any()) return check_selected_statistics(caller, given, sets.selection, x, reduced);
    check_statistics(caller, given, x, reduced);
}

/// `out` is written element by element while `other` is read: the same array, or one apart.
void check_in_place(const char* caller, const char* what, const TensorView& out, const char* other_what,
                    const TensorView& other) {
    if (same_view(out, other)) return;
    check_apart(caller, what, out, (std::string(other_what) + " (or the same array)").c_str(), other);
}

/// The scale and the zero point of a result of 8 bits, numbers or arrays.
void check_rounding(const char* caller, const Fusion& fusion, const TensorView& y) {
    const bool arrays = fusion.scales.given() || fusion.zero_points.given();
    if (arrays && !is_quantized(y.dtype)) {
        fail(caller, "an output of dtype int8 or uint8 for a scale and a zero point", name(y.dtype));
    }
    if (fusion.scales.given() && fusion.scale != 0) fail(caller, "one scale or an array of them", "both");
    if (fusion.zero_points.given() && fusion.zero_point != 0) {
        fail(caller, "one zero point or an array of them", "both");
    }
    check_quantization(caller, fusion.scales.given() ? 1 : fusion.scale, fusion.zero_point, y.dtype);
    if (arrays) check_steps(caller, fusion.scales, fusion.zero_points, y);
}

void check_fusion(const char* caller, const NormalizeOptions& options, const TensorView& x, const TensorView& y) {
    const Fusion& fusion = options.fusion;
    check_activation(caller, fusion.activation);
    check_rounding(caller, fusion, y);
    check_residual(caller, fusion, x);
    check_moments_apart(caller, options.moments, "scale", fusion.scales);
    check_moments_apart(caller, options.moments, "zero_point", fusion.zero_points);
    if (!fusion.residual.given()) return;
    check_output(caller, "sum", fusion.sum);
    check_in_place(caller, "sum", fusion.sum, "x", x);
    check_in_place(caller, "sum", fusion.sum, "residual", fusion.residual);
    check_in_place(caller, "output", y, "residual", fusion.residual);
    check_apart(caller, "sum", fusion.sum, "output", y);
    check_apart(caller, "sum", fusion.sum, "weight", options.weight);
    check_apart(caller, "sum", fusion.sum, "bias", options.bias);
    check_apart(caller, "sum", fusion.sum, "scale", fusion.scales);
    check_apart(caller, "sum", fusion.sum, "zero_point", fusion.zero_points);
    check_moments_apart(caller, options.given, "sum", fusion.sum);
    check_moments_apart(caller, options.moments, "sum", fusion.sum);
    check_moments_apart(caller, options.moments, "residual", fusion.residual);
}

/// Returns the rows of labels that were seen to rise.
RowRanges check_operands(const char* caller, const TensorView& x, const Grouping& sets, AxisSet reduced,
                         const TensorView& y, const NormalizeOptions& options) {
    RowRanges rising;
    check_result(caller, "output", y);
    check_shape(caller, "output", y, x.shape, x.rank);
    if (options.fusion.any() || is_quantized(y.dtype)) check_fusion(caller, options, x, y);
    for (const auto& [what, view] :
         {std::pair<const char*, const TensorView&>{"weight", options.weight}, {"bias", options.bias}}) {
        if (!view.given()) continue;
        check_view(caller, what, view);
        check_broadcasts(caller, what, view, x);
    }
    check_eps(caller, options.eps);
    check_threads(caller, options.num_threads);
    if (takes_selection(sets.selection, options.moments)) {
        rising = check_selection(caller, sets.selection, x, reduced, options.num_threads);
        check_excluded(caller, options.excluded);
        if (options.excluded == Excluded::input && is_quantized(y.dtype)) {
            fail(caller, "excluded elements that are zero, or kept, where the output is quantized", "the input");
        }
        check_selected_output(caller, options.moments, sets.selection, x, reduced);
        check_selection_apart(caller, "output", y, sets.selection);
        check_selection_apart(caller, "sum", options.fusion.sum, sets.selection);
    } else {
        check_moments_output(caller, options.moments, x, reduced);
    }
    check_given(caller, options.given, x, sets, reduced);

    check_output(caller, "output", y);
    const Range written(y);
    const auto check_read = [&](const char* what, const TensorView& view) {
        if (view.given() && !written.apart_from(Range(view))) check_apart(caller, "output", y, what, view);
    };
    if (!same_view(x, y)) check_read("x (or the same array)", x);
    check_read("weight", options.weight);
    check_read("bias", options.bias);
    check_moments_apart(caller, options.given, "output", y);
    if (!options.moments.given()) return rising;
    for (const auto& [what, view] : {std::pair<const char*, const TensorView&>{"x", x},
                                     {"output", y},
                                     {"weight", options.weight},
                                     {"bias", options.bias},
                                     {"the given count", options.given.count},
                                     {"the given mean", options.given.mean},
                                     {"the given m2", options.given.m2},
                                     {"the given mean_low", options.given.mean_low}}) {
        check_moments_apart(caller, options.moments, what, view);
    }
    return rising;
}

/// Copies given statistics to where the caller wants to see them.
void copy_statistics(const TensorView& from, const TensorView& to, const TensorView& x, AxisSet reduced) {
    if (!to.given() || to.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    strides.set(op_count, statistics_strides(from, x, reduced));
    strides.set(op_mean, statistics_strides(to, x, reduced));
    const Nest nest = kept_loops(make_nest(x, reduced, strides));
    walk(nest, nest.depth, [&](const std::int64_t* offset) {
        static_cast<double*>(to.data)[offset[op_mean]] =
            from.dtype == DType::f32 ? static_cast<double>(static_cast<const float*>(from.data)[offset[op_count]])
                                     : static_cast<const double*>(from.data)[offset[op_count]];
    });
}

void copy_given(const NormalizeOptions& options, const TensorView& x, AxisSet reduced) {
    copy_statistics(options.given.count, options.moments.count, x, reduced);
    copy_statistics(options.given.mean, options.moments.mean, x, reduced);
    copy_statistics(options.given.m2, options.moments.m2, x, reduced);
    if (options.given.mean_low.given()) {
        copy_statistics(options.given.mean_low, options.moments.mean_low, x, reduced);
    } else {
        fill(options.moments.mean_low, 0);
    }
}

/// What follows the affine map of a call that rounds to 8 bits or has an activation.
Epilogue make_epilogue(const Fusion& fusion, const TensorView& y, const kernels::KernelTable& table) {
    if (fusion.activation == Activation::none && !is_quantized(y.dtype)) return {};
    return {&table,
            fusion.activation,
            fusion.scale,
            fusion.zero_point,
            {elements_of(fusion.scales), elements_of(fusion.zero_points)}};
}

/// Normalizes x: the input itself, or its sum with a residual.
void run_normalize(const TensorView& x, const TensorView& input, AxisSet reduced, const TensorView& y,
                   const NormalizeOptions& options, const kernels::KernelTable& table) {
    const Fusion& fusion = options.fusion;
    Call call;
    call.x = elements_of(x);
    call.y = elements_of(y);
    call.weight = elements_of(options.weight);
    call.bias = elements_of(options.bias);
    call.given = elements_of(options.given);
    if (!options.given.given()) call.out = elements_of(options.moments);
    if (fusion.residual.given()) call.sum = {elements_of(input), elements_of(fusion.residual), call.x};
    call.epilogue = make_epilogue(fusion, y, table);
    call.eps = options.eps;
    call.center = options.center;

    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    strides.set(op_y, own_strides(y));
    if (options.weight.given()) strides.set(op_weight, broadcast_strides(options.weight, x));
    if (options.bias.given()) strides.set(op_bias, broadcast_strides(options.bias, x));
    if (fusion.scales.given()) strides.set(op_scale, broadcast_strides(fusion.scales, x));
    if (fusion.zero_points.given()) strides.set(op_zero_point, broadcast_strides(fusion.zero_points, x));
    if (fusion.residual.given()) {
        strides.set(op_input, own_strides(input));
        strides.set(op_residual, own_strides(fusion.residual));
    }
    add_statistics_strides(strides, options.given.given() ? options.given : options.moments, x, reduced);
    PlanRequest request;
    request.element_bytes = static_cast<std::int64_t>(std::max(size_of(x.dtype), size_of(y.dtype)));
    if (fusion.residual.given()) request.element_bytes *= 2;  // its terms pass through the same cache
    ThreadShare threads(options.num_threads);
    request.threads = threads.count();
    request.statistics = call.has_statistics();
    Plan plan = make_plan(make_nest(x, reduced, strides), request);
    threads.keep(plan.threads);
    run_plan(plan, call, table);
    if (options.given.given()) copy_given(options, x, reduced);
}

void run_selected_sets(const TensorView& x, const Selection& selection, AxisSet reduced, const TensorView& y,
                       const NormalizeOptions& options, const kernels::KernelTable& table) {
    const Fusion& fusion = options.fusion;
    SelectedCall call{.selection = selection};
    call.x = fusion.residual.given() ? fusion.sum : x;
    call.y = y;
    call.reduced = reduced;
    call.weight = options.weight;
    call.bias = options.bias;
    call.scales = fusion.scales;
    call.zero_points = fusion.zero_points;
    call.given = options.given;
    call.moments = options.moments;
    if (fusion.residual.given()) {
        call.input = x;
        call.residual = fusion.residual;
        call.sum = {elements_of(x), elements_of(fusion.residual), elements_of(call.x)};
    }
    call.epilogue = make_epilogue(fusion, y, table);
    call.eps = options.eps;
    call.center = options.center;
    call.excluded = options.excluded;
    call.num_threads = options.num_threads;
    run_selected(call, table);
}

}  // namespace

void normalize(const TensorView& x, const Grouping& sets, const TensorView& y, const NormalizeOptions& options) {
    const char* caller = options.caller;
    check_view(caller, "x", x);
    const AxisSet reduced = check_axes(caller, sets.reduce, x.rank);
    const RowRanges rising = check_operands(caller, x, sets, reduced, y, options);
    const kernels::KernelTable& table = active_kernels();

    if (takes_selection(sets.selection, options.moments)) {
        return run_selected_sets(x, with_segments(sets.selection, rising), reduced, y, options, table);
    }
    if (x.size() == 0) {
        if (options.given.given()) {
            copy_given(options, x, reduced);
        } else {
            store_empty_moments(options.moments);
        }
        return;
    }
    if (!options.fusion.any() && normalize_short_rows(x, reduced, y, options, table)) return;
    run_normalize(options.fusion.residual.given() ? options.fusion.sum : x, x, reduced, y, options, table);
}

}  // namespace anynorm::inline ANYNORM_ABI
