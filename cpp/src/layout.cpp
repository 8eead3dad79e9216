// SPDX-License-Identifier: Apache-2.0
#include "layout.hpp"

namespace anynorm::detail {
namespace {

std::int64_t magnitude(std::int64_t stride) { return stride < 0 ? -stride : stride; }

/// Whether loop a belongs outside loop b.
bool is_outer(const Loop& a, const Loop& b) {
    const std::int64_t ax = magnitude(a.stride[op_x]), bx = magnitude(b.stride[op_x]);
    if ((ax == 0) != (bx == 0)) return ax == 0;
    if (ax != bx) return ax > bx;
    // Elements of a set stay in the order of the axes: where y lies must not show in the bits of the statistics.
    if (a.reduced && b.reduced) return false;
    return ax == 0 && magnitude(a.stride[op_y]) > magnitude(b.stride[op_y]);
}

/// Whether elements along the loop are told apart by a selection. Views of moments, whose places its views take, do not
/// vary along a reduced loop.
bool selects(const Loop& loop) {
    return (loop.stride[op_labels] | loop.stride[op_where] | loop.stride[op_sample_weight]) != 0;
}

bool is_one_loop(const Loop& outer, const Loop& inner, OperandSet operands) {
    if (outer.reduced != inner.reduced) return false;
    for (int operand = 0; operand < operand_count; ++operand) {
        if ((operands >> operand & 1) != 0 && outer.stride[operand] != inner.n * inner.stride[operand]) return false;
    }
    return true;
}

}  // namespace

std::int64_t Nest::size() const noexcept {
    std::int64_t product = 1;
    for (int i = 0; i < depth; ++i) product *= loops[i].n;
    return product;
}

std::int64_t Nest::cells() const noexcept {
    std::int64_t product = 1;
    for (int i = 0; i < depth; ++i) product *= loops[i].reduced ? 1 : loops[i].n;
    return product;
}

AxisStrides own_strides(const TensorView& view) noexcept {
    AxisStrides result;
    for (int axis = 0; axis < view.rank; ++axis) result.axis[axis] = view.strides[axis];
    return result;
}

AxisStrides broadcast_strides(const TensorView& view, const TensorView& to) noexcept {
    AxisStrides result;
    for (int axis = 0; axis < to.rank - view.rank; ++axis) result.axis[axis] = 0;
    for (int axis = 0; axis < view.rank; ++axis) {
        result.axis[to.rank - view.rank + axis] = view.shape[axis] == 1 ? 0 : view.strides[axis];
    }
    return result;
}

AxisStrides statistics_strides(const TensorView& view, const TensorView& x, AxisSet reduced) noexcept {
    AxisStrides result;
    const bool keeps_all_axes = view.rank == x.rank;
    int own = 0;
    for (int axis = 0; axis < x.rank; ++axis) {
        const bool is_reduced = (reduced >> axis & 1) != 0;
        result.axis[axis] = is_reduced ? 0 : view.strides[own];
        if (!is_reduced || keeps_all_axes) ++own;
    }
    return result;
}

Nest make_nest(const TensorView& x, AxisSet reduced, const OperandStrides& strides) noexcept {
    Nest nest;
    for (int axis = 0; axis < x.rank; ++axis) {
        if (x.shape[axis] == 1) continue;
        Loop loop;
        loop.n = x.shape[axis];
        loop.reduced = (reduced >> axis & 1) != 0;
        for (int operand = 0; operand < operand_count; ++operand) loop.stride[operand] = strides.at(operand, axis);
        const bool is_ordered = loop.stride[op_x] != 0 || (loop.reduced && selects(loop));
        const std::int64_t direction = is_ordered ? loop.stride[op_x] : loop.stride[op_y];
        if (direction < 0) {
            for (int operand = 0; operand < operand_count; ++operand) {
                nest.offset[operand] += loop.stride[operand] * (loop.n - 1);
                loop.stride[operand] = -loop.stride[operand];
            }
        }
        int place = nest.depth++;
        for (; place > 0 && is_outer(loop, nest.loops[place - 1]); --place) nest.loops[place] = nest.loops[place - 1];
        nest.loops[place] = loop;
    }
    number_cells(nest);
    return coalesce(nest, all_operands);
}

Nest coalesce(const Nest& nest, OperandSet operands) noexcept {
    Nest result;
    for (int operand = 0; operand < operand_count; ++operand) {
        if ((operands >> operand & 1) != 0) result.offset[operand] = nest.offset[operand];
    }
    for (int i = 0; i < nest.depth; ++i) {
        const Loop& loop = nest.loops[i];
        if (loop.n == 1) continue;
        if (result.depth > 0 && is_one_loop(result.loops[result.depth - 1], loop, operands)) {
            const std::int64_t outer_n = result.loops[result.depth - 1].n;
            result.loops[result.depth - 1] = loop;
            result.loops[result.depth - 1].n = outer_n * loop.n;
        } else {
            result.loops[result.depth++] = loop;
        }
        for (int operand = 0; operand < operand_count; ++operand) {
            if ((operands >> operand & 1) == 0) result.loops[result.depth - 1].stride[operand] = 0;
        }
    }
    return result;
}

void number_cells(Nest& nest) noexcept {
    nest.offset[op_cell] = 0;
    std::int64_t step = 1;
    for (int i = nest.depth - 1; i >= 0; --i) {
        nest.loops[i].stride[op_cell] = nest.loops[i].reduced ? 0 : step;
        if (!nest.loops[i].reduced) step *= nest.loops[i].n;
    }
}

void number_elements(Nest& nest, Operand operand) noexcept {
    nest.offset[operand] = 0;
    std::int64_t step = 1;
    for (int i = nest.depth - 1; i >= 0; --i) {
        if (nest.loops[i].stride[operand] == 0) continue;
        nest.loops[i].stride[operand] = step;
        step *= nest.loops[i].n;
    }
}

std::int64_t size_along(const Nest& nest, Operand operand) noexcept {
    std::int64_t size = 1;
    for (int i = 0; i < nest.depth; ++i) size *= nest.loops[i].stride[operand] != 0 ? nest.loops[i].n : 1;
    return size;
}

Nest grouped_by(const Nest& nest, Operand operand) noexcept {
    Nest grouped = nest;
    for (int i = 0; i < nest.depth; ++i) grouped.loops[i].reduced = nest.loops[i].stride[operand] == 0;
    return grouped;
}

Nest kept_loops(const Nest& nest) noexcept {
    Nest kept;
    for (int operand = 0; operand < operand_count; ++operand) kept.offset[operand] = nest.offset[operand];
    for (int i = 0; i < nest.depth; ++i) {
        if (!nest.loops[i].reduced) kept.loops[kept.depth++] = nest.loops[i];
    }
    return kept;
}

std::int64_t offset_at(const Nest& nest, std::int64_t index, int operand) noexcept {
    std::int64_t offset = 0;
    for (int i = nest.depth - 1; i >= 0; --i) {
        offset += index % nest.loops[i].n * nest.loops[i].stride[operand];
        index /= nest.loops[i].n;
    }
    return offset;
}

void restrict_loop(Nest& nest, int loop, std::int64_t first, std::int64_t n) noexcept {
    for (int operand = 0; operand < operand_count; ++operand) {
        nest.offset[operand] += first * nest.loops[loop].stride[operand];
    }
    nest.loops[loop].n = n;
}

}  // namespace anynorm::detail
