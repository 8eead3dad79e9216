// SPDX-License-Identifier: Apache-2.0
// The only types that cross the boundary: where the elements are, of which type, in which layout.
// A view owns nothing and copies nothing; the caller keeps the memory alive for the length of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "anynorm/version.hpp"

namespace anynorm::inline ANYNORM_ABI {

inline constexpr int max_rank = 16;

/// Element types. `none` marks an operand that is left out. int8 and uint8 are for results that are quantized; int32,
/// int64 and bool for the labels, offsets and masks of a Selection; none of them for anything else.
enum class DType : std::uint8_t { none, f32, f64, f16, bf16, i8, u8, i32, i64, boolean };

constexpr std::size_t size_of(DType dtype) noexcept {
    switch (dtype) {
        case DType::i8:
        case DType::u8:
        case DType::boolean:
            return 1;
        case DType::f16:
        case DType::bf16:
            return 2;
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::f64:
        case DType::i64:
            return 8;
        case DType::none:
            break;
    }
    return 0;
}

constexpr const char* name(DType dtype) noexcept {
    switch (dtype) {
        case DType::f16:
            return "float16";
        case DType::bf16:
            return "bfloat16";
        case DType::f32:
            return "float32";
        case DType::f64:
            return "float64";
        case DType::i8:
            return "int8";
        case DType::u8:
            return "uint8";
        case DType::i32:
            return "int32";
        case DType::i64:
            return "int64";
        case DType::boolean:
            return "bool";
        case DType::none:
            break;
    }
    return "none";
}

/// IEEE 754 binary16, as storage: the bits of NumPy's float16, of _Float16 and of std::float16_t.
struct Float16 {
    std::uint16_t bits;
};

/// The upper half of a float32, as storage: the bits of ml_dtypes.bfloat16, torch.bfloat16 and std::bfloat16_t.
struct BFloat16 {
    std::uint16_t bits;
};

template <class T>
constexpr DType dtype_of() noexcept {
    using Element = std::remove_cv_t<T>;
    if constexpr (std::is_same_v<Element, float>) {
        return DType::f32;
    } else if constexpr (std::is_same_v<Element, double>) {
        return DType::f64;
    } else if constexpr (std::is_same_v<Element, Float16>) {
        return DType::f16;
    } else if constexpr (std::is_same_v<Element, std::int8_t>) {
        return DType::i8;
    } else if constexpr (std::is_same_v<Element, std::uint8_t>) {
        return DType::u8;
    } else if constexpr (std::is_same_v<Element, std::int32_t>) {
        return DType::i32;
    } else if constexpr (std::is_same_v<Element, bool>) {
        return DType::boolean;
    } else if constexpr (std::is_integral_v<Element> && std::is_signed_v<Element> && sizeof(Element) == 8) {
        return DType::i64;  // long or long long, whichever std::int64_t is not
    } else {
        static_assert(std::is_same_v<Element, BFloat16>,
                      "anynorm: expected elements of type float, double, anynorm::Float16 or anynorm::BFloat16, "
                      "std::int8_t or std::uint8_t for a quantized result, std::int32_t or std::int64_t for labels "
                      "and offsets, or bool for a mask");
        return DType::bf16;
    }
}

/// A strided view of a dense array of rank 0 to 16.
///
/// Strides count elements, not bytes, and may be negative or zero. The view is trivially copyable. A
/// default-constructed view stands for "not given". Whether a view is read or written is said by the function
/// that takes it; inputs are never written.
struct TensorView {
    void* data = nullptr;
    DType dtype = DType::none;
    int rank = 0;
    std::int64_t shape[max_rank];
    std::int64_t strides[max_rank];

    // Nothing of the arrays is read beyond the rank, and clearing 256 bytes for each of the eight views in the options
    // of a call took a third of the time of a short row. The empty instruction writes them as far as the compiler is
    // told, or every copy of a view would warn of what nobody reads.
    constexpr TensorView() noexcept {
        if (!std::is_constant_evaluated()) asm("" : "=m"(shape), "=m"(strides));
    }

    constexpr bool given() const noexcept { return dtype != DType::none; }

    /// Number of elements; 1 for rank 0, 0 when an axis has length 0.
    constexpr std::int64_t size() const noexcept {
        std::int64_t product = 1;
        for (int axis = 0; axis < rank; ++axis) product *= shape[axis];
        return product;
    }
};

/// A view with explicit strides (in elements). Throws std::invalid_argument for a rank above 16, a negative
/// length, or as many strides as there are not axes.
template <class T>
TensorView view(T* data, std::span<const std::int64_t> shape, std::span<const std::int64_t> strides) {
    if (shape.size() > static_cast<std::size_t>(max_rank))
        throw std::invalid_argument("view: expected a rank of at most 16, got " + std::to_string(shape.size()));
    if (strides.size() != shape.size())
        throw std::invalid_argument("view: expected " + std::to_string(shape.size()) + " strides, got " +
                                    std::to_string(strides.size()));
    TensorView result;
    result.data = const_cast<std::remove_cv_t<T>*>(data);
    result.dtype = dtype_of<T>();
    result.rank = static_cast<int>(shape.size());
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        if (shape[axis] < 0)
            throw std::invalid_argument("view: expected lengths of at least 0, got " + std::to_string(shape[axis]));
        result.shape[axis] = shape[axis];
        result.strides[axis] = strides[axis];
    }
    return result;
}

/// A C-contiguous view (the last axis is the fastest).
template <class T>
TensorView view(T* data, std::span<const std::int64_t> shape) {
    std::int64_t strides[max_rank] = {};
    std::int64_t step = 1;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
        if (axis < static_cast<std::size_t>(max_rank)) strides[axis] = step;
        step *= shape[axis];
    }
    const std::size_t rank = shape.size() < static_cast<std::size_t>(max_rank) ? shape.size() : max_rank;
    return view(data, shape, std::span<const std::int64_t>(strides, shape.size() > rank ? rank : shape.size()));
}

template <class T>
TensorView view(T* data, std::initializer_list<std::int64_t> shape) {
    return view(data, std::span<const std::int64_t>(shape.begin(), shape.size()));
}

template <class T>
TensorView view(T* data, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides) {
    return view(data, std::span<const std::int64_t>(shape.begin(), shape.size()),
                std::span<const std::int64_t>(strides.begin(), strides.size()));
}

}  // namespace anynorm::inline ANYNORM_ABI
