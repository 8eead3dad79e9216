// SPDX-License-Identifier: Apache-2.0
// Gradients where sets are rows: the sums of a row and its share of the parameters' gradients, then grad_input while
// the row is in cache. Every element is promoted once for all sums. Memory is read a group of rows ahead, x beside the
// sums and grad_output beside the results: the sums alone would read it in bursts.
#pragma once

#include "gradient_input.inl.hpp"
#include "gradient_sums.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Rows whose sums are finished together: the 150 cycles from the sums of a row to its coefficients are those of all.
constexpr std::int64_t gradient_group = 16;

/// What the sums of a group need, and what comes of them.
template <class C>
struct GradientGroup {
    double rstd[gradient_group], s1[gradient_group], s2[gradient_group];
    C mean[gradient_group], mean_lo[gradient_group];
    C slope[gradient_group], offset[gradient_group], scale[gradient_group];
};

/// The sums of a row, and each element's share of those of its parameter.
template <class X, bool weight_varies, bool parameters>
[[gnu::noinline]] void SumGradientRow(const X* x, const X* dy, const Compute<X>* weight, double* bias_sums,
                                      double* weight_sums, std::int64_t n, std::int64_t ahead, double row_mean,
                                      double row_mean_lo, double row_rstd, double* to1, double* to2) {
    constexpr int lanes = Pack<double>::lanes;
    const D mean = Set(row_mean), mean_lo = Set(row_mean_lo), rstd = Set(row_rstd);
    Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) {
        __builtin_prefetch(x + i + ahead);
        ANYNORM_UNROLL for (int piece = 0; piece < Pack<double>::pieces; ++piece) {
            const std::int64_t k = i + piece * lanes;
            const D d = Deviation<X>(LoadPromote(x + k), mean, mean_lo), g = LoadPromote(dy + k);
            if constexpr (parameters) {
                StoreU(bias_sums + k, LoadU(bias_sums + k) + g);
                StoreU(weight_sums + k, MulAdd(g, d * rstd, LoadU(weight_sums + k)));
            }
            const D weighted = weight_varies ? g * LoadPromote(weight + k) : g;
            s1.piece[piece] = Accumulate(s1.piece[piece], weighted);
            s2.piece[piece] = MulAdd(weighted, d, s2.piece[piece]);
        }
    }
    if (i < n) {
        const std::int64_t count = n - i;
        const Pack<double> last_x = PackLoadPromoteN(x + i, count, Compute<X>(0));
        Pack<double> g = PackLoadPromoteN(dy + i, count, Compute<X>(0)), d, xhat;
        ANYNORM_UNROLL for (int piece = 0; piece < Pack<double>::pieces; ++piece) {
            d.piece[piece] = Deviation<X>(last_x.piece[piece], mean, mean_lo);
            xhat.piece[piece] = d.piece[piece] * rstd;
        }
        if constexpr (parameters) {
            PackStoreN(bias_sums + i, count, PackLoadN(bias_sums + i, count) + g);
            PackStoreN(weight_sums + i, count, PackMulAdd(g, xhat, PackLoadN(weight_sums + i, count)));
        }
        if constexpr (weight_varies) g = g * PackLoadPromoteN(weight + i, count, Compute<X>(0));
        s1 = PackAccumulate(s1, g);
        s2 = PackMulAdd(g, d, s2);
    }
    *to1 = PackReduceSum(s1);
    *to2 = PackReduceSum(s2) * row_rstd;
}

/// Mean and rstd of the rows of a group. The mean is the forward pass's, a pair in the compute type.
template <class C>
void BeginGroup(const Cell* cells, std::int64_t rows, double eps, GradientGroup<C>& group) {
    for (std::int64_t r = 0; r < rows; ++r) {
        group.rstd[r] = 1 / __builtin_sqrt(cells[r].m2 / cells[r].count + eps);
        group.mean[r] = static_cast<C>(cells[r].mean);
        group.mean_lo[r] = static_cast<C>((cells[r].mean - static_cast<double>(group.mean[r])) + cells[r].mean_lo);
    }
}

/// Slope, offset and scale of the rows of a group, whose sums are those of `n` elements each.
template <class X, bool weight_varies>
void EndGroup(const GradientRowsArgs<X>& args, std::int64_t first, std::int64_t rows,
              GradientGroup<Compute<X>>& group) {
    using C = Compute<X>;
    const double share = 1 / static_cast<double>(args.n);
    for (std::int64_t r = 0; r < rows; ++r) {
        const double weight = weight_varies ? 1.0 : static_cast<double>(args.weight[(first + r) * args.weight_row]);
        const double rstd = group.rstd[r], scale = rstd * weight;
        const double slope = args.frozen ? 0 : -rstd * scale * group.s2[r] * share;
        const double shift = args.frozen || !args.center ? 0 : -scale * group.s1[r] * share;
        group.slope[r] = static_cast<C>(slope);
        group.offset[r] = static_cast<C>(shift - slope * static_cast<double>(group.mean_lo[r]));
        group.scale[r] = static_cast<C>(scale);
    }
}

template <bool stream, class X, bool weight_varies, bool parameters>
void GradientOfRows(const GradientRowsArgs<X>& args) {
    using C = Compute<X>;
    // Half of L1: x and grad_output of a group are read once more for its results.
    const std::int64_t fitting = 8192 / static_cast<std::int64_t>(sizeof(X)) / args.n;
    const std::int64_t most = fitting < 1 ? 1 : fitting > gradient_group ? gradient_group : fitting;
    GradientGroup<C> group;
    LineBuffer<X> buffer;
    LineWriter<X> lines(buffer, args.grad_input_row == args.n);
    const C one = 1;
    for (std::int64_t first = 0; first < args.rows; first += most) {
        const std::int64_t rows = args.rows - first < most ? args.rows - first : most;
        const X* const x = args.x + first * args.x_row;
        const X* const dy = args.grad_output + first * args.grad_output_row;
        const C* const weight = args.weight + first * args.weight_row;
        BeginGroup(args.cells + first, rows, args.eps, group);
        for (std::int64_t r = 0; r < rows; ++r) {
            const double mean = static_cast<double>(group.mean[r]), mean_lo = static_cast<double>(group.mean_lo[r]);
            SumGradientRow<X, weight_varies, parameters>(
                x + r * args.x_row, dy + r * args.grad_output_row, weight + r * args.weight_row, args.bias_sums,
                args.weight_sums, args.n, most * args.x_row, sizeof(X) == sizeof(double) ? mean : mean + mean_lo,
                mean_lo, group.rstd[r], group.s1 + r, group.s2 + r);
        }
        EndGroup<X, weight_varies>(args, first, rows, group);
        for (std::int64_t r = 0; args.s1 != nullptr && r < rows; ++r) {
            args.s1[first + r] = group.s1[r];
            args.s2[first + r] = group.s2[r];
        }
        if (args.grad_input == nullptr) continue;
        const GradientInputArgs<X> results{rows,
                                           args.n,
                                           x,
                                           dy,
                                           args.grad_input + first * args.grad_input_row,
                                           group.mean,
                                           group.slope,
                                           group.offset,
                                           group.scale,
                                           weight_varies ? weight : &one,
                                           args.x_row,
                                           args.grad_output_row,
                                           args.grad_input_row,
                                           1,
                                           weight_varies ? args.weight_row : 0,
                                           stream,
                                           args.grad_sum + first * args.grad_sum_row,
                                           args.grad_sum_row};
        const std::int64_t ahead = most * args.grad_output_row;
        if (args.grad_sum == nullptr) {
            GradientInputRows<stream, X, false, weight_varies, false>(results, ahead, lines);
        } else {
            GradientInputRows<stream, X, false, weight_varies, true>(results, ahead, lines);
        }
    }
    if constexpr (stream) {
        lines.Close();
        StreamFence();
    }
}

template <class X, bool weight_varies, bool parameters>
void GradientRows(const GradientRowsArgs<X>& args) noexcept {
    if constexpr (has_streams) {
        if (StreamedRows(args.stream, args.grad_input, args.grad_input_row, args.n)) {
            GradientOfRows<true, X, weight_varies, parameters>(args);
            return;
        }
    }
    GradientOfRows<false, X, weight_varies, parameters>(args);
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
