// SPDX-License-Identifier: Apache-2.0
// Walks a piece whose sets are named by data: tiles of a few rows of neighbouring elements, and the group of each.
#pragma once

#include <algorithm>
#include <cstdint>

#include "inner_loop.hpp"
#include "layout.hpp"
#include "selection.hpp"

namespace anynorm::detail {

/// The groups from `first` on, `last` not among them.
struct GroupRange {
    std::int64_t first, last;

    bool contains(std::int64_t group) const { return group >= first && group < last; }
};

/// `rows` rows of `n` elements: neighbours along the innermost loop of a nest, rows along the next.
struct SelectedTile {
    static constexpr std::int64_t max_rows = 128;

    std::int64_t rows, n;
    std::int64_t offset[operand_count];  ///< of the first element
    Loop row, inner;
    /// Of every row; -1 where no element of it is in a set. Where labels vary along the rows, 0 stands for any.
    std::int64_t group[max_rows];
    bool labels_vary;
    /// Where some elements of a row are in a set and others are not, or labels vary: whether it is, of all elements.
    const bool* used;
    /// Where labels vary along the rows: the group of every element, -1 for none. Else nullptr.
    const std::int64_t* group_of;
    /// Of the rows behind these, as far as they are known, for those who fetch ahead.
    std::int64_t rows_ahead, group_ahead[max_rows];

    std::int64_t at(Operand operand, std::int64_t of_row) const {
        return offset[operand] + of_row * row.stride[operand];
    }
    std::int64_t step(Operand operand) const { return inner.stride[operand]; }
    /// Whether any element is in a set.
    bool any() const {
        return std::any_of(group, group + rows, [](std::int64_t of_row) { return of_row >= 0; });
    }

    /// Whether there are rows without such an element.
    bool some_excluded() const { return std::find(group, group + rows, -1) != group + rows; }

    /// Calls body(first row, rows, group) for the longest runs of rows that share a group; group -1 is that of no set.
    template <class Body>
    void for_each_run(Body&& body) const {
        for (std::int64_t first = 0; first < rows;) {
            std::int64_t last = first + 1;
            while (last < rows && group[last] == group[first]) ++last;
            body(first, last - first, group[first]);
            first = last;
        }
    }
};

class SelectedTiles {
  public:
    SelectedTiles(const Nest& piece, const Selection& selection, GroupRange range) noexcept
        // The loop along which sets and parameters are numbered stays the innermost, even of one element.
        : nest_(piece.depth > 0 && piece.loops[piece.depth - 1].n == 1 ? piece : coalesce(piece, all_operands)),
          outside_(nest_.depth),
          lookup_(selection),
          mask_(static_cast<const unsigned char*>(selection.where.data)),
          has_mask_(selection.where.given()),
          range_(range) {
        if (outside_ > 0) tile_.inner = nest_.loops[--outside_];
        if (outside_ > 0) tile_.row = nest_.loops[--outside_];
        tile_.labels_vary = tile_.step(op_labels) != 0;
        mask_varies_ = has_mask_ && tile_.step(op_where) != 0;
    }

    const Loop& inner() const { return tile_.inner; }

    /// `buffered`: the caller has a buffer of `tile` elements, and no more, for some of the operands. `looks_ahead`: it
    /// wants to know the groups of the next rows, where they do not vary along them.
    template <class Body>
    void for_each(bool buffered, bool looks_ahead, Body&& body) noexcept {
        // Kernels take long rows, and many short ones, at once where they lie in memory.
        constexpr std::int64_t direct = 8 * tile;
        const bool whole = !buffered && !mask_varies_ && !tile_.labels_vary;
        step_ = whole ? tile_.inner.n : std::min(tile_.inner.n, tile);
        rows_ = step_ < tile_.inner.n ? 1 : std::max<std::int64_t>(1, (whole ? direct : tile) / step_);
        rows_ = std::min({rows_, tile_.row.n, SelectedTile::max_rows});
        looks_ahead = looks_ahead && step_ == tile_.inner.n && !tile_.labels_vary;
        walk(nest_, outside_, [&](const std::int64_t* offset) {
            const auto visit = [&](std::int64_t row, std::int64_t first, bool same_groups) {
                tile_.rows = std::min(rows_, tile_.row.n - row);
                tile_.n = std::min(step_, tile_.inner.n - first);
                for (int operand = 0; operand < operand_count; ++operand) {
                    tile_.offset[operand] =
                        offset[operand] + row * tile_.row.stride[operand] + first * tile_.inner.stride[operand];
                }
                if (!same_groups) find_groups(looks_ahead ? std::min(rows_, tile_.row.n - row - tile_.rows) : 0);
                body(static_cast<const SelectedTile&>(tile_));
            };
            tile_.rows_ahead = 0;
            if (rows_share_groups()) {
                for (std::int64_t first = 0; first < tile_.inner.n; first += step_)
                    for (std::int64_t row = 0; row < tile_.row.n; row += rows_) visit(row, first, row > 0);
            } else {
                for (std::int64_t row = 0; row < tile_.row.n; row += rows_)
                    for (std::int64_t first = 0; first < tile_.inner.n; first += step_) visit(row, first, false);
            }
        });
    }

  private:
    /// Groups that vary along the rows, and not from row to row, are found once for all of them.
    bool rows_share_groups() const {
        const auto repeats = [&](Operand operand) { return tile_.row.stride[operand] == 0; };
        return (tile_.labels_vary || mask_varies_) && repeats(op_labels) && repeats(op_where);
    }

    std::int64_t group_at(std::int64_t offset) {
        const std::int64_t group = lookup_(offset);
        return range_.contains(group) ? group : -1;
    }
    std::int64_t group_of_row(std::int64_t row) {
        if (has_mask_ && !mask_varies_ && mask_[tile_.at(op_where, row)] == 0) return -1;
        return group_at(tile_.at(op_labels, row));
    }

    void find_groups(std::int64_t rows_ahead) {
        tile_.used = nullptr;
        tile_.group_of = nullptr;
        if (tile_.labels_vary) return find_groups_of_elements();
        if (tile_.rows_ahead > 0) {
            std::copy_n(tile_.group_ahead, tile_.rows, tile_.group);
        } else {
            for (std::int64_t row = 0; row < tile_.rows; ++row) tile_.group[row] = group_of_row(row);
        }
        tile_.rows_ahead = rows_ahead;
        for (std::int64_t row = 0; row < rows_ahead; ++row) tile_.group_ahead[row] = group_of_row(tile_.rows + row);
        if (mask_varies_) find_used();
    }

    void find_groups_of_elements() {
        for (std::int64_t row = 0; row < tile_.rows; ++row) {
            bool any = false;
            for (std::int64_t i = 0; i < tile_.n; ++i) {
                std::int64_t group = group_at(tile_.at(op_labels, row) + i * tile_.step(op_labels));
                if (has_mask_ && mask_[tile_.at(op_where, row) + i * tile_.step(op_where)] == 0) group = -1;
                group_of_[row * tile_.n + i] = group;
                used_[row * tile_.n + i] = group >= 0;
                any = any || group >= 0;
            }
            tile_.group[row] = any ? 0 : -1;
        }
        tile_.used = used_;
        tile_.group_of = group_of_;
    }

    /// Tiles of whole rows, in sets or not, need no flags.
    void find_used() {
        bool some = false;
        for (std::int64_t row = 0; row < tile_.rows; ++row) {
            bool* const used = used_ + row * tile_.n;
            if (tile_.group[row] < 0) {
                std::fill_n(used, tile_.n, false);
                continue;
            }
            const unsigned char* const mask = mask_ + tile_.at(op_where, row);
            const std::int64_t step = tile_.step(op_where);
            for (std::int64_t i = 0; i < tile_.n; ++i) used[i] = mask[i * step] != 0;
            const std::int64_t count = std::count(used, used + tile_.n, true);
            if (count == 0) tile_.group[row] = -1;
            some = some || (count > 0 && count < tile_.n);
        }
        if (some) tile_.used = used_;
    }

    Nest nest_;
    int outside_;
    GroupLookup lookup_;
    const unsigned char* mask_;
    bool has_mask_, mask_varies_ = false;
    GroupRange range_;
    std::int64_t step_ = 1, rows_ = 1;
    SelectedTile tile_{1, 1, {}, {1, false, {}}, {1, false, {}}, {}, false, nullptr, nullptr, 0, {}};
    bool used_[tile];
    std::int64_t group_of_[tile];
};

}  // namespace anynorm::detail
