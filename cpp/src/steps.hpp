// SPDX-License-Identifier: Apache-2.0
// Scales and zero points of results of 8 bits that are arrays, one for every channel or along any axes: how they are
// checked, read and applied.
#pragma once

#include <cstdint>

#include "anynorm/tensor_view.hpp"
#include "elements.hpp"

namespace anynorm::detail {

/// Each of them may be given; a number stands for all elements where it is not. Zero points are of the dtype of the
/// results.
struct Steps {
    Elements scale, zero_point;

    bool given() const noexcept { return scale.given() || zero_point.given(); }
};

/// Where n neighbouring results have theirs.
struct StepsPlace {
    std::int64_t scale, scale_stride, zero_point, zero_point_stride;

    bool varies() const noexcept { return scale_stride != 0 || zero_point_stride != 0; }
};

int zero_point_at(const Elements& zero_points, std::int64_t offset) noexcept;

/// Overwrites those of n elements that are arrays, and leaves the others as they are.
template <class C>
void load_steps(const Steps& steps, const StepsPlace& place, C* scale, C* zero_point, std::int64_t n) noexcept;

/// What the kernel does, where scale and zero point vary from element to element: n values to int8 or uint8.
template <class C>
void quantize_each(std::uint8_t* q, const C* values, const C* scale, const C* zero_point, std::int64_t n,
                   DType dtype) noexcept;

/// Dtypes and shapes of the arrays that are given, which broadcast against q; numbers that exist; no memory of q's.
void check_steps(const char* caller, const TensorView& scale, const TensorView& zero_point, const TensorView& q);

}  // namespace anynorm::detail
