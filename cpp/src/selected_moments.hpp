// SPDX-License-Identifier: Apache-2.0
// The statistics of selected sets. Those of a group are the moments of its compacted elements, to the bit: they are
// copied together a block at a time, or read as they lie where they follow each other.
#pragma once

#include <cstdint>
#include <functional>

#include "elements.hpp"
#include "layout.hpp"
#include "members.hpp"
#include "merge.hpp"

namespace anynorm::detail {

struct SelectedOperands {
    Elements x, sample_weight;  ///< sample_weight is optional
    bool center = true;
};

/// Takes the cells of `count` groups from `first` on, group by group, and the sums of their squared weights where there
/// are weights, else nullptr. An empty set has count 0 and a mean of NaN. Each group is given once, when its cells are
/// known, to several threads at a time: an array of all cells would take longer to come from the system, at 3 us a
/// page, than 1e6 groups to be summed. Must not throw.
using CellSink = std::function<void(std::int64_t first, std::int64_t count, const Cell* cells, const double* squares)>;

/// Sums all sets; the cells of a group are in the order of the nest's. Throws std::bad_alloc before the sink is called.
void selected_moments(const kernels::KernelTable& table, const SelectedOperands& operands, const Nest& nest,
                      const Members& members, int threads, const CellSink& sink);

}  // namespace anynorm::detail
