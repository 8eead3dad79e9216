// SPDX-License-Identifier: Apache-2.0
#include "gradient_pieces.hpp"

#include <algorithm>
#include <cmath>

#include "tiles.hpp"

namespace anynorm::detail {
namespace {

/// A tile as the kernels that sum take it.
template <class A>
kernels::GradientSumsArgs<A> sums_args(const Tile<A>& from, const kernels::Compute<A>* constant_weight) {
    const bool weighted = constant_weight == nullptr;
    return {.rows = from.rows,
            .n = from.n,
            .x = from.input[0],
            .grad_output = from.input[1],
            .mean = from.coefficient[0],
            .mean_lo = from.coefficient[1],
            .rstd = from.coefficient[2],
            .weight = weighted ? from.coefficient[3] : constant_weight,
            .x_row = from.input_row[0],
            .grad_output_row = from.input_row[1],
            .stat_row = from.coefficient_row[0],
            .weight_row = weighted ? from.coefficient_row[3] : 0,
            .s1 = nullptr,
            .s2 = nullptr,
            .sum_row = from.target_row,
            .blocks = from.blocks,
            .x_block = from.input_block[0],
            .grad_output_block = from.input_block[1],
            .stat_block = from.coefficient_block[0],
            .weight_block = weighted ? from.coefficient_block[3] : 0,
            .sum_block = from.target_block};
}

/// Calls body(args of one row, row) for every row.
template <class A, class Body>
void for_each_row(kernels::GradientSumsArgs<A> args, Body&& body) {
    const std::int64_t rows = args.rows;
    args.rows = 1;
    for (std::int64_t row = 0; row < rows; ++row) {
        body(args, row);
        args.x += args.x_row;
        args.grad_output += args.grad_output_row;
        args.mean += args.stat_row;
        args.mean_lo += args.stat_row;
        args.rstd += args.stat_row;
        args.weight += args.weight_row;
    }
}

/// The sums of a target that varies along the rows otherwise than from neighbour to neighbour: every element is summed
/// down its column, and the columns are added to their places when those of the next tile are others.
template <class A>
class ColumnSums {
  public:
    ColumnSums(const Tiles<A>& tiles, const Sums& to) : tiles_(tiles), to_(to) {}
    ColumnSums(const ColumnSums&) = delete;
    ColumnSums& operator=(const ColumnSums&) = delete;
    ~ColumnSums() { add(); }

    /// The columns of the elements [first, first + n) of a row whose target begins at `place`.
    Sums from(std::int64_t place, std::int64_t first, std::int64_t n) {
        if (place != place_ || first != first_) add();
        place_ = place;
        first_ = first;
        const Sums sums{s1_, s2_};
        if (n > n_) sums.at(n_).clear(n - n_);
        n_ = std::max(n, n_);
        return sums;
    }

  private:
    void add() {
        tiles_.for_each_target(place_, first_, n_,
                               [&](std::int64_t i, std::int64_t count, std::int64_t at, std::int64_t step) {
                                   double *const to1 = to_.s1 + at, *const to2 = to_.s2 + at;
                                   for (std::int64_t k = 0; k < count; ++k) {
                                       to1[k * step] += s1_[i + k];
                                       to2[k * step] += s2_[i + k];
                                   }
                               });
        n_ = 0;
    }

    const Tiles<A>& tiles_;
    const Sums& to_;
    std::int64_t place_ = 0, first_ = 0, n_ = 0;
    double s1_[tile], s2_[tile];
};

/// The results of a piece in tiles, and a tile as the kernels that write them take it.
template <class A>
struct Results {
    using C = kernels::Compute<A>;

    Results(const GradientCall& call, const Elements& weight, const Nest& piece, const SlopesOf<A>& sets,
            OperandSet others = 0)
        : weighted(weight.given()),
          adds(call.grad_sum.given()),
          tiles(piece, operand_set(op_x, op_grad_output, op_y, adds ? op_grad_sum : op_y),
                operand_set(op_cell, weighted ? op_weight : op_cell) | others) {
        tiles.add_input(call.x, op_x);
        tiles.add_input(call.grad_output, op_grad_output);
        tiles.set_output(call.grad_input, op_y);
        if (adds) tiles.add_input(call.grad_sum, op_grad_sum);
        for (C* coefficient : {sets.mean, sets.slope, sets.offset, sets.scale}) {
            tiles.add_coefficient({coefficient, stored_as<C>()}, op_cell);
        }
        if (weighted) tiles.add_coefficient(weight, op_weight);
        tiles.take_blocks();
    }

    int index() const { return kernels::gradient_index(tiles.varies(op_cell), weighted && tiles.varies(op_weight)); }

    kernels::GradientInputArgs<A> args(const Tile<A>& of, bool stream) const {
        return {.rows = of.rows,
                .n = of.n,
                .x = of.input[0],
                .grad_output = of.input[1],
                .grad_input = of.output,
                .mean = of.coefficient[0],
                .slope = of.coefficient[1],
                .offset = of.coefficient[2],
                .rstd = of.coefficient[3],
                .weight = weighted ? of.coefficient[4] : &one,
                .x_row = of.input_row[0],
                .grad_output_row = of.input_row[1],
                .grad_input_row = of.output_row,
                .stat_row = of.coefficient_row[0],
                .weight_row = weighted ? of.coefficient_row[4] : 0,
                .stream = stream && tiles.output_direct(),
                .blocks = of.blocks,
                .x_block = of.input_block[0],
                .grad_output_block = of.input_block[1],
                .grad_input_block = of.output_block,
                .stat_block = of.coefficient_block[0],
                .weight_block = weighted ? of.coefficient_block[4] : 0,
                .grad_sum = adds ? of.input[2] : nullptr,
                .grad_sum_row = adds ? of.input_row[2] : 0,
                .grad_sum_block = adds ? of.input_block[2] : 0};
    }

    static constexpr C one = 1;
    const bool weighted, adds;
    Tiles<A> tiles;
};

}  // namespace

template <class C>
void make_slopes(const GradientCall& call, const Elements& weight, const Nest& piece, const kernels::Cell* cells,
                 double elements_of_set, const Sums& sums, const C* mean_lo, const Slopes<C>& out) noexcept {
    std::int64_t cell = 0;
    walk_rows(kept_loops(piece), [&](const std::int64_t* offset, const Loop& inner) {
        for (std::int64_t k = 0; k < inner.n; ++k, ++cell) {
            const double rstd = 1 / std::sqrt(cells[cell].m2 / cells[cell].count + call.eps);
            const double scale =
                rstd * (weight.given() ? element_at(weight, offset[op_weight] + k * inner.stride[op_weight]) : 1.0);
            double slope = 0, shift = 0;
            if (!call.frozen) {
                slope = -rstd * scale * sums.s2[cell] / elements_of_set;
                if (call.center) shift = -scale * sums.s1[cell] / elements_of_set;
            }
            out.slope[cell] = static_cast<C>(slope);
            out.offset[cell] = static_cast<C>(shift - slope * static_cast<double>(mean_lo[cell]));
            out.scale[cell] = static_cast<C>(scale);
        }
    });
}

template void make_slopes<float>(const GradientCall&, const Elements&, const Nest&, const kernels::Cell*, double,
                                 const Sums&, const float*, const Slopes<float>&) noexcept;
template void make_slopes<double>(const GradientCall&, const Elements&, const Nest&, const kernels::Cell*, double,
                                  const Sums&, const double*, const Slopes<double>&) noexcept;

template <class A>
void add_gradient_sums(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                       const Nest& piece, Operand target, const CoefficientsOf<A>& statistics,
                       const Activated<A>& activated, const Sums& sums,
                       kernels::GradientInputQueue<A>* beside) noexcept {
    using C = kernels::Compute<A>;
    const bool weighted = weight.given();
    Tiles<A> tiles(piece, operand_set(op_x, op_grad_output),
                   operand_set(op_cell, weighted ? op_weight : target, target) | activated.operands());
    tiles.add_input(call.x, op_x);
    tiles.add_input(call.grad_output, op_grad_output);
    for (C* coefficient : {statistics.mean, statistics.mean_lo, statistics.rstd}) {
        tiles.add_coefficient({coefficient, stored_as<C>()}, op_cell);
    }
    if (weighted) tiles.add_coefficient(weight, op_weight);
    activated.add_coefficients(tiles);
    tiles.set_target(target);
    const int index = kernels::gradient_index(tiles.varies(op_cell), weighted && tiles.varies(op_weight));
    const auto along = kernels.gradient_sums_row[index], down = kernels.gradient_sums_column[index];
    const C one = 1, *const constant_weight = weighted ? nullptr : &one;
    const auto add = [&](auto kernel, kernels::GradientSumsArgs<A> args, std::int64_t at) {
        args.s1 = sums.s1 + at;
        args.s2 = sums.s2 + at;
        kernel(args);
    };
    if (!tiles.varies(target)) {
        tiles.take_blocks();
        const bool any_beside = beside != nullptr && index == kernels::gradient_index(false, false);
        const auto along_beside = [&](const auto& args) { kernels.gradient_sums_beside(args, *beside); };
        activated.for_each(tiles, [&](const Tile<A>& of) {
            if (any_beside) return add(along_beside, sums_args(of, constant_weight), of.target);
            add(along, sums_args(of, constant_weight), of.target);
        });
        return;
    }
    if (!tiles.target_repeats()) {
        activated.for_each(tiles, [&](const Tile<A>& of) {
            const kernels::GradientSumsArgs<A> args = sums_args(of, constant_weight);
            const std::int64_t at = of.target + of.first;
            if (of.target_row == 0) return add(down, args, at);
            for_each_row(
                args, [&](const auto& row_args, std::int64_t row) { add(down, row_args, at + row * of.target_row); });
        });
        return;
    }
    ColumnSums<A> columns(tiles, sums);
    const auto add_columns = [&](const Tile<A>& of, kernels::GradientSumsArgs<A> args, std::int64_t row) {
        const Sums to = columns.from(of.target + row * of.target_row, of.first, of.n);
        args.s1 = to.s1;
        args.s2 = to.s2;
        down(args);
    };
    activated.for_each(tiles, [&](const Tile<A>& of) {
        const kernels::GradientSumsArgs<A> args = sums_args(of, constant_weight);
        if (of.target_row == 0) return add_columns(of, args, 0);
        for_each_row(args, [&](const auto& row_args, std::int64_t row) { add_columns(of, row_args, row); });
    });
}

template <class A>
void write_grad_input(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                      const Nest& piece, const SlopesOf<A>& sets, const Activated<A>& activated, bool stream) noexcept {
    Results<A> results(call, weight, piece, sets, activated.operands());
    activated.add_coefficients(results.tiles);
    const auto kernel = kernels.gradient_input[results.index()];
    kernels::OpenLine open;
    kernels::begin_line(open);
    activated.for_each(results.tiles, [&](const Tile<A>& of) {
        kernels::GradientInputArgs<A> args = results.args(of, stream);
        args.open = &open;
        kernel(args);
    });
    if (stream) kernels.close_line(open);
}

template <class A>
bool queue_grad_input(const GradientCall& call, const Elements& weight, const Nest& piece, const SlopesOf<A>& sets,
                      kernels::GradientInputQueue<A>& queue) noexcept {
    if (call.activation != Activation::none || call.grad_sum.given()) return false;
    Results<A> results(call, weight, piece, sets);
    if (!results.tiles.direct() || results.index() != kernels::gradient_index(false, false)) return false;
    int calls = 0;
    kernels::GradientInputArgs<A> args{};
    results.tiles.for_each([&](const Tile<A>& of) {
        args = results.args(of, true);
        ++calls;
    });
    const auto whole_packs = [](std::int64_t elements) { return elements % pack_of_kernels == 0; };
    if (calls != 1 || !whole_packs(args.n) || !whole_packs(args.grad_input_row) || !whole_packs(args.grad_input_block))
        return false;
    if (reinterpret_cast<std::uintptr_t>(args.grad_input) % 64 != 0) return false;
    queue = {args};
    return true;
}

template <class A>
void gradient_rows(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                   const Nest& piece, const kernels::Cell* cells, bool stream, const Sums& sets,
                   const Sums& parameters) noexcept {
    using C = kernels::Compute<A>;
    OperandSet operands = operand_set(op_x, op_grad_output, op_y, op_weight);
    if (call.grad_sum.given()) operands |= operand_set(op_grad_sum);
    const Nest nest = coalesce(piece, operands);
    const Loop& inner = nest.loops[nest.depth - 1];
    kernels::GradientRowsArgs<A> args{};
    args.rows = 1;
    args.n = inner.n;
    args.eps = call.eps;
    args.center = call.center;
    args.frozen = call.frozen;
    args.stream = stream;
    args.cells = cells;
    args.s1 = sets.s1;
    args.s2 = sets.s2;
    args.bias_sums = parameters.s1;
    args.weight_sums = parameters.s2;
    int outside = nest.depth - 1;
    if (outside > 0) {
        const Loop& rows = nest.loops[--outside];
        args.rows = rows.n;
        args.x_row = rows.stride[op_x];
        args.grad_output_row = rows.stride[op_grad_output];
        args.grad_input_row = rows.stride[op_y];
        args.grad_sum_row = rows.stride[op_grad_sum];
        args.weight_row = rows.stride[op_weight];
    }
    const auto kernel =
        kernels.gradient_rows[kernels::gradient_rows_index(inner.stride[op_weight] != 0, parameters.s1 != nullptr)];
    walk(nest, outside, [&](const std::int64_t* offset) {
        args.x = static_cast<const A*>(call.x.data) + offset[op_x];
        args.grad_output = static_cast<const A*>(call.grad_output.data) + offset[op_grad_output];
        if (call.grad_input.given()) args.grad_input = static_cast<A*>(call.grad_input.data) + offset[op_y];
        args.weight = static_cast<const C*>(weight.data) + offset[op_weight];
        if (call.grad_sum.given()) args.grad_sum = static_cast<const A*>(call.grad_sum.data) + offset[op_grad_sum];
        kernel(args);
        args.cells += args.rows;
        if (args.s1 == nullptr) return;
        args.s1 += args.rows;
        args.s2 += args.rows;
    });
}

#define ANYNORM_INSTANTIATE(A)                                                                                        \
    template void add_gradient_sums<A>(const kernels::Kernels<A>&, const GradientCall&, const Elements&, const Nest&, \
                                       Operand, const CoefficientsOf<A>&, const Activated<A>&, const Sums&,           \
                                       kernels::GradientInputQueue<A>*) noexcept;                                     \
    template void write_grad_input<A>(const kernels::Kernels<A>&, const GradientCall&, const Elements&, const Nest&,  \
                                      const SlopesOf<A>&, const Activated<A>&, bool) noexcept;                        \
    template bool queue_grad_input<A>(const GradientCall&, const Elements&, const Nest&, const SlopesOf<A>&,          \
                                      kernels::GradientInputQueue<A>&) noexcept;                                      \
    template void gradient_rows<A>(const kernels::Kernels<A>&, const GradientCall&, const Elements&, const Nest&,     \
                                   const kernels::Cell*, bool, const Sums&, const Sums&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
