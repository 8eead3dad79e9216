// SPDX-License-Identifier: Apache-2.0
// The activations of float32, and their derivatives, on native vectors: the same operations in every instruction set.
//
// All of them rest on one exponential of arguments up to 0, which cannot overflow:
//
//     silu(x) = x * (x < 0 ? e : 1) / (1 + e)                e = exp(-|x|)
//     gelu(x) = max(x, 0) - t * Q(t)                         t = |x|, Q(t) = exp(-t^2 / 2) * M(t) the upper tail of the
//                                                            normal distribution, M half of the scaled erfc, erfcx
//
// so that nothing cancels where the result is small: 0.5 * x * (1 + erf(x / sqrt(2))) has no digit left at x = -5.5.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Lanes as bits; all ones or zeros where they are the answer of a comparison.
using Bits = std::uint32_t __attribute__((vector_size(sizeof(F))));

inline Bits AsBits(F v) { return reinterpret_cast<Bits>(v); }
inline F FromBits(Bits v) { return reinterpret_cast<F>(v); }
inline Bits Less(F a, F b) { return reinterpret_cast<Bits>(a < b); }
inline Bits LessEqual(F a, F b) { return reinterpret_cast<Bits>(a <= b); }
inline F Select(Bits mask, F yes, F no) { return mask ? yes : no; }
inline F Magnitude(F v) { return FromBits(AsBits(v) & 0x7fffffffU); }

// NaN stays NaN.
inline F CutAbove(F v, float bound) { return Select(Less(Set(bound), v), Set(bound), v); }
inline F CutBelow(F v, float bound) { return Select(Less(v, Set(bound)), Set(bound), v); }
inline F Clamp(F v, float bound) { return CutBelow(CutAbove(v, bound), -bound); }

/// The polynomial with these coefficients, the highest first.
template <class... Rest>
inline F Horner(F x, float highest, Rest... rest) {
    F sum = Set(highest);
    ((sum = MulAdd(sum, x, Set(rest))), ...);
    return sum;
}

/// exp(x + low) for x up to 0 and |low| below 1e-4 of the range of reduction; 0 below -87, where float32 has no normal
/// number left. Within 1.1 ulp.
inline F ExpNegative(F x, F low) {
    // Adding this rounds to an integer n, and leaves n + 127 in the last bits: the exponent of 2^n.
    const F magic = Set(12582912.0F + 127.0F);
    const F shifted = MulAdd(x, Set(1.44269504F), magic);
    const F n = shifted - magic;
    // ln 2 in two parts, the upper with few bits: n times it is exact also where there is no fused multiply-add.
    const F r = MulAdd(n, Set(2.12194440e-4F), MulAdd(n, Set(-0.693359375F), x)) + low;
    // e^r = 1 + r + r^2 * q(r), q minimax on |r| <= ln(2) / 2 with a relative error of e^r of 4.4e-9 (Remez).
    const F q = Horner(r, 0.0013814467F, 0.008368781F, 0.041668393F, 0.1666652F, 0.49999994F);
    const F result = (MulAdd(q, r * r, r) + Set(1.0F)) * FromBits(AsBits(shifted) << 23);
    return Select(Less(x, Set(-87.0F)), Set(0.0F), result);
}
inline F ExpNegative(F x) { return ExpNegative(x, Set(0.0F)); }

/// 1 / (1 + exp(-v)) and 1 minus it, each with all its digits.
struct Logistic {
    F value, complement;

    explicit Logistic(F v) {
        const F one = Set(1.0F), e = ExpNegative(-Magnitude(v)), share = one / (one + e);
        const Bits negative = Less(v, Set(0.0F));
        value = Select(negative, e * share, share);
        complement = Select(negative, share, e * share);
    }
};

/// v * logistic(of).
inline F TimesLogistic(F v, F of) {
    const F one = Set(1.0F), e = ExpNegative(-Magnitude(of));
    return v * (Select(Less(of, Set(0.0F)), e, one) / (one + e));
}

/// exp(-t^2 / 2) and M(t) = Q(t) / exp(-t^2 / 2) for t = |x|, which is cut off at 16 where both are 0.
struct NormalTail {
    F t, e, ratio;

    explicit NormalTail(F x) {
        t = CutAbove(Magnitude(x), 16.0F);
        // The square as a pair: its rounding alone would be 8e-6 of the exponential at t = 12.
        const F square = t * t, low = MulAdd(t, t, -square);
        e = ExpNegative(Set(-0.5F) * square, Set(-0.5F) * low);
        // Minimax on 0 <= t <= 15, relative error 2.5e-8 with these coefficients; all are positive, so nothing cancels.
        const F above = Horner(t, 0.0041530607F, 0.040880296F, 0.18396714F, 0.43928146F, 0.5F);
        const F below = Horner(t, 0.010410068F, 0.10247782F, 0.4714033F, 1.2055411F, 1.6764479F, 1.0F);
        ratio = above / below;
    }
};

// Twice sqrt(2 / pi), and 0.044715 of it: gelu_tanh(x) = x * logistic(x * (linear + cubic * x^2)).
constexpr float linear = 1.5957691F, cubic = 0.071354814F;

struct Relu {
    static F Value(F x) { return Select(LessEqual(x, Set(0.0F)), Set(0.0F), x); }
    static F Slope(F x) {
        const F one = Select(Less(Set(0.0F), x), Set(1.0F), x);  // NaN stays
        return Select(LessEqual(x, Set(0.0F)), Set(0.0F), one);
    }
};

struct Silu {
    // Beyond the bounds e is 0, and the bound keeps 0 times infinity away.
    static F Value(F x) { return TimesLogistic(CutBelow(x, -128.0F), x); }
    static F Slope(F x) {
        const Logistic s(x);
        return s.value * MulAdd(Clamp(x, 128.0F), s.complement, Set(1.0F));
    }
};

struct Gelu {
    static F Value(F x) {
        const NormalTail tail(x);
        return MulAdd(-(tail.t * tail.e), tail.ratio, Relu::Value(x));
    }
    /// Phi(x) + x * phi(x).
    static F Slope(F x) {
        const NormalTail tail(x);
        const F outside = tail.e * MulAdd(tail.t, Set(-0.3989423F), tail.ratio);
        return Select(Less(x, Set(0.0F)), outside, Set(1.0F) - outside);
    }
};

struct GeluTanh {
    static F Value(F x) {
        const F near = Clamp(x, 12.0F);  // the argument is beyond 142 there
        const F v = near * MulAdd(Set(cubic), near * near, Set(linear));
        return TimesLogistic(CutBelow(x, -12.0F), v);
    }
    static F Slope(F x) {
        const F near = Clamp(x, 12.0F), square = near * near;
        const Logistic s(near * MulAdd(Set(cubic), square, Set(linear)));
        const F steepness = near * MulAdd(Set(3 * cubic), square, Set(linear));
        return s.value * MulAdd(steepness, s.complement, Set(1.0F));
    }
};

template <class Function>
void Activate(float* y, const float* x, std::int64_t n) noexcept {
    constexpr std::int64_t lanes = Pack<float>::lanes;
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) StoreU(y + i, Function::Value(LoadU(x + i)));
    if (i < n) StoreN(y + i, n - i, Function::Value(LoadN(x + i, n - i)));
}

template <class Function>
void ActivationGradient(float* grad_input, const float* grad_output, const float* x, std::int64_t n) noexcept {
    constexpr std::int64_t lanes = Pack<float>::lanes;
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        StoreU(grad_input + i, LoadU(grad_output + i) * Function::Slope(LoadU(x + i)));
    }
    if (i < n) StoreN(grad_input + i, n - i, LoadN(grad_output + i, n - i) * Function::Slope(LoadN(x + i, n - i)));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
