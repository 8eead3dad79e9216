// SPDX-License-Identifier: Apache-2.0
// Selections of sets whose elements lie in many short stretches: axes with gaps between them, or with kept axes in
// between, which no layout joins to one loop. Small as they are, they are summed in several chunks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "anynorm/moments.hpp"
#include "oracle.hpp"
#include "selections.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

struct Space {
    Shape shape;
    std::vector<int> reduce;
};

const Space spaces[] = {
    {{17, 7, 17}, {0, 1, 2}},      {{40, 3, 5}, {0, 1, 2}},          {{2, 18, 3, 4}, {0, 1, 2, 3}},
    {{20, 2, 3, 2, 4}, {0, 2, 4}}, {{18, 2, 3, 2, 4, 3}, {0, 2, 4}}, {{33, 2, 2, 2}, {0, 1, 3}},
    {{21, 4, 3, 4}, {0, 1}},       {{21, 5, 3, 2, 2}, {0, 1, 4}},
};

/// Room of one element behind every axis, so that no two of them are one loop.
std::vector<std::int64_t> strides_with_gaps(const Shape& shape) {
    std::vector<std::int64_t> strides(shape.size());
    std::int64_t step = 1;
    for (std::size_t axis = shape.size(); axis-- > 0;) {
        strides[axis] = step;
        step = step * shape[axis] + 1;
    }
    return strides;
}

class SelectedLoops : public testing::TestWithParam<SelectionKind> {};

TEST_P(SelectedLoops, MomentsAreThoseOfALoop) {
    for (const Space& space : spaces) {
        for (const bool gaps : {false, true}) {
            const SelectionCase selected(GetParam(), space.shape, space.reduce, 5);
            const std::vector<std::int64_t> dense = place(space.shape, {}).strides;
            const std::vector<std::int64_t> strides = gaps ? strides_with_gaps(space.shape) : dense;
            std::vector<float> memory(static_cast<std::size_t>(strides[0] * space.shape[0]), 1e9F), x;
            Random random(3);
            const std::int64_t size = size_of(space.shape);
            for (std::int64_t i = 0; i < size; ++i) {
                std::int64_t offset = 0;
                for (std::size_t axis = 0; axis < strides.size(); ++axis)
                    offset += i / dense[axis] % space.shape[axis] * strides[axis];
                x.push_back(static_cast<float>(random.unit()));
                at(memory, offset) = x.back();
            }
            Axes axes;
            for (int axis : space.reduce) axes.values[axes.size++] = axis;
            const std::vector<ExactMoments> exact = exact_moments(x, selected);
            std::vector<double> count(exact.size()), mean(exact.size()), m2(exact.size());
            Shape kept = selected.selection.splits() ? Shape{selected.groups} : Shape{};
            for (int axis = 0; axis < static_cast<int>(space.shape.size()); ++axis) {
                if (std::find(space.reduce.begin(), space.reduce.end(), axis) == space.reduce.end())
                    kept.push_back(at(space.shape, axis));
            }
            const std::span<const std::int64_t> lengths(kept);
            for (int threads : {1, 3}) {
                moments(view(memory.data(), std::span<const std::int64_t>(space.shape), strides),
                        {axes, selected.selection},
                        {view(count.data(), lengths), view(mean.data(), lengths), view(m2.data(), lengths)},
                        {.num_threads = threads});
                for (std::size_t set = 0; set < exact.size(); ++set) {
                    const double of_set = static_cast<double>(exact[set].count);
                    ASSERT_NEAR(count[set], of_set, 1e-13 * of_set) << "set " << set << " of " << x.size();
                    if (of_set == 0) continue;
                    ASSERT_NEAR(mean[set], static_cast<double>(exact[set].mean), 1e-14);
                    ASSERT_NEAR(m2[set], static_cast<double>(exact[set].m2), 1e-13 * of_set);
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Kinds, SelectedLoops, testing::ValuesIn(selection_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace anynorm::test
