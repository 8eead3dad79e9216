// SPDX-License-Identifier: Apache-2.0
// Who belongs to a group: for each of them the positions, in order, along the loops that a selection is made along.
#pragma once

#include <cstdint>
#include <vector>

#include "layout.hpp"
#include "selection.hpp"

namespace anynorm::detail {

/// The positions of groups, where they are segments because the labels of a nest with one selected loop and no mask
/// rise along it; empty where they do not.
RowRanges rising_positions(const Selection& selection, const Nest& nest, int threads);

/// A *position* is an index of all selected loops of a nest, counted in its order. A *family* is an index of the loops
/// that are kept and have masks of their own; in each the groups have other members.
///
/// Labels are sorted once (a stable counting sort): 4 bytes a position. Of a mask no list is kept, but the number of
/// members in every 4096 positions, from where they are counted out again.
class Members {
  public:
    /// Throws std::bad_alloc; reads labels, segments and masks. `rising`: the rising_positions().
    Members(const Selection& selection, const Nest& nest, RowRanges rising, int threads);

    std::int64_t groups() const noexcept { return groups_; }
    std::int64_t families() const noexcept { return families_; }
    /// Whether groups are segments of the positions, without a mask: those of segments, or of labels that rise.
    bool are_segments() const noexcept { return kind_ == Kind::ranges; }
    /// The loops that name a family.
    const Nest& family_loops() const noexcept { return family_loops_; }
    /// The selected loops.
    const Nest& position_loops() const noexcept { return space_; }

    /// Positions of a group.
    std::int64_t count(std::int64_t family, std::int64_t group) const noexcept;
    /// The first position of a group whose positions follow each other without gaps; -1 for others.
    std::int64_t first_of_range(std::int64_t family, std::int64_t group) const noexcept;
    /// Where the positions number `first` to `first + count` of a group are in an operand, before the offset of the
    /// family. Those of a mask are counted out from `position` on, where it is not negative, and it becomes that behind
    /// the last.
    void offsets(std::int64_t family, std::int64_t group, std::int64_t first, std::int64_t count, Operand operand,
                 std::int64_t* out, std::int64_t& position) const noexcept;
    /// Offset of a position in an operand.
    std::int64_t offset_of(std::int64_t position, Operand operand) const noexcept;

  private:
    enum class Kind : std::uint8_t { ranges, ranks, order };
    /// Members are counted in stretches of so many positions.
    static constexpr std::int64_t stretch = 4096;

    bool is_member(std::int64_t where) const noexcept { return mask_ == nullptr || mask_[where] != 0; }
    void find_ranges(const Selection& selection);
    void count_ranks(int threads);
    void count_out(std::int64_t family, std::int64_t skip, std::int64_t count, Operand operand, std::int64_t* out,
                   std::int64_t& position) const noexcept;
    void sort_labels(const Selection& selection, int threads);
    template <class Body>
    void each_position(std::int64_t family, std::int64_t first, std::int64_t last, Body&& body) const;

    Kind kind_ = Kind::ranges;
    std::int64_t groups_, families_, positions_;
    Nest space_, family_loops_;
    const unsigned char* mask_;
    /// ranges: first position and count of each group. ranks: first position (-1 where there are gaps) and count of
    /// each family. order: where each group begins in its family's order, and where the last ends.
    std::vector<std::int64_t> table_;
    std::vector<std::int64_t> before_;  ///< ranks: members before each stretch of a family
    std::vector<std::uint32_t> order_;
};

}  // namespace anynorm::detail
