// SPDX-License-Identifier: Apache-2.0
// y = (x - mean_S) / sqrt(var_S + eps) * weight + bias, for any sets S and any layout.
#pragma once

#include "anynorm/fusion.hpp"
#include "anynorm/grouping.hpp"
#include "anynorm/moments.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

struct NormalizeOptions {
    /// Multiplies and shifts the normalized value; broadcast against x by NumPy's rules. Left out: 1 and 0.
    TensorView weight{}, bias{};
    /// Added to the variance; at least 0.
    double eps = 1e-5;
    /// false holds the mean at 0, as RMSNorm does.
    bool center = true;
    /// Statistics to use instead of those of x: count, mean and m2, float32 or float64, shaped as in `moments`. The
    /// variance is m2 / count, so a known variance is given as m2 with a count of 1 (a view of one 1.0 with stride 0).
    /// With `mean_low` those of x itself give the bits of a call without; where it is left out, it is 0.
    MomentsView given{};
    /// Where to write the statistics that were used: float64 views, each optional.
    MomentsView moments{};
    /// A sum before, an activation and a rounding to integers after, in the same pass over memory.
    Fusion fusion{};
    /// What becomes of y at elements that the selection excludes. `input` does not go with a quantized y. The sum with
    /// a residual is written everywhere.
    Excluded excluded = Excluded::zero;
    /// 0 asks for as many threads as OpenMP would use. The result does not depend on it.
    int num_threads = 0;
    /// Begins every error message; a norm built on normalize() gives its own name.
    const char* caller = "normalize";
};

/// Normalizes every set of x into y.
///
/// The mean is kept as a pair hi + lo in the compute type, so that float32 output is within 2e-6 of the exact value at
/// any mean, for |y| up to 10 before weight and bias (and to that many ulp beyond). With eps above 0 a set of equal
/// elements gives exactly `bias`. The compute type is float64 if x or y is, else float32.
///
/// @param x       float16, bfloat16, float32 or float64, rank 0 to 16, any strides; read only.
/// @param sets    which elements share statistics.
/// @param y       float16, bfloat16, float32 or float64, or int8 or uint8 with fusion.scale; shape of x, any strides
///                without overlap; may be x itself (same view).
/// @throws std::invalid_argument for shapes, dtypes, axes or eps that do not fit, and for a y that overlaps an input
///         or itself; nothing has been written then.
///
/// Cost: reads x once for the statistics and once more to write y (from cache where a set fits); extra memory below
/// 1 % of x. A residual is read and its sum written before the statistics are taken, a piece that a cache holds at a
/// time; where sets have to be cut for the threads, or no cache holds them, in a pass of its own.
void normalize(const TensorView& x, const Grouping& sets, const TensorView& y, const NormalizeOptions& options = {});

/// The gradients of a loss, each optional.
struct Gradients {
    /// Shape of x; any strides without overlap. May be grad_output, x or grad_sum itself (same view).
    TensorView grad_input{};
    /// Of any shape that broadcasts against x by NumPy's rules: the gradients are summed over all other axes.
    TensorView grad_weight{}, grad_bias{};
};

struct NormalizeBackwardOptions {
    /// As in the forward call. Of bias only the shape is looked at, which grad_bias must have, unless there is an
    /// activation.
    TensorView weight{}, bias{};
    double eps = 1e-5;
    bool center = true;
    /// The statistics that the forward call wrote to `moments`, which need not be computed again; or others that it was
    /// given, with `frozen`. The variance is m2 / count.
    MomentsView given{};
    /// The statistics are constants, as those of batch norm are in inference: no gradient flows through them.
    bool frozen = false;
    /// That of the forward call: grad_output is the gradient of its result, and x is what was normalized (the sum, if
    /// there was a residual, whose gradient is grad_input as well).
    Activation activation = Activation::none;
    /// What else the loss says about x, where x is a sum that others read as well: added to grad_input, also at
    /// elements that the selection excludes, unless those are kept. Shape of x, any dtype and strides; with grad_input,
    /// which it may be (same view), and only then. The sum is taken in the compute type, float64 if this is, before it
    /// is rounded to the dtype of grad_input.
    TensorView grad_sum{};
    /// What becomes of grad_input at elements that the selection excludes. Parameters get nothing from them.
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
    const char* caller = "normalize_backward";
};

/// The gradients of normalize() for grad_output, the gradient of its result y. With xhat = (x - mean) * rstd and
/// g = grad_output * weight, and the means taken over each set:
///
///     grad_input  = rstd * (g - mean(g) - xhat * mean(g * xhat)) + grad_sum
///     grad_weight = sum(grad_output * xhat)        grad_bias = sum(grad_output)
///
/// With an activation f, f'(xhat * weight + bias) * grad_output takes the place of grad_output, formed in cache of the
/// compute type wherever it is read.
///
/// With a selection all sums are over elements that are in a set, and what others hold does not matter. An element of
/// weight w in a set of weight W = given.count (1 and the number of elements, without sample weights) gets
///
///     grad_input = rstd * (g - w / W * (sum(g) + xhat * sum(g * xhat)))
///
/// All sums are taken in float64, in an order that the number of threads does not change.
///
/// @param grad_output  float16, bfloat16, float32 or float64, shape of x, any strides; read only.
/// @param x            what the forward call normalized.
/// @param sets         which elements share statistics.
/// @param gradients    where to write; float16, bfloat16, float32 or float64.
/// @throws std::invalid_argument for shapes, dtypes, axes or eps that do not fit, for statistics to be frozen that are
///         not given, and for outputs that overlap an input, each other or themselves; nothing has been written then.
///
/// Cost: reads x once for the statistics where they are not given, x and grad_output once for the sums and once more
/// to write grad_input (from cache where a set fits); extra memory below 1 % of x, or 512 KB, beside two float64
/// for every element of a parameter. With a selection 68 bytes a set (88 in float64) beside that of its moments, and
/// partial sums of up to 12 MB; statistics first, in a pass of their own.
void normalize_backward(const TensorView& grad_output, const TensorView& x, const Grouping& sets,
                        const Gradients& gradients, const NormalizeBackwardOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
