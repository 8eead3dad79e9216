// SPDX-License-Identifier: Apache-2.0
// Merging cells (Chan, Golub, LeVeque 1983) with the mean kept as an unevaluated pair.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

using kernels::Cell;

/// into = into + from. The order of the operands is part of the result's bits.
inline void merge(Cell& into, const Cell& from) noexcept {
    if (from.count == 0) return;
    if (into.count == 0) {
        into = from;
        return;
    }
    const double total = into.count + from.count;
    const double share = from.count / total;
    const double delta = (from.mean - into.mean) + (from.mean_lo - into.mean_lo);
    if (!(delta - delta == 0)) {
        // An infinite mean stays what NumPy gives; two finite means too far apart for their difference are averaged.
        into.mean = into.mean * (into.count / total) + from.mean * share;
        into.mean_lo = 0;
        into.m2 = into.m2 + from.m2 + delta * delta;
    } else {
        const double shift = delta * share + into.mean_lo;
        const double mean = into.mean + shift;
        const double part = mean - shift;
        into.mean_lo = (into.mean - part) + (shift - (mean - part));
        into.mean = mean;
        into.m2 = (into.m2 + from.m2) + delta * delta * (into.count * share);
    }
    into.count = total;
}

inline void merge(Cell* into, const Cell* from, std::int64_t count) noexcept {
    for (std::int64_t i = 0; i < count; ++i) merge(into[i], from[i]);
}

/// Merges columns into sets, in place: column i * set_step + j * column_step, j < columns, belongs to set i.
inline void merge_columns(Cell* cells, std::int64_t sets, std::int64_t set_step, std::int64_t columns,
                          std::int64_t column_step) noexcept {
    if (columns == 1) return;
    for (std::int64_t i = 0; i < sets; ++i) {
        Cell sum = cells[i * set_step];
        for (std::int64_t j = 1; j < columns; ++j) merge(sum, cells[i * set_step + j * column_step]);
        cells[i] = sum;
    }
}

}  // namespace anynorm::detail
