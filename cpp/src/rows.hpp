// SPDX-License-Identifier: Apache-2.0
// Statistics and apply in one walk, for pieces whose sets are rows.
#pragma once

#include "apply.hpp"
#include "merge.hpp"
#include "plan.hpp"

namespace anynorm::detail {

/// Normalizes every row of a piece. Writes their cells, in the piece's order, where `cells` is not null.
template <class X>
void normalize_rows(const kernels::Kernels<X>& kernels, const ApplyOperands& operands, const Reduction& reduction,
                    const Nest& piece, double eps, bool center, Cell* cells) noexcept;

}  // namespace anynorm::detail
