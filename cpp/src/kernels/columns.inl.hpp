// SPDX-License-Identifier: Apache-2.0
// Column statistics of one block: each column sums its own rows in order, and the vectors lie across the columns. Sums
// are kept in two levels: 16 steps of eight rows are summed on their own before they join the rest, so that no element
// takes part in more than 80 roundings, however regular the data.
#pragma once

#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// What a step reads and writes of 16 columns, side by side: arrays a power of two apart would share few sets of L1.
struct ColumnPack {
    alignas(64) double c[pack_size];
    double s1[pack_size], s2[pack_size];
};

struct ColumnTotals {
    double s1[pack_size], s2[pack_size];
};

/// Packs so many elements apart.
template <class X>
struct ColumnPacks {
    const X* at;
    std::int64_t stride;
};

/// Adds `rows` rows to 16 columns, and fetches as many packs that are used soon, and that are used later if any are.
template <int rows, class X>
inline void AddRowsOfPack(const ColumnPacks<X>& of, const ColumnPacks<X>& soon, const ColumnPacks<X>& later,
                          ColumnPack& pack) {
    constexpr int lanes = Pack<double>::lanes;
    ANYNORM_UNROLL for (int row = 0; row < rows; ++row) FetchPackNear(soon.at + row * soon.stride);
    if (later.at != nullptr) {
        ANYNORM_UNROLL for (int row = 0; row < rows; ++row) FetchPack(later.at + row * later.stride);
    }
    // Four vectors of columns at a time where there are so many: their sums fill half of AVX2's registers and do not
    // wait for each other.
    constexpr int side = pack_size / lanes < 4 ? pack_size / lanes : 4;
    ANYNORM_UNROLL for (int first = 0; first < pack_size; first += side * lanes) {
        D sum[side], squares[side];
        ANYNORM_UNROLL for (int i = 0; i < side; ++i) sum[i] = squares[i] = Set(0.0);
        const X* p = of.at + first;
        ANYNORM_UNROLL for (int row = 0; row < rows; ++row, p += of.stride) {
            ANYNORM_UNROLL for (int i = 0; i < side; ++i) {
                const D d = LoadPromote(p + i * lanes) - LoadU(pack.c + first + i * lanes);
                sum[i] = Accumulate(sum[i], d);
                squares[i] = MulAdd(d, d, squares[i]);
            }
        }
        // The step is summed on its own first: fewer additions to a growing sum lose less.
        ANYNORM_UNROLL for (int i = 0; i < side; ++i) {
            const int at = first + i * lanes;
            StoreU(pack.s1 + at, LoadU(pack.s1 + at) + sum[i]);
            StoreU(pack.s2 + at, LoadU(pack.s2 + at) + squares[i]);
        }
    }
}

/// What is done beside the sums of 16 columns: nothing.
struct NoColumns {
    template <int rows>
    void WriteRows(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t) const {}
};

/// The sums of a tile of columns.
struct ColumnSums {
    // As many as a strip of a plan has from memory. Where a tile is all columns, rows are read ahead in the order of
    // memory: 1024 columns take 0.83 of the time that they take in tiles of 512, whose packs L1 holds; from L2 they
    // take 1.02.
    static constexpr std::int64_t tile = 1024;
    ColumnPack packs[tile / pack_size];
    ColumnTotals totals[tile / pack_size];
    // A step reads whole rows in the order of memory where they follow each other: those of the next step are fetched
    // in that order too, for prefetchers follow one ascending stream within a page, and no less than 15 KB ahead: 16
    // columns from memory take 0.6 of the time that they take with the next step alone, half a KB, and 0.9 of that with
    // half of it. What is used so many packs later is fetched into L1; elsewhere it is all, since they see no order.
    static constexpr std::int64_t packs_ahead = 8;
    std::int64_t begin, columns, cell_stride;
    bool linear;
    int steps;

    /// Elements from a step to what is fetched in it, where rows follow each other.
    template <class X>
    static std::int64_t LinearAhead(std::int64_t stride) {
        constexpr std::int64_t least = 2 * read_ahead<X>;
        return 8 * stride < least ? least : 8 * stride;
    }

    std::int64_t pack_count() const { return (columns + pack_size - 1) / pack_size; }

    void Clear() {
        for (std::int64_t k = 0; k < pack_count(); ++k) {
            for (int i = 0; i < pack_size; ++i) packs[k].s1[i] = packs[k].s2[i] = 0;
        }
        steps = 0;
    }

    void Flush() {
        for (std::int64_t k = 0; k < pack_count(); ++k) {
            for (int i = 0; i < pack_size; ++i) {
                totals[k].s1[i] += packs[k].s1[i];
                totals[k].s2[i] += packs[k].s2[i];
            }
        }
        Clear();
    }

    template <int rows, class X, class Beside>
    [[gnu::always_inline]] void AddRows(const X* x, std::int64_t at, std::int64_t stride, const Beside& beside) {
        x += at;
        const std::int64_t whole = cell_stride == 1 ? columns / pack_size : 0;
        const std::int64_t below = 8 * stride, ahead = LinearAhead<X>(stride);
        for (std::int64_t k = 0; k < whole; ++k) {
            const std::int64_t used = k + packs_ahead;
            const std::int64_t soon = used < whole ? used * pack_size : below + (used - whole) * pack_size;
            const std::int64_t later = ahead + k * rows * pack_size;
            AddRowsOfPack<rows, X>({x + k * pack_size, stride}, {x + soon, stride},
                                   {linear ? x + later : nullptr, pack_size}, packs[k]);
            beside.template WriteRows<rows>(at + k * pack_size, stride, begin + k * pack_size,
                                            at + (linear ? later : soon), linear ? pack_size : stride);
        }
        for (std::int64_t k = whole; k < pack_count(); ++k)
            AddGathered<rows>(x + k * pack_size * cell_stride, stride, k);
    }

    /// Fewer than 16 columns, or such as are not neighbours. Not inlined: a quarter of the code, little of the time.
    template <int rows, class X>
    [[gnu::noinline]] void AddGathered(const X* x, std::int64_t stride, std::int64_t k) {
        const std::int64_t left = columns - k * pack_size, count = left < pack_size ? left : pack_size;
        X gathered[rows * pack_size];  // beyond the columns are zeros, and c is 0 there as well
        const X* const soon = x + (linear ? 8 * stride : packs_ahead * pack_size * cell_stride);
        for (int row = 0; row < rows; ++row) {
            X* const to = gathered + row * pack_size;
            const X* const from = x + row * stride;
            if (cell_stride == 1) {
                PackStore(to, PackLoadN(from, count));
            } else if (cell_stride == 2 && count == pack_size) {
                FetchPackNear(soon + row * stride);
                FetchPackNear(soon + row * stride + pack_size);
                for (int i = 0; i < pack_size; ++i) to[i] = from[2 * i];
            } else {
                for (std::int64_t i = 0; i < count; ++i) to[i] = from[i * cell_stride];
                for (std::int64_t i = count; i < pack_size; ++i) to[i] = X{};
            }
        }
        AddRowsOfPack<rows, X>({gathered, pack_size}, {soon, 0}, {linear ? x + LinearAhead<X>(stride) : nullptr, 0},
                               packs[k]);
    }

    template <int rows, class X, class Beside>
    [[gnu::always_inline]] void AddStep(const X* x, std::int64_t at, std::int64_t stride, const Beside& beside) {
        AddRows<rows>(x, at, stride, beside);
        if (++steps == 16) Flush();
    }

    /// A run of `n` rows that begins `at` elements after x, eight to a step, so that the sums are loaded and stored
    /// once for them.
    template <class X, class Beside>
    [[gnu::always_inline]] void AddRun(const X* x, std::int64_t at, std::int64_t stride, std::int64_t n,
                                       const Beside& beside) {
        for (; n >= 8; n -= 8, at += 8 * stride) AddStep<8>(x, at, stride, beside);
        if ((n & 4) != 0) AddStep<4>(x, at, stride, beside);
        at += (n & 4) * stride;
        if ((n & 2) != 0) AddStep<2>(x, at, stride, beside);
        at += (n & 2) * stride;
        if ((n & 1) != 0) AddStep<1>(x, at, stride, beside);
    }
};

template <class X, class Beside>
[[gnu::always_inline]] inline void SumColumns(const MomentsArgs<X>& args, const Beside& beside) {
    ColumnSums sums;
    sums.cell_stride = args.cell_stride;
    const double count = static_cast<double>(args.runs) * static_cast<double>(args.n);
    for (sums.begin = 0; sums.begin < args.cells; sums.begin += ColumnSums::tile) {
        const std::int64_t left = args.cells - sums.begin;
        sums.columns = left < ColumnSums::tile ? left : ColumnSums::tile;
        sums.linear = args.cell_stride == 1 && args.stride == sums.columns;
        const std::int64_t at = sums.begin * args.cell_stride;
        const X* const x = args.x + at;
        const auto column = [&](std::int64_t j) { return x + j * args.cell_stride; };
        for (std::int64_t k = 0; k < sums.pack_count(); ++k) {
            const std::int64_t first = k * pack_size, rest = sums.columns - first;
            double* const c = sums.packs[k].c;
            if (args.cell_stride == 1) {
                const Pack<double> row = PackLoadPromoteN(x + first, rest < pack_size ? rest : pack_size, 0);
                PackStore(c, args.center ? row : PackSet(0.0));
            } else {
                for (std::int64_t i = 0; i < pack_size; ++i)
                    c[i] = args.center && i < rest ? static_cast<double>(Load(column(first + i))) : 0.0;
            }
            PackStore(sums.totals[k].s1, PackSet(0.0));
            PackStore(sums.totals[k].s2, PackSet(0.0));
        }
        sums.Clear();
        if (IsLong(args)) {
            for (int i = 0; i < pack_size; ++i)
                sums.AddRows<1>(args.x, Element(args, x, i) - args.x, args.stride, NoColumns{});
            for (std::int64_t j = 0; j < sums.columns; ++j) {
                ColumnPack& pack = sums.packs[j / pack_size];
                pack.c[j % pack_size] = static_cast<double>(Shift(Load(column(j)), pack.s1[j % pack_size]));
            }
            sums.Clear();
        }
        for (std::int64_t run = 0; run < args.runs; ++run) {
            sums.AddRun(args.x, at + run * args.run_stride, args.stride, args.n, beside);
        }
        sums.Flush();
        for (std::int64_t k = 0; k < sums.pack_count(); ++k) {
            const std::int64_t rest = sums.columns - k * pack_size, columns = rest < pack_size ? rest : pack_size;
            const ColumnPack& pack = sums.packs[k];
            const ColumnTotals& totals = sums.totals[k];
            Cell* const out = args.out + sums.begin + k * pack_size;
            if (FinishAll(count, args.center, columns, pack.c, totals.s1, totals.s2, out)) continue;
            for (std::int64_t i = 0; i < columns; ++i) {
                out[i] = Finish(args, column(k * pack_size + i), pack.c[i], totals.s1[i], totals.s2[i]);
            }
        }
    }
}

template <class X>
void MomentsColumn(const MomentsArgs<X>& args) noexcept {
    SumColumns(args, NoColumns{});
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
