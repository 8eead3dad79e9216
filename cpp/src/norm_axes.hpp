// SPDX-License-Identifier: Apache-2.0
// Axis arithmetic that the named norms share: which axes they average over, and how their parameters lie along x.
#pragma once

#include <string>

#include "anynorm/grouping.hpp"
#include "anynorm/running.hpp"
#include "anynorm/tensor_view.hpp"
#include "validate.hpp"

namespace anynorm::detail {

/// All axes but those two (which may be the same).
inline Axes all_axes_except(int rank, int first, int second) {
    Axes axes;
    for (int axis = 0; axis < rank; ++axis) {
        if (axis != first && axis != second) axes.values[axes.size++] = axis;
    }
    return axes;
}

// Views are large, hence filled in place: copying one takes as long as a kernel does on a short row.

/// Shows `view`, whose own axes lie on the given axes (ascending) of an array of `rank`, and broadcasts along the rest.
inline void place(const TensorView& view, const Axes& axes, int rank, TensorView& result) {
    if (!view.given()) return;
    result.data = view.data;
    result.dtype = view.dtype;
    result.rank = rank;
    for (int axis = 0; axis < rank; ++axis) {
        result.shape[axis] = 1;
        result.strides[axis] = 0;
    }
    for (int i = 0; i < axes.size; ++i) {
        result.shape[axes.values[i]] = view.shape[i];
        result.strides[axes.values[i]] = view.strides[i];
    }
}

/// Splits one axis in two: length n becomes (parts, n / parts).
inline void split(TensorView& view, int axis, std::int64_t parts) {
    if (!view.given()) return;
    for (int i = view.rank++; i > axis; --i) {
        view.shape[i] = view.shape[i - 1];
        view.strides[i] = view.strides[i - 1];
    }
    view.shape[axis] = parts;
    view.shape[axis + 1] /= parts;
    view.strides[axis] *= view.shape[axis + 1];
}

/// The same for a view that broadcasts against x, whose shape is checked here, where it is still the caller's.
inline void split(const char* caller, const char* what, TensorView& view, const TensorView& x, int axis,
                  std::int64_t parts) {
    if (!view.given()) return;
    check_broadcasts(caller, what, view, x);
    const int own = axis - (x.rank - view.rank);
    if (own < 0) return;
    const bool broadcasts = view.shape[own] == 1;
    split(view, own, parts);
    if (broadcasts) view.shape[own] = view.shape[own + 1] = 1;
}

inline void split(const char* caller, Selection& selection, const TensorView& x, int axis, std::int64_t parts) {
    split(caller, "labels", selection.labels, x, axis, parts);
    split(caller, "where", selection.where, x, axis, parts);
    split(caller, "sample_weight", selection.sample_weight, x, axis, parts);
}

/// Labels and segments make several sets of a channel, for which there is no running statistic.
inline void check_unsplit(const char* caller, const Selection& selection, const RunningStatistics& running) {
    if (selection.splits() && (running.mean.given() || running.pooled.given())) {
        fail(caller, "no running statistics where labels or segments split the channels", "some");
    }
}

/// The sets of a norm: its axes, and what the caller selects of them.
template <class Options>
Grouping sets_over(const Axes& axes, const Options& options) {
    Grouping sets{.reduce = axes};
    if constexpr (requires { options.selection; }) {
        if (options.selection.any()) sets.selection = options.selection;
    }
    return sets;
}

inline void check_parameter(const char* caller, const char* what, const TensorView& view, const std::int64_t* shape,
                            int rank) {
    if (!view.given()) return;
    check_view(caller, what, view);
    check_shape(caller, what, view, shape, rank);
}

/// The channel axis of x, counted from 0.
inline int check_channels(const char* caller, const TensorView& x, int channel_axis, int max, bool per_sample) {
    check_view(caller, "x", x);
    if (x.rank < 2 || x.rank > max) fail(caller, "x of rank 2 to " + std::to_string(max), std::to_string(x.rank));
    const int channel = check_axis(caller, "channel_axis", channel_axis, x.rank);
    if (per_sample && channel == 0) fail(caller, "channel_axis other than 0, the axis of the samples", "0");
    return channel;
}

inline void check_groups(const char* caller, std::int64_t num_groups, std::int64_t channels) {
    if (num_groups < 1 || channels % num_groups != 0) {
        fail(caller, "num_groups of at least 1 that divides the number of channels",
             std::to_string(channels) + " channels and num_groups=" + std::to_string(num_groups));
    }
}

/// Axes in ascending order, counted from 0, and x's shape along them.
struct NormalizedAxes {
    Axes axes;
    std::int64_t shape[max_rank];

    NormalizedAxes(const char* caller, const TensorView& x, const Axes& wanted) {
        const std::uint32_t set = check_axes(caller, wanted, x.rank);
        for (int axis = 0; axis < x.rank; ++axis) {
            if ((set >> axis & 1) == 0) continue;
            shape[axes.size] = x.shape[axis];
            axes.values[axes.size++] = axis;
        }
    }
};

/// The machine epsilon of the arithmetic on x alone, which is that of PyTorch for float16 and bfloat16 too.
inline double epsilon_for(DType dtype) { return dtype == DType::f64 ? 0x1p-52 : 0x1p-23; }

}  // namespace anynorm::detail
