// SPDX-License-Identifier: Apache-2.0
// Sets that are rows: statistics and the affine pass in one walk over memory.
//
// Row r is written in the loop that sums row r + 2, so that reads and writes are under way together: 0.88 of a copy
// from memory on one core, where a pass after the other reaches 0.78.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "simd.hpp"
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
    LineBuffer<X> buffer;
    LineWriter<X> lines(buffer, args.y_row == args.n);
    Scalars now = finished(0, SumBlocks(args, args.x));
    Cell next = args.rows > 1 ? SumBlocks(args, args.x + args.x_row) : Cell{};
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const Scalars later = row + 1 < args.rows ? finished(row + 1, next) : now;
        affine_args.mean = &now.mean;
        affine_args.mean_lo = &now.mean_lo;
        affine_args.rstd = &now.rstd;
        const auto affine = RowOf<false, weight_varies, bias_varies>(affine_args, args.x + row * args.x_row, row);
        std::int64_t i = 0;
        if constexpr (stream) i = lines.Begin(affine, args.n);
        if (row + 2 < args.rows) {
            const X* const x = args.x + (row + 2) * args.x_row;
            next = SumBlocks(args, x, [&, n = args.n] {
                if (i + pack_size > n) return;
                affine.template Store<stream>(i);
                i += pack_size;
            });
        }
        if constexpr (stream) {
            lines.End(affine, i, args.n);
        } else {
            for (; i + pack_size <= args.n; i += pack_size) affine.template Store<false>(i);
            if (i < args.n) affine.StoreN(i, args.n - i);
        }
        now = later;
    }
    if constexpr (stream) lines.Finish();
}

/// Means as pairs and rstds of a group of rows.
template <class C>
struct GroupCoefficients {
    C mean[row_group], mean_lo[row_group], rstd[row_group];
};

/// Finish and Coefficients of a group without cells in between: four divisions and roots in the time of one. False
/// where a sum is not finite; the coefficients are worth nothing then.
template <class X>
bool FinishGroup(const RowsArgs<X>& args, std::int64_t rows, const GroupSums<X>& sums,
                 GroupCoefficients<Compute<X>>& out) {
    constexpr int lanes = Pack<double>::lanes;
    const D count = Set(static_cast<double>(args.n)), eps = Set(args.eps);
    D not_finite = Set(0.0);
    for (std::int64_t row = 0; row < rows; row += lanes) {
        const D s1 = LoadU(sums.s1 + row), s2 = LoadU(sums.s2 + row);
        auto moments = Centered(count, LoadPromote(sums.shift + row), s1, s2);
        if (!args.center) moments = {Set(0.0), Set(0.0), s2};
        StoreDemoted(out.mean + row, moments.mean);
        StoreDemoted(out.mean_lo + row, (moments.mean - LoadPromote(out.mean + row)) + moments.mean_lo);
        StoreDemoted(out.rstd + row, Set(1.0) / Sqrt(moments.m2 / count + eps));
        not_finite = not_finite + ((s1 - s1) + (s2 - s2));
    }
    return ReduceSum(not_finite) == 0;
}

template <class X>
[[gnu::noinline]] void SumGroup(const RowsArgs<X>& args, std::int64_t first, std::int64_t rows,
                                GroupCoefficients<Compute<X>>& out) {
    const MomentsArgs<X> sets{args.x, rows, args.x_row, 1, 0, args.n, 1, args.center, nullptr};
    const X* const x = args.x + first * args.x_row;
    GroupSums<X> sums;
    SumRows(sets, x, rows, sums);
    if (args.out == nullptr && FinishGroup(args, rows, sums, out)) return;
    Cell own[row_group];
    Cell* const cells = args.out != nullptr ? args.out + first : own;
    FinishRows(sets, x, rows, sums, cells);
    Coefficients(cells, rows, args.eps, out.mean, out.mean_lo, out.rstd);
}

/// In a short row the ends take as long as the middle: the sums of a group of rows are finished together. A group is
/// written after the next is summed, and the 100 cycles from its sums to its coefficients pass meanwhile.
template <bool stream, class X, bool weight_varies, bool bias_varies>
void ShortRows(const RowsArgs<X>& args, AffineArgs<X> affine) {
    // Two groups fit half of L1.
    const std::int64_t fitting = 8192 / static_cast<std::int64_t>(sizeof(Compute<X>)) / args.n / 4 * 4;
    const std::int64_t group = fitting < 4 ? 4 : fitting < row_group ? fitting : row_group;
    GroupCoefficients<Compute<X>> coefficients[2];
    LineBuffer<X> buffer;
    LineWriter<X> lines(buffer, args.y_row == args.n);
    affine.stat_row = 1;
    affine.rows = group < args.rows ? group : args.rows;
    SumGroup(args, 0, affine.rows, coefficients[0]);
    int now = 0;
    for (std::int64_t first = 0; first < args.rows; now = 1 - now) {
        const std::int64_t next = first + affine.rows, left = args.rows - next, rows = left < group ? left : group;
        if (rows > 0) SumGroup(args, next, rows, coefficients[1 - now]);
        affine.y = args.y + first * args.y_row;
        affine.weight = args.weight + first * args.weight_row;
        affine.bias = args.bias + first * args.bias_row;
        affine.mean = coefficients[now].mean;
        affine.mean_lo = coefficients[now].mean_lo;
        affine.rstd = coefficients[now].rstd;
        AffineRows<stream, false, weight_varies, bias_varies>(affine, args.x + first * args.x_row, args.x_row, lines);
        first = next;
        affine.rows = rows;
    }
    if constexpr (stream) lines.Finish();
}

constexpr std::int64_t longest_staged = 4096;

/// A row of any length, and what is missing in its last pack of 16.
template <class X>
[[gnu::noinline]] void PromoteRow(float* to, const X* x, std::int64_t n) {
    constexpr std::int64_t prefetch = 4096;
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) {
        __builtin_prefetch(x + i + prefetch);
        PackStore(to + i, PackLoad(x + i));
    }
    if (i < n) PackStore(to + i, PackLoadN(x + i, n - i));
}

/// Rows of halves, some at a time: promoted once, summed and normalized from float32 in L1, which takes 15 cycles for
/// 16 elements instead of 18.
template <bool stream, class X, bool weight_varies, bool bias_varies>
void StagedRows(const RowsArgs<X>& args, AffineArgs<X> affine) {
    // Few at a time, so that reading from memory and writing to it alternate often.
    constexpr std::int64_t at_a_time = 2048;
    alignas(64) float staged[longest_staged];
    Cell own[row_group];
    float mean[row_group], mean_lo[row_group], rstd[row_group];
    LineBuffer<X> buffer;
    LineWriter<X> lines(buffer, args.y_row == args.n);
    const std::int64_t row_size = (args.n + pack_size - 1) / pack_size * pack_size;
    const std::int64_t fitting = row_size < at_a_time ? at_a_time / row_size : 1;
    const std::int64_t group = fitting < row_group ? fitting : row_group;
    affine.stat_row = 1;
    affine.mean = mean;
    affine.mean_lo = mean_lo;
    affine.rstd = rstd;
    for (std::int64_t first = 0; first < args.rows; first += group) {
        affine.rows = args.rows - first < group ? args.rows - first : group;
        for (std::int64_t row = 0; row < affine.rows; ++row) {
            PromoteRow(staged + row * row_size, args.x + (first + row) * args.x_row, args.n);
        }
        Cell* const cells = args.out != nullptr ? args.out + first : own;
        MomentsRow<float>({staged, affine.rows, row_size, 1, 0, args.n, 1, args.center, cells});
        Coefficients(cells, affine.rows, args.eps, mean, mean_lo, rstd);
        affine.y = args.y + first * args.y_row;
        affine.weight = args.weight + first * args.weight_row;
        affine.bias = args.bias + first * args.bias_row;
        AffineRows<stream, false, weight_varies, bias_varies>(affine, static_cast<const float*>(staged), row_size,
                                                              lines);
    }
    if constexpr (stream) lines.Finish();
}

template <bool stream, class X, bool weight_varies, bool bias_varies>
void WholeRows(const RowsArgs<X>& args, const AffineArgs<X>& affine) {
    if constexpr (is_half<X>) {
        if (args.n <= longest_staged && args.n <= args.block) {
            return StagedRows<stream, X, weight_varies, bias_varies>(args, affine);
        }
        LongRows<stream, X, weight_varies, bias_varies>(args, affine);
    } else {
        if (args.n < short_row) return ShortRows<stream, X, weight_varies, bias_varies>(args, affine);
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
        tiny.template Write<weight_varies, bias_varies>(affine);
    }
}

template <class X, bool weight_varies, bool bias_varies>
void NormalizeRows(const RowsArgs<X>& args) noexcept {
    const AffineArgs<X> affine{args.rows,  args.n,  args.x,          args.y,        nullptr,
                               nullptr,    nullptr, args.weight,     args.bias,     args.x_row,
                               args.y_row, 0,       args.weight_row, args.bias_row, args.stream};
    if (args.n < pack_size) {
        TinyRowsOf<X, weight_varies, bias_varies>(args, affine);
    } else if (StreamedRows(args.stream, args.y, args.y_row, args.n)) {
        WholeRows<true, X, weight_varies, bias_varies>(args, affine);
        StreamFence();
    } else {
        WholeRows<false, X, weight_varies, bias_varies>(args, affine);
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
