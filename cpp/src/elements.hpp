// SPDX-License-Identifier: Apache-2.0
// Where an operand's elements are, and how they are read and written one by one or in strided runs.
#pragma once

#include <cstdint>
#include <type_traits>

#include "anynorm/tensor_view.hpp"
#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

struct Elements {
    void* data = nullptr;
    DType dtype = DType::none;

    bool given() const noexcept { return dtype != DType::none; }
};

inline Elements elements_of(const TensorView& view) noexcept { return {view.data, view.dtype}; }

/// The dtype of elements that kernels know as X.
template <class X>
constexpr DType stored_as() noexcept {
    if constexpr (std::is_same_v<X, kernels::F16>) {
        return DType::f16;
    } else if constexpr (std::is_same_v<X, kernels::BF16>) {
        return DType::bf16;
    } else {
        return dtype_of<X>();
    }
}

/// Calls body(p) with the elements as a pointer to their type.
template <class Body>
decltype(auto) with_type(const Elements& elements, Body&& body) {
    switch (elements.dtype) {
        case DType::f64:
            return body(static_cast<double*>(elements.data));
        case DType::f16:
            return body(static_cast<kernels::F16*>(elements.data));
        case DType::bf16:
            return body(static_cast<kernels::BF16*>(elements.data));
        default:
            return body(static_cast<float*>(elements.data));
    }
}

/// Calls body(p) with the results as a pointer to their type, 8-bit ones too.
template <class Body>
void with_result(const Elements& y, Body&& body) {
    if (y.dtype == DType::i8) return body(static_cast<std::int8_t*>(y.data));
    if (y.dtype == DType::u8) return body(static_cast<std::uint8_t*>(y.data));
    with_type(y, body);
}

inline float promote(float value) noexcept { return value; }
inline double promote(double value) noexcept { return value; }
inline float promote(kernels::F16 value) noexcept { return kernels::ToFloat(value); }
inline float promote(kernels::BF16 value) noexcept { return kernels::ToFloat(value); }

template <class To, class C>
To round_to(C value) noexcept {
    if constexpr (std::is_same_v<To, kernels::F16>) {
        return kernels::ToF16(static_cast<float>(value));
    } else if constexpr (std::is_same_v<To, kernels::BF16>) {
        return kernels::ToBF16(static_cast<float>(value));
    } else {
        return static_cast<To>(value);
    }
}

/// The same, for 8-bit results too, which are whole numbers by then.
template <class To>
To result_of(double value) noexcept {
    if constexpr (sizeof(To) == 1) {
        return static_cast<To>(value);
    } else {
        return round_to<To>(value);
    }
}

inline double element_at(const Elements& elements, std::int64_t offset) noexcept {
    return with_type(elements, [&](const auto* p) { return static_cast<double>(promote(p[offset])); });
}

/// The same, 0 of elements that are not given.
inline double element_or_zero(const Elements& elements, std::int64_t offset) noexcept {
    return elements.given() ? element_at(elements, offset) : 0.0;
}

/// to[i * to_stride] = from[i * from_stride]. The stride of most views is 2, which compilers shuffle if they know it:
/// 0.1 ns an element, where a variable stride takes 0.3.
template <class X>
void copy_strided(X* to, std::int64_t to_stride, const X* from, std::int64_t from_stride, std::int64_t n) noexcept {
    const auto copy = [&](auto to_step, auto from_step) {
        for (std::int64_t i = 0; i < n; ++i) to[i * to_step] = from[i * from_step];
    };
    constexpr std::integral_constant<std::int64_t, 1> one;
    constexpr std::integral_constant<std::int64_t, 2> two;
    if (to_stride == 1 && from_stride == 1) {
        copy(one, one);
    } else if (to_stride == 1 && from_stride == 2) {
        copy(one, two);
    } else if (to_stride == 2 && from_stride == 1) {
        copy(two, one);
    } else {
        copy(to_stride, from_stride);
    }
}

/// Reads n elements, `stride` apart, into neighbouring ones of type X: their own type, float or double. Compiled once,
/// in elements.cpp, and not as a loop for every pair of types at every call.
template <class X>
void load(X* to, const Elements& from, std::int64_t offset, std::int64_t stride, std::int64_t n) noexcept;

/// Writes n neighbouring elements of type X (the type of `to`, float or double) `stride` apart.
template <class X>
void store(const Elements& to, std::int64_t offset, std::int64_t stride, const X* from, std::int64_t n) noexcept;

/// The same with the kernels for neighbouring halves: 0.2 ns an element, where code for any CPU takes 2.
template <class C>
void load(const kernels::KernelTable& table, C* to, const Elements& from, std::int64_t offset, std::int64_t stride,
          std::int64_t n) noexcept {
    if constexpr (std::is_same_v<C, float>) {
        if (stride == 1 && from.dtype == DType::f16)
            return table.f16.promote(to, static_cast<const kernels::F16*>(from.data) + offset, n);
        if (stride == 1 && from.dtype == DType::bf16)
            return table.bf16.promote(to, static_cast<const kernels::BF16*>(from.data) + offset, n);
    }
    load(to, from, offset, stride, n);
}

template <class C>
void store(const kernels::KernelTable& table, const Elements& to, std::int64_t offset, std::int64_t stride,
           const C* from, std::int64_t n) noexcept {
    if constexpr (std::is_same_v<C, float>) {
        if (stride == 1 && to.dtype == DType::f16)
            return table.f16.demote(static_cast<kernels::F16*>(to.data) + offset, from, n);
        if (stride == 1 && to.dtype == DType::bf16)
            return table.bf16.demote(static_cast<kernels::BF16*>(to.data) + offset, from, n);
    }
    store(to, offset, stride, from, n);
}

}  // namespace anynorm::detail
