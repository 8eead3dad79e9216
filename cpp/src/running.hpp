// SPDX-License-Identifier: Apache-2.0
// Running statistics as arguments: their checks, the moments that they stand for, and their update.
#pragma once

#include <initializer_list>

#include "anynorm/running.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::detail {

/// Shapes, dtypes and numbers, whether the running statistics are to be read or updated.
void check_running(const char* caller, const RunningStatistics& running, std::int64_t channels);

/// Whether there is anything for a training batch to update.
inline bool learns(const RunningStatistics& running) { return running.mean.given() || running.pooled.given(); }

struct NamedView {
    const char* what;
    const TensorView* view;
};

/// What an update writes has no overlaps of its own, and is apart from each other and from everything else that the
/// call touches, since it is written after y; and a cumulative average has its count.
void check_running_output(const char* caller, const RunningStatistics& running,
                          std::initializer_list<NamedView> operands, std::initializer_list<const MomentsView*> moments);

/// The running variance needs counts above the correction. `batch` has shape (C) or (samples, C).
void check_counts(const char* caller, const RunningStatistics& running, const MomentsView& batch);

/// Updates running statistics that have been checked. `batch` has shape (C) or (samples, C).
RunningUpdate learn(const char* caller, const RunningStatistics& running, const MomentsView& batch);

/// The moments that normalize with running statistics: each a set of one element, whose m2 is the variance. Shape (C),
/// or (samples, C) where every sample has sets of its own.
void running_as_moments(const RunningStatistics& running, std::int64_t samples, bool per_sample, MomentsView& result);

}  // namespace anynorm::detail
