// SPDX-License-Identifier: Apache-2.0
// What a selection says along the axes of x: pure geometry and checks, but for labels and offsets, which are read.
#pragma once

#include <cstdint>

#include "anynorm/grouping.hpp"
#include "anynorm/moments.hpp"
#include "elements.hpp"
#include "layout.hpp"
#include "rising_labels.hpp"

namespace anynorm::detail {

/// Whether a call takes the path of selections, which knows weights, and what their squares sum up to without any.
inline bool takes_selection(const Selection& selection, const MomentsView& out) noexcept {
    return selection.any() || out.weight2.given();
}

/// Below so many labels a thread of their own gains nothing.
inline constexpr std::int64_t labels_of_thread = 32 * 1024;

/// Shapes, dtypes and what labels, offsets and weights hold. `reduced` are the axes of x that sets span. Returns the
/// rows of labels that were seen to rise on the way: what follows takes them as segments.
RowRanges check_selection(const char* caller, const Selection& selection, const TensorView& x, AxisSet reduced,
                          int num_threads = 1);

/// An output shares no memory with any view of a selection.
void check_selection_apart(const char* caller, const char* what, const TensorView& out, const Selection& selection);

void check_excluded(const char* caller, Excluded excluded);

/// The number of sets that labels or segments make of one; 1 without them.
std::int64_t group_count(const Selection& selection) noexcept;

/// Where the views of a selection lie along x. With segments op_labels numbers the elements of axis 0.
void add_selection_strides(OperandStrides& strides, const Selection& selection, const TensorView& x) noexcept;

/// Moments of shape (G, ...) as those of their first group, and how far apart the groups are. Without labels and
/// segments they are as they are.
struct GroupedMoments {
    MomentsView first;
    std::int64_t count_step = 0, mean_step = 0, m2_step = 0, weight2_step = 0, mean_low_step = 0;

    GroupedMoments(const MomentsView& views, const Selection& selection) noexcept;
};

/// As check_statistics and check_moments_output, for moments that may have an axis of groups.
void check_selected_statistics(const char* caller, const MomentsView& views, const Selection& selection,
                               const TensorView& x, AxisSet reduced);
void check_selected_output(const char* caller, const MomentsView& views, const Selection& selection,
                           const TensorView& x, AxisSet reduced);

/// A loop along which sets are selected: reduced, and labels, segments or the mask vary.
inline bool is_selected(const Loop& loop) noexcept {
    return loop.reduced && (loop.stride[op_labels] != 0 || loop.stride[op_where] != 0);
}

/// A loop along which the selection itself varies: kept, and every index has a mask of its own.
inline bool is_family(const Loop& loop) noexcept { return !loop.reduced && loop.stride[op_where] != 0; }

/// A label as the library counts: negative for all that exclude.
inline std::int64_t label_at(const Elements& labels, std::int64_t offset) noexcept {
    return labels.dtype == DType::i32 ? static_cast<const std::int32_t*>(labels.data)[offset]
                                      : static_cast<const std::int64_t*>(labels.data)[offset];
}

/// Calls body(p) with labels or offsets as a pointer to their type: loops over many of them know it.
template <class Body>
decltype(auto) with_labels(const Elements& labels, Body&& body) {
    if (labels.dtype == DType::i32) return body(static_cast<const std::int32_t*>(labels.data));
    return body(static_cast<const std::int64_t*>(labels.data));
}

/// Where each segment begins and ends.
class Segments {
  public:
    Segments() = default;
    explicit Segments(const TensorView& view) noexcept;

    std::int64_t count() const noexcept { return count_; }
    std::int64_t start(std::int64_t segment) const noexcept { return label_at(elements_, segment * step_); }
    std::int64_t stop(std::int64_t segment) const noexcept { return label_at(elements_, segment * step_ + to_stop_); }
    /// From where the first begins to where the last ends.
    std::int64_t rows() const noexcept { return count_ > 0 ? stop(count_ - 1) - start(0) : 0; }

  private:
    Elements elements_;
    std::int64_t count_ = 0, step_ = 0, to_stop_ = 0;
};

/// Restricts a nest to the elements that op_labels numbers from `start` to `stop`.
void restrict_rows(Nest& nest, std::int64_t start, std::int64_t stop) noexcept;

/// The group of an element by its offset in the operand op_labels; -1 for none. Neighbours ask for the same segment or
/// the next, which is remembered: one for each thread.
class GroupLookup {
  public:
    explicit GroupLookup(const Selection& selection) noexcept
        : labels_(elements_of(selection.labels)),
          segments_(selection.segments),
          otherwise_(selection.splits() ? -1 : 0) {}

    std::int64_t operator()(std::int64_t offset) noexcept {
        if (labels_.given()) return label_at(labels_, offset);
        return segments_.count() > 0 ? segment_of(offset) : otherwise_;
    }

    /// How many of n elements, `step` apart, are known to be in the group that the first was just found to be in.
    std::int64_t run(std::int64_t offset, std::int64_t step, std::int64_t n) const noexcept;

  private:
    std::int64_t segment_of(std::int64_t row) noexcept;

    Elements labels_;
    Segments segments_;
    std::int64_t last_ = 0, otherwise_;
};

}  // namespace anynorm::detail
