// SPDX-License-Identifier: Apache-2.0
#include "anynorm/lp_normalize.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lp_run.hpp"
#include "overlap.hpp"
#include "schedule.hpp"
#include "selection.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

LpNorm check_options(const char* caller, const LpNormalizeOptions& options) {
    check_eps(caller, options.eps);
    check_threads(caller, options.num_threads);
    if (options.p == 1) return LpNorm::one;
    if (options.p == 2) return LpNorm::two;
    if (options.p == std::numeric_limits<double>::infinity()) return LpNorm::max;
    fail(caller, "p of 1, 2 or infinity", number_text(options.p));
}

/// `result` has the shape of x and shares no memory with an input that it is not.
void check_result(const char* caller, const char* what, const TensorView& result, const TensorView& x) {
    check_view(caller, what, result);
    check_shape(caller, what, result, x.shape, x.rank);
    check_output(caller, what, result);
}

/// The mask, and what becomes of what it excludes.
void check_where(const char* caller, const LpNormalizeOptions& options, const TensorView& x, AxisSet reduced,
                 const char* what, const TensorView& result) {
    check_excluded(caller, options.excluded);
    if (!options.where.given()) return;
    check_selection(caller, {.where = options.where}, x, reduced);
    check_apart(caller, what, result, "where", options.where);
}

void check_same_or_apart(const char* caller, const char* what, const TensorView& result, const char* input_what,
                         const TensorView& input) {
    if (!same_view(result, input)) check_apart(caller, what, result, input_what, input);
}

/// What the engine divides by, max(sqrt(m2), eps), in place of the deviation of a cell.
template <class C>
void reciprocal_norms(const kernels::Cell* cells, std::int64_t count, double eps, C* mean, C* mean_lo,
                      C* rstd) noexcept {
    for (std::int64_t i = 0; i < count; ++i) {
        const double norm = std::sqrt(cells[i].m2);
        mean[i] = mean_lo[i] = 0;
        rstd[i] = static_cast<C>(1 / (norm < eps ? eps : norm));
    }
}

// The engine's sums take 50 ns a set before they are fast: rows of fewer than two packs of 16 are left to the loops,
// which take half of its time there (rows of 8 float32: 3 ns an element instead of 10).
constexpr std::int64_t short_row = 32;

bool has_short_rows(const Nest& of_all) {
    const Nest nest = coalesce(of_all, operand_set(op_x, op_cell));  // of x alone, as the bits are
    return nest.depth > 0 && nest.loops[nest.depth - 1].reduced && nest.loops[nest.depth - 1].n < short_row;
}

/// The 2-norm is RMS norm with another divisor: its sums and its writes are the engine's kernels.
void run_engine(Plan& plan, const LpCall& call, kernels::KernelTable table) {
    table.f32.coefficients = reciprocal_norms<float>;
    table.f64.coefficients = reciprocal_norms<double>;
    table.f16.coefficients = reciprocal_norms<float>;
    table.bf16.coefficients = reciprocal_norms<float>;
    plan.rows = false;  // the kernel of whole rows makes its coefficients itself
    Call engine;
    engine.x = call.x;
    engine.y = call.result;
    engine.eps = call.eps;
    engine.center = false;
    run_plan(plan, engine, table);
}

void run_loops(const Plan& plan, const LpCall& call, const kernels::KernelTable& table) {
    const auto any = [&](DType dtype) {
        return call.x.dtype == dtype || call.result.dtype == dtype || call.grad_output.dtype == dtype;
    };
    const bool alike =
        call.result.dtype == call.x.dtype && (!call.with_gradient() || call.grad_output.dtype == call.x.dtype);
    if (any(DType::f64)) return LpRun<double>(plan, call, table).run();
    if (!alike || call.where.given()) return LpRun<float>(plan, call, table).run();
    with_type(call.x, [&]<class X>(X*) { LpRun<X>(plan, call, table).run(); });
}

void run(Plan& plan, const LpCall& call, const kernels::KernelTable& table) {
    const bool is_plain = call.p == LpNorm::two && !call.with_gradient() && !call.where.given();
    if (is_plain && !has_short_rows(plan.nest)) return run_engine(plan, call, table);
    run_loops(plan, call, table);
}

/// Lays out, plans and runs a call that has been checked; one without grad_output is forward.
void lay_out(const TensorView& x, const TensorView& grad_output, const TensorView& result, AxisSet reduced, LpNorm p,
             const LpNormalizeOptions& options) {
    const kernels::KernelTable& table = active_kernels();
    if (x.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    strides.set(op_y, own_strides(result));
    if (grad_output.given()) strides.set(op_grad_output, own_strides(grad_output));
    if (options.where.given()) strides.set(op_where, broadcast_strides(options.where, x));
    PlanRequest request;
    request.element_bytes = static_cast<std::int64_t>(std::max(size_of(x.dtype), size_of(result.dtype)));
    ThreadShare threads(options.num_threads);
    request.threads = threads.count();
    Plan plan = make_plan(make_nest(x, reduced, strides), request);
    threads.keep(plan.threads);
    run(plan,
        {elements_of(x), elements_of(grad_output), elements_of(result), elements_of(options.where), p, options.excluded,
         options.eps},
        table);
}

}  // namespace

void lp_normalize(const TensorView& x, const TensorView& y, const Axes& axes, const LpNormalizeOptions& options) {
    constexpr const char* caller = "lp_normalize";
    check_view(caller, "x", x);
    const AxisSet reduced = check_axes(caller, axes, x.rank);
    const LpNorm p = check_options(caller, options);
    check_result(caller, "output", y, x);
    check_same_or_apart(caller, "output", y, "x (or the same array)", x);
    check_where(caller, options, x, reduced, "output", y);
    lay_out(x, {}, y, reduced, p, options);
}

void lp_normalize_backward(const TensorView& grad_output, const TensorView& x, const TensorView& grad_input,
                           const Axes& axes, const LpNormalizeOptions& options) {
    constexpr const char* caller = "lp_normalize_backward";
    check_view(caller, "x", x);
    const AxisSet reduced = check_axes(caller, axes, x.rank);
    const LpNorm p = check_options(caller, options);
    check_view(caller, "grad_output", grad_output);
    check_shape(caller, "grad_output", grad_output, x.shape, x.rank);
    check_result(caller, "grad_input", grad_input, x);
    check_same_or_apart(caller, "grad_input", grad_input, "x", x);
    check_same_or_apart(caller, "grad_input", grad_input, "grad_output", grad_output);
    check_where(caller, options, x, reduced, "grad_input", grad_input);
    lay_out(x, grad_output, grad_input, reduced, p, options);
}

}  // namespace anynorm::inline ANYNORM_ABI
