// SPDX-License-Identifier: Apache-2.0
// Gradients where sets are rows: the sums of a row and its share of the parameters' gradients, then grad_input while
// the row is in cache.
//
// Rows are summed a few abreast: the sums of the parameters are then loaded and stored once for all of them. The
// results of the group before are written between the steps of the sums. One after the other, the sums would read
// memory in bursts, and the results write it in bursts: 41 cycles for 16 elements from the last cache against 30.
#pragma once

#include "gradient_input.inl.hpp"
#include "gradient_sums.inl.hpp"
#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Rows that are summed abreast where the sums of the parameters do not fit L1: as many as leave their own in the 32
/// registers of AVX-512. Of shorter rows half as many are faster: rows of 4096 take 40 cycles for 16 elements with four
/// and 46 with two, rows of 64 take 37 and 34. With the 16 registers of AVX2 it is two and one, and one without sums of
/// the parameters, whose loads and stores are what rows abreast save: rows of 4096 take 0.94 of the time of two abreast
/// then on one thread, 0.82 on two.
template <bool parameters>
constexpr int gradient_abreast = Pack<double>::pieces == 2 ? 4
                                 : parameters              ? 2
                                                           : 1;
constexpr std::int64_t many_abreast = 2048;

/// Rows whose sums are finished together: the 150 cycles from the sums of a row to its coefficients are those of all.
constexpr std::int64_t gradient_group = 16;

/// What the sums of a group need, and what comes of them. Lanes behind the last row hold numbers that nobody reads.
template <class C>
struct GradientGroup {
    std::int64_t first = 0, rows = 0;
    double rstd[gradient_group] = {}, mean_rest[gradient_group] = {}, s1[gradient_group] = {}, s2[gradient_group] = {},
           weight[gradient_group] = {};
    C mean[gradient_group], mean_lo[gradient_group];
    C slope[gradient_group], offset[gradient_group], scale[gradient_group];
};

/// Mean and rstd of the rows of a group. The mean is the forward pass's, a pair in the compute type. Roots and
/// quotients one by one, with those of EndGroup, were a fifth of the time of rows of 64.
template <class C>
void BeginGroup(const Cell* cells, double eps, GradientGroup<C>& group) {
    constexpr int lanes = Pack<double>::lanes;
    double count[gradient_group], m2[gradient_group], mean[gradient_group];
    for (std::int64_t r = 0; r < (group.rows + lanes - 1) / lanes * lanes; ++r) {
        const Cell& cell = cells[group.first + (r < group.rows ? r : 0)];
        count[r] = cell.count;
        m2[r] = cell.m2;
        mean[r] = cell.mean;
        group.mean_rest[r] = cell.mean_lo;
    }
    for (std::int64_t r = 0; r < group.rows; r += lanes) {
        StoreU(group.rstd + r, Set(1.0) / Sqrt(LoadU(m2 + r) / LoadU(count + r) + Set(eps)));
        const D exact = LoadU(static_cast<const double*>(mean + r));
        StoreDemoted(group.mean + r, exact);
        const D rest = exact - LoadPromote(static_cast<const C*>(group.mean + r));
        StoreDemoted(group.mean_lo + r, rest + LoadU(group.mean_rest + r));
    }
}

/// Slope, offset and scale of the rows of a group, whose sums are those of `n` elements each.
template <class X, bool weight_varies>
void EndGroup(const GradientRowsArgs<X>& args, GradientGroup<Compute<X>>& group) {
    using C = Compute<X>;
    constexpr int lanes = Pack<double>::lanes;
    const D share = Set(-1 / static_cast<double>(args.n)), zero = Set(0.0);
    for (std::int64_t r = 0; r < group.rows; ++r)
        group.weight[r] = weight_varies ? 1.0 : static_cast<double>(args.weight[(group.first + r) * args.weight_row]);
    for (std::int64_t r = 0; r < group.rows; r += lanes) {
        const D rstd = LoadU(group.rstd + r), scale = rstd * LoadU(group.weight + r), part = scale * share;
        const D slope = args.frozen ? zero : part * rstd * LoadU(group.s2 + r);
        const D shift = args.frozen || !args.center ? zero : part * LoadU(group.s1 + r);
        StoreDemoted(group.slope + r, slope);
        StoreDemoted(group.offset + r, shift - slope * LoadPromote(static_cast<const C*>(group.mean_lo + r)));
        StoreDemoted(group.scale + r, scale);
    }
    for (std::int64_t r = 0; args.s1 != nullptr && r < group.rows; ++r) {
        args.s1[group.first + r] = group.s1[r];
        args.s2[group.first + r] = group.s2[r];
    }
}

/// The sums of `abreast` rows, and each element's share of those of its parameter. A row is summed in 8 lanes, the
/// halves of a pack one after the other: with 16, those of two rows took all registers of AVX2 and were kept in memory
/// (rows of 4096 in 0.94 of the time on one thread, shorter ones in 0.95).
template <class X, int abreast, bool weight_varies, bool parameters>
struct GradientRowSums {
    using C = Compute<X>;
    static constexpr int lanes = Pack<double>::lanes, sums = Pack<double>::pieces / 2;

    const X *x, *grad;
    std::int64_t x_row, grad_row;
    const C* weight;
    double *bias_sums, *weight_sums;
    D mean[abreast], mean_lo[abreast], rstd[abreast];
    D s1[abreast][sums], s2[abreast][sums];

    /// The rows from row `r` of a group on.
    [[gnu::always_inline]] GradientRowSums(const GradientRowsArgs<X>& args, const GradientGroup<C>& group,
                                           std::int64_t r) {
        x = args.x + (group.first + r) * args.x_row;
        grad = args.grad_output + (group.first + r) * args.grad_output_row;
        x_row = args.x_row;
        grad_row = args.grad_output_row;
        weight = args.weight + (group.first + r) * args.weight_row;
        bias_sums = args.bias_sums;
        weight_sums = args.weight_sums;
        ANYNORM_UNROLL for (int k = 0; k < abreast; ++k) {
            const double hi = static_cast<double>(group.mean[r + k]), lo = static_cast<double>(group.mean_lo[r + k]);
            mean[k] = Set(sizeof(X) == sizeof(double) ? hi : hi + lo);
            mean_lo[k] = Set(lo);
            rstd[k] = Set(group.rstd[r + k]);
            ANYNORM_UNROLL for (int i = 0; i < sums; ++i) s1[k][i] = s2[k][i] = Set(0.0);
        }
    }

    /// Adds 16 elements of every row, and reads those of other rows ahead.
    [[gnu::always_inline]] void Add(std::int64_t i, std::int64_t x_ahead, std::int64_t grad_ahead) {
        ANYNORM_UNROLL for (int k = 0; k < abreast; ++k) {
            Fetch(x + k * x_row + i + x_ahead);
            Fetch(grad + k * grad_row + i + grad_ahead);
        }
        constexpr int step = together<X>;
        ANYNORM_UNROLL for (int first = 0; first < Pack<double>::pieces; first += step) {
            D d[abreast][step], g[abreast][step];
            ANYNORM_UNROLL for (int part = 0; part < step; ++part) {
                const std::int64_t at = i + (first + part) * lanes;
                D bias_sum{}, weight_sum{}, by{};
                if constexpr (parameters) {
                    bias_sum = LoadU(bias_sums + at);
                    weight_sum = LoadU(weight_sums + at);
                }
                if constexpr (weight_varies) by = LoadPromote(weight + at);
                ANYNORM_UNROLL for (int k = 0; k < abreast; ++k) {
                    if (part == 0) {
                        PromoteTogether(x + k * x_row + at, d[k]);
                        PromoteTogether(grad + k * grad_row + at, g[k]);
                    }
                    AddElements(k, first + part, Deviation<X>(d[k][part], mean[k], mean_lo[k]), g[k][part], by,
                                bias_sum, weight_sum);
                }
                if constexpr (parameters) {
                    StoreU(bias_sums + at, bias_sum);
                    StoreU(weight_sums + at, weight_sum);
                }
            }
        }
    }

    /// Adds the last elements, fewer than 16.
    [[gnu::always_inline]] void AddRest(std::int64_t i, std::int64_t count) {
        Pack<double> bias_sum = PackSet(0.0), weight_sum = bias_sum, by = bias_sum;
        if constexpr (parameters) {
            bias_sum = PackLoadN(bias_sums + i, count);
            weight_sum = PackLoadN(weight_sums + i, count);
        }
        if constexpr (weight_varies) by = PackLoadPromoteN(weight + i, count, C(0));
        ANYNORM_UNROLL for (int k = 0; k < abreast; ++k) {
            const Pack<double> last_x = PackLoadPromoteN(x + k * x_row + i, count, C(0));
            const Pack<double> g = PackLoadPromoteN(grad + k * grad_row + i, count, C(0));
            ANYNORM_UNROLL for (int piece = 0; piece < Pack<double>::pieces; ++piece) {
                if (piece * lanes >= count) break;  // zeros from here on: rows of 100 in 0.8 of the time
                AddElements(k, piece, Deviation<X>(last_x.piece[piece], mean[k], mean_lo[k]), g.piece[piece],
                            by.piece[piece], bias_sum.piece[piece], weight_sum.piece[piece]);
            }
        }
        if constexpr (parameters) {
            PackStoreN(bias_sums + i, count, bias_sum);
            PackStoreN(weight_sums + i, count, weight_sum);
        }
    }

    [[gnu::always_inline]] void AddElements(int k, int piece, D d, D g, D by, D& bias_sum, D& weight_sum) {
        const D product = g * d;
        D &sum1 = s1[k][piece % sums], &sum2 = s2[k][piece % sums];
        if constexpr (parameters) {
            bias_sum = bias_sum + g;
            weight_sum = MulAdd(product, rstd[k], weight_sum);
        }
        if constexpr (weight_varies) {
            sum1 = MulAdd(g, by, sum1);
            sum2 = MulAdd(product, by, sum2);
        } else {
            sum1 = Accumulate(sum1, g);
            sum2 = Accumulate(sum2, product);
        }
    }

    [[gnu::always_inline]] void Finish(GradientGroup<C>& group, std::int64_t r) {
        ANYNORM_UNROLL for (int k = 0; k < abreast; ++k) {
            group.s1[r + k] = ReduceSum(s1[k]);
            group.s2[r + k] = ReduceSum(s2[k]) * group.rstd[r + k];
        }
    }
};

/// grad_input of a row, and what is added to it: a pointer that may be null, since twice as many loops as these would
/// be compiled for a branch that is always foreseen.
template <class X, bool weight_varies>
struct GradientResultsRow : GradientInputRow<X, false, weight_varies, false, true> {
    using C = Compute<X>;
    using Row = GradientInputRow<X, false, weight_varies, false, true>;
    const X* added;

    [[gnu::always_inline]] GradientResultsRow(const Row& row, const X* grad_sum) : Row(row) { added = grad_sum; }

    [[gnu::always_inline]] Pack<C> Results(std::int64_t i) const {
        const Pack<C> result = Row::Results(i);
        return added == nullptr ? result : result + PackLoad(added + i);
    }
    [[gnu::always_inline]] Pack<C> ResultsN(std::int64_t i, std::int64_t count) const {
        const Pack<C> result = Row::ResultsN(i, count);
        return added == nullptr ? result : result + PackLoadN(added + i, count);
    }
    template <bool stream>
    [[gnu::always_inline]] void Store(std::int64_t i) const {
        if constexpr (stream) {
            PackStream(this->y + i, Results(i));
        } else {
            PackStore(this->y + i, Results(i));
        }
    }
};

/// grad_input of rows that have their coefficients, a row at a time.
template <class X, bool stream, bool weight_varies>
class GradientResults {
  public:
    using C = Compute<X>;
    using Row = GradientResultsRow<X, weight_varies>;

    GradientResults(const GradientRowsArgs<X>& args, OpenLine& open) : args_(args), lines_(open) {}

    Row RowOf(const GradientGroup<C>& group, std::int64_t r) const {
        const std::int64_t row = group.first + r;
        return Row({args_.x + row * args_.x_row, args_.grad_output + row * args_.grad_output_row, nullptr,
                    args_.grad_input + row * args_.grad_input_row, group.mean + r, group.slope + r, group.offset + r,
                    group.scale + r, weight_varies ? args_.weight + row * args_.weight_row : &one_, 0},
                   args_.grad_sum == nullptr ? nullptr : args_.grad_sum + row * args_.grad_sum_row);
    }
    /// Returns where whole packs begin.
    [[gnu::always_inline]] std::int64_t BeginRow(const Row& row) {
        if constexpr (stream) {
            return lines_.Begin(row, args_.n);
        } else {
            return 0;
        }
    }
    /// Writes the elements from i on.
    [[gnu::always_inline]] void EndRow(const Row& row, std::int64_t i) {
        if constexpr (stream) {
            lines_.End(row, i, args_.n);
        } else {
            for (; i + pack_size <= args_.n; i += pack_size) row.template Store<false>(i);
            if (i < args_.n) PackStoreN(row.y + i, args_.n - i, row.ResultsN(i, args_.n - i));
        }
    }
    /// Writes the rows of a group from row `r` on.
    void WriteGroup(const GradientGroup<C>& group, std::int64_t r) {
        if (args_.grad_input == nullptr) return;
        for (; r < group.rows; ++r) {
            const Row row = RowOf(group, r);
            EndRow(row, BeginRow(row));
        }
    }
    void CloseRows() {
        if constexpr (stream) {
            lines_.Close();
            StreamFence();
        }
    }

  private:
    const GradientRowsArgs<X>& args_;
    LineWriter<X> lines_;
    C one_ = 1;
};

/// Sums of `abreast` rows from row `r` of a group on, while the rows of these numbers of the group before are written.
template <class X, int abreast, bool stream, bool weight_varies, bool parameters>
[[gnu::always_inline]] inline void SumRowsBesideResults(const GradientRowsArgs<X>& args,
                                                        GradientGroup<Compute<X>>& group, std::int64_t r,
                                                        std::int64_t x_ahead, std::int64_t dy_ahead,
                                                        const GradientGroup<Compute<X>>& before,
                                                        GradientResults<X, stream, weight_varies>& results) {
    GradientRowSums<X, abreast, weight_varies, parameters> sums(args, group, r);
    const std::int64_t n = args.n, packs = n / pack_size;
    std::int64_t pack = 0;
    for (int k = 0; k < abreast; ++k) {
        const std::int64_t end = packs * (k + 1) / abreast;
        if (args.grad_input == nullptr || r + k >= before.rows) {
            for (; pack < end; ++pack) sums.Add(pack * pack_size, x_ahead, dy_ahead);
            continue;
        }
        const auto row = results.RowOf(before, r + k);
        std::int64_t i = results.BeginRow(row);
        for (; pack < end; ++pack) {
            sums.Add(pack * pack_size, x_ahead, dy_ahead);
            ANYNORM_UNROLL for (int each = 0; each < abreast; ++each) {
                if (i + pack_size > n) break;
                row.template Store<stream>(i);
                i += pack_size;
            }
        }
        results.EndRow(row, i);
    }
    if (pack * pack_size < n) sums.AddRest(pack * pack_size, n - pack * pack_size);
    sums.Finish(group, r);
}

/// Sums of the rows of a group from row `r` on, `abreast` at a time, as long as there are so many.
template <class X, int abreast, bool stream, bool weight_varies, bool parameters>
[[gnu::noinline]] std::int64_t SumGroup(const GradientRowsArgs<X>& args, GradientGroup<Compute<X>>& group,
                                        std::int64_t r, std::int64_t x_ahead, std::int64_t dy_ahead,
                                        const GradientGroup<Compute<X>>& before,
                                        GradientResults<X, stream, weight_varies>& results) {
    for (; r + abreast <= group.rows; r += abreast) {
        SumRowsBesideResults<X, abreast, stream, weight_varies, parameters>(args, group, r, x_ahead, dy_ahead, before,
                                                                            results);
    }
    return r;
}

template <bool stream, class X, bool weight_varies, bool parameters>
void GradientOfRows(const GradientRowsArgs<X>& args) {
    using C = Compute<X>;
    // A group, its grad_output and those of the next are a part of L2: 8192 rows of 768 take 0.9 of the time that they
    // take in groups of 16 KB, which L1 holds but are five rows. Longer rows, and those with weights of their own, are
    // taken one by one; so are long ones that share nothing, which make one stretch of memory then.
    constexpr std::int64_t fitting_bytes = 64 * 1024, long_bytes = 32 * 1024;
    const std::int64_t row_bytes = args.n * static_cast<std::int64_t>(sizeof(X));
    const bool many = args.n >= many_abreast, apart = many && !weight_varies && !parameters;
    const bool one_by_one = apart || row_bytes > long_bytes || (weight_varies && args.weight_row != 0);
    constexpr int most_abreast = gradient_abreast<parameters>, half_abreast = most_abreast > 1 ? most_abreast / 2 : 1;
    const std::int64_t abreast = one_by_one ? 1 : many ? most_abreast : half_abreast;
    const std::int64_t fitting = fitting_bytes / row_bytes / abreast * abreast;
    const std::int64_t most = fitting < abreast ? abreast : fitting > gradient_group ? gradient_group : fitting;
    // Such a stretch is read ahead as one, elsewhere the next rows are: planes of 64x64 take 0.92 of the time.
    const auto ahead = [&](std::int64_t row) { return apart && row == args.n ? read_ahead<X> : most * row; };
    GradientGroup<C> groups[2];
    GradientGroup<C>*group = groups, *before = groups + 1;
    OpenLine open;
    begin_line(open);
    GradientResults<X, stream, weight_varies> results(args, open);
    for (std::int64_t first = 0; first < args.rows; first += most) {
        group->first = first;
        group->rows = args.rows - first < most ? args.rows - first : most;
        BeginGroup(args.cells, args.eps, *group);
        std::int64_t r = 0;
        const auto sum = [&]<int rows>() {
            r = SumGroup<X, rows, stream, weight_varies, parameters>(args, *group, r, ahead(args.x_row),
                                                                     ahead(args.grad_output_row), *before, results);
        };
        if (!one_by_one && many) sum.template operator()<most_abreast>();
        if (!one_by_one && !many) sum.template operator()<half_abreast>();
        sum.template operator()<1>();
        // The last group may be smaller than the one before.
        results.WriteGroup(*before, r);
        EndGroup<X, weight_varies>(args, *group);
        GradientGroup<C>* const done = before;
        before = group;
        group = done;
    }
    results.WriteGroup(*before, 0);
    results.CloseRows();
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
