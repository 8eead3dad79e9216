// SPDX-License-Identifier: Apache-2.0
// The affine map of rows of 16 elements that look up their statistics: the shortest rows that are worth a kernel of
// their own, as the loop over a row and the state of lines that rows share take three times as long as the row itself.
#pragma once

#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Results of one row, and what is to be fetched for those behind it.
template <class X, bool weight_varies, bool bias_varies>
struct LookedUpRow {
    using C = Compute<X>;
    // Statistics of 1e5 groups come from memory, 100 ns away.
    static constexpr std::int64_t stats_ahead = 32, x_ahead = read_ahead<X> / pack_size;

    const AffineArgs<X>& args;

    [[gnu::always_inline]] Pack<C> operator()(std::int64_t row) const {
        const X* const x = args.x + row * args.x_row;
        Fetch(x + x_ahead * args.x_row);
        const std::int64_t soon = row + stats_ahead < args.rows ? row + stats_ahead : args.rows - 1;
        FetchStatistics(args.stat_of[soon] * args.stat_row);
        const std::int64_t stat = args.stat_of[row] * args.stat_row;
        const C *const weight = args.weight + row * args.weight_row, *const bias = args.bias + row * args.bias_row;
        const Pack<C> d = (PackLoad(x) - PackLoad(args.mean + stat)) - PackLoad(args.mean_lo + stat);
        const Pack<C> scale = PackLoad(args.rstd + stat) * (weight_varies ? PackLoad(weight) : PackSet(*weight));
        return PackMulAdd(d, scale, bias_varies ? PackLoad(bias) : PackSet(*bias));
    }

    [[gnu::always_inline]] void FetchStatistics(std::int64_t stat) const {
        constexpr std::int64_t line = 64 / sizeof(C);
        for (std::int64_t i = 0; i < pack_size; i += line) {
            __builtin_prefetch(args.mean + stat + i);
            __builtin_prefetch(args.mean_lo + stat + i);
            __builtin_prefetch(args.rstd + stat + i);
        }
    }
};

/// Rows that follow each other at any address, past the caches: 64 of them are put together in L1 and leave it in whole
/// lines; the last of them, if it is not whole, with the next.
template <class X, class Row>
[[gnu::always_inline]] inline void StreamTogether(const AffineArgs<X>& args, const Row& result) {
    constexpr std::int64_t most = 64;
    constexpr std::uintptr_t line = pack_size * sizeof(X);
    alignas(64) X buffer[(most + 1) * pack_size];
    std::int64_t held = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(args.y) % line / sizeof(X));
    std::int64_t skipped = held;  // what precedes y in its line
    X* to = args.y - held;
    for (std::int64_t row = 0; row < args.rows;) {
        const std::int64_t rows = args.rows - row < most ? args.rows - row : most;
        for (std::int64_t i = 0; i < rows; ++i) PackStore(buffer + held + i * pack_size, result(row + i));
        row += rows;
        for (std::int64_t i = 0; i < rows; ++i, to += pack_size) {
            if (skipped > 0) {
                CopyElements(to, static_cast<const X*>(buffer), skipped, pack_size);
                skipped = 0;
            } else {
                PackStream(to, PackLoad(static_cast<const X*>(buffer) + i * pack_size));
            }
        }
        PackStore(static_cast<X*>(buffer), PackLoad(static_cast<const X*>(buffer) + rows * pack_size));
    }
    CopyElements(to, static_cast<const X*>(buffer), 0, held);
}

template <class X, bool weight_varies, bool bias_varies>
[[gnu::noinline]] void LookedUpRows(const AffineArgs<X>& operands) {
    const AffineArgs<X> args = operands;  // a copy, which no store can change
    const LookedUpRow<X, weight_varies, bias_varies> result{args};
    const auto address = reinterpret_cast<std::uintptr_t>(args.y);
    const bool whole = (address | static_cast<std::uintptr_t>(args.y_row) * sizeof(X)) % (pack_size * sizeof(X)) == 0;
    const bool is_element = address % sizeof(X) == 0;
    if (has_streams && args.stream && whole) {
        for (std::int64_t row = 0; row < args.rows; ++row) PackStream(args.y + row * args.y_row, result(row));
    } else if (has_streams && args.stream && args.y_row == pack_size && is_element) {
        StreamTogether(args, result);
    } else {
        for (std::int64_t row = 0; row < args.rows; ++row) PackStore(args.y + row * args.y_row, result(row));
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
