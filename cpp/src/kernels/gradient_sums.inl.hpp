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

/// x - mean. One float64 holds the pair of a float32 mean.
template <class X>
[[gnu::always_inline]] inline D Deviation(D x, D mean, D mean_lo) {
    return sizeof(X) == sizeof(double) ? (x - mean) - mean_lo : x - mean;
}

/// grad_output * weight of one vector of float64.
template <bool weight_varies, class X>
[[gnu::always_inline]] inline D Weighted(const X* grad_output, const Compute<X>* weight) {
    const D g = LoadPromote(grad_output);
    return weight_varies ? g * LoadPromote(weight) : g;
}

// ---- Along rows --------------------------------------------------------------------------------------------------

/// How far a row is read ahead. Rows that lie end to end are one stretch of memory, and after its end comes the
/// beginning of the next, which no hardware prefetcher finds: 0.9 of the time of planes of 56x56.
struct ReadAhead {
    std::int64_t near;            ///< the elements from here on are followed by those of the next stretch
    std::int64_t distance;        ///< in elements
    std::int64_t x, grad_output;  ///< the same, beyond the end of the stretch

    template <class X>
    ReadAhead(const GradientSumsArgs<X>& args, std::int64_t block, std::int64_t row) {
        const std::int64_t n = args.n;
        const bool end_to_end = args.x_row == n && args.grad_output_row == n;
        const std::int64_t stretch = end_to_end ? args.rows * n : n, most = 4096 / static_cast<std::int64_t>(sizeof(X));
        distance = stretch < most ? stretch : most;
        near = (end_to_end ? stretch - row * n : n) - distance;
        const auto beyond = [&](std::int64_t next_row, std::int64_t next_block) {
            if (!end_to_end && row + 1 < args.rows) return next_row - n;
            return block + 1 < args.blocks ? next_block - (args.rows - 1) * next_row - n : 0;
        };
        x = distance + beyond(args.x_row, args.x_block);
        grad_output = distance + beyond(args.grad_output_row, args.grad_output_block);
    }
};

/// 16 elements as float64, or fewer with zeros behind them.
template <bool whole, class X>
[[gnu::always_inline]] inline Pack<double> LoadPromoted(const X* p, std::int64_t count) {
    if constexpr (whole) {
        return PackLoadPromote(p);
    } else {
        return PackLoadPromoteN(p, count, Compute<X>(0));
    }
}

/// Adds 16 elements or fewer, with the deviations of x from `row_mean`. Where statistics vary, xhat is formed of each
/// instead.
template <bool whole, class X, bool stat_varies, bool weight_varies>
[[gnu::always_inline]] inline void AddGradientPack(const X* x, const X* grad_output, const Compute<X>* mean,
                                                   const Compute<X>* mean_lo, const Compute<X>* rstd,
                                                   const Compute<X>* weight, std::int64_t count, D row_mean,
                                                   Pack<double>& s1, Pack<double>& s2) {
    const auto load = [count](const auto* p) __attribute__((always_inline)) { return LoadPromoted<whole>(p, count); };
    Pack<double> d = load(x), g = load(grad_output);
    if constexpr (stat_varies) {
        d = ((d - load(mean)) - load(mean_lo)) * load(rstd);
    } else {
        ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) d.piece[i] = d.piece[i] - row_mean;
    }
    if constexpr (weight_varies) g = g * load(weight);
    s1 = PackAccumulate(s1, g);
    s2 = PackMulAdd(g, d, s2);
}

/// Adds the sums along every row of every block to s1 and s2.
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsRow(const GradientSumsArgs<X>& args) noexcept {
    using C = Compute<X>;
    const std::int64_t whole = args.n / pack_size * pack_size, rest = args.n - whole;
    for (std::int64_t block = 0; block < args.blocks; ++block) {
        for (std::int64_t row = 0; row < args.rows; ++row) {
            const X* const x = args.x + block * args.x_block + row * args.x_row;
            const X* const dy = args.grad_output + block * args.grad_output_block + row * args.grad_output_row;
            const std::int64_t stat = block * args.stat_block + row * args.stat_row;
            const C *const mean = args.mean + stat, *const mean_lo = args.mean_lo + stat,
                           *const rstd = args.rstd + stat,
                           *const weight = args.weight + block * args.weight_block + row * args.weight_row;
            // One float64 holds the pair of a float32 mean; what it cannot hold of float64's is taken off the sum.
            const double row_mean = static_cast<double>(*mean) + static_cast<double>(*mean_lo);
            const double row_lo = (static_cast<double>(*mean) - row_mean) + static_cast<double>(*mean_lo);
            const D about = Set(row_mean);
            const ReadAhead ahead(args, block, row);
            Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);
            std::int64_t i = 0;
            const auto add_until = [&](std::int64_t end, std::int64_t x_ahead,
                                       std::int64_t dy_ahead) __attribute__((always_inline)) {
                for (; i < end; i += pack_size) {
                    __builtin_prefetch(x + i + x_ahead);
                    __builtin_prefetch(dy + i + dy_ahead);
                    const std::int64_t s = stat_varies ? i : 0, w = weight_varies ? i : 0;
                    AddGradientPack<true, X, stat_varies, weight_varies>(x + i, dy + i, mean + s, mean_lo + s, rstd + s,
                                                                         weight + w, pack_size, about, s1, s2);
                }
            };
            add_until(ahead.near < whole ? ahead.near : whole, ahead.distance, ahead.distance);
            add_until(whole, ahead.x, ahead.grad_output);
            if (rest > 0) {
                const std::int64_t s = stat_varies ? whole : 0, w = weight_varies ? whole : 0;
                AddGradientPack<false, X, stat_varies, weight_varies>(x + whole, dy + whole, mean + s, mean_lo + s,
                                                                      rstd + s, weight + w, rest, about, s1, s2);
            }
            double sum1 = PackReduceSum(s1), sum2 = PackReduceSum(s2);
            if constexpr (!stat_varies) sum2 = (sum2 - row_lo * sum1) * static_cast<double>(*rstd);
            const double factor = weight_varies ? 1.0 : static_cast<double>(*weight);
            const std::int64_t to = block * args.sum_block + row * args.sum_row;
            args.s1[to] += factor * sum1;
            args.s2[to] += factor * sum2;
        }
    }
}

// ---- Down columns ------------------------------------------------------------------------------------------------

/// Rows at a time: the sums of 16 columns are in registers while they go by, and memory is walked nearly in its order.
constexpr std::int64_t row_step = 8;

/// How the weight lies: one for all, one for each row, or along the rows. One for all is taken once, at the end of the
/// sums: the multiplication of every element is a tenth of them.
enum class Weights { one, of_rows, varying };

/// What is constant on each of a few rows.
struct RowConstants {
    double mean[row_step], mean_lo[row_step], rstd[row_step], weight[row_step];
};

/// One of x, grad_output and weight in a few rows of 16 columns.
template <class T>
struct ColumnRows {
    const T* at;
    std::int64_t row;
};

/// Adds `rows` rows to the sums of 16 columns, and reads the next rows ahead: 0.6 of the time from memory.
template <class X, bool stat_varies, Weights weights>
[[gnu::always_inline]] inline void AddGradientRows(ColumnRows<X> x, ColumnRows<X> dy, ColumnRows<Compute<X>> weight,
                                                   const Compute<X>* mean_at, const Compute<X>* mean_lo_at,
                                                   const Compute<X>* rstd, const RowConstants& constants,
                                                   std::int64_t rows, double* to1, double* to2) {
    constexpr int lanes = Pack<double>::lanes;
    constexpr bool pair = sizeof(X) == sizeof(double), weight_varies = weights == Weights::varying;
    Pack<double> mean, mean_lo, s1 = PackSet(0.0), s2 = PackSet(0.0);
    if constexpr (stat_varies) {
        ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
            mean.piece[i] = LoadPromote(mean_at + i * lanes);
            mean_lo.piece[i] = LoadPromote(mean_lo_at + i * lanes);
            if constexpr (!pair) mean.piece[i] = mean.piece[i] + mean_lo.piece[i];
        }
    }
    for (std::int64_t row = 0; row < rows; ++row) {
        const X *const x_row = x.at + row * x.row, *const dy_row = dy.at + row * dy.row;
        __builtin_prefetch(x_row + row_step * x.row);
        __builtin_prefetch(dy_row + row_step * dy.row);
        ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
            D d = LoadPromote(x_row + i * lanes);
            if constexpr (stat_varies) {
                d = Deviation<X>(d, mean.piece[i], mean_lo.piece[i]);
            } else {
                d = Deviation<X>(d, Set(constants.mean[row]), Set(constants.mean_lo[row])) * Set(constants.rstd[row]);
            }
            D g = Weighted<weight_varies>(dy_row + i * lanes, weight.at + row * weight.row + i * lanes);
            if constexpr (weights == Weights::of_rows) g = g * Set(constants.weight[row]);
            s1.piece[i] = Accumulate(s1.piece[i], g);
            s2.piece[i] = MulAdd(g, d, s2.piece[i]);
        }
    }
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
        if constexpr (stat_varies) s2.piece[i] = s2.piece[i] * LoadPromote(rstd + i * lanes);
        if constexpr (weights == Weights::one) {
            s1.piece[i] = s1.piece[i] * Set(constants.weight[0]);
            s2.piece[i] = s2.piece[i] * Set(constants.weight[0]);
        }
        StoreU(to1 + i * lanes, LoadU(to1 + i * lanes) + s1.piece[i]);
        StoreU(to2 + i * lanes, LoadU(to2 + i * lanes) + s2.piece[i]);
    }
}

/// The columns that are left over: fewer than 16.
template <class X, bool stat_varies, Weights weights>
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
            if (weights == Weights::varying)
                weight[row * pack_size + i] = args.weight[(first_row + row) * args.weight_row + column + i];
        }
    }
    const std::int64_t stat = stat_varies ? column : 0, stats = stat_varies ? count : 1;
    const Padded<C> mean(args.mean + stat, stats), mean_lo(args.mean_lo + stat, stats), rstd(args.rstd + stat, stats);
    Padded<double> s1(args.s1 + column, count), s2(args.s2 + column, count);
    AddGradientRows<X, stat_varies, weights>({x, pack_size}, {dy, pack_size}, {weight, pack_size}, mean.elements,
                                             mean_lo.elements, rstd.elements, constants, rows, s1.elements,
                                             s2.elements);
    for (std::int64_t i = 0; i < count; ++i) {
        args.s1[column + i] = s1.elements[i];
        args.s2[column + i] = s2.elements[i];
    }
}

template <class X, bool stat_varies, Weights weights>
void GradientSumsOfColumns(const GradientSumsArgs<X>& args) {
    constexpr bool weight_varies = weights == Weights::varying;
    RowConstants constants;
    for (std::int64_t first = 0; first < args.rows; first += row_step) {
        const std::int64_t rows = args.rows - first < row_step ? args.rows - first : row_step;
        for (std::int64_t i = 0; i < rows; ++i) {
            const std::int64_t stat = (first + i) * args.stat_row;
            // One float64 holds the pair of a float32 mean.
            constexpr bool pair = sizeof(X) == sizeof(double);
            const double mean_lo = stat_varies ? 0 : static_cast<double>(args.mean_lo[stat]);
            constants.mean[i] = stat_varies ? 0 : static_cast<double>(args.mean[stat]) + (pair ? 0 : mean_lo);
            constants.mean_lo[i] = mean_lo;
            constants.rstd[i] = stat_varies ? 1 : static_cast<double>(args.rstd[stat]);
            constants.weight[i] = weight_varies ? 1 : static_cast<double>(args.weight[(first + i) * args.weight_row]);
        }
        const X *const x = args.x + first * args.x_row, *const dy = args.grad_output + first * args.grad_output_row;
        const Compute<X>* const weight = args.weight + (weight_varies ? first * args.weight_row : 0);
        std::int64_t column = 0;
        for (; column + pack_size <= args.n; column += pack_size) {
            const std::int64_t stat = stat_varies ? column : 0;
            AddGradientRows<X, stat_varies, weights>({x + column, args.x_row}, {dy + column, args.grad_output_row},
                                                     {weight + (weight_varies ? column : 0), args.weight_row},
                                                     args.mean + stat, args.mean_lo + stat, args.rstd + stat, constants,
                                                     rows, args.s1 + column, args.s2 + column);
        }
        if (column < args.n) AddLastColumns<X, stat_varies, weights>(args, constants, first, rows, column);
    }
}

/// Adds the sums of every column to s1[i] and s2[i].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsColumn(const GradientSumsArgs<X>& args) noexcept {
    if constexpr (weight_varies) {
        GradientSumsOfColumns<X, stat_varies, Weights::varying>(args);
    } else {
        const bool one = args.weight_row == 0;
        (one ? GradientSumsOfColumns<X, stat_varies, Weights::one>
             : GradientSumsOfColumns<X, stat_varies, Weights::of_rows>)(args);
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
