// SPDX-License-Identifier: Apache-2.0
// Nests for the tests of layout and plan: from a view and a reduced set, and as text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layout.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {

/// A view of no memory: geometry is all that these tests look at.
inline TensorView geometry(const Shape& shape, const std::vector<std::int64_t>& strides) {
    return view(static_cast<float*>(nullptr), std::span<const std::int64_t>(shape), strides);
}
inline TensorView geometry(const Shape& shape, const Layout& layout = {}) {
    return geometry(shape, place(shape, layout).strides);
}

inline detail::AxisSet axis_set(const std::vector<int>& axes) {
    detail::AxisSet set = 0;
    for (int axis : axes) set |= 1u << axis;
    return set;
}

/// x, and y of x's layout unless another is given; weights along an axis if it is not negative.
inline detail::Nest nest_of(const TensorView& x, const std::vector<int>& reduce, const TensorView& y = {},
                            const std::vector<int>& weight_axes = {}) {
    detail::OperandStrides strides;
    strides.set(detail::op_x, detail::own_strides(x));
    strides.set(detail::op_y, detail::own_strides(y.given() ? y : x));
    detail::AxisStrides weight{};
    std::int64_t step = 1;
    for (std::size_t i = weight_axes.size(); i-- > 0;) {
        weight.axis[weight_axes[i]] = step;
        step *= x.shape[weight_axes[i]];
    }
    strides.set(detail::op_weight, weight);
    return detail::make_nest(x, axis_set(reduce), strides);
}

/// "K2:48 R16:3": kept or reduced, length, stride of x.
inline std::string text_of(const detail::Nest& nest) {
    std::string text;
    for (int i = 0; i < nest.depth; ++i) {
        const detail::Loop& loop = nest.loops[i];
        text += std::string(i > 0 ? " " : "") + (loop.reduced ? "R" : "K") + std::to_string(loop.n) + ":" +
                std::to_string(loop.stride[detail::op_x]);
    }
    return text;
}

/// A nest of 1 to 4 axes in a random layout, of at most about `size` elements.
inline detail::Nest random_nest(Random& random, std::int64_t size) {
    const std::int64_t rank = 1 + random.below(4);
    Shape shape;
    std::int64_t left = size;
    for (std::int64_t axis = 0; axis < rank; ++axis) {
        const std::int64_t n = 1 + random.below(axis + 1 == rank ? left : std::min<std::int64_t>(left, 40));
        shape.push_back(n);
        left = std::max<std::int64_t>(1, left / n);
    }
    std::swap(shape.back(), at(shape, random.below(rank)));
    std::vector<int> reduce;
    for (int axis = 0; axis < static_cast<int>(rank); ++axis) {
        if (random.below(2) == 1) reduce.push_back(axis);
    }
    const Layout& layout = at(layouts(), random.below(length(layouts())));
    const Layout& other = at(layouts(), random.below(length(layouts())));
    return nest_of(geometry(shape, layout), reduce, geometry(shape, other));
}

}  // namespace anynorm::test
