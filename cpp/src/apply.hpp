// SPDX-License-Identifier: Apache-2.0
// The apply pass over one piece: y = (x - mean) * rstd * weight + bias.
#pragma once

#include <cstdint>

#include "anynorm/tensor_view.hpp"
#include "cell.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// Mean (as a pair) and rstd of every cell in the compute type C: float64 if x or y is, else float32.
template <class C>
struct Coefficients {
    C *mean, *mean_lo, *rstd;
};

struct ApplyOperands {
    Elements x, y, weight, bias;  ///< weight and bias always given: a one and a zero of stride 0 stand in
};

template <class C>
void make_coefficients(const Cell* cells, std::int64_t count, double eps, const Coefficients<C>& out) noexcept;

/// Walks the piece with x, y, the cells (as numbered by its op_cell strides) and the parameters.
template <class C>
void apply_piece(const kernels::Kernels<C>& kernels, const ApplyOperands& operands, const Nest& piece,
                 const Coefficients<C>& coefficients) noexcept;

}  // namespace anynorm::detail
