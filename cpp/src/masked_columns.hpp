// SPDX-License-Identifier: Apache-2.0
// Columns that each have a mask of their own, as where NaN are left out: x is read once in the order of memory, and
// the members of 16 columns are collected side by side until they fill a block.
#pragma once

#include "selected_moments.hpp"

namespace anynorm::detail {

/// Whether the sets of a nest are neighbouring columns with masks of their own. `loops` are those of
/// statistics_loops().
bool are_masked_columns(const Selection& selection, const Nest& loops) noexcept;

/// As selected_moments(), to the bit.
void masked_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                    const Nest& loops, int threads, const CellSink& sink);

}  // namespace anynorm::detail
