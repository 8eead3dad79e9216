// SPDX-License-Identifier: Apache-2.0
// Running statistics as arguments: their checks, and the moments that they stand for.
#pragma once

#include "anynorm/norms.hpp"
#include "validate.hpp"

namespace anynorm::detail {

inline void check_running(const char* caller, const RunningStatistics& running, std::int64_t channels) {
    if (running.mean.given() != running.var.given()) {
        fail(caller, "running mean and variance together",
             running.mean.given() ? "the mean only" : "the variance only");
    }
    if (running.mean.given()) {
        check_statistic(caller, "running_mean", running.mean);
        check_statistic(caller, "running_var", running.var);
        check_shape(caller, "running_mean", running.mean, &channels, 1);
        check_shape(caller, "running_var", running.var, &channels, 1);
    }
    if (!(running.momentum >= 0 && running.momentum <= 1)) {
        fail(caller, "momentum from 0 to 1", number_text(running.momentum));
    }
}

/// The moments that normalize with running statistics: each a set of one element, whose m2 is the variance. Shape (C),
/// or (samples, C) where every sample has sets of its own.
inline void running_as_moments(const RunningStatistics& running, std::int64_t samples, bool per_sample,
                               MomentsView& result) {
    static double one = 1;
    const auto spread = [&](const TensorView& statistic) {
        if (!per_sample) return statistic;
        TensorView view = statistic;
        view.rank = 2;
        view.shape[0] = samples;
        view.strides[0] = 0;
        view.shape[1] = statistic.shape[0];
        view.strides[1] = statistic.strides[0];
        return view;
    };
    const TensorView count = view(&one, {running.mean.shape[0]}, {0});
    result = {.count = spread(count), .mean = spread(running.mean), .m2 = spread(running.var)};
}

}  // namespace anynorm::detail
