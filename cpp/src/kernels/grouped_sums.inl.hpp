// SPDX-License-Identifier: Apache-2.0
// Sums of rows by groups: rows in the order of memory, each added to the sums of its group, which a cache holds.
//
// To sort the rows of a window by group first, so that the sums of a group stay in registers for all that it has there,
// takes longer: 8 ns a row beside 5, for 1000 groups of 16 columns of float32 on a core with AVX-512 at 3.9 GHz. The
// five lines of such a group come from L2 while other rows are added; to fetch them before gains nothing there, and its
// instructions cost a tenth. On a core of Zen 3 it gains a third.
#pragma once

#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Blocks of so many bytes together are fetched eight rows before they are needed: those of rows of one pack where L1
/// does not hold them (1000 groups take 10 ns a row, not 15; 10,000 take 12, not 19), of shorter rows, which take
/// longer themselves, where L2 does not. The blocks of longer rows come quickly enough. AVX-512 is found with larger
/// L2s.
template <class X>
constexpr bool FetchesBlocks(std::int64_t groups, std::int64_t n) {
    constexpr std::int64_t of_packs = Pack<double>::pieces == 2 ? 2048 * 1024 : 64 * 1024, of_others = 512 * 1024;
    const std::int64_t least = n == pack_size || of_packs > of_others ? of_packs : of_others;
    return n <= pack_size && groups * block_bytes<X>(n) > least;
}
constexpr std::int64_t block_ahead = 8;

/// Where the block of a group is.
template <class X>
struct GroupBlock {
    Compute<X>* c;
    double *s1, *s2;

    [[gnu::always_inline]] GroupBlock(std::byte* memory, std::int64_t width)
        : c(reinterpret_cast<Compute<X>*>(memory)), s1(reinterpret_cast<double*>(c + width)), s2(s1 + width) {}
};

/// Begins a block with a row as shift; 0 takes the place of what is not finite, and lies beyond the columns.
template <class X>
[[gnu::noinline]] void BeginBlock(const X* x, std::int64_t n, bool center, std::byte* memory) {
    const GroupBlock<X> block(memory, whole_packs(n));
    for (std::int64_t i = 0; i < n; i += pack_size) {
        const std::int64_t rest = n - i;
        const Pack<Compute<X>> c = !center             ? PackSet(Compute<X>(0))
                                   : rest >= pack_size ? PackLoad(x + i)
                                                       : PackLoadN(x + i, rest);
        PackStore(block.c + i, c);
        PackStore(block.s1 + i, PackSet(0.0));
        PackStore(block.s2 + i, PackSet(0.0));
        const Pack<double> wide = PackPromote(c);
        if (PackReduceSum(wide - wide) == 0) continue;
        for (std::int64_t j = i; j < i + pack_size; ++j) {
            if (!IsFinite(static_cast<double>(block.c[j]))) block.c[j] = 0;
        }
    }
}

/// Adds 16 columns of a row.
template <class X, class Row>
[[gnu::always_inline]] inline void AddToBlock(const Row& row, const GroupBlock<X>& block, std::int64_t i) {
    const Pack<double> d = row - PackLoadPromote(block.c + i);
    PackStore(block.s1 + i, PackAccumulate(PackLoad(block.s1 + i), d));
    PackStore(block.s2 + i, PackMulAdd(d, d, PackLoad(block.s2 + i)));
}

/// Rows that follow each other, read ahead: prefetchers of the machine alone take twice the time.
template <class X, class Label>
struct FollowingRows {
    const X* x;
    std::int64_t x_row;
    const Label* labels;
    std::int64_t ahead;

    [[gnu::always_inline]] FollowingRows(const GroupedSumsArgs<X>& args, const Label* of)
        : x(args.x), x_row(args.x_row), labels(of) {
        const std::int64_t rows = read_ahead<X> / args.n;
        ahead = (rows < 1 ? 1 : rows) * x_row;
    }
    [[gnu::always_inline]] std::int64_t Group(std::int64_t i) const { return labels[i]; }
    [[gnu::always_inline]] const X* Row(std::int64_t i) const { return x + i * x_row; }
    [[gnu::always_inline]] const X* Soon(std::int64_t i) const { return Row(i) + ahead; }
};

/// Rows that lie anywhere.
template <class X>
struct ListedRows {
    const X* x;
    std::int64_t x_row;
    const RowEntry* entries;
    std::int64_t ahead, last;

    [[gnu::always_inline]] explicit ListedRows(const GroupedSumsArgs<X>& args)
        : x(args.x), x_row(args.x_row), entries(args.group_of.listed), last(args.rows - 1) {
        const std::int64_t rows = read_ahead<X> / args.n;
        ahead = rows < 1 ? 1 : rows > 32 ? 32 : rows;
    }
    [[gnu::always_inline]] std::int64_t Group(std::int64_t i) const { return entries[i].group; }
    [[gnu::always_inline]] const X* Row(std::int64_t i) const {
        return x + static_cast<std::int64_t>(entries[i].row) * x_row;
    }
    [[gnu::always_inline]] const X* Soon(std::int64_t i) const { return Row(i + ahead < last ? i + ahead : last); }
};

/// `n` is the number of columns, which a compiler may know.
template <bool fetches, class X, class Rows>
[[gnu::always_inline]] inline GroupedRun AddRows(const GroupedSumsArgs<X>& args, const Rows& rows, std::int64_t n) {
    const std::int64_t count = args.rows, width = whole_packs(n), bytes = block_bytes<X>(n);
    const std::int64_t rest = n % pack_size, whole = n - rest;
    std::int32_t* const counts = args.counts;
    std::byte* const blocks = args.blocks;
    for (std::int64_t i = 0; i < count; ++i) {
        if constexpr (fetches) {
            const std::int64_t group = rows.Group(i + block_ahead < count ? i + block_ahead : count - 1);
            const std::byte* const block = blocks + (group < 0 ? 0 : group) * bytes;
            for (std::int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(block + byte);
        }
        const std::int64_t group = rows.Group(i);
        if (group < 0) continue;
        const X *const x = rows.Row(i), *const soon = rows.Soon(i);
        std::byte* const memory = blocks + group * bytes;
        const std::int32_t before = counts[group];
        counts[group] = before + 1;
        if (before == 0) BeginBlock(x, n, args.center, memory);
        const GroupBlock<X> block(memory, width);
        for (std::int64_t j = 0; j < whole; j += pack_size) {
            FetchPack(soon + j);
            AddToBlock(PackLoadPromote(x + j), block, j);
        }
        Fetch(soon + n - 1);  // a row need not begin with a line
        if (rest > 0) AddToBlock(PackLoadPromoteN(x + whole, rest, 0), block, whole);
        if (before == group_block - 1) return {i + 1, group};
    }
    return {count, -1};
}

/// A row of one pack has no loop over columns: a sixth of the time.
template <bool fetches, class X, class Rows>
[[gnu::noinline]] GroupedRun AddPacks(const GroupedSumsArgs<X>& args, const Rows rows) {
    return AddRows<fetches>(args, rows, pack_size);
}
template <bool fetches, class X, class Rows>
[[gnu::noinline]] GroupedRun AddAnyRows(const GroupedSumsArgs<X>& args, const Rows rows) {
    return AddRows<fetches>(args, rows, args.n);
}

template <class X>
GroupedRun GroupedSums(const GroupedSumsArgs<X>& args) noexcept {
    const bool fetches = FetchesBlocks<X>(args.groups, args.n);
    const auto add = [&](const auto& rows) {
        if (args.n == pack_size) return fetches ? AddPacks<true>(args, rows) : AddPacks<false>(args, rows);
        return fetches ? AddAnyRows<true>(args, rows) : AddAnyRows<false>(args, rows);
    };
    const RowGroups& of = args.group_of;
    if (of.listed != nullptr) return add(ListedRows<X>(args));
    if (of.narrow != nullptr) return add(FollowingRows<X, std::int32_t>(args, of.narrow));
    return add(FollowingRows<X, std::int64_t>(args, of.wide));
}

/// The cells of a group of `rows` rows.
template <class X>
[[gnu::always_inline]] inline bool CellsOfBlock(const GroupBlock<X>& block, std::int64_t n, std::int32_t rows,
                                                bool center, Cell* out) {
    const double count = static_cast<double>(rows), nan = __builtin_nan("");
    double not_finite = 0;
    for (std::int64_t i = 0; i < n; i += pack_size) {
        const std::int64_t columns = n - i < pack_size ? n - i : pack_size;
        double c[pack_size];
        PackStore(static_cast<double*>(c), PackLoadPromote(block.c + i));
        for (std::int64_t j = 0; j < columns; ++j) {
            const double s1 = block.s1[i + j], s2 = block.s2[i + j], special = (s1 - s1) + (s2 - s2);
            const MomentsOf<double> moments = Centered(count, c[j], s1, s2);
            out[i + j] = center ? Cell{count, moments.mean, moments.mean_lo, moments.m2} : Cell{count, 0, 0, s2};
            not_finite += special;
        }
    }
    if (not_finite == 0) return true;
    for (std::int64_t i = 0; i < n; ++i) {
        if (!IsFinite(block.s1[i]) || !IsFinite(block.s2[i])) out[i].mean_lo = nan;
    }
    return false;
}

template <class X>
bool GroupedCells(const GroupedCellsArgs<X>& args) noexcept {
    const std::int64_t n = args.n, bytes = block_bytes<X>(n);
    bool finite = true;
    for (std::int64_t group = 0; group < args.groups; ++group) {
        Cell* const out = args.out + group * n;
        if (args.counts[group] == 0) {
            for (std::int64_t i = 0; i < n; ++i) out[i] = {0, __builtin_nan(""), 0, 0};
            continue;
        }
        const GroupBlock<X> block(args.blocks + group * bytes, whole_packs(n));
        finite = CellsOfBlock<X>(block, n, args.counts[group], args.center, out) && finite;
        args.counts[group] = 0;
    }
    return finite;
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
