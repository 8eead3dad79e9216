// SPDX-License-Identifier: Apache-2.0
// Short rows that a mask tears apart. All of them are computed, joined to rows of whole packs, and those that are
// excluded then get what they should have: runs of two or three rows of 3 each took a call of a kernel.
#pragma once

#include <algorithm>
#include <cstdint>

#include "inner_loop.hpp"

namespace anynorm::detail {

/// Elements that are computed at a time, and are in a cache still when some of them are replaced.
inline constexpr std::int64_t torn_stretch = 8192;

/// Whether, by their mask, rows that are used and rows that are not follow each other in runs of fewer than eight on
/// average.
inline bool is_torn(const RowsAt<const unsigned char>& mask, std::int64_t rows) noexcept {
    constexpr std::int64_t short_run = 8;
    std::int64_t changes = 0;
    for (std::int64_t row = 1; row < rows; ++row) changes += (*mask.of(row) != 0) != (*mask.of(row - 1) != 0) ? 1 : 0;
    return changes * short_run > rows;
}

/// Gives rows of n elements that are not used those of x, or zeros without x.
template <class A>
void replace_excluded(const RowsAt<const unsigned char>& mask, const RowsAt<const A>& x, const RowsAt<A>& y,
                      std::int64_t rows, std::int64_t n) noexcept {
    for (std::int64_t row = 0; row < rows; ++row) {
        if (*mask.of(row) != 0) continue;
        if (x.at == nullptr) {
            std::fill_n(y.of(row), n, A{});
        } else {
            std::copy_n(x.of(row), n, y.of(row));
        }
    }
}

}  // namespace anynorm::detail
