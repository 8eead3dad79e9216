// SPDX-License-Identifier: Apache-2.0
// What the rounding of a mean to float64 has lost: returned, given back, merged and pooled.
#include <gtest/gtest.h>

#include <ostream>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "any_array.hpp"
#include "anynorm/anynorm.hpp"
#include "selections.hpp"

namespace anynorm::test {
namespace {

/// float64 moments of any shape, as the library reads and writes them.
struct Saved {
    Tensor<double> count, mean, m2, mean_low;

    explicit Saved(const Shape& shape) : count(shape), mean(shape), m2(shape), mean_low(shape, {.gap = 1}) {}
    MomentsView view() {
        return {.count = count.view(), .mean = mean.view(), .m2 = m2.view(), .mean_low = mean_low.view()};
    }
    bool has_low() {
        const std::vector<double> low = mean_low.values();
        return std::any_of(low.begin(), low.end(), [](double value) { return value != 0; });
    }
};

/// Data whose means lie far from 0, as far as the dtype has digits for deviations of 1 and more.
AnyArray far_data(DType dtype, const Shape& shape, const Layout& layout, std::uint64_t seed = 3) {
    const double mean = dtype == DType::f64 ? 1e8 : dtype == DType::f32 ? 1e5 : 300;
    AnyArray result(dtype, shape, layout);
    Random random(seed);
    result.fill([&](std::int64_t) { return mean + (dtype == DType::bf16 ? 40 : 1) * random.unit(); });
    return result;
}

// ---- Returned -------------------------------------------------------------------------------------------------------

/// The mean of float64 data around 1e8, from which that is taken exactly.
TEST(MeanLow, MakesTheMeanExact) {
    for (const Layout& layout : layouts()) {
        SCOPED_TRACE(layout.name);
        const Shape shape = {3, 37, 16};
        AnyArray x = far_data(DType::f64, shape, layout);
        std::vector<double> rest = x.values();
        for (double& value : rest) value -= 1e8;
        for (const std::vector<int>& reduce : {std::vector<int>{0, 1}, {2}, {0, 1, 2}}) {
            const Numbering sets = sets_of(shape, reduce);
            const std::vector<ExactMoments> exact = exact_moments(rest, sets);
            Saved saved({sets.count});
            MomentsView views = saved.view();
            for (TensorView* each : {&views.count, &views.mean, &views.m2, &views.mean_low}) {
                if (reduce.size() == 2) continue;
                each->rank = reduce.size() == 3 ? 0 : 2;
                const std::int64_t step = each->strides[0];
                each->shape[0] = 3, each->shape[1] = 37;
                each->strides[0] = 37 * step, each->strides[1] = step;
            }
            moments(x.view(), {Axes(std::span<const int>(reduce))}, views);
            for (std::int64_t set = 0; set < sets.count; ++set) {
                const double mean = (saved.mean[set] - 1e8) + saved.mean_low[set];
                EXPECT_NEAR(mean, static_cast<double>(at(exact, set).mean), 2e-15);
                EXPECT_LE(std::fabs(saved.mean_low[set]), 0x1p-27);  // half of the spacing at 1e8
            }
            EXPECT_TRUE(saved.has_low());
            EXPECT_EQ(saved.mean_low.changed_gaps(), 0);
        }
    }
}

TEST(MeanLow, IsZeroOfSetsWithoutAMean) {
    double x[3][4] = {{1e8, 1e8 + 1, 1e8, 1e8 + 0.1}, {infinity, 1, 2, 3}, {nan, 1, 2, 3}};
    Saved saved({3});
    moments(view(&x[0][0], {3, 4}), {{1}}, saved.view());
    EXPECT_EQ(saved.mean[1], infinity);
    EXPECT_NE(saved.mean_low[0], 0);
    EXPECT_EQ(saved.mean_low[1], 0);
    EXPECT_EQ(saved.mean_low[2], 0);
    moments(view(&x[0][0], {3, 4}), {{1}}, saved.view(), {.center = false});
    EXPECT_FALSE(saved.has_low());
    saved.mean_low.fill([](std::int64_t) { return 7; });
    moments(view(&x[0][0], {3, 0}), {{1}}, saved.view());
    EXPECT_FALSE(saved.has_low()) << "no elements";
}

TEST(MeanLow, OfGivenMomentsIsReturnedOrZero) {
    const std::vector<float> x = {1, 2, 3, 4};
    std::vector<float> y(4);
    const std::vector<double> count = {1, 1}, mean = {2, 3}, m2 = {1, 1}, low = {0x1p-60, -0x1p-60};
    MomentsView given = {view(count.data(), {2}), view(mean.data(), {2}), view(m2.data(), {2})};
    for (const bool selects : {false, true}) {
        const bool all[2] = {true, true};
        Grouping sets{{1}};
        if (selects) sets.selection.where = view(all, {1, 2});
        for (const bool has_low : {true, false}) {
            given.mean_low = has_low ? view(low.data(), {2}) : TensorView{};
            Saved saved({2});
            normalize(view(x.data(), {2, 2}), sets, view(y.data(), {2, 2}), {.given = given, .moments = saved.view()});
            EXPECT_EQ(saved.mean_low.values(), has_low ? low : numbers(2));
        }
    }
}

// ---- Given back -----------------------------------------------------------------------------------------------------

/// y and the gradients of x, weight and bias, as bytes.
struct Results {
    AnyArray y, grad_input;
    std::vector<double> grad_weight = numbers(16), grad_bias = numbers(16);

    Results(DType dtype, const Shape& shape, const Layout& layout)
        : y(dtype, shape, layout), grad_input(dtype, shape, layout) {}

    friend void expect_same(Results& a, Results& b) {
        EXPECT_TRUE(a.y.memory() == b.y.memory());
        EXPECT_TRUE(a.grad_input.memory() == b.grad_input.memory());
        EXPECT_EQ(different_bits(a.grad_weight, b.grad_weight), 0);
        EXPECT_EQ(different_bits(a.grad_bias, b.grad_bias), 0);
    }
};

class GivenBack : public testing::TestWithParam<std::tuple<DType, Layout>> {
  protected:
    DType dtype() const { return std::get<0>(GetParam()); }
    const Layout& layout() const { return std::get<1>(GetParam()); }

    /// Everything that x has, with moments that are given or with its own.
    void compute(AnyArray& x, AnyArray& grad_output, const Grouping& sets, const MomentsView& given, bool center,
                 Results& out) const {
        std::vector<float> weight(16, 1.25f), bias(16, 0.5f);
        const TensorView of_columns = view(weight.data(), {16});
        normalize(x.view(), sets, out.y.view(),
                  {.weight = of_columns, .bias = view(bias.data(), {16}), .center = center, .given = given});
        normalize_backward(
            grad_output.view(), x.view(), sets,
            {out.grad_input.view(), view(out.grad_weight.data(), {16}), view(out.grad_bias.data(), {16})},
            {.weight = of_columns, .center = center, .given = given});
    }

    /// Returns whether some mean has lost something.
    bool expect_the_same(const Shape& shape, const Shape& of_sets, const Grouping& sets, bool center = true) const {
        AnyArray x = far_data(dtype(), shape, layout()), grad_output = far_data(dtype(), shape, layout(), 4);
        Results own(dtype(), shape, layout()), given(dtype(), shape, layout());
        Saved saved(of_sets);
        moments(x.view(), sets, saved.view(), {.center = center});
        compute(x, grad_output, sets, {}, center, own);
        compute(x, grad_output, sets, saved.view(), center, given);
        expect_same(given, own);
        return saved.has_low();
    }
};

INSTANTIATE_TEST_SUITE_P(, GivenBack,
                         testing::Combine(testing::Values(DType::f16, DType::bf16, DType::f32, DType::f64),
                                          testing::Values(layouts()[0], layouts()[1], layouts()[4])),
                         [](const auto& info) {
                             return std::string(name(std::get<0>(info.param))) + "_" + std::get<1>(info.param).name;
                         });

TEST_P(GivenBack, MomentsGiveTheBitsOfTheCallItself) {
    for (const bool center : {true, false}) {
        expect_the_same({5, 7, 16}, {5, 7}, {{2}}, center);
        EXPECT_EQ(expect_the_same({5, 7, 16}, {16}, {{0, 1}}, center), center);
        EXPECT_EQ(expect_the_same({3, 90, 16}, {3}, {{1, 2}}, center), center);
        EXPECT_EQ(expect_the_same({70, 40, 16}, {}, {{0, 1, 2}}, center), center);
    }
}

TEST_P(GivenBack, MomentsOfSelectedSetsToo) {
    for (const SelectionKind& kind : selection_kinds()) {
        if (kind.everything_out) continue;
        SCOPED_TRACE(kind.name);
        const Shape shape = {24, 3, 16};
        const SelectionCase columns(kind, shape, {0, 1}, 5), rows(kind, shape, {0, 2}, 5);
        const auto with_groups = [](const SelectionCase& of, std::int64_t kept) {
            return of.selection.splits() ? Shape{of.groups, kept} : Shape{kept};
        };
        EXPECT_TRUE(expect_the_same(shape, with_groups(columns, 16), {{0, 1}, columns.selection}));
        expect_the_same(shape, with_groups(rows, 3), {{0, 2}, rows.selection});
    }
}

/// Batch norm learns what it learns of its own statistics, batch renorm takes r and d of them.
TEST_P(GivenBack, MomentsOfABatchTrainAlike) {
    const Shape shape = {9, 16, 5};
    AnyArray x = far_data(dtype(), shape, layout()), y(dtype(), shape, layout()), again(dtype(), shape, layout());
    for (const bool renormalizes : {false, true}) {
        Saved saved({16});
        const auto train = [&](AnyArray& out, const MomentsView& given, const MomentsView& returned) {
            std::vector<double> mean = numbers(16, 300), var = numbers(16, 2);
            Saved pooled({16});
            pooled.count.fill([](std::int64_t) { return 0; });
            const RunningStatistics running{
                .mean = view(mean.data(), {16}), .var = view(var.data(), {16}), .pooled = pooled.view()};
            if (renormalizes) {
                batch_renorm(x.view(), out.view(),
                             {.running = running,
                              .training = true,
                              .r_max = 1e9,
                              .d_max = 1e9,
                              .given = given,
                              .moments = returned});
            } else {
                batch_norm(x.view(), out.view(),
                           {.running = running, .training = true, .given = given, .moments = returned});
            }
            for (auto* each : {&pooled.mean, &pooled.m2, &pooled.mean_low}) {
                const std::vector<double> values = each->values();
                mean.insert(mean.end(), values.begin(), values.end());
            }
            mean.insert(mean.end(), var.begin(), var.end());
            return mean;
        };
        const std::vector<double> learned = train(y, {}, saved.view());
        EXPECT_TRUE(saved.has_low());
        EXPECT_EQ(different_bits(train(again, saved.view(), {}), learned), 0);
        EXPECT_TRUE(again.memory() == y.memory());
    }
}

// ---- Pooled ---------------------------------------------------------------------------------------------------------

/// 200 batches of deviation 1 around 1e8, where rounded means would cost 1e-8 of the variance.
TEST(MeanLow, OfPooledMomentsKeepsTheDigitsOfTheVariance) {
    constexpr std::int64_t batches = 200, samples = 6, channels = 3;
    AnyArray x = far_data(DType::f64, {batches * samples, channels}, {});
    std::vector<double> all = x.values();
    std::vector<Moments> pooled(channels);
    const auto field = [&](double Moments::* member) { return view(&(pooled[0].*member), {channels}, {4}); };
    const RunningStatistics running{.pooled = {.count = field(&Moments::count),
                                               .mean = field(&Moments::mean),
                                               .m2 = field(&Moments::m2),
                                               .mean_low = field(&Moments::mean_low)}};
    std::vector<double> y(samples * channels);
    for (std::int64_t batch = 0; batch < batches; ++batch) {
        batch_norm(view(all.data() + batch * samples * channels, {samples, channels}),
                   view(y.data(), {samples, channels}), {.running = running, .training = true});
    }
    for (double& value : all) value -= 1e8;
    const std::vector<ExactMoments> exact = exact_moments(all, sets_of(x.shape(), {0}));
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        const Moments& found = at(pooled, channel);
        EXPECT_EQ(found.count, batches * samples);
        EXPECT_NEAR((found.mean - 1e8) + found.mean_low, static_cast<double>(at(exact, channel).mean), 1e-14);
        EXPECT_NEAR(found.m2 / static_cast<double>(at(exact, channel).m2), 1, 1e-14);
    }
}

}  // namespace
}  // namespace anynorm::test
