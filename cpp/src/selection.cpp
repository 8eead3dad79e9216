// SPDX-License-Identifier: Apache-2.0
#include "selection.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "parallel.hpp"
#include "validate.hpp"

namespace anynorm::detail {
namespace {

/// Calls body(offset, n, step) for runs of n elements of a view, in no particular order.
template <class Body>
void for_each_run(const TensorView& view, Body&& body) {
    if (view.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(view));
    const Nest nest = make_nest(view, 0, strides);
    Loop inner{1, false, {}};
    if (nest.depth > 0) inner = nest.loops[nest.depth - 1];
    walk(nest, std::max(0, nest.depth - 1),
         [&](const std::int64_t* offset) { body(offset[op_x], inner.n, inner.stride[op_x]); });
}

/// Calls body(offset) for every element.
template <class Body>
void for_each_element(const TensorView& view, Body&& body) {
    for_each_run(view, [&](std::int64_t first, std::int64_t n, std::int64_t step) {
        if (step == 1) {
            for (std::int64_t i = 0; i < n; ++i) body(first + i);
        } else {
            for (std::int64_t i = 0; i < n; ++i) body(first + i * step);
        }
    });
}

/// Whether all labels are below `groups`, by the signs of differences, which compilers vectorize: 0.3 ms for a million
/// labels, where their maximum takes 0.6. False for some that are, such as the least of all integers.
bool are_below(const TensorView& labels, std::int64_t groups, int threads) {
    std::atomic<bool> all{true};
    with_labels(elements_of(labels), [&](const auto* p) {
        for_each_run(labels, [&](std::int64_t first, std::int64_t n, std::int64_t step) {
            const auto last = static_cast<std::uint64_t>(groups - 1);
            const auto exceed = [&, own = p + first](std::int64_t from, std::int64_t to, std::int64_t each) {
                std::uint64_t signs = 0;
                for (std::int64_t i = from; i < to; ++i)
                    signs |= last - static_cast<std::uint64_t>(static_cast<std::int64_t>(own[i * each]));
                return signs >> 63 != 0;
            };
            const std::int64_t pieces = std::clamp<std::int64_t>(n / labels_of_thread, 1, threads);
            for_each_piece(pieces, threads, [&](int, std::int64_t piece) {
                const std::int64_t from = n * piece / pieces, to = n * (piece + 1) / pieces;
                if (step == 1 ? exceed(from, to, 1) : exceed(from, to, step))
                    all.store(false, std::memory_order_relaxed);
            });
        });
    });
    return all.load(std::memory_order_relaxed);
}

RowRanges check_labels(const char* caller, const Selection& selection, const TensorView& x, AxisSet reduced,
                       int num_threads) {
    const TensorView& labels = selection.labels;
    if (labels.dtype != DType::i32 && labels.dtype != DType::i64) {
        fail(caller, "labels of dtype int32 or int64", name(labels.dtype));
    }
    check_geometry(caller, "labels", labels);
    check_broadcasts(caller, "labels", labels, x);
    for (int axis = 0; axis < labels.rank; ++axis) {
        const int of_x = x.rank - labels.rank + axis;
        if (labels.shape[axis] != 1 && (reduced >> of_x & 1) == 0) {
            fail(caller, "labels of length 1 along axis " + std::to_string(of_x) + ", which is not reduced",
                 shape_text(labels));
        }
    }
    if (selection.num_groups < 0) {
        fail(caller, "num_groups of at least 0", std::to_string(selection.num_groups));
    }
    ThreadShare share(labels.size() < 2 * labels_of_thread ? 1 : num_threads);
    const int threads = share.count();
    RowRanges rows = rising_rows(selection, x, threads);
    if (!rows.empty() || are_below(labels, selection.num_groups, threads)) return rows;
    std::int64_t largest = -1;
    with_labels(elements_of(labels), [&](const auto* p) {
        for_each_element(labels, [&](std::int64_t offset) { largest = std::max<std::int64_t>(largest, p[offset]); });
    });
    if (largest >= selection.num_groups) {
        fail(caller, "labels below num_groups=" + std::to_string(selection.num_groups), std::to_string(largest));
    }
    return rows;
}

void check_segments(const char* caller, const Selection& selection, const TensorView& x, AxisSet reduced) {
    const TensorView& segments = selection.segments;
    if (segments.dtype != DType::i32 && segments.dtype != DType::i64) {
        fail(caller, "segments of dtype int32 or int64", name(segments.dtype));
    }
    check_geometry(caller, "segments", segments);
    const bool offsets = segments.rank == 1 && segments.shape[0] >= 1;
    const bool pairs = segments.rank == 2 && segments.shape[1] == 2;
    if (!offsets && !pairs) {
        fail(caller, "segments of shape (groups + 1,) or (groups, 2)", shape_text(segments));
    }
    if (x.rank == 0 || (reduced & 1) == 0) {
        fail(caller, "axis 0 among the reduced axes where there are segments", "a call that keeps it");
    }
    const Segments all(segments);
    std::int64_t last = 0;
    const auto check = [&](std::int64_t value) {
        if (value < last || value > x.shape[0]) {
            fail(caller,
                 "segments that rise from at least 0 to at most " + std::to_string(x.shape[0]) +
                     ", the length of axis 0",
                 std::to_string(value) + (value < last ? " after " + std::to_string(last) : ""));
        }
        last = value;
    };
    for (std::int64_t segment = 0; segment < all.count(); ++segment) {
        check(all.start(segment));
        check(all.stop(segment));
    }
    // Offsets of no segment at all.
    if (offsets && all.count() == 0) check(label_at(elements_of(segments), 0));
}

/// Positions are numbered in 32 bits.
void check_positions(const char* caller, const Selection& selection, const TensorView& x, AxisSet reduced) {
    OperandStrides strides;
    add_selection_strides(strides, selection, x);
    std::int64_t positions = 1;
    for (int axis = 0; axis < x.rank; ++axis) {
        const bool varies = strides.at(op_labels, axis) != 0 || strides.at(op_where, axis) != 0;
        if (varies && (reduced >> axis & 1) != 0) positions *= x.shape[axis];
    }
    if (positions >= std::int64_t{1} << 32) {
        fail(caller, "fewer than 2^32 positions to select from", std::to_string(positions));
    }
}

void check_sample_weight(const char* caller, const TensorView& weight, const TensorView& x) {
    check_statistic(caller, "sample_weight", weight);
    check_broadcasts(caller, "sample_weight", weight, x);
    double wrong = 0;  // one of those that do not fit, if any
    with_type(elements_of(weight), [&](const auto* p) {
        for_each_element(weight, [&](std::int64_t offset) {
            const double value = static_cast<double>(promote(p[offset]));
            if (!(value >= 0 && std::isfinite(value))) wrong = value;
        });
    });
    if (wrong != 0) fail(caller, "sample_weight that is finite and at least 0", number_text(wrong));
}

/// A view without its first axis.
TensorView first_of(const TensorView& view) noexcept {
    if (!view.given()) return view;
    TensorView result;
    result.data = view.data;
    result.dtype = view.dtype;
    result.rank = view.rank - 1;
    for (int axis = 0; axis < result.rank; ++axis) {
        result.shape[axis] = view.shape[axis + 1];
        result.strides[axis] = view.strides[axis + 1];
    }
    return result;
}

/// The views of moments with an axis of groups have that axis; the rest is for others to check.
void check_group_axis(const char* caller, const MomentsView& views, const Selection& selection, const TensorView& x) {
    for (const Named& each : named(views)) {
        if (!each.view.given()) continue;
        check_geometry(caller, each.what, each.view);
        const std::int64_t groups = group_count(selection);
        if (each.view.rank == 0 || each.view.rank > x.rank + 1 || each.view.shape[0] != groups) {
            fail(caller, std::string(each.what) + " with a first axis of length " + std::to_string(groups),
                 "shape " + shape_text(each.view));
        }
    }
}

}  // namespace

RowRanges check_selection(const char* caller, const Selection& selection, const TensorView& x, AxisSet reduced,
                          int num_threads) {
    if (selection.labels.given() && selection.segments.given()) fail(caller, "labels or segments", "both");
    RowRanges rows;
    if (selection.labels.given()) rows = check_labels(caller, selection, x, reduced, num_threads);
    if (selection.segments.given()) check_segments(caller, selection, x, reduced);
    if (selection.where.given()) {
        if (selection.where.dtype != DType::boolean) fail(caller, "where of dtype bool", name(selection.where.dtype));
        check_geometry(caller, "where", selection.where);
        check_broadcasts(caller, "where", selection.where, x);
    }
    if (selection.sample_weight.given()) check_sample_weight(caller, selection.sample_weight, x);
    check_positions(caller, selection, x, reduced);
    return rows;
}

void check_selection_apart(const char* caller, const char* what, const TensorView& out, const Selection& selection) {
    if (!out.given()) return;
    check_apart(caller, what, out, "labels", selection.labels);
    check_apart(caller, what, out, "segments", selection.segments);
    check_apart(caller, what, out, "where", selection.where);
    check_apart(caller, what, out, "sample_weight", selection.sample_weight);
}

void check_excluded(const char* caller, Excluded excluded) {
    if (excluded > Excluded::keep) {
        fail(caller, "excluded as zero, input or keep", "number " + std::to_string(static_cast<int>(excluded)));
    }
}

std::int64_t group_count(const Selection& selection) noexcept {
    if (selection.labels.given()) return selection.num_groups;
    return selection.segments.given() ? Segments(selection.segments).count() : 1;
}

void add_selection_strides(OperandStrides& strides, const Selection& selection, const TensorView& x) noexcept {
    if (selection.labels.given()) strides.set(op_labels, broadcast_strides(selection.labels, x));
    if (selection.segments.given()) {
        AxisStrides rows;
        for (int axis = 0; axis < x.rank; ++axis) rows.axis[axis] = axis == 0 ? 1 : 0;
        strides.set(op_labels, rows);
    }
    if (selection.where.given()) strides.set(op_where, broadcast_strides(selection.where, x));
    if (selection.sample_weight.given()) {
        strides.set(op_sample_weight, broadcast_strides(selection.sample_weight, x));
    }
}

GroupedMoments::GroupedMoments(const MomentsView& views, const Selection& selection) noexcept : first(views) {
    if (!selection.splits()) return;
    const auto step = [](const TensorView& view) { return view.given() ? view.strides[0] : 0; };
    first = {first_of(views.count), first_of(views.mean), first_of(views.m2), first_of(views.weight2),
             first_of(views.mean_low)};
    count_step = step(views.count);
    mean_step = step(views.mean);
    m2_step = step(views.m2);
    weight2_step = step(views.weight2);
    mean_low_step = step(views.mean_low);
}

void check_selected_statistics(const char* caller, const MomentsView& views, const Selection& selection,
                               const TensorView& x, AxisSet reduced) {
    if (selection.splits()) check_group_axis(caller, views, selection, x);
    check_statistics(caller, GroupedMoments(views, selection).first, x, reduced);
}

void check_selected_output(const char* caller, const MomentsView& views, const Selection& selection,
                           const TensorView& x, AxisSet reduced) {
    if (!views.given()) return;
    // Without a group there is no first one whose memory could be looked at.
    if (group_count(selection) == 0) return check_selected_statistics(caller, views, selection, x, reduced);
    if (selection.splits()) check_group_axis(caller, views, selection, x);
    check_moments_output(caller, GroupedMoments(views, selection).first, x, reduced);
    const auto all = named(views);
    for (const Named& each : all) {
        if (!each.view.given()) continue;
        check_output(caller, each.what, each.view);
        check_selection_apart(caller, each.what, each.view, selection);
        for (const Named* other = all.data(); other < &each; ++other) {
            if (other->view.given()) check_apart(caller, each.what, each.view, other->what, other->view);
        }
    }
}

Segments::Segments(const TensorView& view) noexcept : elements_(elements_of(view)) {
    if (!view.given()) return;
    step_ = view.strides[0];
    const bool pairs = view.rank == 2;
    count_ = pairs ? view.shape[0] : view.shape[0] - 1;
    to_stop_ = pairs ? view.strides[1] : step_;
}

void restrict_rows(Nest& nest, std::int64_t start, std::int64_t stop) noexcept {
    for (int i = 0; i < nest.depth; ++i) {
        const std::int64_t step = nest.loops[i].stride[op_labels];
        if (step == 0) continue;
        return restrict_loop(nest, i, step < 0 ? nest.loops[i].n - stop : start, stop - start);
    }
}

std::int64_t GroupLookup::segment_of(std::int64_t row) noexcept {
    const auto contains = [&](std::int64_t segment) {
        return segment < segments_.count() && segments_.start(segment) <= row && row < segments_.stop(segment);
    };
    if (contains(last_)) return last_;
    if (contains(last_ + 1)) return ++last_;
    std::int64_t low = 0, high = segments_.count();  // the first segment that ends behind the row
    while (low < high) {
        const std::int64_t middle = (low + high) / 2;
        if (segments_.stop(middle) <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (!contains(low)) return -1;
    return last_ = low;
}

std::int64_t GroupLookup::run(std::int64_t offset, std::int64_t step, std::int64_t n) const noexcept {
    if (segments_.count() == 0) return 1;
    const std::int64_t before = offset - segments_.start(last_), behind = segments_.stop(last_) - offset;
    return step == 0 ? n : std::min(n, step > 0 ? behind : before + 1);
}

}  // namespace anynorm::detail
