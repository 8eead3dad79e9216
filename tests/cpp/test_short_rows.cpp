// SPDX-License-Identifier: Apache-2.0
// The short way through normalize() is taken where it should be, and has the bits of the long one.
#include "short_rows.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "dispatch.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

/// x, y and parameters of one call. `reduced` are the last axes.
struct Case {
    const char* name;
    Shape shape;
    int reduced;
    Shape parameters;  ///< broadcast against x from the right
};

const std::vector<Case> cases = {
    {"row", {1, 64}, 1, {64}},
    {"rows", {37, 64}, 1, {64}},
    {"vector", {129}, 1, {129}},
    {"more_rows_than_a_strip", {100, 5}, 1, {5}},
    {"two_axes", {3, 7, 11}, 2, {7, 11}},
    {"weight_of_one_axis", {3, 7, 11}, 2, {7, 1}},
    {"weight_of_the_sets", {3, 7, 11}, 1, {7, 1}},
    {"weight_of_groups", {3, 4, 2, 5}, 2, {4, 2, 1}},
    {"group_norm_of_columns", {5, 4, 6}, 1, {4, 6}},
    {"one_weight", {5, 9}, 1, {1}},
    {"ones_between", {2, 1, 3, 1, 17}, 2, {1, 17}},
    {"block", {2, 4096}, 1, {4096}},
};

struct Operands {
    bool weight, bias, center;
};

template <class T>
void fill(Tensor<T>& tensor, std::uint64_t seed, double mean) {
    Random random(seed);
    tensor.fill([&](std::int64_t) { return mean + random.unit(); });
}

detail::AxisSet last_axes(const Case& c) {
    const int rank = static_cast<int>(c.shape.size());
    return ((1u << rank) - 1) & ~((1u << (rank - c.reduced)) - 1);
}

Grouping grouping_of(const Case& c) {
    const int rank = static_cast<int>(c.shape.size());
    return {Axes::range(rank - c.reduced, c.reduced)};
}

template <class T>
class ShortRowsOf : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ShortRowsOf, Types);

/// The long way is taken by the same x if the statistics are asked for.
TYPED_TEST(ShortRowsOf, HaveTheBitsOfThePlan) {
    using T = TypeParam;
    for (const Case& c : cases) {
        Tensor<T> x(c.shape), weight(c.parameters), bias(c.parameters);
        fill(x, 1, 3);
        fill(weight, 2, 1);
        fill(bias, 3, 0);
        for (Isa isa : isas_of_this_machine()) {
            const UseIsa use(isa);
            for (const Operands& with : {Operands{true, true, true},
                                         {true, false, false},
                                         {false, true, true},
                                         {false, false, true},
                                         {false, false, false}}) {
                NormalizeOptions options;
                if (with.weight) options.weight = weight.view();
                if (with.bias) options.bias = bias.view();
                options.center = with.center;
                Tensor<T> y(c.shape), expected(c.shape);
                ASSERT_TRUE(
                    detail::normalize_short_rows(x.view(), last_axes(c), y.view(), options, detail::active_kernels()))
                    << c.name;
                Shape sets(c.shape.begin(), c.shape.end() - c.reduced);
                Tensor<double> m2(sets);
                options.moments.m2 = m2.view();
                normalize(x.view(), grouping_of(c), expected.view(), options);
                EXPECT_EQ(different_bits(y.values(), expected.values()), 0) << c.name << ", " << name(isa);
                EXPECT_EQ(y.changed_gaps(), 0);
            }
        }
    }
}

/// In place, in rows with gaps, reversed: where the data lies does not show.
TYPED_TEST(ShortRowsOf, StridedRows) {
    using T = TypeParam;
    const Shape shape = {6, 33};
    Tensor<T> x(shape), expected(shape), weight({33});
    fill(x, 4, -2);
    fill(weight, 5, 1);
    normalize(x.view(), {{1}}, expected.view(), {.weight = weight.view()});
    for (const Layout& layout : {Layout{.name = "padded", .gap = 5}, Layout{.name = "c"}}) {
        Tensor<T> from(shape, layout), to(shape, {.name = "padded", .gap = 2});
        from.fill([&](std::int64_t i) { return x[i]; });
        TensorView rows = from.view(), target = to.view();
        EXPECT_TRUE(detail::normalize_short_rows(rows, 2, target, {.weight = weight.view()}, detail::active_kernels()));
        EXPECT_EQ(different_bits(to.values(), expected.values()), 0) << layout.name;
        EXPECT_EQ(to.changed_gaps(), 0);
        normalize(rows, {{1}}, rows, {.weight = weight.view()});
        EXPECT_EQ(different_bits(from.values(), expected.values()), 0) << layout.name;
        EXPECT_EQ(from.changed_gaps(), 0);
    }
}

bool takes_the_short_way(Tensor<float>& x, Tensor<float>& y, detail::AxisSet reduced,
                         const NormalizeOptions& options = {}) {
    return detail::normalize_short_rows(x.view(), reduced, y.view(), options, detail::active_kernels());
}

TEST(ShortRows, LeaveTheRestToThePlan) {
    Tensor<float> x({4, 8}), y({4, 8}), weight({8}), column({4, 1});
    Tensor<double> wide({8}), m2({4});
    fill(x, 6, 0);
    fill(weight, 7, 1);
    fill(column, 8, 1);
    EXPECT_TRUE(takes_the_short_way(x, y, 0b10));
    EXPECT_TRUE(takes_the_short_way(x, y, 0b10, {.weight = column.view()}));
    EXPECT_TRUE(takes_the_short_way(x, y, 0b11, {.weight = column.view()}));
    EXPECT_FALSE(takes_the_short_way(x, y, 0b01)) << "columns";
    EXPECT_FALSE(takes_the_short_way(x, y, 0b00)) << "sets of one";
    EXPECT_FALSE(takes_the_short_way(x, y, 0b10, {.weight = wide.view()})) << "another dtype";
    EXPECT_FALSE(takes_the_short_way(x, y, 0b10, {.moments = {{}, {}, m2.view()}})) << "statistics to write";

    Tensor<float> strided({4, 8}, {.name = "strided", .step = 2}),
        backwards({4, 8}, {.name = "back", .reversed = true});
    EXPECT_FALSE(takes_the_short_way(strided, y, 0b10));
    EXPECT_FALSE(takes_the_short_way(x, strided, 0b10));
    EXPECT_FALSE(takes_the_short_way(backwards, y, 0b10));
    EXPECT_FALSE(takes_the_short_way(x, y, 0b10, {.weight = view(&weight[7], {8}, {-1})}));

    Tensor<float> long_row({4097}), long_y({4097}), many({257, 64}), many_y({257, 64});
    EXPECT_FALSE(takes_the_short_way(long_row, long_y, 0b1)) << "more than a block";
    EXPECT_FALSE(takes_the_short_way(many, many_y, 0b10)) << "more than 64 KB";

    // Windows of 4 x 4 that begin every second element: the plan puts the sets between the axes of a window.
    Tensor<float> signal({64}), windows({3, 4, 4});
    const TensorView overlapping = view(&signal[0], {3, 4, 4}, {2, 4, 1});
    EXPECT_FALSE(detail::normalize_short_rows(overlapping, 0b110, windows.view(), {}, detail::active_kernels()));
}

/// The named norms get there.
TEST(ShortRows, OfNamedNorms) {
    Tensor<float> x({2, 6, 3, 3}), y({2, 6, 3, 3}), expected({2, 6, 3, 3}), weight({6}), bias({6});
    fill(x, 9, 1);
    fill(weight, 10, 1);
    fill(bias, 11, 0);
    Tensor<double> m2({2, 3}), m2_of_channels({2, 6});
    group_norm(x.view(), y.view(), 3, {.weight = weight.view(), .bias = bias.view()});
    group_norm(x.view(), expected.view(), 3,
               {.weight = weight.view(), .bias = bias.view(), .moments = {{}, {}, m2.view()}});
    EXPECT_EQ(different_bits(y.values(), expected.values()), 0);
    instance_norm(x.view(), y.view(), {.weight = weight.view(), .bias = bias.view()});
    instance_norm(x.view(), expected.view(),
                  {.weight = weight.view(), .bias = bias.view(), .moments = {{}, {}, m2_of_channels.view()}});
    EXPECT_EQ(different_bits(y.values(), expected.values()), 0);
}

}  // namespace
}  // namespace anynorm::test
