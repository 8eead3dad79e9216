// SPDX-License-Identifier: Apache-2.0
// What batch renormalization makes of the parameters of batch norm: weight * r, and bias + weight * d.
#pragma once

#include <memory>

#include "anynorm/batch_renorm.hpp"

namespace anynorm::detail {

/// How far r and d may go.
struct RenormLimits {
    double r_max, d_max;

    /// r is 1 and d is 0, whatever the statistics.
    bool closed() const { return r_max == 1 && d_max == 0; }
};

void check_renorm(const char* caller, const RenormLimits& limits, const RunningStatistics& running,
                  std::int64_t channels);

/// The statistics of a batch, r and d of every channel, and the parameters that the engine takes instead of the
/// caller's: float64, of shape (C).
class Renorm {
  public:
    /// Computes the statistics of `sets`, one for each channel, or copies the given ones.
    Renorm(const char* caller, const TensorView& x, const Grouping& sets, int channel, const MomentsView& given,
           int num_threads);

    void fold(const RenormLimits& limits, const RunningStatistics& running, double eps, const TensorView& weight,
              const TensorView& bias);

    /// Writes the sums of squared weights, which given statistics do not have; `to` has shape (C).
    void store_weight2(const TensorView& to) const;

    MomentsView batch() const { return {.count = seen(0), .mean = seen(1), .m2 = seen(2), .mean_low = seen(7)}; }
    double r(std::int64_t channel) const { return part(3)[channel]; }
    double d(std::int64_t channel) const { return part(4)[channel]; }
    TensorView weight() const { return seen(5); }
    TensorView bias() const { return seen(6); }

  private:
    double* part(std::int64_t index) const { return memory_.get() + index * channels_; }
    TensorView seen(std::int64_t index) const { return view(part(index), {channels_}); }

    std::int64_t channels_;
    std::unique_ptr<double[]> memory_;
};

}  // namespace anynorm::detail
