// SPDX-License-Identifier: Apache-2.0
// The elements of one set as if they had been compacted, of which any stretch can be copied out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.hpp"
#include "members.hpp"

namespace anynorm::detail {

/// Where the members of a group are in an operand; a stretch of them is kept.
class MemberOffsets {
  public:
    MemberOffsets(const Members& members, Operand operand) noexcept : members_(members), operand_(operand) {}

    void begin(std::int64_t family, std::int64_t group) noexcept {
        family_ = family;
        group_ = group;
        count_ = members_.count(family, group);
        first_ = 0;
        end_ = 0;
        position_ = -1;
    }

    /// The offset of member `index`, behind which so many others follow in memory.
    const std::int64_t* at(std::int64_t index, std::int64_t& following) noexcept {
        if (index < first_ || index >= end_) {
            if (index != end_) position_ = -1;
            first_ = index;
            end_ = std::min(index + capacity, count_);
            members_.offsets(family_, group_, first_, end_ - first_, operand_, offsets_, position_);
        }
        following = end_ - index;
        return offsets_ + (index - first_);
    }

  private:
    static constexpr std::int64_t capacity = 1024;
    const Members& members_;
    Operand operand_;
    std::int64_t family_ = 0, group_ = 0, count_ = 0, first_ = 0, end_ = 0;
    std::int64_t position_ = -1;  ///< behind the last of the stretch, as Members says
    std::int64_t offsets_[capacity];
};

/// Loops of which one may run over the members of a group; the elements they reach, in their order, are the compacted
/// array.
class Compaction {
  public:
    void clear() noexcept { depth_ = 0; }
    void add(std::int64_t n, std::int64_t stride, bool selected) noexcept { loops_[depth_++] = {n, stride, selected}; }

    /// Whether neighbours in the compacted array are neighbouring members.
    bool ends_selected() const noexcept { return depth_ > 0 && loops_[depth_ - 1].selected; }

    /// Where the elements `start` to `start + n` of the compacted array are. For an array that ends_selected().
    void offsets(MemberOffsets& members, std::int64_t start, std::int64_t n, std::int64_t* out) const noexcept {
        const std::int64_t length = loops_[depth_ - 1].n;
        while (n > 0) {
            std::int64_t offset = 0, following = 0, rest = start / length;
            const std::int64_t* const member = members.at(start % length, following);
            const std::int64_t count = std::min(n, following);
            for (int i = depth_ - 2; i >= 0; --i) {
                offset += rest % loops_[i].n * loops_[i].stride;
                rest /= loops_[i].n;
            }
            for (std::int64_t i = 0; i < count; ++i) out[i] = offset + member[i];
            out += count;
            start += count;
            n -= count;
        }
    }

    /// Copies elements `start` to `start + n` of the compacted array, of which `from` is the place of offset 0.
    template <class T, class From>
    void copy(const From* from, MemberOffsets& members, std::int64_t start, std::int64_t n, T* out) const noexcept {
        std::int64_t index[max_rank];
        for (int i = depth_ - 1; i >= 0; --i) {
            index[i] = start % loops_[i].n;
            start /= loops_[i].n;
        }
        if (depth_ == 0) {
            *out = static_cast<T>(convert<T>(*from));
            return;
        }
        const Step& inner = loops_[depth_ - 1];
        if (depth_ == 2 && loops_[0].selected && inner.stride == 1 && index[1] == 0 && n % inner.n == 0) {
            return copy_rows(from, members, index[0], n / inner.n, inner.n, out);
        }
        while (n > 0) {
            std::int64_t offset = 0, following = 0;
            for (int i = 0; i < depth_ - 1; ++i) {
                offset += loops_[i].selected ? *members.at(index[i], following) : index[i] * loops_[i].stride;
            }
            std::int64_t& at = index[depth_ - 1];
            std::int64_t count = std::min(inner.n - at, n);
            if (inner.selected) {
                const std::int64_t* const member = members.at(at, following);
                count = std::min(count, following);
                const From* const p = from + offset;
                for (std::int64_t i = 0; i < count; ++i) out[i] = convert<T>(p[member[i]]);
            } else {
                const From* const p = from + offset + at * inner.stride;
                if (inner.stride == 1) {
                    for (std::int64_t i = 0; i < count; ++i) out[i] = convert<T>(p[i]);
                } else {
                    for (std::int64_t i = 0; i < count; ++i) out[i] = convert<T>(p[i * inner.stride]);
                }
            }
            out += count;
            n -= count;
            at += count;
            for (int i = depth_ - 1; i > 0 && index[i] == loops_[i].n; --i) {
                index[i] = 0;
                ++index[i - 1];
            }
        }
    }

  private:
    struct Step {
        std::int64_t n, stride;
        bool selected;
    };
    /// A row of one line takes 4 ns to copy, a line from memory 100 ns to come.
    static constexpr std::int64_t ahead = 24;

    /// Whole rows of members, which may lie anywhere: what is copied soon is fetched now.
    template <class T, class From>
    static void copy_rows(const From* from, MemberOffsets& members, std::int64_t first, std::int64_t rows,
                          std::int64_t n, T* out) noexcept {
        constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(From));
        const std::int64_t fetched = std::min<std::int64_t>(n, 8 * line);
        while (rows > 0) {
            std::int64_t following = 0;
            const std::int64_t* const member = members.at(first, following);
            const std::int64_t count = std::min(rows, following);
            for (std::int64_t row = 0, last = 0; row < count; row = last) {
                // Rows that follow each other are one stretch, which a prefetcher finds by itself.
                for (last = row + 1; last < count && member[last] == member[last - 1] + n;) ++last;
                if (last == row + 1 && row + ahead < following) {
                    const From* const next = from + member[row + ahead];
                    for (std::int64_t i = 0; i < fetched; i += line) __builtin_prefetch(next + i);
                    __builtin_prefetch(next + fetched - 1);
                }
                const From* const p = from + member[row];
                const std::int64_t length = (last - row) * n;
                for (std::int64_t i = 0; i < length; ++i) out[i] = convert<T>(p[i]);
                out += length;
            }
            first += count;
            rows -= count;
        }
    }

    template <class T, class From>
    static T convert(From value) noexcept {
        if constexpr (std::is_same_v<T, From>) {
            return value;
        } else {
            return static_cast<T>(promote(value));
        }
    }

    int depth_ = 0;
    Step loops_[max_rank];
};

}  // namespace anynorm::detail
