// SPDX-License-Identifier: Apache-2.0
// 16-bit floating point as storage: every element is promoted to float32 when it is read and rounded to nearest even
// when it is written. Functions have internal linkage, so that no instruction set's copy serves another.
#pragma once

#include <cstdint>

namespace anynorm::kernels {

/// IEEE 754 binary16.
struct F16 {
    std::uint16_t bits;
};

/// bfloat16: the upper half of a float32.
struct BF16 {
    std::uint16_t bits;
};

[[maybe_unused]] static inline std::uint32_t BitsOf(float value) noexcept {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

[[maybe_unused]] static inline float FloatOf(std::uint32_t bits) noexcept {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

[[maybe_unused]] static inline float ToFloat(F16 half) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(half.bits & 0x8000) << 16;
    const std::uint32_t magnitude = half.bits & 0x7fff;
    if (magnitude < 0x400) return FloatOf(BitsOf(static_cast<float>(magnitude) * 0x1p-24F) | sign);
    // The exponent's bias is 15 there and 127 here; the largest exponent stands for infinity and NaN.
    const std::uint32_t bias = magnitude >= 0x7c00 ? 2U * (112U << 23) : 112U << 23;
    return FloatOf(((magnitude << 13) + bias) | sign);
}

[[maybe_unused]] static inline float ToFloat(BF16 half) noexcept {
    return FloatOf(static_cast<std::uint32_t>(half.bits) << 16);
}

[[maybe_unused]] static inline F16 ToF16(float value) noexcept {
    const std::uint32_t bits = BitsOf(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    std::uint32_t result;
    if (magnitude > 0x7f800000) {  // NaN keeps its upper bits and becomes quiet
        result = 0x7e00 | (magnitude >> 13 & 0x3ff);
    } else if (magnitude >= 0x477ff000) {  // from 65520 on the nearest is infinity
        result = 0x7c00;
    } else if (magnitude < 0x38800000) {  // subnormal: 0.5 has the last bit where the result has it
        result = BitsOf(FloatOf(magnitude) + 0.5F) - BitsOf(0.5F);
    } else {
        result = (magnitude - (112U << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    }
    return {static_cast<std::uint16_t>(sign | result)};
}

[[maybe_unused]] static inline BF16 ToBF16(float value) noexcept {
    const std::uint32_t bits = BitsOf(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace anynorm::kernels
