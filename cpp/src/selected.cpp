// SPDX-License-Identifier: Apache-2.0
#include "selected.hpp"

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "grouped_columns.hpp"
#include "masked_columns.hpp"
#include "parallel.hpp"
#include "plan.hpp"
#include "selected_apply.hpp"
#include "selected_moments.hpp"
#include "statistics_views.hpp"

namespace anynorm::detail {
namespace {

constexpr Operand op_weight2 = op_grad_output;

void store_at(const TensorView& view, std::int64_t offset, double value) {
    if (view.given()) static_cast<double*>(view.data)[offset] = value;
}

/// x + residual, in pieces of its own: the members of a set may lie anywhere.
void add_residual(const SelectedCall& call, const kernels::KernelTable& table, int threads) {
    OperandStrides strides;
    strides.set(op_x, own_strides(call.x));
    strides.set(op_input, own_strides(call.input));
    strides.set(op_residual, own_strides(call.residual));
    const Nest nest = make_nest(call.x, 0, strides);
    const Plan plan = make_plan(nest, {.element_bytes = 8, .threads = threads, .statistics = false});
    for_each_piece(plan.elements.pieces, plan.threads, [&](int, std::int64_t index) {
        add_piece(table, call.sum, piece_of(plan.nest, plan.elements, index));
    });
}

/// A is the type of x and y, or the one to compute in.
template <class A>
void apply_selected(const SelectedCall& call, const Nest& nest, const Cell* cells, const Plan& plan,
                    const kernels::KernelTable& table) {
    using C = kernels::Compute<A>;
    const kernels::Kernels<A>& kernels = kernels_for<A>(table);
    const std::int64_t group_cells = nest.cells(), sets = group_cells * group_count(call.selection);
    const auto memory = std::make_unique_for_overwrite<C[]>(static_cast<std::size_t>(3 * sets));
    const Coefficients<C> coefficients{memory.get(), memory.get() + sets, memory.get() + 2 * sets};
    kernels.coefficients(cells, sets, call.eps, coefficients.mean, coefficients.mean_lo, coefficients.rstd);
    C one = 1, zero = 0;
    SelectedApply apply{{elements_of(call.x), elements_of(call.y), {&one, stored_as<C>()}, {&zero, stored_as<C>()}},
                        call.selection,
                        call.excluded,
                        group_cells};
    if (call.weight.given()) apply.operands.weight = elements_of(call.weight);
    if (call.bias.given()) apply.operands.bias = elements_of(call.bias);
    apply.operands.epilogue = call.epilogue;
    const TensorView& read = call.residual.given() ? call.input : call.x;
    apply.operands.stream = read.data != call.y.data && passes_caches(nest.size(), call.y.dtype);
    for_each_piece(plan.elements.pieces, plan.threads, [&](int, std::int64_t index) {
        selected_apply<A>(kernels, apply, piece_of(plan.nest, plan.elements, index), coefficients);
    });
}

}  // namespace

Nest make_selected_nest(const TensorView& x, AxisSet reduced, const Selection& selection,
                        OperandStrides& strides) noexcept {
    strides.set(op_x, own_strides(x));
    add_selection_strides(strides, selection, x);
    return make_nest(x, reduced, strides);
}

Nest make_moments_nest(const TensorView& x, const TensorView& y, AxisSet reduced, const Selection& selection,
                       const MomentsView& moments) noexcept {
    OperandStrides strides;
    strides.set(op_x, own_strides(x));
    if (y.given()) strides.set(op_y, own_strides(y));
    const MomentsView first = GroupedMoments(moments, selection).first;
    add_statistics_strides(strides, first, x, reduced);
    if (first.weight2.given()) strides.set(op_weight2, statistics_strides(first.weight2, x, reduced));
    return make_nest(x, reduced, strides);
}

Nest statistics_loops(const Nest& nest) noexcept {
    return coalesce(nest, operand_set(op_x, op_cell, op_labels, op_where, op_sample_weight));
}

void load_selected(const MomentsView& given, const Selection& selection, bool center, const Nest& nest, Cell* cells) {
    const GroupedMoments grouped(given, selection);
    const MomentsElements elements = elements_of(grouped.first);
    const Nest kept = kept_loops(nest);
    for (std::int64_t group = 0; group < group_count(selection); ++group) {
        walk(kept, kept.depth, [&](const std::int64_t* offset) {
            const double count = element_at(elements.count, offset[op_count] + group * grouped.count_step);
            const double mean = center ? element_at(elements.mean, offset[op_mean] + group * grouped.mean_step) : 0.0;
            const double mean_lo =
                center ? element_or_zero(elements.mean_low, offset[op_mean_low] + group * grouped.mean_low_step) : 0.0;
            *cells++ = {count, mean, mean_lo, element_at(elements.m2, offset[op_m2] + group * grouped.m2_step)};
        });
    }
}

void store_selected(const MomentsView& out, const Selection& selection, const Nest& nest, const Cell* cells,
                    const double* weight2) noexcept {
    if (!out.given()) return;
    const GroupedMoments grouped(out, selection);
    const Nest kept = kept_loops(nest);
    for (std::int64_t group = 0; group < group_count(selection); ++group) {
        walk(kept, kept.depth, [&](const std::int64_t* offset) {
            store_at(grouped.first.count, offset[op_count] + group * grouped.count_step, cells->count);
            store_at(grouped.first.mean, offset[op_mean] + group * grouped.mean_step, cells->mean);
            store_at(grouped.first.m2, offset[op_m2] + group * grouped.m2_step, cells->m2);
            store_at(grouped.first.weight2, offset[op_weight2] + group * grouped.weight2_step,
                     weight2 != nullptr ? *weight2++ : cells->count);
            store_at(grouped.first.mean_low, offset[op_mean_low] + group * grouped.mean_low_step, cells->mean_lo);
            ++cells;
        });
    }
}

void selected_statistics(const kernels::KernelTable& table, const SelectedOperands& operands,
                         const Selection& selection, const Nest& loops, int threads, Cell* cells, double* weight2) {
    if (weight2 == nullptr && are_grouped_columns(selection, loops) && !labels_rise(selection, loops) &&
        grouped_columns(table, operands, selection, loops, threads, cells)) {
        return;
    }
    if (weight2 == nullptr && are_masked_columns(selection, loops)) {
        return masked_columns(table, operands, selection, loops, threads, cells);
    }
    const Members members(selection, loops, threads);
    selected_moments(table, operands, loops, members, threads, cells, weight2);
}

namespace {

/// No elements: every set is empty, unless the caller has moments.
void run_empty(const SelectedCall& call) {
    if (!call.given.given()) return store_empty_moments(call.moments);
    const auto nest_of = [&](const MomentsView& moments) {
        return make_moments_nest(call.x, {}, call.reduced, call.selection, moments);
    };
    const Nest given = nest_of(call.given);
    std::vector<Cell> cells(static_cast<std::size_t>(given.cells() * group_count(call.selection)));
    if (cells.empty()) return;
    load_selected(call.given, call.selection, true, given, cells.data());
    store_selected(call.moments, call.selection, nest_of(call.moments), cells.data(), nullptr);
}

}  // namespace

void run_selected(const SelectedCall& call, const kernels::KernelTable& table) {
    if (call.x.size() == 0) return run_empty(call);
    OperandStrides strides;
    if (call.y.given()) strides.set(op_y, own_strides(call.y));
    if (call.weight.given()) strides.set(op_weight, broadcast_strides(call.weight, call.x));
    if (call.bias.given()) strides.set(op_bias, broadcast_strides(call.bias, call.x));
    const Nest nest = make_selected_nest(call.x, call.reduced, call.selection, strides);
    const auto nest_of = [&](const MomentsView& moments) {
        return make_moments_nest(call.x, call.y, call.reduced, call.selection, moments);
    };
    PlanRequest request;
    request.element_bytes =
        static_cast<std::int64_t>(std::max(size_of(call.x.dtype), call.y.given() ? size_of(call.y.dtype) : 0));
    request.statistics = false;
    ThreadShare threads(call.num_threads);
    request.threads = threads.count();
    const Plan plan = make_plan(nest, request);
    threads.keep(plan.threads);
    const std::int64_t sets = nest.cells() * group_count(call.selection);
    const auto cells = std::make_unique_for_overwrite<Cell[]>(static_cast<std::size_t>(sets));
    std::vector<double> weight2(
        static_cast<std::size_t>(call.moments.weight2.given() && call.selection.sample_weight.given() ? sets : 0));
    double* const squares = weight2.empty() ? nullptr : weight2.data();
    const Nest loops = statistics_loops(nest);

    if (call.residual.given()) add_residual(call, table, plan.threads);
    if (call.given.given()) {
        load_selected(call.given, call.selection, call.center, nest_of(call.given), cells.get());
    } else {
        const SelectedOperands operands{elements_of(call.x), elements_of(call.selection.sample_weight), call.center};
        selected_statistics(table, operands, call.selection, loops, plan.threads, cells.get(), squares);
    }
    if (call.moments.given()) {
        store_selected(call.moments, call.selection, nest_of(call.moments), cells.get(), squares);
    }
    if (!call.y.given()) return;
    with_type(elements_of(call.x), [&]<class X>(X*) {
        if constexpr (!std::is_same_v<X, double>) {
            if (call.y.dtype == DType::f64) return apply_selected<double>(call, nest, cells.get(), plan, table);
        }
        if (call.x.dtype != call.y.dtype || call.epilogue.given()) {
            return apply_selected<kernels::Compute<X>>(call, nest, cells.get(), plan, table);
        }
        apply_selected<X>(call, nest, cells.get(), plan, table);
    });
}

}  // namespace anynorm::detail
