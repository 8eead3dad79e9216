// SPDX-License-Identifier: Apache-2.0
// Geometry: which loops remain of a norm in a layout, and where every operand of a nest is.
#include "layout.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "nests.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

using detail::AxisStrides;
using detail::coalesce;
using detail::Nest;
using detail::op_bias;
using detail::op_cell;
using detail::op_mean;
using detail::op_weight;
using detail::op_x;
using detail::op_y;
using detail::operand_count;
using detail::operand_set;

constexpr auto without_parameters = operand_set(op_x, op_y, op_cell);

/// The rows of the table: a norm in a layout, and the loops that statistics need; `with_weight` those of apply.
struct Row {
    const char* name;
    Shape shape;
    Layout layout;
    std::vector<int> reduce, weight;
    const char* loops;
    const char* with_weight;

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Layout c{};
const Layout channels_last{.order = Layout::Order::channels_last};

const Row table[] = {
    {"batch_nchw", {2, 6, 4, 5}, c, {0, 2, 3}, {1}, "R2:120 K6:20 R20:1", "R2:120 K6:20 R20:1"},
    {"batch_nhwc", {2, 6, 4, 5}, channels_last, {0, 2, 3}, {1}, "R40:6 K6:1", "R40:6 K6:1"},
    {"batch_nc", {8, 6}, c, {0}, {1}, "R8:6 K6:1", "R8:6 K6:1"},
    {"layer", {2, 3, 5}, c, {2}, {2}, "K6:5 R5:1", "K6:5 R5:1"},
    {"layer_two_axes", {4, 3, 5}, c, {1, 2}, {1, 2}, "K4:15 R15:1", "K4:15 R15:1"},
    {"layer_nchw_over_channels", {2, 6, 4, 5}, c, {1}, {1}, "K2:120 R6:20 K20:1", "K2:120 R6:20 K20:1"},
    {"instance_nchw", {2, 6, 4, 5}, c, {2, 3}, {1}, "K12:20 R20:1", "K2:120 K6:20 R20:1"},
    {"instance_nhwc", {2, 6, 4, 5}, channels_last, {2, 3}, {1}, "K2:120 R20:6 K6:1", "K2:120 R20:6 K6:1"},
    {"group_nchw", {2, 3, 2, 4, 5}, c, {2, 3, 4}, {1, 2}, "K6:40 R40:1", "K2:120 K3:40 R2:20 R20:1"},
    {"group_nhwc", {2, 4, 5, 3, 2}, c, {1, 2, 4}, {3, 4}, "K2:120 R20:6 K3:2 R2:1", "K2:120 R20:6 K3:2 R2:1"},
    {"all", {2, 6, 4, 5}, channels_last, {0, 1, 2, 3}, {}, "R240:1", "R240:1"},
    {"none", {2, 6, 4, 5}, channels_last, {}, {}, "K240:1", "K240:1"},
};

class LayoutTable : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, LayoutTable, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(LayoutTable, LoopsOfStatistics) {
    const Row& row = GetParam();
    const Nest nest = nest_of(geometry(row.shape, row.layout), row.reduce, {}, row.weight);
    EXPECT_EQ(text_of(coalesce(nest, without_parameters)), row.loops);
}

TEST_P(LayoutTable, LoopsOfApply) {
    const Row& row = GetParam();
    EXPECT_EQ(text_of(nest_of(geometry(row.shape, row.layout), row.reduce, {}, row.weight)), row.with_weight);
}

TEST_P(LayoutTable, SizesAndCellsStay) {
    const Row& row = GetParam();
    const Nest nest = nest_of(geometry(row.shape, row.layout), row.reduce, {}, row.weight);
    std::int64_t cells = size_of(row.shape);
    for (int axis : row.reduce) cells /= at(row.shape, axis);
    EXPECT_EQ(nest.size(), size_of(row.shape));
    EXPECT_EQ(nest.cells(), cells);
    EXPECT_EQ(detail::kept_loops(nest).size(), cells);
}

TEST(MakeNest, DropsAxesOfLengthOne) {
    EXPECT_EQ(text_of(nest_of(geometry({1, 3, 1, 4, 1}), {2, 3})), "K3:4 R4:1");
    EXPECT_EQ(nest_of(geometry({1, 1}), {1}).depth, 0);
    EXPECT_EQ(nest_of(geometry({}), {}).depth, 0);
    EXPECT_EQ(nest_of(geometry({}), {}).size(), 1);
}

TEST(MakeNest, FlipsBackwardAxesOfEveryOperand) {
    const Nest nest = nest_of(geometry({3, 4}, {-4, 1}), {1}, geometry({3, 4}, {4, 1}), {0});
    EXPECT_EQ(text_of(nest), "K3:4 R4:1");
    EXPECT_EQ(nest.offset[op_x], -8);  // x's element (0, 0) is its last row
    EXPECT_EQ(nest.offset[op_y], 8);
    EXPECT_EQ(nest.offset[op_weight], 2);
    EXPECT_EQ(nest.loops[0].stride[op_y], -4);
    EXPECT_EQ(nest.loops[0].stride[op_weight], -1);
    EXPECT_EQ(nest.offset[op_cell], 0);
    EXPECT_EQ(nest.loops[0].stride[op_cell], 1);
}

TEST(MakeNest, AllBackwardIsOneLoop) {
    const Nest nest = nest_of(geometry({3, 4}, {-4, -1}), {0, 1});
    EXPECT_EQ(text_of(nest), "R12:1");
    EXPECT_EQ(nest.offset[op_x], -11);
}

TEST(MakeNest, StrideZeroIsOutermost) {
    EXPECT_EQ(text_of(nest_of(geometry({5, 4}, {1, 0}), {1}, geometry({5, 4}))), "R4:0 K5:1");
    EXPECT_EQ(text_of(nest_of(geometry({5, 4}, {1, 0}), {0}, geometry({5, 4}))), "K4:0 R5:1");
    // Two of them are in the order of y.
    const Nest nest = nest_of(geometry({5, 4, 3}, {0, 1, 0}), {1}, geometry({5, 4, 3}, {1, 21, 7}));
    ASSERT_EQ(nest.depth, 3);
    EXPECT_EQ(nest.loops[0].n, 3);
    EXPECT_EQ(nest.loops[1].n, 5);
    EXPECT_EQ(nest.loops[2].n, 4);
}

TEST(MakeNest, MergesOnlyWhereEveryOperandDoes) {
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}), {0, 1})), "R12:1");
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}), {0, 1}, geometry({3, 4}, {9, 1}))), "R3:4 R4:1");
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}, {9, 1}), {0, 1}, geometry({3, 4}))), "R3:9 R4:1");
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}), {0, 1}, {}, {1})), "R3:4 R4:1");
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}), {0, 1}, {}, {0, 1})), "R12:1");
    EXPECT_EQ(text_of(nest_of(geometry({3, 4}), {1}, {})), "K3:4 R4:1");
}

TEST(Coalesce, ForgetsOperandsThatAreNotNamed) {
    const Nest nest = nest_of(geometry({3, 4}), {}, geometry({3, 4}, {-9, 1}), {1});
    EXPECT_EQ(text_of(coalesce(nest, operand_set(op_x, op_y))), "K3:4 K4:1");
    const Nest x_only = coalesce(nest, operand_set(op_x));
    EXPECT_EQ(text_of(x_only), "K12:1");
    EXPECT_EQ(x_only.loops[0].stride[op_y], 0);
    EXPECT_EQ(x_only.loops[0].stride[op_weight], 0);
    EXPECT_EQ(x_only.offset[op_y], 0);
}

TEST(Coalesce, MergesAfterRestriction) {
    Nest nest = nest_of(geometry({3, 4, 5}), {1});
    EXPECT_EQ(text_of(nest), "K3:20 R4:5 K5:1");
    detail::restrict_loop(nest, 1, 2, 1);
    EXPECT_EQ(text_of(coalesce(nest, operand_set(op_x))), "K3:20 K5:1");
    EXPECT_EQ(nest.offset[op_x], 10);
    EXPECT_EQ(nest.size(), 15);
}

TEST(Strides, BroadcastFromTheRight) {
    const TensorView to = geometry({2, 3, 4});
    const AxisStrides one = detail::broadcast_strides(geometry({4}, {7}), to);
    EXPECT_EQ(one.axis[0], 0);
    EXPECT_EQ(one.axis[1], 0);
    EXPECT_EQ(one.axis[2], 7);
    const AxisStrides two = detail::broadcast_strides(geometry({3, 1}, {5, 9}), to);
    EXPECT_EQ(two.axis[1], 5);
    EXPECT_EQ(two.axis[2], 0);
}

TEST(Strides, StatisticsWithAndWithoutTheReducedAxes) {
    const TensorView x = geometry({2, 3, 4});
    for (const TensorView& view : {geometry({2, 4}, {8, 2}), geometry({2, 1, 4}, {8, 99, 2})}) {
        const AxisStrides strides = detail::statistics_strides(view, x, axis_set({1}));
        EXPECT_EQ(strides.axis[0], 8);
        EXPECT_EQ(strides.axis[1], 0);
        EXPECT_EQ(strides.axis[2], 2);
    }
}

/// (x, y, cell, weight) of every iteration.
std::vector<std::vector<std::int64_t>> visits(const Nest& nest) {
    std::vector<std::vector<std::int64_t>> result;
    detail::walk(nest, nest.depth, [&](const std::int64_t* offset) {
        result.push_back({offset[op_x], offset[op_y], offset[op_cell], offset[op_weight]});
    });
    return result;
}

TEST(Walk, VisitsInOrder) {
    const Nest nest = nest_of(geometry({2, 3}, {1, 2}), {0}, geometry({2, 3}));
    EXPECT_EQ(text_of(nest), "K3:2 R2:1");
    using Visits = std::vector<std::vector<std::int64_t>>;
    EXPECT_EQ(visits(nest),
              (Visits{{0, 0, 0, 0}, {1, 3, 0, 0}, {2, 1, 1, 0}, {3, 4, 1, 0}, {4, 2, 2, 0}, {5, 5, 2, 0}}));
}

TEST(Walk, OuterLoopsOnly) {
    const Nest nest = nest_of(geometry({2, 3}), {1});
    std::vector<std::int64_t> offsets;
    detail::walk(nest, 1, [&](const std::int64_t* offset) { offsets.push_back(offset[op_x]); });
    EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 3}));
    int calls = 0;
    detail::walk(nest, 0, [&](const std::int64_t*) { ++calls; });
    EXPECT_EQ(calls, 1);
}

/// Whatever make_nest drops, flips, sorts and merges: the same elements of all operands meet as by plain indexing.
TEST(Walk, RandomNestsVisitWhatIndexingVisits) {
    Random random(3);
    for (int round = 0; round < 60; ++round) {
        const Shape shape = {1 + random.below(4), 1 + random.below(4), 1 + random.below(5)};
        const Layout& x_layout = at(layouts(), random.below(length(layouts())));
        const Layout& y_layout = at(layouts(), random.below(length(layouts())));
        const TensorView x = geometry(shape, x_layout), y = geometry(shape, y_layout);
        std::vector<int> reduce;
        for (int axis = 0; axis < 3; ++axis) {
            if (random.below(2) == 1) reduce.push_back(axis);
        }
        const Nest nest = nest_of(x, reduce, y, {1});
        std::vector<std::vector<std::int64_t>> expected, got;
        for (std::int64_t i = 0; i < shape[0]; ++i) {
            for (std::int64_t j = 0; j < shape[1]; ++j) {
                for (std::int64_t k = 0; k < shape[2]; ++k) {
                    expected.push_back({i * x.strides[0] + j * x.strides[1] + k * x.strides[2],
                                        i * y.strides[0] + j * y.strides[1] + k * y.strides[2], j});
                }
            }
        }
        std::vector<std::int64_t> cells;
        for (const auto& visit : visits(nest)) {
            got.push_back({visit[0], visit[1], visit[3]});
            if (std::find(cells.begin(), cells.end(), visit[2]) == cells.end()) cells.push_back(visit[2]);
        }
        std::sort(expected.begin(), expected.end());
        std::sort(got.begin(), got.end());
        EXPECT_EQ(got, expected) << x_layout.name << " " << y_layout.name << " " << text_of(nest);
        // Cells are numbered in the order in which they are met.
        EXPECT_TRUE(std::is_sorted(cells.begin(), cells.end())) << text_of(nest);
        EXPECT_EQ(length(cells), nest.cells());
    }
}

}  // namespace
}  // namespace anynorm::test
