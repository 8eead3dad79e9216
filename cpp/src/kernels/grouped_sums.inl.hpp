// SPDX-License-Identifier: Apache-2.0
// Sums of rows in the order of memory, each to those of its group: 1000 groups of 16 columns keep theirs in L2.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Adds a pack of elements to the sums of its columns.
inline void AddToGroup(const Pack<double>& x, double* c, std::int64_t width) {
    const Pack<double> d = x - PackLoad(c);
    double *const s1 = c + width, *const s2 = s1 + width;
    PackStore(s1, PackLoad(s1) + d);
    PackStore(s2, PackMulAdd(d, d, PackLoad(s2)));
}

template <class X>
void GroupedSums(const GroupedSumsArgs<X>& args) noexcept {
    // Groups come in any order: what their sums need is fetched some rows before.
    constexpr std::int64_t ahead = 4;
    const std::int64_t width = whole_packs(args.n), rest = args.n % pack_size, whole = args.n - rest;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        if (row + ahead < args.rows && args.group_of[row + ahead] >= 0) {
            const double* const next = args.sums + args.group_of[row + ahead] * args.group_stride;
            for (std::int64_t i = 0; i < args.group_stride; i += 8) __builtin_prefetch(next + i, 1);
        }
        if (args.group_of[row] < 0) continue;
        const X* const x = args.x + row * args.x_row;
        double* const sums = args.sums + args.group_of[row] * args.group_stride;
        for (std::int64_t i = 0; i < whole; i += pack_size) AddToGroup(PackLoadPromote(x + i), sums + i, width);
        // What lies beyond the columns stays 0.
        if (rest > 0) AddToGroup(PackLoadPromoteN(x + whole, rest, 0), sums + whole, width);
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
