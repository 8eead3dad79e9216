// SPDX-License-Identifier: Apache-2.0
// y = x / max(||x_S||_p, eps): every set S scaled to length 1, without statistics in between.
#pragma once

#include "anynorm/grouping.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

struct LpNormalizeOptions {
    double p = 2;        ///< 1, 2 or infinity: sum(|x|), sqrt(sum(x^2)) or max(|x|)
    double eps = 1e-12;  ///< the least that is divided by; at least 0
    /// bool; broadcasts against x. Elements where it is false are *excluded*: no norm sees them, nor their gradients,
    /// as if x were 0 there. Without one, no element is.
    TensorView where{};
    /// What the result has at excluded elements: 0, the input there (x; grad_output of a gradient), or what its memory
    /// holds.
    Excluded excluded = Excluded::zero;
    /// 0 asks for as many threads as OpenMP would use. The result does not depend on it.
    int num_threads = 0;
};

/// Divides every set of x, the elements that differ only along `axes`, by its p-norm, or by eps where that is larger.
///
/// Norms are accumulated in float64 in an order that depends neither on the threads nor on the other sets, so that
/// squares of float32 cannot overflow. p = 2 is the engine's sum of squares and its bits are the same for AVX2, AVX-512
/// and NEON; those of p = 1 and infinity, and of calls with a mask, are the same everywhere. Squares of float64 beyond
/// 1e154 do overflow: the norm is infinite then and y is 0. A value that is not finite spoils its own set only.
///
/// @param x     float16, bfloat16, float32 or float64, rank 0 to 16, any strides; read only.
/// @param y     any of the four dtypes, shape of x, any strides without overlap; may be x itself (same view).
/// @param axes  the axes along which elements share a norm; none makes every element a set, all axes make one.
/// @throws std::invalid_argument for shapes, dtypes, axes, p or eps that do not fit, and for a y that overlaps x, the
///         mask or itself; nothing has been written then.
///
/// Cost: reads x once for the norms and once more to write y (from cache where a set fits); extra memory below 1 % of
/// x, or 24 bytes for each of the sets of 256 KB of x.
///
/// Peer: torch.nn.functional.normalize(x, p, dim, eps), whose values these are.
void lp_normalize(const TensorView& x, const TensorView& y, const Axes& axes, const LpNormalizeOptions& options = {});

/// The gradient of lp_normalize() for grad_output, the gradient of its y. With n = ||x_S||_p and
/// s = sum_S(grad_output * y):
///
///     grad_input = (grad_output - s * g(x)) / n        g = sign(x)  |  x / n  |  sign(x) / ties where |x| = n, else 0
///
/// for p = 1, 2 and infinity; the maximum's share is divided equally among the `ties` elements that reach it, as
/// PyTorch does. Where n < eps the divisor is a constant: grad_input = grad_output / eps. In float64, rounded once.
///
/// @param grad_output, x  float16, bfloat16, float32 or float64, one shape, any strides; read only.
/// @param grad_input      shape of x, any of the four dtypes, any strides without overlap; may be grad_output or x
/// itself.
/// @throws std::invalid_argument as above.
void lp_normalize_backward(const TensorView& grad_output, const TensorView& x, const TensorView& grad_input,
                           const Axes& axes, const LpNormalizeOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
