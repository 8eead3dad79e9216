// SPDX-License-Identifier: Apache-2.0
// anynorm.Moments <-> MomentsView.
#pragma once

#include "array.hpp"

namespace anynorm::python {

/// The arrays of an anynorm.Moments that the caller gave, kept alive for the length of the call.
class GivenMoments {
  public:
    void read(PyObject* object, const Argument& argument, MomentsView& view, bool written = false);

  private:
    py::object count_, mean_, m2_, mean_low_;
};

/// Four new float64 arrays for the core to write, five with weights, and the anynorm.Moments made of them.
class NewMoments {
  public:
    NewMoments(std::span<const std::int64_t> shape, MomentsView& view, bool weighted = false);
    py::object wrap() const;

  private:
    py::object count_, mean_, m2_, mean_low_, weight2_;
};

/// The lengths of a new array.
struct Shape {
    int rank = 0;
    std::int64_t lengths[max_rank] = {};

    void push(std::int64_t length) { lengths[rank++] = length; }
    operator std::span<const std::int64_t>() const { return {lengths, static_cast<std::size_t>(rank)}; }
};

/// The length of an axis of x, and 0 for one that x does not have, which the core refuses.
inline std::int64_t length(const TensorView& x, int axis) {
    if (axis < 0) axis += x.rank;
    return axis >= 0 && axis < x.rank ? x.shape[axis] : 0;
}

inline Shape per_channel(const TensorView& x, int channel_axis) {
    Shape shape;
    shape.push(length(x, channel_axis));
    return shape;
}

/// The shape of the moments of every group, where a selection splits sets of this shape.
inline Shape grouped(const Selection& selection, const Shape& sets) {
    if (!selection.splits() || sets.rank == max_rank) return sets;
    const TensorView& segments = selection.segments;
    std::int64_t groups = selection.num_groups;  // of labels; what does not fit is left for the core to refuse
    if (segments.given()) groups = segments.rank == 0 ? 0 : segments.shape[0] - (segments.rank == 1 ? 1 : 0);
    Shape shape;
    shape.push(groups < 0 ? 0 : groups);
    for (std::int64_t length : std::span<const std::int64_t>(sets)) shape.push(length);
    return shape;
}

/// The shape of x without `axes`, or with them at length 1. Axes that x does not have are left for the core to refuse.
Shape shape_of_sets(const TensorView& x, const Axes& axes, bool keepdims = false);

}  // namespace anynorm::python
