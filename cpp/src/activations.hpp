// SPDX-License-Identifier: Apache-2.0
// Activations and their derivatives in the compute types: float32 by the kernels, float64 one by one with <cmath>.
#pragma once

#include <cstdint>

#include "anynorm/fusion.hpp"
#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

/// y = f(x) for n values; y may be x.
void activate(const kernels::KernelTable& table, Activation activation, float* y, const float* x,
              std::int64_t n) noexcept;
void activate(const kernels::KernelTable& table, Activation activation, double* y, const double* x,
              std::int64_t n) noexcept;

/// grad_input = grad_output * f'(x) for n values; grad_input may be grad_output or x. relu has a slope of 0 at 0.
void activation_gradient(const kernels::KernelTable& table, Activation activation, float* grad_input,
                         const float* grad_output, const float* x, std::int64_t n) noexcept;
void activation_gradient(const kernels::KernelTable& table, Activation activation, double* grad_input,
                         const double* grad_output, const double* x, std::int64_t n) noexcept;

}  // namespace anynorm::detail
