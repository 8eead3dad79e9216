// SPDX-License-Identifier: Apache-2.0
// Running statistics: what batch and instance norm keep of the batches that they are trained with, for inference.
#pragma once

#include <cstdint>
#include <optional>

#include "anynorm/moments.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

/// What becomes of a channel's running statistics when moments that are not finite are to update them. Other channels
/// do not notice: a value that is not finite spoils its own set only. So does y, which has NaN for that set whatever is
/// chosen here.
enum class NonFinite : std::uint8_t {
    skip,       ///< they stay as they are, and RunningUpdate names the channel
    raise,      ///< std::range_error; the running statistics of all channels stay as they are, y has been written
    propagate,  ///< they become NaN or infinite for good, as in PyTorch
};

/// What becomes of a training batch whose sets have one element each, which has no unbiased variance.
enum class OneElement : std::uint8_t {
    raise,  ///< std::invalid_argument; nothing has been written
    bias,   ///< y is exactly `bias`; running mean and variance stay as they are, pooled moments count the elements
};

/// Running statistics, as PyTorch keeps them by default: `momentum` is the share of the new value, and the running
/// variance is the unbiased one, m2 / (n - 1). Keras, Flax and ONNX call 1 - momentum the momentum and store the
/// population variance, a `correction` of 0.
struct RunningStatistics {
    TensorView mean{}, var{};  ///< shape (C), float32 or float64; both or neither

    /// running = (1 - momentum) * running + momentum * new, from 0 to 1. Left out (nullopt): the average over all
    /// batches, a momentum of 1 / (1 + *num_batches).
    std::optional<double> momentum = 0.1;

    /// What is subtracted from the count in the divisor of the running variance, from 0 to 1.
    double correction = 1;

    /// How many batches have updated a channel or more, which every such update counts up. Optional with a momentum.
    std::int64_t* num_batches = nullptr;

    /// The moments of all data so far, to each of which those of the batch are merged: exact where an average over
    /// batches is not, because it leaves out how far their means are apart. Float64 views of shape (C): count, mean and
    /// m2, all three or none, and mean_low or not, without which a mean that is large against the deviation costs
    /// digits; with or without `mean` and `var`. Zeros in `count` begin a new one.
    MomentsView pooled{};

    NonFinite nonfinite = NonFinite::skip;
};

/// What an update of running statistics has left out. Whoever does not care may ignore it.
struct RunningUpdate {
    static constexpr int most_named = 8;

    std::int64_t skipped = 0;                ///< channels left as they were, because their moments are not finite
    std::int64_t channels[most_named] = {};  ///< the first of them
};

/// Updates running statistics once, with moments from anywhere: those of all micro-batches of a step, of all processes,
/// or of a batch_norm() that was called without running statistics.
///
/// @param running     what to update; `mean` and `var`, or `pooled`, or all.
/// @param moments     float32 or float64, count, mean and m2, and mean_low or not, of shape (C), or (N, C), over whose
///                    N sets the mean and the variance are averaged, as instance norm does.
/// @param one_element raise: refuse moments with a count that is not above `correction`, which have no variance.
///                    bias: leave the running mean and variance of such a channel as they are.
/// @throws std::invalid_argument for shapes, dtypes and numbers that do not fit, for no momentum without num_batches,
///         and for outputs that overlap; nothing has been written then.
/// @throws std::range_error for moments that are not finite, if NonFinite::raise says so; nothing has been written
///         then.
RunningUpdate update_running(const RunningStatistics& running, const MomentsView& moments,
                             OneElement one_element = OneElement::raise);

}  // namespace anynorm::inline ANYNORM_ABI
