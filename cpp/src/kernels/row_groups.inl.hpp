// SPDX-License-Identifier: Apache-2.0
// Statistics and results of short rows, a group of them at a time.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "moments.inl.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

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
    // To memory at most 8 KB at a time, so that reads and writes alternate often: 257 elements in 0.8 of the time.
    const std::int64_t fitting = 8192 / static_cast<std::int64_t>(sizeof(X)) / args.n / 4 * 4;
    const std::int64_t group = !stream || fitting > row_group ? row_group : fitting < 4 ? 4 : fitting;
    GroupCoefficients<Compute<X>> coefficients[2];
    OpenLine open;
    begin_line(open);
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
        AffineRows<stream, false, weight_varies, bias_varies>(affine, args.x + first * args.x_row, args.x_row, open);
        first = next;
        affine.rows = rows;
    }
    if constexpr (stream) LineWriter<X>(open).Close();
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
