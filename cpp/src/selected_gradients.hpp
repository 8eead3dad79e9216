// SPDX-License-Identifier: Apache-2.0
// A backward call whose sets are named by data: statistics, sums of every set and parameter, grad_input.
#pragma once

#include "selected_gradient_pieces.hpp"

namespace anynorm::detail {

/// `nest` is that of make_selected_nest(), with grad_output, grad_input as op_y, parameters and gradients of parameters
/// as well. Throws before anything is written: std::bad_alloc, or what Members throws.
void run_selected_gradients(const Nest& nest, const SelectedGradientCall& call, int threads);

}  // namespace anynorm::detail
