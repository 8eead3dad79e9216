// SPDX-License-Identifier: Apache-2.0
// Merging arrays of cells.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cell.hpp"

namespace anynorm::detail {

using kernels::Cell;
using kernels::merge;

/// The statistics of no elements.
inline constexpr Cell empty_cell{0, std::numeric_limits<double>::quiet_NaN(), 0, 0};

/// The moments from finite sums of (x - c) and (x - c)^2 over elements of so much weight.
inline Cell cell_of_sums(double count, double c, double s1, double s2) noexcept {
    const double shift = s1 / count, mean = c + shift, part = mean - shift;
    return {count, mean, (c - part) + (shift - (mean - part)), std::max(0.0, s2 - s1 * shift)};
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
