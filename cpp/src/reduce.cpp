// SPDX-License-Identifier: Apache-2.0
#include "reduce.hpp"

#include <algorithm>

#include "elements.hpp"

namespace anynorm::detail {
namespace {

using kernels::Kernels;
using kernels::MomentsArgs;

/// Copies one block of one set to `pack` so that its elements are contiguous, and points args at the copy.
template <class T>
void pack_block(MomentsArgs<T>& args, T* pack) {
    T* out = pack;
    for (std::int64_t run = 0; run < args.runs; ++run) {
        copy_strided(out, 1, args.x + run * args.run_stride, args.stride, args.n);
        out += args.n;
    }
    args.x = pack;
    args.stride = 1;
    args.run_stride = args.n;
}

/// One block of each of `args.cells` sets.
template <class T>
void reduce_block(const Kernels<T>& kernels, const Reduction& reduction, MomentsArgs<T> args, T* pack, const T* x,
                  const Beside<T>& beside) {
    const bool row = reduction.kernel == Reduction::Kernel::row;
    if (beside.rows != nullptr) return kernels.moments_row_beside(args, *beside.rows);
    if (beside.columns.y != nullptr) {
        kernels::AffineColumns<T> columns = beside.columns;
        columns.x += args.x - x;
        columns.y += args.x - x;
        return kernels.moments_column_beside(args, columns);
    }
    if (!row) return kernels.moments_column(args);
    if (!reduction.packed) return kernels.moments_row(args);
    for (std::int64_t cell = 0; cell < args.cells; ++cell) {
        MomentsArgs<T> one = args;
        one.x += cell * args.cell_stride;
        one.out += cell;
        one.cells = 1;
        pack_block(one, pack);
        kernels.moments_row(one);
    }
}

}  // namespace

template <class T>
void reduce_chunk(const Kernels<T>& kernels, const T* x, const Plan& plan, const Nest& piece, bool center,
                  std::int64_t chunk, Cell* cells, const ReduceScratch& scratch, const Beside<T>& beside) noexcept {
    const Reduction& reduction = plan.reduction;
    const std::int64_t first_block = chunk * reduction.chunk_blocks;
    const std::int64_t last_block = std::min(reduction.blocks, first_block + reduction.chunk_blocks);

    Nest outside;  // the kept loops that the kernel does not run over
    outside.offset[op_x] = piece.offset[op_x];
    for (int i = 0; i < reduction.kept; ++i) outside.loops[outside.depth++] = piece.loops[reduction.kept_loop[i]];
    std::int64_t width = 1, cell_stride = 1;
    if (reduction.cells_loop >= 0) {
        const Loop& loop = piece.loops[reduction.cells_loop];
        width = loop.n * reduction.columns_per_set();
        if (reduction.fold == 1) cell_stride = loop.stride[op_x];
    }

    const auto block_args = [&](const T* first, std::int64_t count, const Block& block, Cell* out) {
        return MomentsArgs<T>{first + block.offset, count,  cell_stride, block.runs, reduction.run_stride, block.n,
                              reduction.stride,     center, out};
    };
    // Rows joined into one are one kernel call where x runs on through them. Where other operands keep its columns in
    // several loops, each row is a call of its own; the sums are the same.
    const std::int64_t lanes = reduction.row_stride == width / reduction.interleave ? 1 : reduction.interleave;
    Beside<T> now = beside;
    const auto reduce_cells = [&](const T* first, std::int64_t count, Cell* out) {
        for (std::int64_t index = first_block; index < last_block; ++index) {
            const Block block = block_of(reduction, index);
            Cell* into = index == first_block ? out : scratch.block;
            for (std::int64_t lane = 0; lane < lanes; ++lane) {
                reduce_block(kernels, reduction,
                             block_args(first + lane * reduction.row_stride, count / lanes, block,
                                        into + lane * (count / lanes)),
                             static_cast<T*>(scratch.pack), x, now);
            }
            if (into != out) kernels.merge_cells(out, into, count);
        }
    };
    Cell* out = cells;
    walk(outside, outside.depth, [&](const std::int64_t* offset) {
        const T* first = x + offset[op_x];
        if (reduction.cells_inside) {
            reduce_cells(first, width, out);
        } else {
            for (std::int64_t cell = 0; cell < width; ++cell) reduce_cells(first + cell * cell_stride, 1, out + cell);
        }
        const std::int64_t columns = width / reduction.interleave, sets = columns / reduction.fold;
        merge_columns(out, columns, 1, reduction.interleave, columns);
        if (reduction.tail_n > 0 && last_block == reduction.blocks) {
            MomentsArgs<T> tail =
                block_args(first, columns, {reduction.tail_offset, 1, reduction.tail_n}, scratch.block);
            tail.stride = reduction.row_stride;
            kernels.moments_column(tail);
            kernels.merge_cells(out, scratch.block, columns);
        }
        merge_columns(out, sets, reduction.fold, reduction.fold, 1);
        out += sets;
        if (now.columns.y == nullptr) return;
        for (auto* coefficients : {&now.columns.mean, &now.columns.mean_lo, &now.columns.scale, &now.columns.bias})
            *coefficients += width;
    });
}

template <class T>
void reduce_sets(const Kernels<T>& kernels, const T* x, const Plan& plan, const Nest& piece, bool center, Cell* cells,
                 const ReduceScratch& scratch, const Beside<T>& beside) noexcept {
    reduce_chunk(kernels, x, plan, piece, center, 0, cells, scratch, beside);
    const std::int64_t count = plan.reduction.chunks > 1 ? piece.cells() : 0;
    for (std::int64_t chunk = 1; chunk < plan.reduction.chunks; ++chunk) {
        reduce_chunk(kernels, x, plan, piece, center, chunk, scratch.chunk, scratch, beside);
        kernels.merge_cells(cells, scratch.chunk, count);
    }
}

#define ANYNORM_INSTANTIATE(T)                                                                                      \
    template void reduce_chunk<T>(const Kernels<T>&, const T*, const Plan&, const Nest&, bool, std::int64_t, Cell*, \
                                  const ReduceScratch&, const Beside<T>&) noexcept;                                 \
    template void reduce_sets<T>(const Kernels<T>&, const T*, const Plan&, const Nest&, bool, Cell*,                \
                                 const ReduceScratch&, const Beside<T>&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
