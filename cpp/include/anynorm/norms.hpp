// SPDX-License-Identifier: Apache-2.0
// The five named norms: each is a choice of axes for normalize().
//
// Shapes: x and y are (N, C, ...) with the channels on `channel_axis`, or anything at all for layer and RMS norm.
// The moments of a norm have the shape of its sets: (C) for batch, (N, C) for instance, (N, num_groups) for group
// norm, and x's shape without the reduced axes for layer and RMS norm. A selection splits, thins or weighs these sets
// as in Grouping; labels and segments put an axis for their groups in front of the moments.
#pragma once

#include <optional>

#include "anynorm/fusion.hpp"
#include "anynorm/grouping.hpp"
#include "anynorm/moments.hpp"
#include "anynorm/normalize.hpp"
#include "anynorm/running.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

struct LayerNormOptions {
    TensorView weight{}, bias{};  ///< shape of x along `axes`, in ascending order of the axes
    double eps = 1e-5;
    MomentsView given{}, moments{};  ///< as in NormalizeOptions
    Fusion fusion{};                 ///< as in NormalizeOptions
    Selection selection{};           ///< as in Grouping
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
};

/// Normalizes over `axes` (Ba, Kiros, Hinton, arXiv:1607.06450): statistics and parameters share the same axes.
void layer_norm(const TensorView& x, const TensorView& y, const Axes& axes, const LayerNormOptions& options = {});

struct RmsNormOptions {
    TensorView weight{};          ///< shape of x along `axes`, in ascending order of the axes
    std::optional<double> eps{};  ///< left out: the machine epsilon of float64 for x of float64, else of float32
    MomentsView given{}, moments{};
    Fusion fusion{};  ///< its sum is what counts for eps
    Selection selection{};
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
};

/// Layer norm with the mean held at 0 (Zhang, Sennrich, arXiv:1910.07467): y = x / sqrt(mean(x^2) + eps) * weight.
void rms_norm(const TensorView& x, const TensorView& y, const Axes& axes, const RmsNormOptions& options = {});

struct GroupNormOptions {
    TensorView weight{}, bias{};  ///< shape (C)
    double eps = 1e-5;
    int channel_axis = 1;
    MomentsView given{}, moments{};
    Fusion fusion{};
    Selection selection{};
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
};

/// Normalizes each sample over `num_groups` groups of consecutive channels (Wu, He, arXiv:1803.08494). The number of
/// channels must be a multiple of num_groups. x has rank 2 to 15: the channel axis is split in two.
void group_norm(const TensorView& x, const TensorView& y, std::int64_t num_groups,
                const GroupNormOptions& options = {});

struct InstanceNormOptions {
    TensorView weight{}, bias{};  ///< shape (C)
    RunningStatistics running{};  ///< read when use_input_stats is false; else updated with the average over samples
    bool use_input_stats = true;
    double eps = 1e-5;
    int channel_axis = 1;
    MomentsView given{}, moments{};
    Fusion fusion{};
    Selection selection{};
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
    OneElement one_element = OneElement::raise;  ///< asked where a running variance is to be updated
};

/// Normalizes each channel of each sample (Ulyanov, Vedaldi, Lempitsky, arXiv:1607.08022). x has rank 2 to 16, the
/// samples on axis 0. One element per channel and sample gives exactly `bias`; whether it is refused where a running
/// variance is to be updated says `one_element`. Pooled moments are those of all samples.
///
/// @return which channels of the running statistics stayed as they are, if any.
RunningUpdate instance_norm(const TensorView& x, const TensorView& y, const InstanceNormOptions& options = {});

struct BatchNormOptions {
    TensorView weight{}, bias{};  ///< shape (C)
    RunningStatistics running{};  ///< read when training is false; else updated, after y has been written
    bool training = false;
    double eps = 1e-5;
    int channel_axis = 1;
    MomentsView given{}, moments{};
    Fusion fusion{};
    Selection selection{};
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
    OneElement one_element = OneElement::raise;  ///< asked when training
};

/// Normalizes each channel over everything else (Ioffe, Szegedy, arXiv:1502.03167). x has rank 2 to 16.
///
/// With a selection one_element is not asked: a channel left with one element gives `bias` there, one left with none
/// nothing, and the running statistics of both stay as they are. Labels and segments have no running statistics.
///
/// @return which channels of the running statistics stayed as they are, if any. A batch without elements leaves all of
///         them as they are, and names none.
/// @throws std::invalid_argument additionally when training is false without running statistics (or given moments),
///         and when training with one element per channel, unless one_element says otherwise.
/// @throws std::range_error for moments that are not finite, if running.nonfinite says so.
RunningUpdate batch_norm(const TensorView& x, const TensorView& y, const BatchNormOptions& options = {});

// The gradients of each norm, for grad_output, the gradient of its y; see normalize_backward(). `options` are those of
// the forward call, of which moments and momentum are not read, of fusion the activation and grad_sum alone, and bias
// is looked at for its shape only unless there is an activation. `given` are the moments that the forward call wrote,
// which need not be computed again then. grad_weight and grad_bias have the shape of weight.

void layer_norm_backward(const TensorView& grad_output, const TensorView& x, const Axes& axes,
                         const Gradients& gradients, const LayerNormOptions& options = {});

/// RMS norm has no bias; a grad_bias is refused.
void rms_norm_backward(const TensorView& grad_output, const TensorView& x, const Axes& axes, const Gradients& gradients,
                       const RmsNormOptions& options = {});

void group_norm_backward(const TensorView& grad_output, const TensorView& x, std::int64_t num_groups,
                         const Gradients& gradients, const GroupNormOptions& options = {});

/// With use_input_stats false the running statistics, or the given ones, are constants: no gradient flows through them.
void instance_norm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                            const InstanceNormOptions& options = {});

/// With training false the running statistics, or the given ones, are constants: no gradient flows through them.
void batch_norm_backward(const TensorView& grad_output, const TensorView& x, const Gradients& gradients,
                         const BatchNormOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
