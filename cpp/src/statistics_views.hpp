// SPDX-License-Identifier: Apache-2.0
// The caller's arrays of statistics: their place in the index space of x, and what they hold for no elements.
#pragma once

#include <limits>

#include "anynorm/moments.hpp"
#include "layout.hpp"

namespace anynorm::detail {

inline void add_statistics_strides(OperandStrides& strides, const MomentsView& views, const TensorView& x,
                                   AxisSet reduced) noexcept {
    if (views.count.given()) strides.set(op_count, statistics_strides(views.count, x, reduced));
    if (views.mean.given()) strides.set(op_mean, statistics_strides(views.mean, x, reduced));
    if (views.mean_low.given()) strides.set(op_mean_low, statistics_strides(views.mean_low, x, reduced));
    if (views.m2.given()) strides.set(op_m2, statistics_strides(views.m2, x, reduced));
}

inline void fill(const TensorView& view, double value) noexcept {
    if (!view.given() || view.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(view));
    const Nest nest = make_nest(view, 0, strides);
    walk(nest, nest.depth, [&](const std::int64_t* offset) { static_cast<double*>(view.data)[offset[op_x]] = value; });
}

/// The moments of sets without elements.
inline void store_empty_moments(const MomentsView& out) noexcept {
    const Moments empty;
    fill(out.count, empty.count);
    fill(out.mean, empty.mean);
    fill(out.m2, empty.m2);
    fill(out.weight2, empty.count);
    fill(out.mean_low, empty.mean_low);
}

}  // namespace anynorm::detail
