// SPDX-License-Identifier: Apache-2.0
// Merging arrays of cells.
#pragma once

#include <cstdint>

#include "kernels/cell.hpp"

namespace anynorm::detail {

using kernels::Cell;
using kernels::merge;

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
