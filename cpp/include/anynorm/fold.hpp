// SPDX-License-Identifier: Apache-2.0
// Batch norm with known statistics is an affine map for each channel: it disappears into the layer before it.
#pragma once

#include <cstdint>

#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

struct FoldBatchNormOptions {
    TensorView bias{};                  ///< of the layer, shape (C); left out: 0
    TensorView bn_weight{}, bn_bias{};  ///< of the batch norm, shape (C); left out: 1 and 0
    double eps = 1e-5;                  ///< of the batch norm; at least 0
    /// The axis of weight with the output channels: 0 for linear layers and convolutions of any rank as PyTorch keeps
    /// them, -1 as Keras and Flax do. Left at 0 with `transpose`.
    int channel_axis = 0;
    /// A transposed convolution as PyTorch keeps it: weight of shape (inputs, C / groups, ...).
    bool transpose = false;
    /// Of the convolution. Only a transposed one keeps the channels of its groups on two axes of weight.
    std::int64_t groups = 1;
};

/// The weight and bias of one layer that computes what a linear layer or convolution and the batch norm after it
/// compute in inference: with scale = bn_weight / sqrt(var + eps), for every output channel,
///
///     folded_weight = weight * scale        folded_bias = (bias - mean) * scale + bn_bias
///
/// in float64, rounded once. C is the number of output channels, which is that of the batch norm.
///
/// @param weight         float16, bfloat16, float32 or float64, rank 1 to 16 (2 to 15 with `transpose`), any strides.
/// @param mean, var      shape (C), float32 or float64: the running statistics, or any others.
/// @param folded_weight  shape of weight, any of the four dtypes, any strides without overlap; may be weight itself.
/// @param folded_bias    shape (C), likewise; may be the layer's bias itself. A layer without a bias gets one.
/// @throws std::invalid_argument for shapes, dtypes, groups, axes or eps that do not fit, and for an output that
///         overlaps another operand or itself; nothing has been written then.
///
/// Cost: one pass over weight on the calling thread, and a float64 for every channel.
///
/// Source: Jacob et al., arXiv:1712.05877, section 3.2 and equation 14, which fold scale and shift before quantizing.
void fold_batch_norm(const TensorView& weight, const TensorView& mean, const TensorView& var,
                     const TensorView& folded_weight, const TensorView& folded_bias,
                     const FoldBatchNormOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
