// SPDX-License-Identifier: Apache-2.0
// "expected ..., got ..." checks. Each throws std::invalid_argument that begins with the name of the caller.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "anynorm/fusion.hpp"
#include "anynorm/grouping.hpp"
#include "anynorm/moments.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::detail {

/// An operand as messages call it.
struct Named {
    const char* what;
    const TensorView& view;
};

inline std::array<Named, 5> named(const MomentsView& views) noexcept {
    return {{{"moments.count", views.count},
             {"moments.mean", views.mean},
             {"moments.m2", views.m2},
             {"moments.weight2", views.weight2},
             {"moments.mean_low", views.mean_low}}};
}

[[noreturn, gnu::cold]] void fail(const char* caller, const std::string& expected, const std::string& got);

/// "(2, 3)", "(5,)", "()": as NumPy prints shapes.
std::string shape_text(const std::int64_t* shape, int rank);
inline std::string shape_text(const TensorView& view) { return shape_text(view.shape, view.rank); }

/// The shortest text that reads back as the same number.
std::string number_text(double value);

/// A rank and lengths that exist.
void check_geometry(const char* caller, const char* what, const TensorView& view);
/// float16, bfloat16, float32 or float64; a rank and lengths that exist.
void check_view(const char* caller, const char* what, const TensorView& view);
/// As check_view, for a result, which may be int8 or uint8 as well.
void check_result(const char* caller, const char* what, const TensorView& view);
/// As check_view, for statistics, which are kept in float32 or float64.
void check_statistic(const char* caller, const char* what, const TensorView& view);
/// The axis counted from 0.
int check_axis(const char* caller, const char* what, int axis, int rank);
/// The axes as a bit set.
std::uint32_t check_axes(const char* caller, const Axes& axes, int rank);
void check_shape(const char* caller, const char* what, const TensorView& view, const std::int64_t* shape, int rank);
void check_broadcasts(const char* caller, const char* what, const TensorView& view, const TensorView& to);
void check_eps(const char* caller, double eps);
void check_threads(const char* caller, int num_threads);
/// `out` is written: no element twice, none of an input's.
void check_output(const char* caller, const char* what, const TensorView& out);
void check_apart(const char* caller, const char* what, const TensorView& out, const char* other_what,
                 const TensorView& other);
void check_activation(const char* caller, Activation activation);
/// A residual and a sum, both or neither, of x's shape.
void check_residual(const char* caller, const Fusion& fusion, const TensorView& x);
/// A scale and a zero point where the result is of integers, and only there; numbers that exist.
void check_quantization(const char* caller, double scale, int zero_point, DType result);
/// The views that are given have x's shape without the reduced axes, or with length 1 there.
void check_statistics(const char* caller, const MomentsView& views, const TensorView& x, std::uint32_t reduced);
/// Statistics to be written: as above, float64, apart from each other.
void check_moments_output(const char* caller, const MomentsView& out, const TensorView& x, std::uint32_t reduced);
/// A call's statistics output overlaps none of its other operands.
void check_moments_apart(const char* caller, const MomentsView& out, const char* other_what, const TensorView& other);

}  // namespace anynorm::detail
