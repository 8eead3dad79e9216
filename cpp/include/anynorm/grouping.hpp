// SPDX-License-Identifier: Apache-2.0
// Which elements form a set S: those that share a mean and a variance.
#pragma once

#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>

#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

/// A short list of axes; negative ones count from the end. It is checked against a view by the call that uses it.
struct Axes {
    int size = 0;
    int values[max_rank] = {};

    constexpr Axes() noexcept = default;
    constexpr Axes(std::initializer_list<int> axes) : Axes(std::span<const int>(axes.begin(), axes.size())) {}
    constexpr explicit Axes(std::span<const int> axes) {
        if (axes.size() > static_cast<std::size_t>(max_rank))
            throw std::invalid_argument("axes: expected at most 16 axes, got " + std::to_string(axes.size()));
        for (int axis : axes) values[size++] = axis;
    }

    /// The `count` axes that start at `first`: range(1, 3) is {1, 2, 3}.
    static constexpr Axes range(int first, int count) {
        Axes result;
        if (count > max_rank)
            throw std::invalid_argument("axes: expected at most 16 axes, got " + std::to_string(count));
        for (int i = 0; i < count; ++i) result.values[result.size++] = first + i;
        return result;
    }
};

/// The grouping of an index space into sets. Elements whose indices differ only along `reduce` share a set: no axis
/// makes every element a set of its own, all axes make one set.
struct Grouping {
    Axes reduce{};
};

}  // namespace anynorm::inline ANYNORM_ABI
