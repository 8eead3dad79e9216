// SPDX-License-Identifier: Apache-2.0
// anynorm.Moments <-> MomentsView.
#pragma once

#include "array.hpp"

namespace anynorm::python {

/// The three arrays of an anynorm.Moments that the caller gave, kept alive for the length of the call.
class GivenMoments {
  public:
    void read(PyObject* object, const Argument& argument, MomentsView& view, bool written = false);

  private:
    py::object count_, mean_, m2_;
};

/// Three new float64 arrays for the core to write, and the anynorm.Moments made of them.
class NewMoments {
  public:
    NewMoments(std::span<const std::int64_t> shape, MomentsView& view);
    py::object wrap() const;

  private:
    py::object count_, mean_, m2_;
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

/// The shape of x without `axes`, or with them at length 1. Axes that x does not have are left for the core to refuse.
Shape shape_of_sets(const TensorView& x, const Axes& axes, bool keepdims = false);

}  // namespace anynorm::python
