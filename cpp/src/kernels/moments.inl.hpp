// SPDX-License-Identifier: Apache-2.0
// Statistics of one block, and those of rows.
//
// Scalar math, for a block of elements x_i and c = x_0 + mean(x_i - x_0 of the first 16):
//     s1 = sum(x_i - c)    s2 = sum((x_i - c)^2)    mean = c + s1 / n    m2 = s2 - s1 * s1 / n
// in float64. Squares of float32 cannot overflow, equal elements give c == x_0 and m2 == 0 without a test, and the
// cancellation in m2 is bounded by the length of the block: a factor n if c were x_0 and x_0 an outlier, about n / 256
// with 16 elements in c.
#pragma once

#include "kernel_table.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// What is left when a sum is not finite: the mean as NumPy gives it (an infinity stays one, both signs or a NaN give
/// NaN) and a variance of NaN, or of infinity where only the squares were too large for float64. float64 data is
/// scaled by a power of two for the sum, so that finite values have a finite mean.
template <class X>
[[gnu::noinline, gnu::cold]] Cell FinishNotFinite(const MomentsArgs<X>& args, const X* x, double count) {
    const double scale = sizeof(X) == sizeof(double) ? 0x1p-600 : 1.0;
    double sum = 0;
    bool finite = true;
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t i = 0; i < args.n; ++i) {
            const double value = static_cast<double>(Load(x + run * args.run_stride + i * args.stride));
            finite = finite && IsFinite(value);
            sum += value * scale;
        }
    }
    const double huge = 1e308;
    return {count, sum / count / scale, 0, finite ? huge * huge : huge * huge - huge * huge};
}

/// Moments of a set, or of several side by side.
template <class V>
struct MomentsOf {
    V mean, mean_lo, m2;
};

/// The moments from finite sums about c.
template <class V>
inline MomentsOf<V> Centered(V count, V c, V s1, V s2) {
    const V shift = s1 / count;
    const V m2 = s2 - s1 * shift;
    // Knuth's exact sum: mean + mean_lo == c + shift.
    const V mean = c + shift;
    const V c_part = mean - shift;
    return {mean, (c - c_part) + (shift - (mean - c_part)), PositivePart(m2)};
}

template <class X>
Cell Finish(const MomentsArgs<X>& args, const X* x, double c, double s1, double s2) {
    const double count = static_cast<double>(args.runs) * static_cast<double>(args.n);
    if (!args.center) return {count, 0, 0, s2};
    if (!IsFinite(s1) || !IsFinite(s2)) return FinishNotFinite(args, x, count);
    const MomentsOf<double> moments = Centered(count, c, s1, s2);
    return {count, moments.mean, moments.mean_lo, moments.m2};
}

/// Finish for many sets of `count` elements, which compilers vectorize: 16 divisions in the time of four. False where a
/// sum is not finite; the cells are worth nothing then.
inline bool FinishAll(double count, bool center, std::int64_t sets, const double* c, const double* s1, const double* s2,
                      Cell* out) {
    double not_finite = 0;
    for (std::int64_t i = 0; i < sets; ++i) {
        const MomentsOf<double> moments = Centered(count, c[i], s1[i], s2[i]);
        out[i] = {count, moments.mean, moments.mean_lo, moments.m2};
        not_finite += (s1[i] - s1[i]) + (s2[i] - s2[i]);
    }
    return center && not_finite == 0;
}

constexpr std::int64_t long_block = 128;

/// Whether the block is long enough to take its shift c from 16 elements. A shorter one takes its first element and
/// loses at most a factor of its length.
template <class X>
bool IsLong(const MomentsArgs<X>& args) {
    return args.center && args.runs * args.n >= long_block;
}

/// Element `index` of the first 16 of a long block, counted through its runs.
template <class X>
const X* Element(const MomentsArgs<X>& args, const X* x, std::int64_t index) {
    return x + index / args.n * args.run_stride + index % args.n * args.stride;
}

/// first + mean deviation, rounded to the compute type so that a lane filled with it deviates by exactly 0.
template <class C>
C Shift(C first, double deviations) {
    const C shift = static_cast<C>(static_cast<double>(first) + deviations / pack_size);
    return IsFinite(static_cast<double>(shift)) ? shift : first;
}

/// The shift of a row that begins with 16 elements.
template <class X>
[[gnu::always_inline]] inline Compute<X> ShiftOfPack(const X* x, Compute<X> first) {
    return Shift(first, PackReduceSum(PackLoadPromote(x) - PackSet(static_cast<double>(first))));
}

template <class X>
Compute<X> ShiftOfRow(const MomentsArgs<X>& args, const X* x) {
    if (!args.center) return 0;
    const Compute<X> first = Load(x);
    if (!IsLong(args)) return first;
    if (args.n >= pack_size) return ShiftOfPack(x, first);
    const double about = static_cast<double>(first);
    double deviations = 0;
    for (int i = 1; i < pack_size; ++i) deviations += static_cast<double>(Load(Element(args, x, i))) - about;
    return Shift(first, deviations);
}

/// Work that a row does not have.
struct Nothing {
    void operator()() const {}
};

/// The sums of one group of packs: lane i of 16 has the elements i, i + 16, ...
struct LaneSums {
    Pack<double> s1 = PackSet(0.0), s2 = PackSet(0.0);

    /// Whole packs about c, while those so many elements ahead are fetched, through L2 or at once. `beside` is done
    /// once for every one, while the next are on their way.
    template <bool through_l2 = true, class X, class Beside = Nothing>
    [[gnu::always_inline]] void AddPacks(const X* x, std::int64_t packs, Compute<X> c, const Beside& beside = {},
                                         std::int64_t ahead = read_ahead<X>) {
        const Pack<double> shift = PackSet(static_cast<double>(c));
        Pack<double> sum = s1, squares = s2;
        for (std::int64_t i = 0; i < packs; ++i, x += pack_size) {
            if constexpr (through_l2) FetchPack(x + ahead);
            FetchPackNear(x + (through_l2 ? read_near<X> : ahead));
            const Pack<double> d = PackLoadPromote(x) - shift;
            sum = PackAccumulate(sum, d);
            squares = PackMulAdd(d, d, squares);
            beside();
        }
        s1 = sum;
        s2 = squares;
    }

    /// Fewer than 16 elements; missing lanes are filled with c and add exactly 0.
    template <class X>
    [[gnu::always_inline]] void AddTail(const X* x, std::int64_t n, Compute<X> c) {
        const Pack<double> d = PackLoadPromoteN(x, n, c) - PackSet(static_cast<double>(c));
        s1 = PackAccumulate(s1, d);
        s2 = PackMulAdd(d, d, s2);
    }
};

/// The sums of a row of any length and any number of runs. 32 packs are summed on their own before they join the rest,
/// so that no element takes part in more than 45 roundings, however regular the data.
class RowSums {
  public:
    /// A run of `n` elements about c.
    template <class X, class Beside = Nothing>
    [[gnu::always_inline]] void AddRun(const X* x, std::int64_t n, Compute<X> c, const Beside& beside = {},
                                       std::int64_t ahead = read_ahead<X>) {
        while (n >= pack_size) {
            const std::int64_t packs = n / pack_size < room_ ? n / pack_size : room_;
            LaneSums sums = sums_;
            sums.AddPacks(x, packs, c, beside, ahead);
            sums_ = sums;
            x += packs * pack_size;
            n -= packs * pack_size;
            Fill(packs);
        }
        if (n > 0) {
            sums_.AddTail(x, n, c);
            Fill(1);
        }
    }

    Pack<double> Sum() const { return total1_ + sums_.s1; }
    Pack<double> SumOfSquares() const { return total2_ + sums_.s2; }

  private:
    static constexpr std::int64_t group = 32;

    void Fill(std::int64_t packs) {
        room_ -= packs;
        if (room_ > 0) return;
        total1_ = total1_ + sums_.s1;
        total2_ = total2_ + sums_.s2;
        sums_ = {};
        room_ = group;
    }

    LaneSums sums_;
    Pack<double> total1_ = PackSet(0.0), total2_ = PackSet(0.0);
    std::int64_t room_ = group;
};

/// One block of a set: see MomentsRow.
template <class X, class Beside = Nothing>
[[gnu::always_inline]] inline Cell SumRow(const MomentsArgs<X>& args, const X* x, const Beside& beside = {}) {
    const Compute<X> shift = ShiftOfRow(args, x);
    RowSums sums;
    for (std::int64_t run = 0; run < args.runs; ++run) sums.AddRun(x + run * args.run_stride, args.n, shift, beside);
    return Finish(args, x, static_cast<double>(shift), PackReduceSum(sums.Sum()), PackReduceSum(sums.SumOfSquares()));
}

/// A row below `short_row` elements is one group of packs, and up to 16 such rows are finished together.
constexpr std::int64_t row_group = 16, short_row = 512;

/// The sums of up to 16 short rows. What lies beyond the rows is finite.
template <class X>
struct GroupSums {
    alignas(64) double s1[row_group] = {}, s2[row_group] = {};
    Compute<X> shift[row_group] = {};
};

/// Not inlined: short rows need every register.
template <class X>
[[gnu::noinline]] void SumRows(const MomentsArgs<X>& args, const X* x, std::int64_t rows, GroupSums<X>& out) {
    // Shifts come first for all rows: 50 cycles pass from 16 elements to the shift of their row.
    const bool is_long = IsLong(args);
    for (std::int64_t row = 0; row < rows; ++row) {
        const X* const p = x + row * args.cell_stride;
        const Compute<X> first = args.center ? Load(p) : Compute<X>(0);
        out.shift[row] = is_long ? ShiftOfPack(p, first) : first;
    }
    const std::int64_t packs = args.n / pack_size, rest = args.n % pack_size;
    for (std::int64_t row = 0; row < rows; ++row, x += args.cell_stride) {
        LaneSums sums;
        if (args.n >= least_through_l2) {
            sums.AddPacks<true>(x, packs, out.shift[row]);
        } else {
            sums.AddPacks<false>(x, packs, out.shift[row]);
        }
        if (rest != 0) sums.AddTail(x + packs * pack_size, rest, out.shift[row]);
        out.s1[row] = PackReduceSum(sums.s1);
        out.s2[row] = PackReduceSum(sums.s2);
    }
}

template <class X>
void FinishRows(const MomentsArgs<X>& args, const X* x, std::int64_t rows, const GroupSums<X>& sums, Cell* out) {
    double c[row_group];
    for (std::int64_t row = 0; row < rows; ++row) c[row] = static_cast<double>(sums.shift[row]);
    if (FinishAll(static_cast<double>(args.n), args.center, rows, c, sums.s1, sums.s2, out)) return;
    for (std::int64_t row = 0; row < rows; ++row) {
        out[row] = Finish(args, x + row * args.cell_stride, c[row], sums.s1[row], sums.s2[row]);
    }
}

template <class X>
void SumShortRows(const MomentsArgs<X>& args, const X* x, std::int64_t rows, Cell* out) {
    GroupSums<X> sums;
    SumRows(args, x, rows, sums);
    FinishRows(args, x, rows, sums, out);
}

/// Runs that lie side by side for neighbouring sets are walked in the order of memory, sets inside of runs. What is
/// behind the last of these sets is not read soon: their next runs are fetched instead. Batch norm of planes of 7x7
/// takes 0.75 to 0.95 of the time on two threads.
template <class X>
void SumSideBySide(const MomentsArgs<X>& args, const X* x, std::int64_t cells, Cell* out) {
    Compute<X> shift[row_group];
    RowSums sums[row_group];
    for (std::int64_t cell = 0; cell < cells; ++cell) shift[cell] = ShiftOfRow(args, x + cell * args.cell_stride);
    constexpr std::int64_t ahead = read_ahead<X>;
    const std::int64_t width = cells * args.cell_stride;
    const std::int64_t beyond =
        width > 0 && width <= ahead ? ahead / width * args.run_stride : ahead - width + args.run_stride;
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t cell = 0; cell < cells; ++cell) {
            const std::int64_t start = cell * args.cell_stride;
            sums[cell].AddRun(x + start + run * args.run_stride, args.n, shift[cell], Nothing{},
                              start + ahead < width ? ahead : beyond);
        }
    }
    for (std::int64_t cell = 0; cell < cells; ++cell) {
        out[cell] = Finish(args, x + cell * args.cell_stride, static_cast<double>(shift[cell]),
                           PackReduceSum(sums[cell].Sum()), PackReduceSum(sums[cell].SumOfSquares()));
    }
}

/// Each set's elements are contiguous: the vectors lie along the row.
template <class X>
void MomentsRow(const MomentsArgs<X>& args) noexcept {
    const bool side_by_side = args.runs > 1 && args.cells > 1, is_short = args.runs == 1 && args.n < short_row;
    if (!side_by_side && !is_short) {
        for (std::int64_t cell = 0; cell < args.cells; ++cell) {
            args.out[cell] = SumRow(args, args.x + cell * args.cell_stride);
        }
        return;
    }
    for (std::int64_t cell = 0; cell < args.cells; cell += row_group) {
        const std::int64_t cells = args.cells - cell < row_group ? args.cells - cell : row_group;
        const X* x = args.x + cell * args.cell_stride;
        (side_by_side ? SumSideBySide<X> : SumShortRows<X>)(args, x, cells, args.out + cell);
    }
}

/// into[i] = into[i] + from[i], as merge() but vectorized.
inline void MergeCells(Cell* into, const Cell* from, std::int64_t count) noexcept {
    constexpr std::int64_t group = 64;
    for (; count > 0; into += group, from += group, count -= group) {
        const std::int64_t cells = count < group ? count : group;
        Cell merged[group];
        double special = 0;  // anything that is not finite, or no number at all where a set is empty
        for (std::int64_t i = 0; i < cells; ++i) {
            const double delta = distance(into[i], from[i]);
            merged[i] = merged_near(into[i], from[i], delta);
            special += (delta - delta) + (into[i].count == 0 || from[i].count == 0 ? 1.0 : 0.0);
        }
        if (special == 0) {
            for (std::int64_t i = 0; i < cells; ++i) into[i] = merged[i];
        } else {
            for (std::int64_t i = 0; i < cells; ++i) merge(into[i], from[i]);
        }
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
