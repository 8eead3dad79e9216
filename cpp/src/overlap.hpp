// SPDX-License-Identifier: Apache-2.0
// Do two views share memory? Asked before anything is written.
#pragma once

#include <cstdint>

#include "anynorm/tensor_view.hpp"

namespace anynorm::detail {

/// Whether the views are the same elements in the same order, as for y = x in place.
bool same_view(const TensorView& a, const TensorView& b) noexcept;

/// The bytes between which the elements of a view lie: all there is to ask of arrays that were allocated apart.
struct Range {
    std::intptr_t first, end;  ///< equal where there are none

    explicit Range(const TensorView& view) noexcept {
        first = end = reinterpret_cast<std::intptr_t>(view.data);
        const auto bytes = static_cast<std::intptr_t>(size_of(view.dtype));
        std::intptr_t below = 0, above = bytes;
        for (int axis = 0; axis < view.rank; ++axis) {
            if (view.shape[axis] == 0) return;
            const std::intptr_t reach = view.strides[axis] * (view.shape[axis] - 1) * bytes;
            (reach < 0 ? below : above) += reach;
        }
        first += below;
        end += above;
    }

    bool apart_from(const Range& other) const noexcept {
        return end <= other.first || other.end <= first || first == end || other.first == other.end;
    }
};

/// Whether an element of one shares a byte with an element of the other. Exact for every layout in practical use
/// (interleaved channels, halves of a buffer); true when the search would take too long.
bool overlaps(const TensorView& a, const TensorView& b) noexcept;

/// Whether some element is reached by two indices (a stride of 0, a sliding window). True as well for layouts whose
/// axes interleave so that it cannot be told from the strides in their order.
bool overlaps_itself(const TensorView& view) noexcept;

}  // namespace anynorm::detail
