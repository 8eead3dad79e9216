// SPDX-License-Identifier: Apache-2.0
// Labels of rows that lie across columns: x is read once in the order of memory, and each row is added to the sums of
// its group, which a cache holds. No label is sorted.
#pragma once

#include "members.hpp"
#include "selected_moments.hpp"

namespace anynorm::detail {

/// Whether the sets of a nest are columns of labelled rows, few enough for their sums to stay in L2 and many rows for
/// each of them. `loops` are those of statistics_loops().
bool are_grouped_columns(const Selection& selection, const Nest& loops) noexcept;

/// As selected_moments(), in blocks of about 1024 rows of a group: equal to it up to rounding, with bits that do not
/// depend on the number of threads. False, with cells that are worth nothing, where some sum is not finite.
bool grouped_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                     const Nest& loops, int threads, Cell* cells);

}  // namespace anynorm::detail
