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
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

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
    ReadAhead(const GradientSumsArgs<X>& args, std::int64_t block, std::int64_t row, std::int64_t most) {
        const std::int64_t n = args.n;
        const bool end_to_end = args.x_row == n && args.grad_output_row == n;
        const std::int64_t stretch = end_to_end ? args.rows * n : n;
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
struct PromotedPack {
    const X* from;
    Pack<double> few;  ///< only where they are fewer

    [[gnu::always_inline]] PromotedPack(const X* p, std::int64_t count) : from(p) {
        if constexpr (!whole) few = PackLoadPromoteN(p, count, Compute<X>(0));
    }

    /// `count` vectors from number `first` on.
    template <int count>
    [[gnu::always_inline]] void Get(int first, D* to) const {
        if constexpr (!whole) {
            ANYNORM_UNROLL for (int i = 0; i < count; ++i) to[i] = few.piece[first + i];
        } else {
            ANYNORM_UNROLL for (int i = 0; i < count; i += together<X>) {
                PromoteTogether(from + (first + i) * Pack<double>::lanes, to + i);
            }
        }
    }
};

/// Adds 16 elements or fewer, with the deviations of x from `row_mean`. Where statistics vary, xhat is formed of each
/// instead. A vector or two at a time: 16 elements with their eight sums are more than AVX2 has registers for, and sums
/// that wait in memory for the next 16 take 4.9 ns for these, not 2.3.
template <bool whole, class X, bool stat_varies, bool weight_varies>
[[gnu::always_inline]] inline void AddGradientPack(const X* x, const X* grad_output, const Compute<X>* mean,
                                                   const Compute<X>* mean_lo, const Compute<X>* rstd,
                                                   const Compute<X>* weight, std::int64_t count, D row_mean,
                                                   Pack<double>& s1, Pack<double>& s2) {
    using C = Compute<X>;
    constexpr int step = together<X>;
    const std::int64_t stats = stat_varies ? count : 0, weights = weight_varies ? count : 0;
    const PromotedPack<whole, X> of_x(x, count), of_grad(grad_output, count);
    const PromotedPack<whole, C> of_mean(mean, stats), of_mean_lo(mean_lo, stats), of_rstd(rstd, stats),
        of_weight(weight, weights);
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; i += step) {
        D d[step], g[step], hi[step], lo[step], scale[step], by[step];
        of_x.template Get<step>(i, d);
        of_grad.template Get<step>(i, g);
        if constexpr (stat_varies) {
            of_mean.template Get<step>(i, hi);
            of_mean_lo.template Get<step>(i, lo);
            of_rstd.template Get<step>(i, scale);
        }
        if constexpr (weight_varies) of_weight.template Get<step>(i, by);
        ANYNORM_UNROLL for (int k = 0; k < step; ++k) {
            if constexpr (stat_varies) {
                d[k] = ((d[k] - hi[k]) - lo[k]) * scale[k];
            } else {
                d[k] = d[k] - row_mean;
            }
            if constexpr (weight_varies) g[k] = g[k] * by[k];
            s1.piece[i + k] = Accumulate(s1.piece[i + k], g[k]);
            s2.piece[i + k] = MulAdd(g[k], d[k], s2.piece[i + k]);
        }
    }
}

/// Sums without anything beside them.
struct SumsAlone {
    template <class Add>
    [[gnu::always_inline]] void operator()(std::int64_t packs, const Add& add) const {
        for (; packs > 0; --packs) add();
    }
};

/// Adds the sums along every row of every block to s1 and s2. `run(packs, add)` calls add() for so many packs.
template <bool through_l2, class X, bool stat_varies, bool weight_varies, class Run>
[[gnu::always_inline]] inline void AddGradientRuns(const GradientSumsArgs<X>& args, const Run& run) {
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
            const ReadAhead ahead(args, block, row, through_l2 ? read_ahead<X> : read_ahead_short<X>);
            Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);
            std::int64_t i = 0;
            const auto add_until = [&](std::int64_t end, std::int64_t x_ahead,
                                       std::int64_t dy_ahead) __attribute__((always_inline)) {
                run((end - i + pack_size - 1) / pack_size, [&]() __attribute__((always_inline)) {
                    if constexpr (through_l2) {
                        FetchPack(x + i + x_ahead);
                        FetchPack(dy + i + dy_ahead);
                    }
                    FetchPackNear(x + i + (through_l2 ? read_near<X> : x_ahead));
                    FetchPackNear(dy + i + (through_l2 ? read_near<X> : dy_ahead));
                    const std::int64_t s = stat_varies ? i : 0, w = weight_varies ? i : 0;
                    AddGradientPack<true, X, stat_varies, weight_varies>(x + i, dy + i, mean + s, mean_lo + s, rstd + s,
                                                                         weight + w, pack_size, about, s1, s2);
                    i += pack_size;
                });
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

template <class X, bool stat_varies, bool weight_varies>
void GradientSumsRow(const GradientSumsArgs<X>& args) noexcept {
    if (args.n < least_through_l2) return AddGradientRuns<false, X, stat_varies, weight_varies>(args, SumsAlone{});
    AddGradientRuns<true, X, stat_varies, weight_varies>(args, SumsAlone{});
}

// ---- Down columns ------------------------------------------------------------------------------------------------

/// Rows at a time: the sums of 16 columns are in registers while they go by, and memory is walked nearly in its order.
constexpr std::int64_t row_step = 8;

/// How the weight lies: one for all, one for each row, or along the rows. One for all is taken once, at the end of the
/// sums: the multiplication of every element is a tenth of them.
enum class Weights { one, of_rows, varying };

/// What is constant on each of a few rows.
template <class X, bool stat_varies, Weights weights>
struct RowConstants {
    double mean[row_step], mean_lo[row_step], rstd[row_step], weight[row_step];

    void Load(const GradientSumsArgs<X>& args, std::int64_t first, std::int64_t rows) {
        constexpr bool pair = sizeof(X) == sizeof(double);
        for (std::int64_t i = 0; !stat_varies && i < rows; ++i) {
            const std::int64_t stat = (first + i) * args.stat_row;
            // One float64 holds the pair of a float32 mean.
            mean_lo[i] = static_cast<double>(args.mean_lo[stat]);
            mean[i] = static_cast<double>(args.mean[stat]) + (pair ? 0 : mean_lo[i]);
            rstd[i] = static_cast<double>(args.rstd[stat]);
        }
        for (std::int64_t i = 0; weights == Weights::of_rows && i < rows; ++i)
            weight[i] = static_cast<double>(args.weight[(first + i) * args.weight_row]);
        if (weights == Weights::one) weight[0] = static_cast<double>(*args.weight);
    }
};

/// Statistics of 16 columns. One float64 holds the pair of a float32 mean.
template <class X>
struct ColumnStatistics {
    static constexpr bool pair = sizeof(X) == sizeof(double);
    alignas(64) double mean[pack_size];
    double rstd[pack_size], mean_lo[pair ? pack_size : 1];

    /// Those of column `first` and the next, fewer than 16 at the end.
    [[gnu::always_inline]] void Load(const GradientSumsArgs<X>& args, std::int64_t first) {
        using C = Compute<X>;
        const std::int64_t count = args.n - first;
        const auto load = [&](const C* from) __attribute__((always_inline)) {
            return count < pack_size ? PackLoadPromoteN(from + first, count, C(0)) : PackLoadPromote(from + first);
        };
        const Pack<double> hi = load(args.mean), lo = load(args.mean_lo);
        PackStore(static_cast<double*>(mean), pair ? hi : hi + lo);
        if constexpr (pair) PackStore(static_cast<double*>(mean_lo), lo);
        PackStore(static_cast<double*>(rstd), load(args.rstd));
    }
};

/// One of x, grad_output and weight in a few rows of 16 columns.
template <class T>
struct ColumnRows {
    const T* at;
    std::int64_t row;

    void Advance() { at += row; }
};

/// Where to read ahead while a few rows of 16 columns are summed: in the order of memory where rows follow each other
/// and a tile is all of them, for prefetchers follow one ascending stream within a page, and no less than what every
/// loop reads ahead (64 columns take 0.9 of the time of the next step alone); otherwise what is summed so many packs
/// later.
template <class X>
ColumnRows<X> NextRows(const X* rows, std::int64_t row, std::int64_t column, std::int64_t columns) {
    constexpr std::int64_t ahead = 8 * pack_size;
    if (row == columns) {
        const std::int64_t next_step = row_step * row;
        const std::int64_t distance = next_step < read_ahead<X> ? read_ahead<X> : next_step;
        return {rows + row_step * column + distance, pack_size};
    }
    const std::int64_t later = column + ahead;
    if (later < columns) return {rows + later, row};
    return {rows + row_step * row + (columns < ahead ? column : later - columns), row};
}

/// What the sums of a few rows of 16 columns read.
template <class X>
struct GradientRowsOfColumns {
    ColumnRows<X> x, dy, x_next, dy_next;
    ColumnRows<Compute<X>> weight;
};

/// Adds `rows` rows to the sums of 16 columns, and reads other rows ahead: 0.6 of the time from memory.
template <class X, bool stat_varies, Weights weights>
[[gnu::always_inline]] inline void AddGradientRows(GradientRowsOfColumns<X> from, std::int64_t rows,
                                                   const ColumnStatistics<X>& statistics,
                                                   const RowConstants<X, stat_varies, weights>& constants, double* to1,
                                                   double* to2) {
    constexpr int lanes = Pack<double>::lanes;
    constexpr bool pair = sizeof(X) == sizeof(double), weight_varies = weights == Weights::varying;
    Pack<double> mean, mean_lo, s1 = PackSet(0.0), s2 = PackSet(0.0);
    if constexpr (stat_varies) {
        mean = PackLoad(static_cast<const double*>(statistics.mean));
        if constexpr (pair) mean_lo = PackLoad(static_cast<const double*>(statistics.mean_lo));
    }
    // GCC 12 would unroll this and keep the addresses of eight rows in vector registers: 14.7 cycles for 16 pairs of
    // bfloat16, not 12.9.
    _Pragma("GCC unroll 1") for (std::int64_t row = 0; row < rows; ++row) {
        Fetch(from.x_next.at);
        Fetch(from.dy_next.at);
        ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
            D d = LoadPromote(from.x.at + i * lanes);
            if constexpr (stat_varies) {
                d = Deviation<X>(d, mean.piece[i], mean_lo.piece[i]);
            } else {
                d = Deviation<X>(d, Set(constants.mean[row]), Set(constants.mean_lo[row])) * Set(constants.rstd[row]);
            }
            D g = Weighted<weight_varies>(from.dy.at + i * lanes, from.weight.at + i * lanes);
            if constexpr (weights == Weights::of_rows) g = g * Set(constants.weight[row]);
            s1.piece[i] = Accumulate(s1.piece[i], g);
            s2.piece[i] = MulAdd(g, d, s2.piece[i]);
        }
        from.x.Advance();
        from.dy.Advance();
        from.x_next.Advance();
        from.dy_next.Advance();
        if constexpr (weight_varies) from.weight.Advance();
    }
    if constexpr (stat_varies) s2 = s2 * PackLoad(static_cast<const double*>(statistics.rstd));
    if constexpr (weights == Weights::one) {
        if (constants.weight[0] != 1) {
            s1 = s1 * PackSet(constants.weight[0]);
            s2 = s2 * PackSet(constants.weight[0]);
        }
    }
    PackStore(to1, PackLoad(static_cast<const double*>(to1)) + s1);
    PackStore(to2, PackLoad(static_cast<const double*>(to2)) + s2);
}

/// The columns that are left over, fewer than 16: from `column` on.
template <class X, bool stat_varies, Weights weights>
[[gnu::noinline]] void AddLastColumns(const GradientSumsArgs<X>& args, const ColumnStatistics<X>& statistics,
                                      const RowConstants<X, stat_varies, weights>& constants, std::int64_t first_row,
                                      std::int64_t rows, std::int64_t column) {
    const std::int64_t count = args.n - column;
    X x[row_step * pack_size] = {}, dy[row_step * pack_size] = {};
    Compute<X> weight[row_step * pack_size] = {};
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = 0; i < count; ++i) {
            x[row * pack_size + i] = args.x[(first_row + row) * args.x_row + column + i];
            dy[row * pack_size + i] = args.grad_output[(first_row + row) * args.grad_output_row + column + i];
            if (weights == Weights::varying)
                weight[row * pack_size + i] = args.weight[(first_row + row) * args.weight_row + column + i];
        }
    }
    double s1[pack_size] = {}, s2[pack_size] = {};
    for (std::int64_t i = 0; i < count; ++i) {
        s1[i] = args.s1[column + i];
        s2[i] = args.s2[column + i];
    }
    const GradientRowsOfColumns<X> from{{x, pack_size}, {dy, pack_size}, {x, 0}, {dy, 0}, {weight, pack_size}};
    AddGradientRows(from, rows, statistics, constants, s1, s2);
    for (std::int64_t i = 0; i < count; ++i) {
        args.s1[column + i] = s1[i];
        args.s2[column + i] = s2[i];
    }
}

template <class X, bool stat_varies, Weights weights>
void GradientSumsOfColumns(const GradientSumsArgs<X>& args) {
    constexpr bool weight_varies = weights == Weights::varying;
    // Statistics are promoted once where L1 holds them with the sums: anew for every eight rows they are a seventh of
    // the time of bfloat16 from L2. More columns are walked in whole rows all the same, which are read ahead in the
    // order of memory: 2048 columns from there take 0.65 of the time that they take in tiles of 512.
    constexpr std::int64_t most_kept = 512;
    ColumnStatistics<X> kept[most_kept / pack_size], anew;
    const bool keeps = args.n <= most_kept;
    for (std::int64_t i = 0; stat_varies && keeps && i < args.n; i += pack_size) kept[i / pack_size].Load(args, i);
    const auto statistics_of = [&](std::int64_t column) __attribute__((always_inline)) -> const ColumnStatistics<X>& {
        if (keeps && stat_varies) return kept[column / pack_size];
        if constexpr (stat_varies) anew.Load(args, column);
        return anew;
    };
    RowConstants<X, stat_varies, weights> constants;
    for (std::int64_t first = 0; first < args.rows; first += row_step) {
        const std::int64_t rows = args.rows - first < row_step ? args.rows - first : row_step;
        constants.Load(args, first, rows);
        const X* const x = args.x + first * args.x_row;
        const X* const dy = args.grad_output + first * args.grad_output_row;
        const Compute<X>* const weight = args.weight + (weight_varies ? first * args.weight_row : 0);
        std::int64_t column = 0;
        for (; column + pack_size <= args.n; column += pack_size) {
            AddGradientRows<X, stat_varies, weights>({{x + column, args.x_row},
                                                      {dy + column, args.grad_output_row},
                                                      NextRows(x, args.x_row, column, args.n),
                                                      NextRows(dy, args.grad_output_row, column, args.n),
                                                      {weight + (weight_varies ? column : 0), args.weight_row}},
                                                     rows, statistics_of(column), constants, args.s1 + column,
                                                     args.s2 + column);
        }
        if (column < args.n) AddLastColumns(args, statistics_of(column), constants, first, rows, column);
    }
}

/// Adds the sums of every column to s1[i] and s2[i].
template <class X, bool stat_varies, bool weight_varies>
void GradientSumsColumn(const GradientSumsArgs<X>& args) noexcept {
    // In strips whose sums, 64 KB, are a part of L2: 8192 columns at once take 1.2 of the time.
    constexpr std::int64_t widest = 4096;
    GradientSumsArgs<X> strip = args;
    for (std::int64_t first = 0; first < args.n; first += widest) {
        const std::int64_t stat = stat_varies ? first : 0;
        strip.n = args.n - first < widest ? args.n - first : widest;
        strip.x = args.x + first;
        strip.grad_output = args.grad_output + first;
        strip.mean = args.mean + stat;
        strip.mean_lo = args.mean_lo + stat;
        strip.rstd = args.rstd + stat;
        strip.weight = args.weight + (weight_varies ? first : 0);
        strip.s1 = args.s1 + first;
        strip.s2 = args.s2 + first;
        if constexpr (weight_varies) {
            GradientSumsOfColumns<X, stat_varies, Weights::varying>(strip);
        } else {
            const bool one = args.weight_row == 0;
            (one ? GradientSumsOfColumns<X, stat_varies, Weights::one>
                 : GradientSumsOfColumns<X, stat_varies, Weights::of_rows>)(strip);
        }
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
