// SPDX-License-Identifier: Apache-2.0
// Column statistics of one block: neighbouring sets are contiguous, each column sums its own rows in order, and the
// vectors lie across the columns. Sums are kept in two levels: 16 steps of eight rows are summed on their own before
// they join the rest, so that no element takes part in more than 80 roundings, however regular the data.
#pragma once

#include "kernel_table.hpp"
#include "moments.inl.hpp"
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

/// Adds `rows` rows to 16 columns, and fetches `rows` packs from `next` on, `next_stride` elements apart.
template <int rows, class X>
inline void AddRowsOfPack(const X* x, std::int64_t stride, const X* next, std::int64_t next_stride, ColumnPack& pack) {
    constexpr int lanes = Pack<double>::lanes;
    ANYNORM_UNROLL for (int row = 0; row < rows; ++row) {
        __builtin_prefetch(next + row * next_stride);
        if constexpr (sizeof(X) == 8) __builtin_prefetch(next + row * next_stride + 8);  // a pack is two lines
    }
    // Two vectors of columns at a time: the sums of all 16 are more than there are registers, those of one wait for
    // each other.
    ANYNORM_UNROLL for (int first = 0; first < pack_size; first += 2 * lanes) {
        const D shift[2] = {LoadU(pack.c + first), LoadU(pack.c + first + lanes)};
        D sum[2] = {Set(0.0), Set(0.0)}, squares[2] = {Set(0.0), Set(0.0)};
        const X* p = x + first;
        ANYNORM_UNROLL for (int row = 0; row < rows; ++row, p += stride) {
            ANYNORM_UNROLL for (int i = 0; i < 2; ++i) {
                const D d = LoadPromote(p + i * lanes) - shift[i];
                sum[i] = Accumulate(sum[i], d);
                squares[i] = MulAdd(d, d, squares[i]);
            }
        }
        // The step is summed on its own first: fewer additions to a growing sum lose less.
        ANYNORM_UNROLL for (int i = 0; i < 2; ++i) {
            const int at = first + i * lanes;
            StoreU(pack.s1 + at, LoadU(pack.s1 + at) + sum[i]);
            StoreU(pack.s2 + at, LoadU(pack.s2 + at) + squares[i]);
        }
    }
}

/// The sums of a tile of columns.
struct ColumnSums {
    // 512 columns keep the packs in 12 KB of L1 and read at least 2 KB of a row at a time.
    static constexpr std::int64_t tile = 512;
    ColumnPack packs[tile / pack_size];
    ColumnTotals totals[tile / pack_size];
    std::int64_t columns, ahead;
    int steps;

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

    template <int rows, class X>
    void AddRows(const X* x, std::int64_t stride, std::int64_t fetch) {
        const std::int64_t whole = columns / pack_size, rest = columns % pack_size;
        // Whole rows are fetched in the order of memory: within a page, prefetchers follow one ascending stream.
        const bool linear = fetch != 0 && stride == columns;
        const std::int64_t next_step = linear ? rows * pack_size : pack_size, next_stride = linear ? pack_size : stride;
        for (std::int64_t k = 0; k < whole; ++k) {
            AddRowsOfPack<rows>(x + k * pack_size, stride, x + fetch + k * next_step, next_stride, packs[k]);
        }
        if (rest == 0) return;
        X last[rows * pack_size];  // beyond the columns are zeros, and c is 0 there as well
        for (int row = 0; row < rows; ++row) {
            const Pack<Compute<X>> elements = PackLoadN(x + row * stride + whole * pack_size, rest);
            PackStore(last + row * pack_size, elements);
        }
        AddRowsOfPack<rows>(static_cast<const X*>(last), pack_size, x + fetch, 0, packs[whole]);
    }

    template <int rows, class X>
    void AddStep(const X* x, std::int64_t stride) {
        AddRows<rows>(x, stride, ahead);
        if (++steps == 16) Flush();
    }

    /// A run of `n` rows, eight to a step, so that the sums are loaded and stored once for them.
    template <class X>
    void AddRun(const X* x, std::int64_t stride, std::int64_t n) {
        for (; n >= 8; n -= 8, x += 8 * stride) AddStep<8>(x, stride);
        if ((n & 4) != 0) AddStep<4>(x, stride);
        x += (n & 4) * stride;
        if ((n & 2) != 0) AddStep<2>(x, stride);
        x += (n & 2) * stride;
        if ((n & 1) != 0) AddStep<1>(x, stride);
    }
};

template <class X>
void MomentsColumn(const MomentsArgs<X>& args) noexcept {
    ColumnSums sums;
    // Hardware follows the rows of a page or more; in a page of several it sees no order. Fetched in that of memory, 64
    // to 256 columns are read at 0.9 of the speed of memory; 0.6 when the rows are fetched in turns.
    const std::int64_t row_bytes = args.stride * static_cast<std::int64_t>(sizeof(X));
    sums.ahead = row_bytes > 0 && row_bytes <= 2048 ? 8 * args.stride : 0;
    const double count = static_cast<double>(args.runs) * static_cast<double>(args.n);
    for (std::int64_t begin = 0; begin < args.cells; begin += ColumnSums::tile) {
        const std::int64_t left = args.cells - begin;
        sums.columns = left < ColumnSums::tile ? left : ColumnSums::tile;
        const X* const x = args.x + begin;
        for (std::int64_t k = 0; k < sums.pack_count(); ++k) {
            const std::int64_t rest = sums.columns - k * pack_size;
            const Pack<double> first = PackLoadPromoteN(x + k * pack_size, rest < pack_size ? rest : pack_size, 0);
            PackStore(sums.packs[k].c, args.center ? first : PackSet(0.0));
            PackStore(sums.totals[k].s1, PackSet(0.0));
            PackStore(sums.totals[k].s2, PackSet(0.0));
        }
        sums.Clear();
        if (IsLong(args)) {
            for (int i = 0; i < pack_size; ++i) sums.AddRows<1>(Element(args, x, i), args.stride, 0);
            for (std::int64_t j = 0; j < sums.columns; ++j) {
                ColumnPack& pack = sums.packs[j / pack_size];
                pack.c[j % pack_size] = static_cast<double>(Shift(Load(x + j), pack.s1[j % pack_size]));
            }
            sums.Clear();
        }
        for (std::int64_t run = 0; run < args.runs; ++run) {
            sums.AddRun(x + run * args.run_stride, args.stride, args.n);
        }
        sums.Flush();
        for (std::int64_t k = 0; k < sums.pack_count(); ++k) {
            const std::int64_t rest = sums.columns - k * pack_size, columns = rest < pack_size ? rest : pack_size;
            const ColumnPack& pack = sums.packs[k];
            const ColumnTotals& totals = sums.totals[k];
            Cell* const out = args.out + begin + k * pack_size;
            if (FinishAll(count, args.center, columns, pack.c, totals.s1, totals.s2, out)) continue;
            for (std::int64_t i = 0; i < columns; ++i) {
                out[i] = Finish(args, x + k * pack_size + i, pack.c[i], totals.s1[i], totals.s2[i]);
            }
        }
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
