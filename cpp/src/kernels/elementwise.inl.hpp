// SPDX-License-Identifier: Apache-2.0
// What surrounds a norm in the same pass: the sum with a residual before it, the rounding to 8 bits after it.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// sum may be x or residual.
template <class X>
void Add(X* sum, const X* x, const X* residual, std::int64_t n) noexcept {
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) PackStore(sum + i, PackLoad(x + i) + PackLoad(residual + i));
    if (i < n) PackStoreN(sum + i, n - i, PackLoadN(x + i, n - i) + PackLoadN(residual + i, n - i));
}

/// Adding this to a small number rounds it to an integer, ties to even.
constexpr float IntegerOf(float) { return 0x1.8p23F; }
constexpr double IntegerOf(double) { return 0x1.8p52; }

/// Plain code, which compilers vectorize: what it costs is the division.
template <class C>
void Quantize(std::uint8_t* q, const C* y, std::int64_t n, const Quantization<C>& to) noexcept {
    const Quantization<C> own = to;  // a copy, which no store can change
    constexpr C integer = IntegerOf(C());
    for (std::int64_t i = 0; i < n; ++i) {
        // Both bounds are integers, so that saturating before the rounding gives the same.
        C value = y[i] / own.scale;
        value = value == value ? value : C(0);
        value = value > own.low ? value : own.low;
        value = value < own.high ? value : own.high;
        const C rounded = (value + integer) - integer;
        q[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(rounded) + own.zero_point);
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
