// SPDX-License-Identifier: Apache-2.0
// Gradients, for xhat = (x - mean) * rstd and y = xhat * weight + bias:
//
//     s1 = sum(g)    s2 = sum(g * xhat)    g = grad_output * weight
//     grad_input = rstd * weight * grad_output + slope * (x - mean) + offset
//
// s1 and s2 over a set give slope = -rstd^2 * s2 / n and offset = -rstd * s1 / n; over the elements that share a
// parameter, with a weight of 1, they are the gradients of bias and weight themselves. xhat and g are of the compute
// type, their products and sums of float64: one float32 product more would cost half of the digits where they cancel.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// How PackLoad is to read: all 16 lanes, or the first `count` and zeros.
struct AllLanes {
    template <class X>
    [[gnu::always_inline]] Pack<Compute<X>> Read(const X* p) const {
        return PackLoad(p);
    }
};
struct FirstLanes {
    std::int64_t count;
    template <class X>
    [[gnu::always_inline]] Pack<Compute<X>> Read(const X* p) const {
        return PackLoadN(p, count, Compute<X>(0));
    }
};

/// Statistics and weight of a row, each constant on it or varying along it.
template <class C, bool stat_varies, bool weight_varies>
struct GradientRow {
    const C *mean, *mean_lo, *rstd, *weight;
    Pack<C> row_mean, row_mean_lo, row_rstd, row_weight;

    [[gnu::always_inline]] GradientRow(const C* mean_at, const C* mean_lo_at, const C* rstd_at, const C* weight_at)
        : mean(mean_at),
          mean_lo(mean_lo_at),
          rstd(rstd_at),
          weight(weight_at),
          row_mean(PackSet(stat_varies ? C(0) : *mean_at)),
          row_mean_lo(PackSet(stat_varies ? C(0) : *mean_lo_at)),
          row_rstd(PackSet(stat_varies ? C(0) : *rstd_at)),
          row_weight(PackSet(weight_varies ? C(0) : *weight_at)) {}

    template <class Lanes, class X>
    [[gnu::always_inline]] Pack<C> Normalized(const Lanes& lanes, const X* x, std::int64_t i) const {
        const Pack<C> d = (lanes.Read(x + i) - (stat_varies ? lanes.Read(mean + i) : row_mean)) -
                          (stat_varies ? lanes.Read(mean_lo + i) : row_mean_lo);
        return d * (stat_varies ? lanes.Read(rstd + i) : row_rstd);
    }
    template <class Lanes, class X>
    [[gnu::always_inline]] Pack<C> Weighted(const Lanes& lanes, const X* dy, std::int64_t i) const {
        return lanes.Read(dy + i) * (weight_varies ? lanes.Read(weight + i) : row_weight);
    }
};

template <class X, bool stat_varies, bool weight_varies>
[[gnu::always_inline]] inline GradientRow<Compute<X>, stat_varies, weight_varies> RowOf(const GradientSumsArgs<X>& args,
                                                                                        std::int64_t row) {
    const std::int64_t stat = row * args.stat_row;
    return {args.mean + stat, args.mean_lo + stat, args.rstd + stat, args.weight + row * args.weight_row};
}

/// Adds the sums along every row to s1[row * sum_row] and s2[row * sum_row].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsRow(const GradientSumsArgs<X>& args) noexcept {
    constexpr std::int64_t prefetch = 2048 / static_cast<std::int64_t>(sizeof(X));
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const auto of_row = RowOf<X, stat_varies, weight_varies>(args, row);
        const X *x = args.x + row * args.x_row, *dy = args.grad_output + row * args.grad_output_row;
        Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);
        const auto add = [&](const auto& lanes, std::int64_t i) __attribute__((always_inline)) {
            const Pack<double> g = PackPromote(of_row.Weighted(lanes, dy, i));
            s1 = PackAccumulate(s1, g);
            s2 = PackMulAdd(g, PackPromote(of_row.Normalized(lanes, x, i)), s2);
        };
        std::int64_t i = 0;
        for (; i + pack_size <= args.n; i += pack_size) {
            __builtin_prefetch(x + i + prefetch);
            __builtin_prefetch(dy + i + prefetch);
            add(AllLanes{}, i);
        }
        if (i < args.n) add(FirstLanes{args.n - i}, i);
        args.s1[row * args.sum_row] += PackReduceSum(s1);
        args.s2[row * args.sum_row] += PackReduceSum(s2);
    }
}

/// Adds `rows` rows, from `first` on, to 16 columns.
template <class X, bool stat_varies, bool weight_varies, class Lanes>
[[gnu::always_inline]] inline void AddGradientRows(const GradientSumsArgs<X>& args, std::int64_t first,
                                                   std::int64_t rows, std::int64_t i, const Lanes& lanes,
                                                   Pack<double>& s1, Pack<double>& s2) {
    for (std::int64_t row = first; row < first + rows; ++row) {
        const auto of_row = RowOf<X, stat_varies, weight_varies>(args, row);
        const Pack<double> g = PackPromote(of_row.Weighted(lanes, args.grad_output + row * args.grad_output_row, i));
        s1 = PackAccumulate(s1, g);
        s2 = PackMulAdd(g, PackPromote(of_row.Normalized(lanes, args.x + row * args.x_row, i)), s2);
    }
}

/// Adds the sums of every column to s1[i] and s2[i].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsColumn(const GradientSumsArgs<X>& args) noexcept {
    // Eight rows at a time: the sums are loaded and stored once for them, and memory is walked nearly in order.
    constexpr std::int64_t step = 8;
    for (std::int64_t row = 0; row < args.rows; row += step) {
        const std::int64_t rows = args.rows - row < step ? args.rows - row : step;
        std::int64_t i = 0;
        for (; i + pack_size <= args.n; i += pack_size) {
            Pack<double> s1 = PackLoad(args.s1 + i), s2 = PackLoad(args.s2 + i);
            AddGradientRows<X, stat_varies, weight_varies>(args, row, rows, i, AllLanes{}, s1, s2);
            PackStore(args.s1 + i, s1);
            PackStore(args.s2 + i, s2);
        }
        if (i == args.n) continue;
        const std::int64_t count = args.n - i;
        Pack<double> s1 = PackLoadN(args.s1 + i, count, 0.0), s2 = PackLoadN(args.s2 + i, count, 0.0);
        AddGradientRows<X, stat_varies, weight_varies>(args, row, rows, i, FirstLanes{count}, s1, s2);
        PackStoreN(args.s1 + i, count, s1);
        PackStoreN(args.s2 + i, count, s2);
    }
}

/// grad_input of every row.
template <class X, bool stat_varies, bool weight_varies>
void GradientInput(const GradientInputArgs<X>& args) noexcept {
    using C = Compute<X>;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const X *x = args.x + row * args.x_row, *dy = args.grad_output + row * args.grad_output_row;
        X* const dx = args.grad_input + row * args.grad_input_row;
        const std::int64_t stat = row * args.stat_row;
        const C *mean = args.mean + stat, *slope = args.slope + stat, *offset = args.offset + stat,
                *rstd = args.rstd + stat, *weight = args.weight + row * args.weight_row;
        const Pack<C> row_mean = PackSet(stat_varies ? C(0) : *mean), row_slope = PackSet(stat_varies ? C(0) : *slope),
                      row_offset = PackSet(stat_varies ? C(0) : *offset),
                      row_rstd = PackSet(stat_varies ? C(0) : *rstd),
                      row_scale = row_rstd * PackSet(weight_varies ? C(0) : *weight);
        const auto result = [&](const auto& lanes, std::int64_t i) __attribute__((always_inline)) {
            const Pack<C> d = lanes.Read(x + i) - (stat_varies ? lanes.Read(mean + i) : row_mean);
            const Pack<C> along = PackMulAdd(stat_varies ? lanes.Read(slope + i) : row_slope, d,
                                             stat_varies ? lanes.Read(offset + i) : row_offset);
            const Pack<C> scale = weight_varies
                                      ? (stat_varies ? lanes.Read(rstd + i) : row_rstd) * lanes.Read(weight + i)
                                  : stat_varies ? lanes.Read(rstd + i) * PackSet(*weight)
                                                : row_scale;
            return PackMulAdd(scale, lanes.Read(dy + i), along);
        };
        std::int64_t i = 0;
        for (; i + pack_size <= args.n; i += pack_size) PackStore(dx + i, result(AllLanes{}, i));
        if (i < args.n) PackStoreN(dx + i, args.n - i, result(FirstLanes{args.n - i}, i));
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
