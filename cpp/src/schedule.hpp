// SPDX-License-Identifier: Apache-2.0
// Runs a plan: pieces to workers, cells merged in their fixed order, statistics written out, y written.
#pragma once

#include "anynorm/moments.hpp"
#include "anynorm/tensor_view.hpp"
#include "dispatch.hpp"
#include "plan.hpp"

namespace anynorm::detail {

/// The operands of one call, validated. The plan's nest says how each is walked.
struct Call {
    TensorView x, y, weight, bias;
    MomentsView given, out;
    double eps = 0;
    bool center = true;

    bool has_statistics() const noexcept { return !given.given(); }
    bool has_apply() const noexcept { return y.given(); }
};

/// Throws std::bad_alloc before anything is written, or nothing at all.
void run_plan(const Plan& plan, const Call& call, const kernels::KernelTable& table);

}  // namespace anynorm::detail
