// SPDX-License-Identifier: Apache-2.0
// Statistics and results of rows of halves, which are promoted to a buffer in L1 first.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "moments.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

constexpr std::int64_t longest_staged = 4096;

/// A row of any length, and what is missing in its last pack of 16.
template <class X>
[[gnu::noinline]] void PromoteRow(float* to, const X* x, std::int64_t n) {
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) {
        Fetch(x + i + read_ahead<X>);
        FetchPackNear(x + i + read_near<X>);
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
    OpenLine open;
    begin_line(open);
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
                                                              open);
    }
    if constexpr (stream) LineWriter<X>(open).Close();
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
