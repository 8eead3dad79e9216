// SPDX-License-Identifier: Apache-2.0
// Statistics of one piece while the results of another are written. A core that reads, then writes past the caches,
// takes the time of both; together they take that of a copy, two thirds of it.
#pragma once

#include "affine.inl.hpp"
#include "columns.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "moments.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// The row that a queue is at.
template <class X>
[[gnu::always_inline]] inline auto RowAt(const AffineQueue<X>& queue) {
    const AffineArgs<X>& args = queue.args;
    return RowOf<false, false, false>(args, args.x + queue.row * args.x_row, queue.row);
}

/// How many whole packs the row has left, after going on to the next where there are none; 0 at the end of all.
template <class X>
[[gnu::noinline]] std::int64_t Room(AffineQueue<X>& queue) {
    const AffineArgs<X>& args = queue.args;
    for (;;) {
        if (queue.row == args.rows) {
            if (!queue.refill(queue.from, queue.args)) return 0;
            queue.row = queue.i = 0;
        }
        const auto affine = RowAt(queue);
        LineWriter<X> lines(*args.open);
        if (queue.i == 0) queue.i = lines.Begin(affine, args.n);
        const std::int64_t packs = (args.n - queue.i) / pack_size;
        if (packs == 0) lines.End(affine, queue.i, args.n);
        lines.Leave(*args.open);
        if (packs > 0) return packs;
        ++queue.row;
        queue.i = 0;
    }
}

template <class X>
[[gnu::always_inline]] inline void AddRunBeside(RowSums& sums, const X* x, std::int64_t n, Compute<X> c,
                                                AffineQueue<X>& queue) {
    while (n >= pack_size) {
        const std::int64_t room = Room(queue);
        if (room == 0) break;
        // Results are a pack behind, as in LongRows.
        const std::int64_t alone = queue.row == 0 && queue.i < pack_size ? pack_size : 0;
        sums.AddRun(x, alone, c);
        x += alone;
        n -= alone;
        const std::int64_t part = (n / pack_size < room ? n / pack_size : room) * pack_size;
        const auto affine = RowAt(queue);
        std::int64_t i = queue.i;
        sums.AddRun(x, part, c, [&] {
            affine.template Store<true>(i);
            i += pack_size;
        });
        queue.i = i;
        x += part;
        n -= part;
    }
    sums.AddRun(x, n, c);
}

/// At most `most` sets, side by side.
template <int most, class X>
void SumRowsBeside(const MomentsArgs<X>& args, const X* x, std::int64_t cells, Cell* out, AffineQueue<X>& queue) {
    Compute<X> shift[most] = {};
    RowSums sums[most];
    for (std::int64_t cell = 0; cell < cells; ++cell) shift[cell] = ShiftOfRow(args, x + cell * args.cell_stride);
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t cell = 0; cell < cells; ++cell) {
            const X* const p = x + cell * args.cell_stride + run * args.run_stride;
            AddRunBeside(sums[cell], p, args.n, shift[cell], queue);
        }
    }
    for (std::int64_t cell = 0; cell < cells; ++cell) {
        out[cell] = Finish(args, x + cell * args.cell_stride, static_cast<double>(shift[cell]),
                           PackReduceSum(sums[cell].Sum()), PackReduceSum(sums[cell].SumOfSquares()));
    }
}

/// MomentsRow with a queue.
template <class X>
void MomentsRowBeside(const MomentsArgs<X>& args, AffineQueue<X>& queue) noexcept {
    // Sums of one row stay in registers; clearing those of 16 for each would take a tenth of the time.
    const std::int64_t group = args.runs > 1 && args.cells > 1 ? row_group : 1;
    for (std::int64_t cell = 0; cell < args.cells; cell += group) {
        const std::int64_t cells = args.cells - cell < group ? args.cells - cell : group;
        const X* const x = args.x + cell * args.cell_stride;
        (group > 1 ? SumRowsBeside<row_group, X> : SumRowsBeside<1, X>)(args, x, cells, args.out + cell, queue);
    }
}

template <class X>
struct ColumnWriter {
    const AffineColumns<X>& to;

    /// `rows` rows of 16 columns, whose coefficients are loaded once.
    template <int rows>
    [[gnu::always_inline]] void WriteRows(std::int64_t at, std::int64_t stride, std::int64_t column, std::int64_t next,
                                          std::int64_t next_stride) const {
        using C = Compute<X>;
        const Pack<C> mean = PackLoad(to.mean + column), mean_lo = PackLoad(to.mean_lo + column);
        const Pack<C> scale = PackLoad(to.scale + column), bias = PackLoad(to.bias + column);
        const X* x = to.x + at;
        X* y = to.y + at;
        ANYNORM_UNROLL for (int row = 0; row < rows; ++row) Fetch(to.x + next + row * next_stride);
        ANYNORM_UNROLL for (int row = 0; row < rows; ++row, x += stride, y += stride) {
            PackStream(y, PackMulAdd((PackLoad(x) - mean) - mean_lo, scale, bias));
        }
    }
};

/// MomentsColumn with columns to write.
template <class X>
void MomentsColumnBeside(const MomentsArgs<X>& args, const AffineColumns<X>& to) noexcept {
    SumColumns(args, ColumnWriter<X>{to});
    StreamFence();
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
