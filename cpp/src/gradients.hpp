// SPDX-License-Identifier: Apache-2.0
// Runs a plan backwards: sums of every set and of every parameter, gradients written.
#pragma once

#include "anynorm/fusion.hpp"
#include "dispatch.hpp"
#include "elements.hpp"
#include "plan.hpp"
#include "schedule.hpp"

namespace anynorm::detail {

/// The operands of one backward call, validated. grad_input is op_y of the plan's nest.
struct GradientCall {
    Elements x, grad_output, weight;
    Elements bias;  ///< read for the activation alone
    Activation activation = Activation::none;
    Elements grad_sum;  ///< added to grad_input, optional
    const kernels::KernelTable* table = nullptr;
    Elements grad_input, grad_weight, grad_bias;  ///< each optional
    MomentsElements given;
    double eps = 0;
    bool center = true;
    bool frozen = false;  ///< the statistics are constants: no gradient flows through them
};

/// A plan whose pieces, and so the order of all sums, depend on the shape alone.
Plan make_gradient_plan(const Nest& nest, const GradientCall& call, int threads) noexcept;

/// Throws std::bad_alloc before anything is written, or nothing at all.
void run_gradient_plan(Plan& plan, const GradientCall& call, const kernels::KernelTable& table);

}  // namespace anynorm::detail
