// SPDX-License-Identifier: Apache-2.0
// Moments of elements that have weights.
#pragma once

#include <cstdint>

#include "merge.hpp"

namespace anynorm::detail {

/// The moments of each of `columns` columns of `rows` rows, neighbours in memory as their weights are:
///
///     s0 = sum(w)    s1 = sum(w * (x - c))    s2 = sum(w * (x - c)^2)    mean = c + s1 / s0    m2 = s2 - s1 * s1 / s0
///
/// with c the first element of the column that has a weight (West, Communications of the ACM 22 (1979), gives the merge
/// of such sums). x at a weight of 0 is not looked at. `squares` gets the sums of the squared weights.
template <class X>
void weighted_columns(const X* x, const double* weight, std::int64_t rows, std::int64_t columns, bool center, Cell* out,
                      double* squares) noexcept;

/// The same of one set of n elements: as 16 columns, so that the sums do not wait for each other.
template <class X>
Cell weighted_row(const X* x, const double* weight, std::int64_t n, bool center, double& squares) noexcept;

/// The most columns of a call.
inline constexpr std::int64_t max_weighted_columns = 64;

}  // namespace anynorm::detail
