// SPDX-License-Identifier: Apache-2.0
// The apply pass for selected sets, in the order of memory: which set an element belongs to is looked up, and what
// belongs to none gets what the caller chose.
#pragma once

#include <cstdint>

#include "apply.hpp"
#include "selection.hpp"

namespace anynorm::detail {

struct SelectedApply {
    ApplyOperands operands;
    const Selection& selection;
    Excluded excluded = Excluded::zero;
    std::int64_t group_step = 0;  ///< from the coefficients of a group's cell to those of the next group's
    bool far = false;             ///< the coefficients are more than a cache holds, and groups come in any order
};

/// Walks the piece with x, y, the parameters, the cells of a group, labels and mask; A as for apply_piece().
/// `coefficients` are those of group 0.
template <class A>
void selected_apply(const kernels::Kernels<A>& kernels, const SelectedApply& apply, const Nest& piece,
                    const CoefficientsOf<A>& coefficients) noexcept;

}  // namespace anynorm::detail
