// SPDX-License-Identifier: Apache-2.0
// Labels of rows that lie across columns: each row is added to the sums of its group, which a cache holds. Where those
// of all groups are too many for a cache, the rows are sorted into buckets of groups before.
#pragma once

#include "members.hpp"
#include "selected_moments.hpp"

namespace anynorm::detail {

/// Whether the sets of a nest are columns of labelled rows, in whatever order. `loops` are those of statistics_loops().
bool are_grouped_columns(const Elements& x, const Selection& selection, const Nest& loops) noexcept;

/// As selected_moments(), in blocks of 256 rows of a group: equal to it up to rounding, with bits that do not
/// depend on the number of threads.
void grouped_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                     const Nest& loops, int threads, const CellSink& sink);

}  // namespace anynorm::detail
