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
#include "scratch.hpp"
#include "selected_apply.hpp"
#include "selected_moments.hpp"
#include "statistics_views.hpp"

namespace anynorm::detail {
namespace {

constexpr Operand op_weight2 = op_grad_output;

/// Writes value_of(0), value_of(1), ... to the sets of `count` groups from `first` on, which are `step` apart in a
/// view.
template <class Value>
void store_values(const TensorView& view, const Nest& kept, Operand operand, std::int64_t step, std::int64_t first,
                  std::int64_t count, const Value& value_of) {
    auto* const data = static_cast<double*>(view.data);
    const int outside = kept.depth > 0 ? kept.depth - 1 : 0;
    const std::int64_t n = kept.depth > 0 ? kept.loops[outside].n : 1;
    const std::int64_t stride = kept.depth > 0 ? kept.loops[outside].stride[operand] : 0;
    std::int64_t set = 0;
    const auto store_run = [&](double* to, std::int64_t length) {
        if (stride == 1) {
            for (std::int64_t i = 0; i < length; ++i) to[i] = value_of(set + i);
        } else {
            for (std::int64_t i = 0; i < length; ++i) to[i * stride] = value_of(set + i);
        }
        set += length;
    };
    // Groups that follow each other are one run.
    if (outside == 0 && stride == 1 && step == n) {
        return store_run(data + first * step + kept.offset[operand], count * n);
    }
    for (std::int64_t group = first; group < first + count; ++group) {
        double* const to = data + group * step;
        if (outside == 0) {
            store_run(to + kept.offset[operand], n);
        } else {
            walk(kept, outside, [&](const std::int64_t* offset) { store_run(to + offset[operand], n); });
        }
    }
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

/// The coefficients of all sets in the type C that a call computes in: mean, mean_lo and rstd of a group's cells, then
/// those of the next group, so that a row whose group lies anywhere finds them together.
template <class C>
class SelectedCoefficients {
  public:
    SelectedCoefficients(const kernels::Kernels<C>& kernels, double eps, std::int64_t groups, std::int64_t group_cells)
        : memory_(static_cast<std::size_t>(groups * 3 * group_cells) * sizeof(C)),
          kernels_(kernels),
          eps_(eps),
          group_cells_(group_cells),
          size_(groups * step()),
          first_(reinterpret_cast<C*>(memory_.data())) {}

    /// From one group to the next.
    std::int64_t step() const noexcept { return 3 * group_cells_; }
    Coefficients<C> of_group(std::int64_t group) const noexcept {
        C* const first = first_ + group * step();
        return {first, first + group_cells_, first + 2 * group_cells_};
    }
    bool exceed_cache() const noexcept {
        constexpr std::int64_t cache_bytes = 256 * 1024;
        return size_ * static_cast<std::int64_t>(sizeof(C)) > cache_bytes;
    }

    /// From the cells of the groups from `first` on.
    void fill(std::int64_t first, std::int64_t count, const Cell* cells) const noexcept {
        for (std::int64_t group = first; group < first + count; ++group, cells += group_cells_) {
            const Coefficients<C> to = of_group(group);
            kernels_.coefficients(cells, group_cells_, eps_, to.mean, to.mean_lo, to.rstd);
        }
    }

  private:
    Scratch memory_;
    const kernels::Kernels<C>& kernels_;
    double eps_;
    std::int64_t group_cells_, size_;
    C* first_;
};

/// The results of a call. A is the type of x and y, or the one to compute in.
template <class A>
class SelectedResults {
  public:
    using C = kernels::Compute<A>;

    SelectedResults(const SelectedCall& call, const SelectedCoefficients<C>& sets, const Plan& plan,
                    const kernels::KernelTable& table)
        : kernels_(kernels_for<A>(table)),
          plan_(plan),
          coefficients_(sets.of_group(0)),
          rows_(call.x.shape[0]),
          apply_{{elements_of(call.x), elements_of(call.y), {&one_, stored_as<C>()}, {&zero_, stored_as<C>()}},
                 call.selection,
                 call.excluded,
                 sets.step(),
                 sets.exceed_cache()} {
        if (call.weight.given()) apply_.operands.weight = elements_of(call.weight);
        if (call.bias.given()) apply_.operands.bias = elements_of(call.bias);
        apply_.operands.epilogue = call.epilogue;
        const TensorView& read = call.residual.given() ? call.input : call.x;
        apply_.operands.stream = read.data != call.y.data && passes_caches(plan.nest.size(), call.y.dtype);
    }
    SelectedResults(const SelectedResults&) = delete;
    SelectedResults& operator=(const SelectedResults&) = delete;

    /// All of them.
    void write() {
        for_each_piece(plan_.elements.pieces, plan_.threads,
                       [&](int, std::int64_t index) { write(piece_of(plan_.nest, plan_.elements, index)); });
    }

    /// Those of the segments from `first` on, and of the rows that lie between them and the next.
    void write_segments(std::int64_t first, std::int64_t count) const noexcept {
        const Segments segments(apply_.selection.segments);
        const auto begin = [&](std::int64_t segment) {
            return segment == 0 ? 0 : segment == segments.count() ? rows_ : segments.start(segment);
        };
        const std::int64_t start = begin(first), stop = begin(first + count);
        if (start == stop) return;
        Nest piece = plan_.nest;
        restrict_rows(piece, start, stop);
        write(piece);
    }

  private:
    void write(const Nest& piece) const noexcept { selected_apply<A>(kernels_, apply_, piece, coefficients_); }

    const kernels::Kernels<A>& kernels_;
    const Plan& plan_;
    Coefficients<C> coefficients_;
    std::int64_t rows_;  ///< that segments lie in
    C one_ = 1, zero_ = 0;
    SelectedApply apply_;
};

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

void store_selected(const MomentsView& out, const Selection& selection, const Nest& nest, std::int64_t first,
                    std::int64_t count, const Cell* cells, const double* weight2) noexcept {
    if (!out.given()) return;
    const GroupedMoments grouped(out, selection);
    const Nest kept = kept_loops(nest);
    const auto store = [&](const TensorView& view, Operand operand, std::int64_t step, const auto& value_of) {
        if (view.given()) store_values(view, kept, operand, step, first, count, value_of);
    };
    store(grouped.first.count, op_count, grouped.count_step, [&](std::int64_t set) { return cells[set].count; });
    store(grouped.first.mean, op_mean, grouped.mean_step, [&](std::int64_t set) { return cells[set].mean; });
    store(grouped.first.m2, op_m2, grouped.m2_step, [&](std::int64_t set) { return cells[set].m2; });
    store(grouped.first.weight2, op_weight2, grouped.weight2_step,
          [&](std::int64_t set) { return weight2 != nullptr ? weight2[set] : cells[set].count; });
    store(grouped.first.mean_low, op_mean_low, grouped.mean_low_step,
          [&](std::int64_t set) { return cells[set].mean_lo; });
}

void selected_statistics(const kernels::KernelTable& table, const SelectedOperands& operands,
                         const Selection& selection, const Nest& loops, int threads, const CellSink& sink) {
    // Groups that are segments need no sums in memory, but a plan, which takes 7 us longer than the sums of 1000 rows.
    constexpr std::int64_t rows_of_segments = 32 * 1024;
    const bool grouped = are_grouped_columns(operands.x, selection, loops);
    RowRanges rising;
    if (!grouped || loops.loops[0].n >= rows_of_segments) rising = rising_positions(selection, loops, threads);
    if (grouped && rising.empty()) {
        return grouped_columns(table, operands, selection, loops, threads, sink);
    }
    if (are_masked_columns(selection, loops)) {
        return masked_columns(table, operands, selection, loops, threads, sink);
    }
    const Members members(selection, loops, std::move(rising), threads);
    selected_moments(table, operands, loops, members, threads, sink);
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
    store_selected(call.moments, call.selection, nest_of(call.moments), 0, group_count(call.selection), cells.data(),
                   nullptr);
}

/// Calls `then` with the cells of all groups, which the caller has or which are summed, when they are stored.
void find_statistics(const SelectedCall& call, const kernels::KernelTable& table, const Plan& plan,
                     const CellSink& then) {
    const auto nest_of = [&](const MomentsView& moments) {
        return make_moments_nest(call.x, call.y, call.reduced, call.selection, moments);
    };
    const Nest output = nest_of(call.moments);
    const auto take = [&](std::int64_t first, std::int64_t count, const Cell* cells, const double* squares) {
        store_selected(call.moments, call.selection, output, first, count, cells, squares);
        then(first, count, cells, squares);
    };
    if (call.given.given()) {
        const std::int64_t groups = group_count(call.selection), sets = groups * plan.nest.cells();
        const auto cells = std::make_unique_for_overwrite<Cell[]>(static_cast<std::size_t>(sets));
        if (call.residual.given()) add_residual(call, table, plan.threads);
        load_selected(call.given, call.selection, call.center, nest_of(call.given), cells.get());
        return take(0, groups, cells.get(), nullptr);
    }
    if (call.residual.given()) add_residual(call, table, plan.threads);
    const SelectedOperands operands{elements_of(call.x), elements_of(call.selection.sample_weight), call.center};
    selected_statistics(table, operands, call.selection, statistics_loops(plan.nest), plan.threads, take);
}

/// Whether the results of segments are written as soon as their moments are known, while an L2 still has the elements:
/// 1000 segments of 1000 rows of 16 float32 take 12 ms then, 17 in two passes over memory.
bool writes_segments(const SelectedCall& call) {
    constexpr std::int64_t cached_bytes = 256 * 1024;
    const Selection& selection = call.selection;
    const Segments segments(selection.segments);
    if (segments.count() == 0 || selection.where.given() || call.given.given()) return false;
    std::int64_t most = 0;
    for (std::int64_t i = 0; i < segments.count(); ++i) most = std::max(most, segments.stop(i) - segments.start(i));
    const std::int64_t row = call.x.size() / call.x.shape[0] * static_cast<std::int64_t>(size_of(call.x.dtype));
    return most * row <= cached_bytes;
}

template <class A>
void normalize_selected(const SelectedCall& call, const Plan& plan, const kernels::KernelTable& table) {
    using C = kernels::Compute<A>;
    SelectedCoefficients<C> sets(kernels_for<C>(table), call.eps, group_count(call.selection), plan.nest.cells());
    SelectedResults<A> results(call, sets, plan, table);
    const bool at_once = writes_segments(call);
    find_statistics(call, table, plan, [&](std::int64_t first, std::int64_t count, const Cell* cells, const double*) {
        sets.fill(first, count, cells);
        if (at_once) results.write_segments(first, count);
    });
    if (!at_once) results.write();
}

}  // namespace

void run_selected(const SelectedCall& call, const kernels::KernelTable& table) {
    if (call.x.size() == 0) return run_empty(call);
    OperandStrides strides;
    if (call.y.given()) strides.set(op_y, own_strides(call.y));
    if (call.weight.given()) strides.set(op_weight, broadcast_strides(call.weight, call.x));
    if (call.bias.given()) strides.set(op_bias, broadcast_strides(call.bias, call.x));
    if (call.scales.given()) strides.set(op_scale, broadcast_strides(call.scales, call.x));
    if (call.zero_points.given()) strides.set(op_zero_point, broadcast_strides(call.zero_points, call.x));
    const Nest nest = make_selected_nest(call.x, call.reduced, call.selection, strides);
    PlanRequest request;
    request.element_bytes =
        static_cast<std::int64_t>(std::max(size_of(call.x.dtype), call.y.given() ? size_of(call.y.dtype) : 0));
    request.statistics = false;
    ThreadShare threads(call.num_threads);
    request.threads = threads.count();
    const Plan plan = make_plan(nest, request);
    threads.keep(plan.threads);
    if (!call.y.given()) {
        return find_statistics(call, table, plan, [](std::int64_t, std::int64_t, const Cell*, const double*) {});
    }
    with_type(elements_of(call.x), [&]<class X>(X*) {
        if constexpr (!std::is_same_v<X, double>) {
            if (call.y.dtype == DType::f64) return normalize_selected<double>(call, plan, table);
        }
        if (call.x.dtype != call.y.dtype || call.epilogue.given()) {
            return normalize_selected<kernels::Compute<X>>(call, plan, table);
        }
        normalize_selected<X>(call, plan, table);
    });
}

}  // namespace anynorm::detail
