// SPDX-License-Identifier: Apache-2.0
// Sets that are rows: statistics and the affine pass in one walk over memory.
//
// Row r is written in the loop that sums row r + 2, so that reads and writes are under way together: 0.88 of a copy
// from memory on one core, where a pass after the other reaches 0.78. Lines that two rows share are put together: rows
// of 768 that begin 16 bytes into a line, as NumPy's large arrays do, take 0.65 of the time.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "moments.inl.hpp"
#include "row_groups.inl.hpp"
#include "simd.hpp"
#include "staged_rows.inl.hpp"
#include "tiny_rows.inl.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// The moments of one row, merged from its blocks as the scheduler merges them.
template <class X, class Beside = Nothing>
[[gnu::always_inline]] inline Cell SumBlocks(const RowsArgs<X>& args, const X* x, const Beside& beside = {}) {
    Cell row{}, chunk{};
    std::int64_t blocks = 0;
    for (std::int64_t begin = 0; begin < args.n; begin += args.block) {
        const std::int64_t n = args.n - begin < args.block ? args.n - begin : args.block;
        const MomentsArgs<X> block{x, 1, 0, 1, 0, n, 1, args.center, nullptr};
        merge(chunk, SumRow(block, x + begin, beside));
        if (++blocks == args.chunk_blocks) {
            merge(row, chunk);
            chunk = Cell{};
            blocks = 0;
        }
    }
    merge(row, chunk);
    return row;
}

/// Not inlined: for the first two rows in each of the 32 LongRows it was a tenth of the library.
template <class X>
[[gnu::noinline]] Cell SumFirstRow(const RowsArgs<X>& args, const X* x) {
    return SumBlocks(args, x);
}

/// Row r is written while row r + 2 is read, and the 150 cycles from the sums of row r + 1 to its coefficients pass
/// meanwhile.
template <bool stream, class X, bool weight_varies, bool bias_varies>
void LongRows(const RowsArgs<X>& args, AffineArgs<X> affine_args) {
    using C = Compute<X>;
    struct Scalars {
        C mean, mean_lo, rstd;
    };
    const auto finished = [&](std::int64_t row, const Cell& cell) __attribute__((always_inline)) {
        if (args.out != nullptr) args.out[row] = cell;
        Scalars result;
        Coefficients(&cell, 1, args.eps, &result.mean, &result.mean_lo, &result.rstd);
        return result;
    };
    OpenLine open;
    begin_line(open);
    LineWriter<X> lines(open);
    // A pack behind what is read: x and y often lie alike in their pages, and a load whose address ends like that of a
    // store before it waits for that (rows of 4096: 0.65 to 0.9).
    constexpr std::int64_t lag = stream ? pack_size : 0;
    Scalars now = finished(0, SumFirstRow(args, args.x));
    Cell next = args.rows > 1 ? SumFirstRow(args, args.x + args.x_row) : Cell{};
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const Scalars later = row + 1 < args.rows ? finished(row + 1, next) : now;
        affine_args.mean = &now.mean;
        affine_args.mean_lo = &now.mean_lo;
        affine_args.rstd = &now.rstd;
        const auto affine = RowOf<false, weight_varies, bias_varies>(affine_args, args.x + row * args.x_row, row);
        const std::int64_t begin = stream ? lines.Begin(affine, args.n) : 0;
        std::int64_t i = begin;
        if (row + 2 < args.rows) {
            // As many packs as the row has, of which the lag leaves those that are all within it.
            i -= lag;
            next = SumBlocks(args, args.x + (row + 2) * args.x_row, [&] {
                if (lag == 0 || i >= begin) affine.template Store<stream>(i);
                i += pack_size;
            });
        }
        if constexpr (stream) {
            lines.End(affine, i, args.n);
        } else {
            affine.StoreFrom(i, args.n);
        }
        now = later;
    }
    if constexpr (stream) lines.Close();
}

template <bool stream, class X, bool weight_varies, bool bias_varies>
void WholeRows(const RowsArgs<X>& args, const AffineArgs<X>& affine) {
    if constexpr (is_half<X>) {
        if (args.n <= longest_staged && args.n <= args.block) {
            return StagedRows<stream, X, weight_varies, bias_varies>(args, affine);
        }
        LongRows<stream, X, weight_varies, bias_varies>(args, affine);
    } else {
        // To memory, the even pace of the long rows gains more than their ends cost from about here on.
        constexpr std::int64_t long_row = stream ? 384 : short_row;
        if (args.n < long_row) return ShortRows<stream, X, weight_varies, bias_varies>(args, affine);
        LongRows<stream, X, weight_varies, bias_varies>(args, affine);
    }
}

/// Rows of fewer than 16 elements.
template <class X, bool weight_varies, bool bias_varies>
void TinyRowsOf(const RowsArgs<X>& args, AffineArgs<X> affine) {
    using C = Compute<X>;
    Cell own[row_group];
    C mean[row_group] = {}, mean_lo[row_group] = {}, rstd[row_group] = {};
    affine.mean = mean;
    affine.mean_lo = mean_lo;
    affine.rstd = rstd;
    for (std::int64_t first = 0; first < args.rows; first += row_group) {
        affine.rows = args.rows - first < row_group ? args.rows - first : row_group;
        affine.x = args.x + first * args.x_row;
        affine.y = args.y + first * args.y_row;
        affine.weight = args.weight + first * args.weight_row;
        affine.bias = args.bias + first * args.bias_row;
        Cell* const cells = args.out != nullptr ? args.out + first : own;
        const MomentsArgs<X> sets{affine.x, affine.rows, args.x_row, 1, 0, args.n, 1, args.center, cells};
        const TinyRows<X> tiny(affine.x, args.x_row, affine.rows, args.n);
        tiny.Sum(sets, affine.x, cells);
        Coefficients(cells, affine.rows, args.eps, mean, mean_lo, rstd);
        tiny.template WriteTransposed<weight_varies, bias_varies>(affine);
    }
}

template <class X, bool weight_varies, bool bias_varies>
void NormalizeRows(const RowsArgs<X>& args) noexcept {
    const AffineArgs<X> affine{args.rows,  args.n,  args.x,          args.y,        nullptr,
                               nullptr,    nullptr, args.weight,     args.bias,     args.x_row,
                               args.y_row, 0,       args.weight_row, args.bias_row, args.stream};
    if (args.n < pack_size) return TinyRowsOf<X, weight_varies, bias_varies>(args, affine);
    if constexpr (has_streams) {
        if (StreamedRows(args.stream, args.y, args.y_row, args.n)) {
            WholeRows<true, X, weight_varies, bias_varies>(args, affine);
            StreamFence();
            return;
        }
    }
    WholeRows<false, X, weight_varies, bias_varies>(args, affine);
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
