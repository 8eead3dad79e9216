// SPDX-License-Identifier: Apache-2.0
// Sums of rows by groups. A run of rows of one group is added to sums that stay in registers meanwhile: those of 1000
// groups of 16 columns are in L2, and to load and store them for every row takes 20 to 40 % longer in all.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Adds rows to the sums of 16 columns.
template <class X, class LoadRow>
inline void AddRun(const std::uint32_t* row_of, std::int64_t rows, const X* x, std::int64_t x_row, double* shifts,
                   std::int64_t width, const LoadRow& load_row) {
    double *const s1_of = shifts + width, *const s2_of = s1_of + width;
    const Pack<double> shift = PackLoad(shifts);
    Pack<double> s1 = PackLoad(s1_of), s2 = PackLoad(s2_of);
    for (std::int64_t i = 0; i < rows; ++i) {
        const Pack<double> d = load_row(x + row_of[i] * x_row) - shift;
        s1 = PackAccumulate(s1, d);
        s2 = PackMulAdd(d, d, s2);
    }
    PackStore(s1_of, s1);
    PackStore(s2_of, s2);
}

template <class X>
void GroupedSums(const GroupedSumsArgs<X>& args) noexcept {
    // Rows lie anywhere in a window of memory, and runs come in any order: both are fetched before they are needed.
    constexpr std::int64_t ahead = 16, runs_ahead = 4, line = 64 / sizeof(X), most = 8 * line;
    const std::int64_t width = whole_packs(args.n), rest = args.n % pack_size, whole = args.n - rest;
    const std::int64_t fetched = args.n < most ? args.n : most, fetched_sums = 3 * (width < 16 ? width : 16);
    const std::int64_t end = args.run[args.runs - 1].last - ahead;
    std::int64_t first = args.first;
    for (std::int64_t r = 0; r < args.runs; ++r) {
        const GroupRun& run = args.run[r];
        if (r + runs_ahead < args.runs) {
            const double* const next = args.sums + args.run[r + runs_ahead].group * args.group_stride;
            for (std::int64_t i = 0; i < fetched_sums; i += 8) __builtin_prefetch(next + i, 1);
        }
        for (std::int64_t i = first; i < run.last && i < end; ++i) {
            const X* const row = args.x + args.row_of[i + ahead] * args.x_row;
            for (std::int64_t j = 0; j < fetched; j += line) __builtin_prefetch(row + j);
        }
        const std::uint32_t* const row_of = args.row_of + first;
        const std::int64_t rows = run.last - first;
        double* const sums = args.sums + run.group * args.group_stride;
        for (std::int64_t i = 0; i < whole; i += pack_size) {
            AddRun(row_of, rows, args.x + i, args.x_row, sums + i, width,
                   [](const X* x) { return PackLoadPromote(x); });
        }
        if (rest > 0) {  // what lies beyond the columns stays 0
            AddRun(row_of, rows, args.x + whole, args.x_row, sums + whole, width,
                   [rest](const X* x) { return PackLoadPromoteN(x, rest, 0); });
        }
        first = run.last;
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
