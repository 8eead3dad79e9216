// SPDX-License-Identifier: Apache-2.0
// Short rows that a mask tears apart. All of them are computed, joined to rows of whole packs, and those that are
// excluded then get what they should have: runs of two or three rows of 3 each took a call of a kernel.
#pragma once

#include <algorithm>
#include <cstdint>

namespace anynorm::detail {

/// The mask of rows, or where they are in memory.
template <class T>
struct Strided {
    T* first;
    std::int64_t step;

    T* at(std::int64_t row) const noexcept { return first + row * step; }
};

/// Elements that are computed at a time, and are in a cache still when some of them are replaced.
constexpr std::int64_t torn_stretch = 8192;

/// Whether rows that are used and rows that are not follow each other in runs of fewer than eight on average.
inline bool is_torn(const Strided<const unsigned char>& mask, std::int64_t rows) noexcept {
    constexpr std::int64_t short_run = 8;
    std::int64_t changes = 0;
    for (std::int64_t row = 1; row < rows; ++row) changes += (*mask.at(row) != 0) != (*mask.at(row - 1) != 0) ? 1 : 0;
    return changes * short_run > rows;
}

/// Gives rows of n elements that are not used those of x, or zeros without x.
template <class A>
void replace_excluded(const Strided<const unsigned char>& mask, const Strided<const A>& x, const Strided<A>& y,
                      std::int64_t rows, std::int64_t n) noexcept {
    for (std::int64_t row = 0; row < rows; ++row) {
        if (*mask.at(row) != 0) continue;
        if (x.first == nullptr) {
            std::fill_n(y.at(row), n, A{});
        } else {
            std::copy_n(x.at(row), n, y.at(row));
        }
    }
}

}  // namespace anynorm::detail
