// SPDX-License-Identifier: Apache-2.0
// Labels that rise are segments, whose sums stay in registers and whose results are written while a cache has them.
#pragma once

#include <cstdint>
#include <vector>

#include "anynorm/grouping.hpp"
#include "elements.hpp"

namespace anynorm::detail {

/// Where the rows of each group begin and end: two numbers a group.
using RowRanges = std::vector<std::int64_t>;

/// Those of n labels from `offset` on, `step` apart, that never fall, but among those that exclude, which come first;
/// empty where they fall and where one is not below `groups`. Most other labels fall early.
RowRanges rising_rows(const Elements& labels, std::int64_t offset, std::int64_t step, std::int64_t n,
                      std::int64_t groups, int threads);

/// Those of labels along axis 0 of x; empty as well where they are few or masked.
RowRanges rising_rows(const Selection& selection, const TensorView& x, int threads);

/// The selection with segments in place of labels, where there are `rows`, which stay the caller's.
Selection with_segments(const Selection& selection, const RowRanges& rows) noexcept;

}  // namespace anynorm::detail
