// SPDX-License-Identifier: Apache-2.0
// weight and bias as the kernels want them: in the compute type, neighbours along the innermost loop.
#pragma once

#include <cstdint>

#include "elements.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// Whether a call that computes in `compute` should gather the parameter: it is of another type or not contiguous
/// along the innermost loop, and small against x.
bool wants_gathering(const Nest& nest, Operand operand, const Elements& elements, DType compute) noexcept;

/// Copies the parameter to `to`, dense in the order of the nest, and gives the nest its new strides.
template <class C>
void gather_parameter(Nest& nest, Operand operand, const Elements& elements, C* to) noexcept;

}  // namespace anynorm::detail
