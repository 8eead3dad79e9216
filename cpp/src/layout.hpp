// SPDX-License-Identifier: Apache-2.0
// Pure geometry: every operand of a call is a strided view over the index space of x, and the index space becomes a
// short loop nest in x's memory order. Nothing here touches data.
#pragma once

#include <cstdint>

#include "anynorm/tensor_view.hpp"

namespace anynorm::detail {

/// The operands that a nest walks together. `cell` is the scratch array of statistics, `joint` that of sums which both
/// sets and parameters are made of; count, mean, mean_low and m2 are the caller's views of them. y is the output of a
/// call: grad_input where gradients are computed. x is what is normalized: where it is a sum, of `input` and
/// `residual`. Gradients have no terms to add along the way, and `joint` takes the place of one, the gradient that a
/// sum has from elsewhere that of the other. A call with a selection walks the caller's moments in a nest of their own,
/// and its labels, mask and sample weights take their places: four operands more would cost every step of a walk. Nor
/// has a forward call gradients of parameters: there lie the scales and zero points of results of 8 bits.
enum Operand : int {
    op_x,
    op_y,
    op_cell,
    op_weight,
    op_bias,
    op_count,
    op_mean,
    op_mean_low,
    op_m2,
    op_grad_output,
    op_grad_weight,
    op_grad_bias,
    op_input,
    op_residual,
    operand_count,
    op_joint = op_input,
    op_grad_sum = op_residual,
    op_scale = op_grad_weight,
    op_zero_point = op_grad_bias,
    op_labels = op_count,
    op_where = op_mean,
    op_sample_weight = op_mean_low
};

using OperandSet = std::uint32_t;
constexpr OperandSet operand_set(Operand operand) { return 1u << operand; }
template <class... Rest>
constexpr OperandSet operand_set(Operand first, Rest... rest) {
    return operand_set(first) | operand_set(rest...);
}
inline constexpr OperandSet all_operands = (1u << operand_count) - 1;

/// A set of axes of x, one bit each.
using AxisSet = std::uint32_t;

// The arrays of max_rank below are not initialized: a call on a short row spends its time here, and two loops of
// sixteen are in use.

/// Strides of one operand along the axes of x, 0 where it does not vary; whoever makes one sets all axes.
struct AxisStrides {
    std::int64_t axis[max_rank];
};

/// The strides of those operands that a call has; the others do not vary.
class OperandStrides {
  public:
    void set(Operand operand, const AxisStrides& strides) noexcept {
        strides_[operand] = strides;
        given_ |= operand_set(operand);
    }
    std::int64_t at(int operand, int axis) const noexcept {
        return (given_ >> operand & 1) != 0 ? strides_[operand].axis[axis] : 0;
    }

  private:
    OperandSet given_ = 0;
    AxisStrides strides_[operand_count];
};

struct Loop {
    std::int64_t n;
    bool reduced;
    std::int64_t stride[operand_count];
};

/// Loops from the outermost to the innermost, and where each operand starts (in elements).
struct Nest {
    int depth = 0;
    std::int64_t offset[operand_count] = {};
    Loop loops[max_rank];

    Nest() noexcept {}  // NOLINT(modernize-use-equals-default): = default would let Nest{} clear the loops
    Nest(const Nest& other) noexcept { *this = other; }
    Nest& operator=(const Nest& other) noexcept {
        depth = other.depth;
        for (int operand = 0; operand < operand_count; ++operand) offset[operand] = other.offset[operand];
        for (int i = 0; i < depth; ++i) loops[i] = other.loops[i];
        return *this;
    }
    ~Nest() = default;

    std::int64_t size() const noexcept;
    /// Product of the lengths of the kept loops: the number of sets.
    std::int64_t cells() const noexcept;
};

/// The strides of a view over itself.
AxisStrides own_strides(const TensorView& view) noexcept;

/// The strides of a view that NumPy's rules broadcast to `shape`; the shapes have been checked.
AxisStrides broadcast_strides(const TensorView& view, const TensorView& to) noexcept;

/// The strides over x of an array of statistics, which has x's shape without the reduced axes or with length 1 there.
AxisStrides statistics_strides(const TensorView& view, const TensorView& x, AxisSet reduced) noexcept;

/// Sorts the axes of x into a nest: axes of length 1 are dropped, axes on which x runs backwards are flipped (or y,
/// where x stands still and no selection tells its elements apart), the rest is ordered by |stride of x| with stride 0
/// outermost (it must not become the innermost loop), and neighbours that are one loop for every operand are merged.
/// Cells are numbered in the order of the nest.
Nest make_nest(const TensorView& x, AxisSet reduced, const OperandStrides& strides) noexcept;

/// Merges neighbouring loops that are one loop for the operands named; the others lose their strides.
Nest coalesce(const Nest& nest, OperandSet operands) noexcept;

/// Numbers the cells of a nest from 0, in its order.
void number_cells(Nest& nest) noexcept;

/// Numbers the elements of an operand from 0, in the order of the nest: the places of a dense copy of it.
void number_elements(Nest& nest, Operand operand) noexcept;

/// The product of the lengths of the loops that an operand varies along.
std::int64_t size_along(const Nest& nest, Operand operand) noexcept;

/// The nest with those loops kept that an operand varies along, all others reduced.
Nest grouped_by(const Nest& nest, Operand operand) noexcept;

/// Restricts one loop to [first, first + n).
void restrict_loop(Nest& nest, int loop, std::int64_t first, std::int64_t n) noexcept;

/// The kept loops of a nest: one iteration a set.
Nest kept_loops(const Nest& nest) noexcept;

/// Where an operand is at an index of all loops of a nest, counted in its order, before the nest's own offset.
std::int64_t offset_at(const Nest& nest, std::int64_t index, int operand) noexcept;

/// Calls body(offset) for every iteration of the outermost `depth` loops, in order; offset[operand] is in elements.
template <class Body>
void walk(const Nest& nest, int depth, Body&& body) {
    std::int64_t offset[operand_count];
    std::int64_t index[max_rank] = {};
    for (int operand = 0; operand < operand_count; ++operand) offset[operand] = nest.offset[operand];
    for (;;) {
        body(static_cast<const std::int64_t*>(offset));
        int i = depth - 1;
        for (; i >= 0; --i) {
            const Loop& loop = nest.loops[i];
            const bool wraps = ++index[i] == loop.n;
            const std::int64_t steps = wraps ? 1 - loop.n : 1;
            for (int operand = 0; operand < operand_count; ++operand) offset[operand] += steps * loop.stride[operand];
            if (!wraps) break;
            index[i] = 0;
        }
        if (i < 0) return;
    }
}

/// Calls body(offsets, loop) for every row of the innermost loop: steps of walk() from cell to cell were a third of the
/// time that gradients of small sets took between the kernels.
template <class Body>
void walk_rows(const Nest& nest, Body&& body) {
    constexpr Loop one{1, false, {}};
    const int outside = nest.depth > 0 ? nest.depth - 1 : 0;
    const Loop& inner = nest.depth > 0 ? nest.loops[outside] : one;
    walk(nest, outside, [&](const std::int64_t* offset) { body(offset, inner); });
}

}  // namespace anynorm::detail
