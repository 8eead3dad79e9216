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

/// The moments from finite sums about c.
inline Cell Centered(double count, double c, double s1, double s2) {
    const double shift = s1 / count;
    const double m2 = s2 - s1 * shift;
    // Knuth's exact sum: mean + mean_lo == c + shift.
    const double mean = c + shift;
    const double c_part = mean - shift;
    return {count, mean, (c - c_part) + (shift - (mean - c_part)), m2 > 0 ? m2 : 0};
}

template <class X>
Cell Finish(const MomentsArgs<X>& args, const X* x, double c, double s1, double s2) {
    const double count = static_cast<double>(args.runs) * static_cast<double>(args.n);
    if (!args.center) return {count, 0, 0, s2};
    if (!IsFinite(s1) || !IsFinite(s2)) return FinishNotFinite(args, x, count);
    return Centered(count, c, s1, s2);
}

/// Finish for many sets of `count` elements, which compilers vectorize: 16 divisions in the time of four. False where a
/// sum is not finite; the cells are worth nothing then.
inline bool FinishAll(double count, bool center, std::int64_t sets, const double* c, const double* s1, const double* s2,
                      Cell* out) {
    double not_finite = 0;
    for (std::int64_t i = 0; i < sets; ++i) {
        out[i] = Centered(count, c[i], s1[i], s2[i]);
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

template <class X>
Compute<X> ShiftOfRow(const MomentsArgs<X>& args, const X* x) {
    if (!args.center) return 0;
    const Compute<X> first = Load(x);
    if (!IsLong(args)) return first;
    const double about = static_cast<double>(first);
    if (args.n >= pack_size) return Shift(first, PackReduceSum(PackLoadPromote(x) - PackSet(about)));
    double deviations = 0;
    for (int i = 1; i < pack_size; ++i) deviations += static_cast<double>(Load(Element(args, x, i))) - about;
    return Shift(first, deviations);
}

/// Work that a row does not have.
struct Nothing {
    void operator()() const {}
};

/// The sums of a row: lane i of 16 has the elements i, i + 16, ... of every run. 32 packs are summed on their own
/// before they join the rest, so that no element takes part in more than 45 roundings, however regular the data.
class RowSums {
  public:
    /// A run of `n` elements about c. `beside` is done once for every pack of 16, while the next are on their way.
    template <class X, class Beside = Nothing>
    [[gnu::always_inline]] void AddRun(const X* x, std::int64_t n, Compute<X> c, const Beside& beside = {}) {
        // 8 KB ahead: far enough to cover DRAM latency at 10 bytes a cycle, near enough to stay in L1.
        constexpr std::int64_t prefetch = 8192 / static_cast<std::int64_t>(sizeof(X));
        const Pack<double> shift = PackSet(static_cast<double>(c));
        while (n >= pack_size) {
            const std::int64_t packs = n / pack_size < room_ ? n / pack_size : room_;
            Pack<double> s1 = s1_, s2 = s2_;
            for (std::int64_t i = 0; i < packs; ++i, x += pack_size) {
                __builtin_prefetch(x + prefetch);
                if constexpr (sizeof(X) == 8) __builtin_prefetch(x + prefetch + 8);  // a pack is two lines
                const Pack<double> d = PackLoadPromote(x) - shift;
                s1 = PackAccumulate(s1, d);
                s2 = PackMulAdd(d, d, s2);
                beside();
            }
            s1_ = s1;
            s2_ = s2;
            n -= packs * pack_size;
            Fill(packs);
        }
        if (n > 0) {  // missing lanes are filled with c and add exactly 0
            const Pack<double> d = PackLoadPromoteN(x, n, c) - shift;
            s1_ = s1_ + d;
            s2_ = PackMulAdd(d, d, s2_);
            Fill(1);
        }
    }

    Pack<double> Sum() const { return total1_ + s1_; }
    Pack<double> SumOfSquares() const { return total2_ + s2_; }

  private:
    static constexpr std::int64_t group = 32;

    void Fill(std::int64_t packs) {
        room_ -= packs;
        if (room_ > 0) return;
        total1_ = total1_ + s1_;
        total2_ = total2_ + s2_;
        s1_ = s2_ = PackSet(0.0);
        room_ = group;
    }

    Pack<double> s1_ = PackSet(0.0), s2_ = PackSet(0.0), total1_ = PackSet(0.0), total2_ = PackSet(0.0);
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

/// Several short rows: their sums are finished together.
constexpr std::int64_t row_group = 16, short_row = 512;

template <class X>
void SumShortRows(const MomentsArgs<X>& args, const X* x, std::int64_t rows, Cell* out) {
    double c[row_group], quarter1[row_group][4], quarter2[row_group][4], s1[row_group], s2[row_group];
    for (std::int64_t row = 0; row < rows; ++row) {
        const X* p = x + row * args.cell_stride;
        const Compute<X> shift = ShiftOfRow(args, p);
        c[row] = static_cast<double>(shift);
        RowSums sums;
        sums.AddRun(p, args.n, shift);
        PackReduceToQuarter(sums.Sum(), quarter1[row]);
        PackReduceToQuarter(sums.SumOfSquares(), quarter2[row]);
    }
    for (std::int64_t row = 0; row < rows; ++row) {
        s1[row] = (quarter1[row][0] + quarter1[row][2]) + (quarter1[row][1] + quarter1[row][3]);
        s2[row] = (quarter2[row][0] + quarter2[row][2]) + (quarter2[row][1] + quarter2[row][3]);
    }
    if (FinishAll(static_cast<double>(args.n), args.center, rows, c, s1, s2, out)) return;
    for (std::int64_t row = 0; row < rows; ++row)
        out[row] = Finish(args, x + row * args.cell_stride, c[row], s1[row], s2[row]);
}

/// Runs that lie side by side for neighbouring sets are walked in the order of memory, sets inside of runs.
template <class X>
void SumSideBySide(const MomentsArgs<X>& args, const X* x, std::int64_t cells, Cell* out) {
    Compute<X> shift[row_group];
    RowSums sums[row_group];
    for (std::int64_t cell = 0; cell < cells; ++cell) shift[cell] = ShiftOfRow(args, x + cell * args.cell_stride);
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t cell = 0; cell < cells; ++cell) {
            sums[cell].AddRun(x + cell * args.cell_stride + run * args.run_stride, args.n, shift[cell]);
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
