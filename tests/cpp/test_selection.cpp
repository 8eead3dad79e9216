// SPDX-License-Identifier: Apache-2.0
// Labels, segments, masks and weights against a loop over their sets.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <tuple>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "selections.hpp"

namespace anynorm::test {
namespace {

struct Space {
    Shape shape;
    std::vector<int> reduce;
};

const std::vector<Space>& spaces() {
    static const std::vector<Space> result = {
        {{37, 16}, {0}},      {{23, 5}, {0}}, {{24, 3, 4, 5}, {0, 2, 3}}, {{12, 40}, {0, 1}},
        {{9, 3, 17}, {0, 2}}, {{40}, {0}},    {{6, 7, 20}, {0, 1}},
    };
    return result;
}

/// Views of the moments of a case: the shape of x without the reduced axes, behind the groups.
struct Output {
    std::vector<double> count, mean, m2, weight2;
    Shape shape;

    Output(const SelectionCase& selected, const Space& space) {
        if (selected.selection.splits()) shape.push_back(selected.groups);
        for (int axis = 0; axis < static_cast<int>(space.shape.size()); ++axis) {
            if (std::find(space.reduce.begin(), space.reduce.end(), axis) == space.reduce.end())
                shape.push_back(at(space.shape, axis));
        }
        for (auto* each : {&count, &mean, &m2, &weight2}) *each = numbers(size_of(shape), -7);
    }
    MomentsView view() {
        const std::span<const std::int64_t> lengths(shape);
        return {anynorm::view(count.data(), lengths), anynorm::view(mean.data(), lengths),
                anynorm::view(m2.data(), lengths), anynorm::view(weight2.data(), lengths)};
    }
};

template <class T>
Tensor<T> data(const Space& space, const Layout& layout, double mean = 3) {
    Tensor<T> x(space.shape, layout);
    Random random(11);
    x.fill([&](std::int64_t) { return mean + random.unit(); });
    return x;
}

class Selected : public testing::TestWithParam<std::tuple<SelectionKind, Layout>> {
  protected:
    template <class T, class Body>
    void each_space(const Body& body) {
        const auto& [kind, layout] = GetParam();
        for (const Space& space : spaces()) {
            SCOPED_TRACE(testing::Message() << short_name<T>() << " of " << testing::PrintToString(space.shape)
                                            << " over " << testing::PrintToString(space.reduce));
            body(SelectionCase(kind, space.shape, space.reduce, 5), space, data<T>(space, layout));
        }
    }
};

template <class T>
void expect_moments(const SelectionCase& selected, const Space& space, Tensor<T>& x) {
    Output out(selected, space);
    moments(x.view(), {axes_of(space.reduce), selected.selection}, out.view());
    const std::vector<ExactMoments> exact = exact_moments(x.values(), selected);
    std::vector<double> squares(exact.size(), 0);
    for (std::size_t i = 0; i < selected.weight.size(); ++i) {
        if (selected.sets.of[i] >= 0) at(squares, selected.sets.of[i]) += selected.weight[i] * selected.weight[i];
    }
    for (std::size_t set = 0; set < exact.size(); ++set) {
        const double count = static_cast<double>(exact[set].count);
        EXPECT_NEAR(out.count[set], count, 1e-13 * count);
        EXPECT_NEAR(out.weight2[set], squares[set], 1e-13 * squares[set]);
        if (count == 0) {
            EXPECT_TRUE(std::isnan(out.mean[set]));
            EXPECT_EQ(out.m2[set], 0);
            continue;
        }
        EXPECT_NEAR(out.mean[set], static_cast<double>(exact[set].mean), 1e-14);
        EXPECT_NEAR(out.m2[set], static_cast<double>(exact[set].m2), 1e-13 * count);
    }
}

TEST_P(Selected, MomentsAreThoseOfALoop) {
    each_space<float>(
        [](const auto& selected, const auto& space, Tensor<float> x) { expect_moments(selected, space, x); });
    each_space<double>(
        [](const auto& selected, const auto& space, Tensor<double> x) { expect_moments(selected, space, x); });
}

template <class T>
void expect_normalized(const SelectionCase& selected, const Space& space, Tensor<T>& x, const Layout& layout,
                       Excluded excluded) {
    Tensor<T> y(space.shape, layout);
    y.fill([](std::int64_t) { return 55; });
    Shape of_parameter(space.shape.size(), 1);
    of_parameter.back() = space.shape.back();
    Tensor<float> weight(of_parameter), bias(of_parameter);
    weight.fill([](std::int64_t i) { return 1.0 + 0.25 * static_cast<double>(i % 3); });
    bias.fill([](std::int64_t i) { return 0.5 * static_cast<double>(i % 2); });
    Output out(selected, space);
    normalize(x.view(), {axes_of(space.reduce), selected.selection}, y.view(),
              {.weight = weight.view(), .bias = bias.view(), .moments = out.view(), .excluded = excluded});
    const std::vector<ExactMoments> exact = exact_moments(x.values(), selected);
    for (std::int64_t i = 0; i < x.size(); ++i) {
        const std::int64_t set = at(selected.sets.of, i);
        if (set < 0) {
            const T expected = excluded == Excluded::zero ? T(0) : excluded == Excluded::input ? x[i] : T(55);
            ASSERT_EQ(y[i], expected) << "excluded element " << i;
            continue;
        }
        const ExactMoments& moments = at(exact, set);
        if (moments.count == 0) {  // nothing of it has a weight
            ASSERT_TRUE(std::isnan(y[i]));
            continue;
        }
        const std::int64_t column = i % space.shape.back();
        const double rstd = static_cast<double>(1 / std::sqrt(moments.m2 / moments.count + 1e-5L));
        const double value = (static_cast<double>(x[i]) - static_cast<double>(moments.mean)) * rstd *
                                 static_cast<double>(weight[column]) +
                             static_cast<double>(bias[column]);
        // A set of one element times the rstd of eps: what float32 rounds of x counts 316-fold.
        const double scale = std::max(1.0, std::fabs(value));
        ASSERT_NEAR(y[i], value, (sizeof(T) == 4 ? 2e-5 : 1e-11) * scale) << "element " << i << " of set " << set;
    }
    EXPECT_EQ(y.changed_gaps(), 0);
}

TEST_P(Selected, ResultsAreThoseOfALoop) {
    const auto& [kind, layout] = GetParam();
    for (Excluded excluded : {Excluded::zero, Excluded::input, Excluded::keep}) {
        each_space<float>([&](const auto& selected, const auto& space, Tensor<float> x) {
            expect_normalized(selected, space, x, layout, excluded);
        });
        each_space<double>([&](const auto& selected, const auto& space, Tensor<double> x) {
            expect_normalized(selected, space, x, {}, excluded);
        });
    }
}

INSTANTIATE_TEST_SUITE_P(, Selected,
                         testing::Combine(testing::ValuesIn(selection_kinds()), testing::ValuesIn(layouts())),
                         [](const auto& info) {
                             return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
                         });

TEST(SelectedWeights, IntegersCountAsRepetition) {
    const std::int64_t n = 3000, columns = 3;
    const std::vector<float> x = random_values(n * columns, 1e4);
    std::vector<double> weight;
    std::vector<float> repeated;
    Random random(2);
    for (std::int64_t row = 0; row < n; ++row) {
        weight.push_back(static_cast<double>(random.below(4)));
        for (double i = 0; i < weight.back(); ++i)
            repeated.insert(repeated.end(), x.begin() + row * columns, x.begin() + (row + 1) * columns);
    }
    ThreeArrays weighted({columns}), plain({columns});
    moments(view(x.data(), {n, columns}), {{0}, {.sample_weight = view(weight.data(), {n, 1})}}, weighted.view());
    moments(view(repeated.data(), {length(repeated) / columns, columns}), {{0}}, plain.view());
    for (std::int64_t column = 0; column < columns; ++column) {
        EXPECT_EQ(weighted[column].count, plain[column].count);
        EXPECT_NEAR(weighted[column].mean, plain[column].mean, 1e-14 * 1e4);
        EXPECT_NEAR(weighted[column].m2, plain[column].m2, 1e-14 * plain[column].m2);
    }
}

TEST(SelectedValues, ExcludedOnesAreNotLookedAt) {
    std::vector<float> x = random_values(64), y(64);
    for (std::size_t i = 0; i < 64; i += 3) x[i] = static_cast<float>(i % 2 == 0 ? nan : infinity);
    const auto mask = std::make_unique<bool[]>(64);
    std::vector<float> weight(64, 1);
    for (std::size_t i = 0; i < 64; ++i) {
        mask[i] = i % 3 != 0;
        weight[i] = mask[i] ? 2 : 0;
    }
    for (const Selection& selection :
         {Selection{.where = view(mask.get(), {8, 8})}, Selection{.sample_weight = view(weight.data(), {8, 8})}}) {
        ThreeArrays out({8});
        normalize(view(x.data(), {8, 8}), {{0}, selection}, view(y.data(), {8, 8}), {.moments = out.view()});
        for (std::int64_t column = 0; column < 8; ++column) {
            EXPECT_NEAR(out[column].mean, 100, 5);
            EXPECT_TRUE(std::isfinite(out[column].m2));
        }
        for (std::size_t i = 0; i < 64; ++i) EXPECT_TRUE(!mask[i] || std::isfinite(y[i]));
    }
}

TEST(SelectedFusion, EqualsItsSteps) {
    const Shape shape = {40, 6};
    const std::span<const std::int64_t> lengths(shape);
    const std::vector<float> x = random_values(240, 0), residual = random_values(240, 1);
    std::vector<float> sum(240), y(240), steps(240);
    std::vector<std::int8_t> fused(240), quantized(240);
    std::vector<std::int32_t> label(40);
    for (std::size_t i = 0; i < 40; ++i) label[i] = static_cast<std::int32_t>(i % 4) - 1;
    const Grouping sets{{0}, {.labels = view(label.data(), {40, 1}), .num_groups = 3}};
    NormalizeOptions options;
    options.fusion = {.residual = view(residual.data(), lengths),
                      .sum = view(sum.data(), lengths),
                      .activation = Activation::silu,
                      .scale = 0.02,
                      .zero_point = 3};
    normalize(view(x.data(), lengths), sets, view(fused.data(), lengths), options);
    for (std::size_t i = 0; i < 240; ++i) EXPECT_EQ(sum[i], x[i] + residual[i]);
    normalize(view(sum.data(), lengths), sets, view(y.data(), lengths), {.fusion = {.activation = Activation::silu}});
    quantize(view(y.data(), lengths), view(quantized.data(), lengths), 0.02, 3);
    EXPECT_EQ(fused, quantized);
    EXPECT_EQ(fused[0], 3);
    normalize(view(sum.data(), lengths), sets, view(sum.data(), lengths), {.excluded = Excluded::input});
    EXPECT_EQ(sum[0], x[0] + residual[0]);
}

TEST(SelectedNorms, BatchNormLearnsFromTheMembers) {
    const Shape shape = {8, 2, 5};
    const std::span<const std::int64_t> lengths(shape);
    const std::vector<float> x = random_values(80);
    std::vector<float> y(80), mean(2, 0), var(2, 1);
    const auto mask = std::make_unique<bool[]>(40);
    std::vector<float> of_channel[2];
    for (std::int64_t n = 0; n < 8; ++n) {
        for (std::int64_t t = 0; t < 5; ++t) {
            const bool member = t <= n % 5;
            mask[static_cast<std::size_t>(n * 5 + t)] = member;
            for (std::int64_t c = 0; c < 2 && member; ++c) of_channel[c].push_back(at(x, (n * 2 + c) * 5 + t));
        }
    }
    batch_norm(view(x.data(), lengths), view(y.data(), lengths),
               {.running = {.mean = view(mean.data(), {2}), .var = view(var.data(), {2}), .momentum = 1},
                .training = true,
                .selection = {.where = view(mask.get(), {8, 1, 5})}});
    for (std::size_t c = 0; c < 2; ++c) {
        const Moments expected = moments_of(of_channel[c]);
        EXPECT_EQ(mean[c], static_cast<float>(expected.mean));
        EXPECT_EQ(var[c], static_cast<float>(expected.variance(1)));
    }
    EXPECT_EQ(y[1], 0);  // sample 0 has one element
}

TEST(SelectedNorms, GroupNormSplitsTheViews) {
    const Shape shape = {3, 6, 10};
    const std::span<const std::int64_t> lengths(shape);
    const std::vector<float> x = random_values(180);
    std::vector<float> y(180), expected(180);
    const auto mask = std::make_unique<bool[]>(60);
    for (std::size_t i = 0; i < 60; ++i) mask[i] = i % 7 != 0;
    group_norm(view(x.data(), lengths), view(y.data(), lengths), 2,
               {.selection = {.where = view(mask.get(), {6, 10})}});
    normalize(view(x.data(), {3, 2, 3, 10}), {{2, 3}, {.where = view(mask.get(), {2, 3, 10})}},
              view(expected.data(), {3, 2, 3, 10}));
    EXPECT_EQ(different_bits(y, expected), 0);
}

}  // namespace
}  // namespace anynorm::test
