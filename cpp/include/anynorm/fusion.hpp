// SPDX-License-Identifier: Apache-2.0
// What a norm does besides in the same pass over memory: a sum before it, an activation and a rounding to integers
// after it.
#pragma once

#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

/// A function of single values, applied to the affine result before it is rounded to the dtype of y:
///
///     relu       max(h, 0)
///     silu       h / (1 + exp(-h))                                     (Elfwing, Uchibe, Doya, arXiv:1702.03118)
///     gelu       h * Phi(h), Phi the normal distribution's             (Hendrycks, Gimpel, arXiv:1606.08415)
///     gelu_tanh  h * (1 + tanh(sqrt(2 / pi) * (h + 0.044715 * h^3))) / 2, as PyTorch's gelu with approximate="tanh"
///
/// In float32 silu and gelu are within 4e-7 of the exact value, relatively, down to results of 1e-29 (from 2e-36 on
/// they are 0); gelu_tanh is within 4e-7 of max(|y|, 0.25). In float64 all are within 4e-15 of max(|y|, 1). NaN stays
/// NaN; -inf and inf give the limits. Defined by kernels of this library, so that instruction sets agree on every bit.
enum class Activation : std::uint8_t { none, relu, silu, gelu, gelu_tanh };

constexpr const char* name(Activation activation) noexcept {
    constexpr const char* names[] = {"none", "relu", "silu", "gelu", "gelu_tanh"};
    return names[static_cast<int>(activation)];
}

struct Fusion {
    /// Shape of x, any dtype and strides: x + residual is normalized instead of x. The sum is taken in float64 if x,
    /// residual or sum is float64, else in float32, and rounded to the dtype of `sum`; statistics and y are those of
    /// the rounded sum, so that y is normalize(sum) to the bit.
    TensorView residual{};
    /// Where to write the sum, with residual and only then: shape of x, float16, bfloat16, float32 or float64, any
    /// strides without overlap; x or residual itself (same view) for work in place, but not y.
    TensorView sum{};
    /// Read by the gradients alone, where what came after the norm read the sum as well: the gradient of a loss with
    /// respect to `sum`, which is added to grad_input, see NormalizeBackwardOptions.
    TensorView grad_sum{};
    /// Applied to (x - mean) * rstd * weight + bias.
    Activation activation = Activation::none;
    /// For y of int8 or uint8, and only then: above 0, see quantize().
    double scale = 0;
    /// A value of y's dtype.
    int zero_point = 0;
    /// In the places of these two, one for every channel or along any axes: float16, bfloat16, float32 or float64, and
    /// y's dtype; each broadcasts against y by NumPy's rules, which is (C, 1, 1) for the channels of (N, C, H, W).
    TensorView scales{}, zero_points{};

    bool any() const noexcept {
        return residual.given() || sum.given() || activation != Activation::none || scale != 0 || zero_point != 0 ||
               scales.given() || zero_points.given();
    }
};

/// Rounds to integers: q = saturate(round(y / scale) + zero_point), ties to even, as ONNX's QuantizeLinear. The
/// division is one of float64 if y is float64, else of float32, with `scale` rounded to it. NaN gives zero_point.
///
/// @param y           float16, bfloat16, float32 or float64, rank 0 to 16, any strides; read only.
/// @param q           int8 or uint8, shape of y, any strides without overlap.
/// @param scale       finite and above 0, also as a float32.
/// @param zero_point  a value of q's dtype; the integer that stands for 0.
/// @param num_threads 0 asks for as many as OpenMP would use. The result does not depend on it.
/// @throws std::invalid_argument for dtypes, shapes or numbers that do not fit, and for a q that overlaps y or itself;
///         nothing has been written then.
void quantize(const TensorView& y, const TensorView& q, double scale, int zero_point = 0, int num_threads = 0);

/// The same with a scale and a zero point of their own for every channel, or along any axes.
///
/// @param scale       float16, bfloat16, float32 or float64; broadcasts against y by NumPy's rules; numbers as above.
/// @param zero_point  q's dtype; broadcasts against y. Left out: 0.
void quantize(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point = {},
              int num_threads = 0);

}  // namespace anynorm::inline ANYNORM_ABI
