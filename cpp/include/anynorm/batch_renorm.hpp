// SPDX-License-Identifier: Apache-2.0
// Batch norm that trains small batches with what inference will use.
#pragma once

#include "anynorm/grouping.hpp"
#include "anynorm/moments.hpp"
#include "anynorm/normalize.hpp"
#include "anynorm/running.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

struct BatchRenormOptions {
    TensorView weight{}, bias{};  ///< shape (C)
    RunningStatistics running{};  ///< mean and var are needed; updated when training. The paper's momentum is 0.01
    bool training = false;
    double eps = 1e-5;
    double r_max = 3;  ///< at least 1
    double d_max = 5;  ///< at least 0
    int channel_axis = 1;
    MomentsView given{}, moments{};  ///< as in NormalizeOptions
    Selection selection{};           ///< a mask and weights; labels and segments have no running statistics
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
    OneElement one_element = OneElement::raise;
};

/// Batch norm whose training result is corrected towards the running statistics (Ioffe, arXiv:1702.03275):
///
///     y = ((x - mean) * rstd * r + d) * weight + bias
///     r = clip(sigma / running_sigma, 1 / r_max, r_max)
///     d = clip((mean - running_mean) / running_sigma, -d_max, d_max)
///
/// with sigma = sqrt(var + eps) and the running statistics as they are before the update. Where nothing is clipped, y
/// is what inference gives. With r_max 1 and d_max 0 it is batch_norm(), to the bit, as it is without training.
///
/// One element per channel has x = mean, hence y = d * weight + bias; OneElement::bias allows it.
///
/// @throws as batch_norm(), and std::invalid_argument without running statistics, for an r_max below 1 and for a
///         d_max below 0.
///
/// Cost: one more read of x than batch_norm(), since r and d must be known before y is written.
RunningUpdate batch_renorm(const TensorView& x, const TensorView& y, const BatchRenormOptions& options = {});

/// The gradients of batch_renorm(), in which r and d are constants, as in the paper. `options` are those of the forward
/// call, with the running statistics *as they were before it*: an update changes r and d. (A momentum of 0 and
/// update_running() after this call keep them.) grad_weight is that of weight, hence sum(grad_output * (xhat * r + d)).
void batch_renorm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                           const BatchRenormOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
