// SPDX-License-Identifier: Apache-2.0
#include "steps.hpp"

#include <string>

#include "layout.hpp"
#include "validate.hpp"

namespace anynorm::detail {
namespace {

/// Adding this to a small number rounds it to an integer, ties to even.
template <class C>
constexpr C integer = sizeof(C) == sizeof(float) ? C(0x1.8p23) : C(0x1.8p52);

}  // namespace

int zero_point_at(const Elements& zero_points, std::int64_t offset) noexcept {
    return zero_points.dtype == DType::i8 ? static_cast<const std::int8_t*>(zero_points.data)[offset]
                                          : static_cast<const std::uint8_t*>(zero_points.data)[offset];
}

template <class C>
void load_steps(const Steps& steps, const StepsPlace& place, C* scale, C* zero_point, std::int64_t n) noexcept {
    if (steps.scale.given()) load(scale, steps.scale, place.scale, place.scale_stride, n);
    for (std::int64_t i = 0; steps.zero_point.given() && i < n; ++i) {
        zero_point[i] = static_cast<C>(zero_point_at(steps.zero_point, place.zero_point + i * place.zero_point_stride));
    }
}

template <class C>
void quantize_each(std::uint8_t* q, const C* values, const C* scale, const C* zero_point, std::int64_t n,
                   DType dtype) noexcept {
    const C least = dtype == DType::i8 ? C(-128) : C(0);
    for (std::int64_t i = 0; i < n; ++i) {
        const C low = least - zero_point[i], high = low + 255;
        C value = values[i] / scale[i];
        value = value == value ? value : C(0);
        value = value > low ? value : low;
        value = value < high ? value : high;
        const C rounded = (value + integer<C>)-integer<C>;
        q[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(rounded + zero_point[i]));
    }
}

void check_steps(const char* caller, const TensorView& scale, const TensorView& zero_point, const TensorView& q) {
    if (zero_point.given()) {
        check_geometry(caller, "zero_point", zero_point);
        if (zero_point.dtype != q.dtype)
            fail(caller, std::string("zero_point of dtype ") + name(q.dtype) + " as output", name(zero_point.dtype));
        check_broadcasts(caller, "zero_point", zero_point, q);
        check_apart(caller, "output", q, "zero_point", zero_point);
    }
    if (!scale.given()) return;
    check_view(caller, "scale", scale);
    check_broadcasts(caller, "scale", scale, q);
    check_apart(caller, "output", q, "scale", scale);
    if (scale.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(scale));
    const Nest nest = make_nest(scale, 0, strides);
    walk(nest, nest.depth, [&](const std::int64_t* offset) {
        check_quantization(caller, element_at(elements_of(scale), offset[op_x]), 0, q.dtype);
    });
}

template void load_steps<float>(const Steps&, const StepsPlace&, float*, float*, std::int64_t) noexcept;
template void load_steps<double>(const Steps&, const StepsPlace&, double*, double*, std::int64_t) noexcept;
template void quantize_each<float>(std::uint8_t*, const float*, const float*, const float*, std::int64_t,
                                   DType) noexcept;
template void quantize_each<double>(std::uint8_t*, const double*, const double*, const double*, std::int64_t,
                                    DType) noexcept;

}  // namespace anynorm::detail
