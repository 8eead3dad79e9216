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

/// What data say about sets beyond axes: a split of each, elements that belong to none, weights. Every view is
/// optional.
///
/// Labels and segments split each set of the axes into `G` sets, and the moments get an axis of length G in front:
/// their shape is (G, x's shape without the reduced axes), or with these at length 1. Elements with a negative label,
/// outside of all segments, or where `where` is false are *excluded*: they are in no set, and not read for statistics.
/// The reduced axes along which labels, segments or a mask vary have fewer than 2^32 indices together.
struct Selection {
    /// int32 or int64; broadcasts against x by NumPy's rules and has length 1 along the axes that are kept. Elements
    /// that share a label share a set; all labels are below num_groups. A negative label excludes.
    TensorView labels{};
    /// G, with labels and only then; at least 0.
    std::int64_t num_groups = 0;
    /// int32 or int64: segments of axis 0, which is reduced. Shape (G + 1): offsets, of which segment g begins at
    /// number g and ends before number g + 1 (as in Arrow's lists). Or shape (G, 2): where each begins and ends. They
    /// rise, from 0 to the length of the axis at most; segments may be empty and may leave elements out. Not with
    /// labels.
    TensorView segments{};
    /// bool; broadcasts against x. False excludes.
    TensorView where{};
    /// float32 or float64, finite and at least 0; broadcasts against x. An element of weight w counts as w equal ones
    /// would: count = sum(w), mean = sum(w * x) / count, m2 = sum(w * (x - mean)^2). What a weight of 0 has is not
    /// looked at for statistics, yet normalized like the rest.
    TensorView sample_weight{};

    constexpr bool splits() const noexcept { return labels.given() || segments.given(); }
    constexpr bool any() const noexcept { return splits() || where.given() || sample_weight.given(); }
};

/// What becomes of the result at excluded elements: 0 (`zero`), the input there (`input`: x, and grad_output of a
/// gradient), or what its memory holds (`keep`). The gradient of x there is that of the choice: 0, grad_output, or
/// memory left alone.
enum class Excluded : std::uint8_t { zero, input, keep };

/// The grouping of an index space into sets. Elements whose indices differ only along `reduce` share a set, unless
/// `selection` says otherwise: no axis makes every element a set of its own, all axes make one set.
struct Grouping {
    Axes reduce{};
    Selection selection{};
};

}  // namespace anynorm::inline ANYNORM_ABI
