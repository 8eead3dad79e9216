// SPDX-License-Identifier: Apache-2.0
// How the sums of a backward call whose sets are named by data are divided among threads. A function of shapes, strides
// and offsets alone, so that the order of all sums is the same for any number of threads.
#pragma once

#include <cstdint>

#include "plan.hpp"
#include "selected_tiles.hpp"

namespace anynorm::detail {

/// Elements of some groups.
struct SelectedPiece {
    Nest nest;
    GroupRange range;
};

/// All elements, in pieces that are summed in their order by each of `parts` parts.
struct SelectedPass {
    Nest cut_nest;  ///< kept along the loops that are cut
    Cut cut;
    bool by_groups = false;  ///< the pieces are ranges of groups instead
    std::int64_t pieces = 1, parts = 1;
    bool sums[3] = {};  ///< of the sets, of weight, of bias

    SelectedPiece piece(const Nest& nest, const Selection& selection, std::int64_t groups, std::int64_t index) const;
};

// The finding is a name in the copy that the compiler writes.
struct SelectedPartition {  // NOLINT(bugprone-reserved-identifier)
    SelectedPass passes[3];
    int pass_count = 0;
    /// Partial sums of the sets, of weight, of bias: as many as parts, or 1 where no two parts share one.
    std::int64_t partials[3] = {1, 1, 1};
    /// Each piece of the first pass has all elements of its sets.
    bool whole_sets = false;
};

struct PartitionRequest {
    const Nest& nest;
    const Selection& selection;
    std::int64_t groups;
    std::int64_t sets;           ///< to sum; 0: none
    std::int64_t parameters[2];  ///< elements of each that is to be summed for itself; 0: none
};

/// Pieces in the order of memory.
SelectedPass pass_of_elements(const Nest& nest) noexcept;

SelectedPartition make_partition(const PartitionRequest& request) noexcept;

}  // namespace anynorm::detail
