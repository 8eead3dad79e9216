// SPDX-License-Identifier: Apache-2.0
// The innermost loops of a nest as the kernels' vectors take them, and how the other operands lie along them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.hpp"
#include "layout.hpp"

namespace anynorm::detail {

// A buffer of 512 float64 is 4 KB: the operands that a kernel cannot read in place pass through L1.
inline constexpr std::int64_t tile = 512;
// An inner loop below two packs is joined with its neighbours where x and y allow it. Rows that share coefficients and
// are written past the caches are joined up to a tile: the lines that two rows share would be read and written twice.
inline constexpr std::int64_t join_below = 32;
// Rows of whole packs have no ends that a kernel would take element by element.
inline constexpr std::int64_t pack_of_kernels = 16;

/// Rows in memory or in a buffer, and how far apart they are.
template <class T>
struct RowsAt {
    T* at;
    std::int64_t row;

    T* of(std::int64_t index) const noexcept { return at + index * row; }
};

/// The vectors' loop: the innermost loop of the nest, joined with its neighbours while it is short and x and y run on
/// through them. Levels are counted from the inside.
struct InnerLoop {
    int levels = 0;
    std::int64_t n[max_rank];
    std::int64_t total = 1;
    /// Elements after which all levels but the last begin again.
    std::int64_t period = 1;

    void join(const Loop& loop) {
        n[levels++] = loop.n;
        period = total;
        total *= loop.n;
    }
};

/// The strides of a coefficient along the levels of the inner loop.
struct Along {
    std::int64_t stride[max_rank] = {};

    bool constant(const InnerLoop& inner) const {
        return std::all_of(stride, stride + inner.levels, [](std::int64_t step) { return step == 0; });
    }
    bool contiguous(const InnerLoop& inner) const {
        std::int64_t expected = 1;
        for (int level = 0; level < inner.levels; ++level) {
            if (stride[level] != expected) return false;
            expected *= inner.n[level];
        }
        return true;
    }
    bool repeats(const InnerLoop& inner) const { return inner.levels > 1 && stride[inner.levels - 1] == 0; }

    /// Offset of element `index`.
    std::int64_t at(const InnerLoop& inner, std::int64_t index) const {
        std::int64_t offset = 0;
        for (int level = 0; level < inner.levels; ++level) {
            offset += index % inner.n[level] * stride[level];
            index /= inner.n[level];
        }
        return offset;
    }
};

template <class C>
void load_along(C* to, const Elements& from, std::int64_t offset, const InnerLoop& inner, const Along& along,
                std::int64_t first, std::int64_t n) {
    if (along.constant(inner)) {
        load(to, from, offset, 0, 1);
        return;
    }
    // What repeats is read once, and copied from there.
    const std::int64_t own = along.repeats(inner) ? std::min(n, inner.period) : n;
    for (std::int64_t i = first; i < first + own;) {
        const std::int64_t count = std::min(inner.n[0] - i % inner.n[0], first + own - i);
        const std::int64_t at = offset + along.at(inner, i);
        if (along.stride[0] == 0) {
            std::fill_n(to + (i - first), count, static_cast<C>(element_at(from, at)));
        } else {
            load(to + (i - first), from, at, along.stride[0], count);
        }
        i += count;
    }
    for (std::int64_t done = own, count; done < n; done += count) {
        count = std::min(done, n - done);
        std::copy_n(to, count, to + done);
    }
}

}  // namespace anynorm::detail
