// SPDX-License-Identifier: Apache-2.0
// The statistics of selected sets. Those of a group are the moments of its compacted elements, to the bit: they are
// copied together a block at a time, or read as they lie where they follow each other.
#pragma once

#include <cstdint>

#include "elements.hpp"
#include "layout.hpp"
#include "members.hpp"
#include "merge.hpp"

namespace anynorm::detail {

struct SelectedOperands {
    Elements x, sample_weight;  ///< sample_weight is optional
    bool center = true;
};

/// Fills the cells of all sets: of group g those of the nest's cells follow g times their number. `weight2`, if given,
/// gets the sums of the squared weights likewise. An empty set has count 0 and a mean of NaN.
///
/// Throws std::bad_alloc before anything is written.
void selected_moments(const kernels::KernelTable& table, const SelectedOperands& operands, const Nest& nest,
                      const Members& members, int threads, Cell* cells, double* weight2);

}  // namespace anynorm::detail
