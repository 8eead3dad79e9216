// SPDX-License-Identifier: Apache-2.0
// x + residual, formed a piece at a time just before its statistics are taken, so that the sum is read from a cache.
#pragma once

#include "elements.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// The terms and the sum; not given where x is normalized as it is.
struct ResidualSum {
    Elements input, residual, sum;

    bool given() const noexcept { return residual.given(); }
};

/// Writes the sum of a piece, whose op_x, op_input and op_residual strides say how the three are walked.
void add_piece(const kernels::KernelTable& table, const ResidualSum& operands, const Nest& piece) noexcept;

}  // namespace anynorm::detail
