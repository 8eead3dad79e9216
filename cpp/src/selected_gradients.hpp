// SPDX-License-Identifier: Apache-2.0
// A backward call whose sets are named by data: statistics, sums of every set and parameter, grad_input.
#pragma once

#include "selected_gradient_pieces.hpp"

namespace anynorm::detail {

/// `nest` holds x, grad_output, grad_input as op_y, the parameters, the gradients of parameters, the selection, and the
/// statistics of the first group, where there are any. Throws std::bad_alloc before anything is written, or nothing at
/// all.
void run_selected_gradients(const Nest& nest, const SelectedGradientCall& call, int threads);

}  // namespace anynorm::detail
