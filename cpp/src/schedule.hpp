// SPDX-License-Identifier: Apache-2.0
// Runs a plan: pieces to workers, cells merged in their fixed order, statistics written out, y written.
#pragma once

#include "anynorm/moments.hpp"
#include "anynorm/tensor_view.hpp"
#include "dispatch.hpp"
#include "elements.hpp"
#include "epilogue.hpp"
#include "plan.hpp"
#include "residual.hpp"

namespace anynorm::detail {

struct MomentsElements {
    Elements count, mean, m2, mean_low;

    bool given() const noexcept { return count.given() || mean.given() || m2.given() || mean_low.given(); }
};

inline MomentsElements elements_of(const MomentsView& views) noexcept {
    return {elements_of(views.count), elements_of(views.mean), elements_of(views.m2), elements_of(views.mean_low)};
}

/// The operands of one call, validated. The plan's nest says how each is walked.
struct Call {
    Elements x, y, weight, bias;
    MomentsElements given, out;
    ResidualSum sum;  ///< which is x then
    Epilogue epilogue;
    double eps = 0;
    bool center = true;

    bool has_statistics() const noexcept { return !given.given(); }
    bool has_apply() const noexcept { return y.given(); }
};

/// Fills the cells of a piece, in its order, from the caller's statistics.
void load_given(const MomentsElements& given, bool center, const Nest& piece, kernels::Cell* cells) noexcept;

/// Throws std::bad_alloc before anything is written, or nothing at all. The plan's nest gets other strides for
/// parameters that are gathered.
void run_plan(Plan& plan, const Call& call, const kernels::KernelTable& table);

}  // namespace anynorm::detail
