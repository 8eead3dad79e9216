// SPDX-License-Identifier: Apache-2.0
// Gradients, for xhat = (x - mean) * rstd and y = xhat * weight + bias:
//
//     s1 = sum(g)    s2 = sum(g * xhat)    g = grad_output * weight
//     grad_input = rstd * weight * grad_output + slope * (x - mean) + offset
//
// s1 and s2 over a set give slope = -rstd^2 * s2 / n and offset = -rstd * s1 / n; over the elements that share a
// parameter, with a weight of 1, they are the gradients of bias and weight themselves. Deviations, products and sums
// are of float64: s2 is a difference of large numbers where x and grad_output are alike.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Fewer than 16 elements with zeros behind them, for kernels that know whole packs only. Two loops of 16 are a tenth
/// of the time of a row of 49.
template <class T>
struct Padded {
    T elements[pack_size] = {};

    Padded(const T* from, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) elements[i] = from[i];
    }
};

/// grad_output * weight of one vector of float64.
template <bool weight_varies, class X>
[[gnu::always_inline]] inline D Weighted(const X* grad_output, const Compute<X>* weight) {
    const D g = LoadPromote(grad_output);
    return weight_varies ? g * LoadPromote(weight) : g;
}

// ---- Along rows --------------------------------------------------------------------------------------------------

/// Adds 16 elements, with the deviations of x from `mean`. Where statistics vary, xhat is formed of each instead.
template <class X, bool stat_varies, bool weight_varies>
[[gnu::always_inline]] inline void AddGradientPack(const X* x, const X* grad_output, const Compute<X>* mean,
                                                   const Compute<X>* mean_lo, const Compute<X>* rstd,
                                                   const Compute<X>* weight, D row_mean, Pack<double>& s1,
                                                   Pack<double>& s2) {
    ANYNORM_UNROLL for (int piece = 0; piece < Pack<double>::pieces; ++piece) {
        const int i = piece * Pack<double>::lanes;
        D d = LoadPromote(x + i);
        if constexpr (stat_varies) {
            d = ((d - LoadPromote(mean + i)) - LoadPromote(mean_lo + i)) * LoadPromote(rstd + i);
        } else {
            d = d - row_mean;
        }
        const D g = Weighted<weight_varies>(grad_output + i, weight + i);
        s1.piece[piece] = Accumulate(s1.piece[piece], g);
        s2.piece[piece] = MulAdd(g, d, s2.piece[piece]);
    }
}

/// Adds the sums along every row to s1[row * sum_row] and s2[row * sum_row].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsRow(const GradientSumsArgs<X>& args) noexcept {
    using C = Compute<X>;
    constexpr std::int64_t ahead = 4096 / static_cast<std::int64_t>(sizeof(X));
    const std::int64_t whole = args.n / pack_size * pack_size, rest = args.n - whole;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const X *const x = args.x + row * args.x_row, *const dy = args.grad_output + row * args.grad_output_row;
        const std::int64_t stat = row * args.stat_row;
        const C *const mean = args.mean + stat, *const mean_lo = args.mean_lo + stat, *const rstd = args.rstd + stat,
                       *const weight = args.weight + row * args.weight_row;
        // One float64 holds the pair of a float32 mean; what it cannot hold of float64's is taken off the sum.
        const double row_mean = static_cast<double>(*mean) + static_cast<double>(*mean_lo);
        const double row_lo = (static_cast<double>(*mean) - row_mean) + static_cast<double>(*mean_lo);
        const D about = Set(row_mean);
        Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);
        for (std::int64_t i = 0; i < whole; i += pack_size) {
            __builtin_prefetch(x + i + ahead);
            __builtin_prefetch(dy + i + ahead);
            const std::int64_t s = stat_varies ? i : 0;
            AddGradientPack<X, stat_varies, weight_varies>(x + i, dy + i, mean + s, mean_lo + s, rstd + s,
                                                           weight + (weight_varies ? i : 0), about, s1, s2);
        }
        if (rest > 0) {
            const std::int64_t s = stat_varies ? whole : 0, stats = stat_varies ? rest : 1;
            const Padded<X> last_x(x + whole, rest), last_dy(dy + whole, rest);
            const Padded<C> last_mean(mean + s, stats), last_lo(mean_lo + s, stats), last_rstd(rstd + s, stats),
                last_weight(weight + (weight_varies ? whole : 0), weight_varies ? rest : 1);
            AddGradientPack<X, stat_varies, weight_varies>(last_x.elements, last_dy.elements, last_mean.elements,
                                                           last_lo.elements, last_rstd.elements, last_weight.elements,
                                                           about, s1, s2);
        }
        double sum1 = PackReduceSum(s1), sum2 = PackReduceSum(s2);
        if constexpr (!stat_varies) sum2 = (sum2 - row_lo * sum1) * static_cast<double>(*rstd);
        const double factor = weight_varies ? 1.0 : static_cast<double>(*weight);
        args.s1[row * args.sum_row] += factor * sum1;
        args.s2[row * args.sum_row] += factor * sum2;
    }
}

// ---- Down columns ------------------------------------------------------------------------------------------------

/// The columns of one step: two vectors, whose sums of both kinds are in registers while rows go by.
constexpr int column_step = 2 * Pack<double>::lanes;
/// Rows at a time: the sums are loaded and stored once for them, and memory is walked nearly in its order.
constexpr std::int64_t row_step = 8;

/// What is constant on each of a few rows.
struct RowConstants {
    double mean[row_step], mean_lo[row_step], rstd[row_step], weight[row_step];
};

/// Adds `rows` rows to the sums of column_step columns.
template <class X, bool stat_varies, bool weight_varies>
[[gnu::always_inline]] inline void AddGradientRows(const GradientSumsArgs<X>& args, const RowConstants& constants,
                                                   std::int64_t rows, const X* x, std::int64_t x_row, const X* dy,
                                                   std::int64_t dy_row, std::int64_t column, const Compute<X>* weight,
                                                   std::int64_t weight_row, double* to1, double* to2) {
    constexpr int lanes = Pack<double>::lanes;
    D mean[2], mean_lo[2], s1[2], s2[2];
    ANYNORM_UNROLL for (int i = 0; i < 2; ++i) {
        s1[i] = s2[i] = Set(0.0);
        if constexpr (!stat_varies) continue;
        mean[i] = LoadPromote(args.mean + column + i * lanes);
        mean_lo[i] = LoadPromote(args.mean_lo + column + i * lanes);
    }
    for (std::int64_t row = 0; row < rows; ++row) {
        ANYNORM_UNROLL for (int i = 0; i < 2; ++i) {
            D d = LoadPromote(x + row * x_row + i * lanes);
            if constexpr (stat_varies) {
                d = (d - mean[i]) - mean_lo[i];
            } else {
                d = ((d - Set(constants.mean[row])) - Set(constants.mean_lo[row])) * Set(constants.rstd[row]);
            }
            D g = Weighted<weight_varies>(dy + row * dy_row + i * lanes, weight + row * weight_row + i * lanes);
            if constexpr (!weight_varies) g = g * Set(constants.weight[row]);
            s1[i] = Accumulate(s1[i], g);
            s2[i] = MulAdd(g, d, s2[i]);
        }
    }
    ANYNORM_UNROLL for (int i = 0; i < 2; ++i) {
        if constexpr (stat_varies) s2[i] = s2[i] * LoadPromote(args.rstd + column + i * lanes);
        StoreU(to1 + i * lanes, LoadU(to1 + i * lanes) + s1[i]);
        StoreU(to2 + i * lanes, LoadU(to2 + i * lanes) + s2[i]);
    }
}

/// The columns that are left over: fewer than column_step.
template <class X, bool stat_varies, bool weight_varies>
[[gnu::noinline]] void AddLastColumns(const GradientSumsArgs<X>& args, const RowConstants& constants,
                                      std::int64_t first_row, std::int64_t rows, std::int64_t column) {
    using C = Compute<X>;
    const std::int64_t count = args.n - column;
    X x[row_step * pack_size] = {}, dy[row_step * pack_size] = {};
    C weight[row_step * pack_size] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = 0; i < count; ++i) {
            x[row * pack_size + i] = args.x[(first_row + row) * args.x_row + column + i];
            dy[row * pack_size + i] = args.grad_output[(first_row + row) * args.grad_output_row + column + i];
            if (weight_varies)
                weight[row * pack_size + i] = args.weight[(first_row + row) * args.weight_row + column + i];
        }
    }
    const std::int64_t stat = stat_varies ? column : 0, stats = stat_varies ? count : 1;
    const Padded<C> mean(args.mean + stat, stats), mean_lo(args.mean_lo + stat, stats), rstd(args.rstd + stat, stats);
    Padded<double> s1(args.s1 + column, count), s2(args.s2 + column, count);
    GradientSumsArgs<X> last = args;
    last.mean = mean.elements;
    last.mean_lo = mean_lo.elements;
    last.rstd = rstd.elements;
    AddGradientRows<X, stat_varies, weight_varies>(last, constants, rows, x, pack_size, dy, pack_size, 0, weight,
                                                   pack_size, s1.elements, s2.elements);
    for (std::int64_t i = 0; i < count; ++i) {
        args.s1[column + i] = s1.elements[i];
        args.s2[column + i] = s2.elements[i];
    }
}

/// Adds the sums of every column to s1[i] and s2[i].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsColumn(const GradientSumsArgs<X>& args) noexcept {
    RowConstants constants;
    for (std::int64_t first = 0; first < args.rows; first += row_step) {
        const std::int64_t rows = args.rows - first < row_step ? args.rows - first : row_step;
        for (std::int64_t i = 0; i < rows; ++i) {
            const std::int64_t stat = (first + i) * args.stat_row;
            constants.mean[i] = stat_varies ? 0 : static_cast<double>(args.mean[stat]);
            constants.mean_lo[i] = stat_varies ? 0 : static_cast<double>(args.mean_lo[stat]);
            constants.rstd[i] = stat_varies ? 1 : static_cast<double>(args.rstd[stat]);
            constants.weight[i] = weight_varies ? 1 : static_cast<double>(args.weight[(first + i) * args.weight_row]);
        }
        const X *const x = args.x + first * args.x_row, *const dy = args.grad_output + first * args.grad_output_row;
        const Compute<X>* const weight = args.weight + (weight_varies ? first * args.weight_row : 0);
        std::int64_t column = 0;
        for (; column + column_step <= args.n; column += column_step) {
            AddGradientRows<X, stat_varies, weight_varies>(
                args, constants, rows, x + column, args.x_row, dy + column, args.grad_output_row, column,
                weight + (weight_varies ? column : 0), args.weight_row, args.s1 + column, args.s2 + column);
        }
        if (column < args.n) AddLastColumns<X, stat_varies, weight_varies>(args, constants, first, rows, column);
    }
}

// ---- grad_input --------------------------------------------------------------------------------------------------

template <class X, bool stat_varies, bool weight_varies>
struct GradientInputRow {
    using C = Compute<X>;
    const X *x, *dy;
    const C *mean, *slope, *offset, *rstd, *weight;
    Pack<C> row_mean, row_slope, row_offset, row_rstd, row_weight, row_scale;

    [[gnu::always_inline]] GradientInputRow(const X* x_at, const X* dy_at, const C* mean_at, const C* slope_at,
                                            const C* offset_at, const C* rstd_at, const C* weight_at)
        : x(x_at),
          dy(dy_at),
          mean(mean_at),
          slope(slope_at),
          offset(offset_at),
          rstd(rstd_at),
          weight(weight_at),
          row_mean(PackSet(stat_varies ? C(0) : *mean_at)),
          row_slope(PackSet(stat_varies ? C(0) : *slope_at)),
          row_offset(PackSet(stat_varies ? C(0) : *offset_at)),
          row_rstd(PackSet(stat_varies ? C(0) : *rstd_at)),
          row_weight(PackSet(weight_varies ? C(0) : *weight_at)),
          row_scale(row_rstd * row_weight) {}

    [[gnu::always_inline]] Pack<C> Results(std::int64_t i) const {
        const Pack<C> d = PackLoad(x + i) - (stat_varies ? PackLoad(mean + i) : row_mean);
        const Pack<C> along = PackMulAdd(stat_varies ? PackLoad(slope + i) : row_slope, d,
                                         stat_varies ? PackLoad(offset + i) : row_offset);
        const Pack<C> scale = !stat_varies && !weight_varies ? row_scale
                                                             : (stat_varies ? PackLoad(rstd + i) : row_rstd) *
                                                                   (weight_varies ? PackLoad(weight + i) : row_weight);
        return PackMulAdd(scale, PackLoad(dy + i), along);
    }
};

/// Fewer than 16 elements.
template <class X, bool stat_varies, bool weight_varies>
[[gnu::noinline]] void GradientInputTail(const X* x, const X* dy, X* dx, const Compute<X>* mean,
                                         const Compute<X>* slope, const Compute<X>* offset, const Compute<X>* rstd,
                                         const Compute<X>* weight, std::int64_t count) {
    const std::int64_t stats = stat_varies ? count : 1, weights = weight_varies ? count : 1;
    const Padded<X> x_end(x, count), dy_end(dy, count);
    const Padded<Compute<X>> mean_end(mean, stats), slope_end(slope, stats), offset_end(offset, stats),
        rstd_end(rstd, stats), weight_end(weight, weights);
    const GradientInputRow<X, stat_varies, weight_varies> row(x_end.elements, dy_end.elements, mean_end.elements,
                                                              slope_end.elements, offset_end.elements,
                                                              rstd_end.elements, weight_end.elements);
    PackStoreN(dx, count, row.Results(0));
}

/// grad_input of every row.
template <class X, bool stat_varies, bool weight_varies>
void GradientInput(const GradientInputArgs<X>& args) noexcept {
    for (std::int64_t r = 0; r < args.rows; ++r) {
        const X *const x = args.x + r * args.x_row, *const dy = args.grad_output + r * args.grad_output_row;
        X* const dx = args.grad_input + r * args.grad_input_row;
        const std::int64_t stat = r * args.stat_row;
        const Compute<X>* const weight = args.weight + r * args.weight_row;
        const GradientInputRow<X, stat_varies, weight_varies> row(x, dy, args.mean + stat, args.slope + stat,
                                                                  args.offset + stat, args.rstd + stat, weight);
        std::int64_t i = 0;
        for (; i + pack_size <= args.n; i += pack_size) PackStore(dx + i, row.Results(i));
        if (i == args.n) continue;
        const std::int64_t s = stat + (stat_varies ? i : 0);
        GradientInputTail<X, stat_varies, weight_varies>(x + i, dy + i, dx + i, args.mean + s, args.slope + s,
                                                         args.offset + s, args.rstd + s,
                                                         weight + (weight_varies ? i : 0), args.n - i);
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
