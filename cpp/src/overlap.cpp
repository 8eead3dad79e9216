// SPDX-License-Identifier: Apache-2.0
#include "overlap.hpp"

#include <algorithm>

namespace anynorm::detail {
namespace {

struct Step {
    std::int64_t stride;     // bytes, positive
    std::int64_t low, high;  // range of the multiplier
};

/// The difference of two addresses as offset + sum(stride * m), low <= m <= high.
struct Difference {
    std::int64_t offset = 0;
    int count = 0;
    Step steps[2 * max_rank];
    std::int64_t below = 0, above = 0;  // overlap means below < difference < above
    int budget = 4096;

    void add(const TensorView& view, int sign) {
        const auto bytes = static_cast<std::int64_t>(size_of(view.dtype));
        offset += sign * static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(view.data));
        for (int axis = 0; axis < view.rank; ++axis) {
            std::int64_t stride = view.strides[axis] * bytes;
            const std::int64_t last = view.shape[axis] - 1;
            if (last == 0 || stride == 0) continue;
            if (stride < 0) {
                offset += sign * stride * last;
                stride = -stride;
            }
            Step* step = std::find_if(steps, steps + count, [&](const Step& s) { return s.stride == stride; });
            if (step == steps + count) steps[count++] = {stride, 0, 0};
            (sign > 0 ? step->high : step->low) += sign * last;
        }
    }

    bool reachable(int index, std::int64_t value) {
        if (--budget < 0) return true;
        std::int64_t rest_low = 0, rest_high = 0;
        for (int i = index; i < count; ++i) {
            rest_low += steps[i].stride * steps[i].low;
            rest_high += steps[i].stride * steps[i].high;
        }
        if (value + rest_high <= below || value + rest_low >= above) return false;
        if (index == count) return true;
        for (std::int64_t m = steps[index].low; m <= steps[index].high; ++m) {
            const std::int64_t low =
                value + steps[index].stride * m + rest_low - steps[index].stride * steps[index].low;
            const std::int64_t high =
                value + steps[index].stride * m + rest_high - steps[index].stride * steps[index].high;
            if (high <= below) {  // jump to the first multiplier that can still reach
                m += (below - high) / steps[index].stride;
                continue;
            }
            if (low >= above) return false;
            if (reachable(index + 1, value + steps[index].stride * m)) return true;
        }
        return false;
    }
};

}  // namespace

bool same_view(const TensorView& a, const TensorView& b) noexcept {
    if (a.data != b.data || a.dtype != b.dtype || a.rank != b.rank) return false;
    for (int axis = 0; axis < a.rank; ++axis) {
        if (a.shape[axis] != b.shape[axis]) return false;
        if (a.shape[axis] > 1 && a.strides[axis] != b.strides[axis]) return false;
    }
    return true;
}

bool overlaps(const TensorView& a, const TensorView& b) noexcept {
    if (!a.given() || !b.given() || Range(a).apart_from(Range(b))) return false;
    Difference difference;
    difference.add(a, 1);
    difference.add(b, -1);
    difference.below = -static_cast<std::int64_t>(size_of(a.dtype));
    difference.above = static_cast<std::int64_t>(size_of(b.dtype));
    std::sort(difference.steps, difference.steps + difference.count,
              [](const Step& left, const Step& right) { return left.stride > right.stride; });
    return difference.reachable(0, difference.offset);
}

bool overlaps_itself(const TensorView& view) noexcept {
    if (!view.given() || view.size() == 0) return false;
    std::int64_t stride[max_rank], last[max_rank];
    int count = 0;
    for (int axis = 0; axis < view.rank; ++axis) {
        if (view.shape[axis] == 1) continue;
        const std::int64_t step = view.strides[axis] < 0 ? -view.strides[axis] : view.strides[axis];
        int place = count++;
        for (; place > 0 && stride[place - 1] > step; --place) {
            stride[place] = stride[place - 1];
            last[place] = last[place - 1];
        }
        stride[place] = step;
        last[place] = view.shape[axis] - 1;
    }
    std::int64_t reach = 0;  // of all faster axes together
    for (int i = 0; i < count; ++i) {
        if (stride[i] <= reach) return true;
        reach += stride[i] * last[i];
    }
    return false;
}

}  // namespace anynorm::detail
