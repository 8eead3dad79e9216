// SPDX-License-Identifier: Apache-2.0
// Do two views share memory? Asked before anything is written.
#pragma once

#include "anynorm/tensor_view.hpp"

namespace anynorm::detail {

/// Whether the views are the same elements in the same order, as for y = x in place.
bool same_view(const TensorView& a, const TensorView& b) noexcept;

/// Whether an element of one shares a byte with an element of the other. Exact for every layout in practical use
/// (interleaved channels, halves of a buffer); true when the search would take too long.
bool overlaps(const TensorView& a, const TensorView& b) noexcept;

/// Whether some element is reached by two indices (a stride of 0, a sliding window). True as well for layouts whose
/// axes interleave so that it cannot be told from the strides in their order.
bool overlaps_itself(const TensorView& view) noexcept;

}  // namespace anynorm::detail
