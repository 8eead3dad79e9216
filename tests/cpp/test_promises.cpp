// SPDX-License-Identifier: Apache-2.0
// What the documentation promises of every call: the same bits for every number of threads and every batch, exact
// constants, sets that do not spoil each other, and the error of float32 at any mean.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "anynorm/normalize.hpp"
#include "nests.hpp"
#include "oracle.hpp"
#include "plan.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

using detail::Plan;

const Layout c{};
const Layout strided{.name = "strided", .step = 3};

/// A call that takes one of the ways through the scheduler; `takes` says so of its plan for three threads.
struct Work {
    const char* name;
    Shape shape;
    Layout layout;
    std::vector<int> reduce;
    bool (*takes)(const Plan&);

    friend void PrintTo(const Work& self, std::ostream* out) { *out << self.name; }
};

bool whole_sets(const Plan& plan) { return plan.mode == Plan::Mode::whole_sets && plan.sets.pieces > 1; }
bool split_sets(const Plan& plan) { return plan.mode == Plan::Mode::split_sets; }
bool chunks(const Plan& plan) { return plan.reduction.chunks > 1; }
bool columns(const Plan& plan) { return plan.reduction.kernel == detail::Reduction::Kernel::column; }

const Work works[] = {
    {"rows", {66, 744}, c, {1}, whole_sets},
    {"few_long_rows", {2, 70001}, c, {1}, [](const Plan& plan) { return split_sets(plan) && chunks(plan); }},
    {"one_set", {66000}, c, {0}, [](const Plan& plan) { return split_sets(plan) && chunks(plan); }},
    {"two_rows", {2, 20000}, c, {1}, [](const Plan& plan) { return split_sets(plan) && !chunks(plan); }},
    {"planes_of_channels", {4, 5, 50, 40}, c, {0, 2, 3}, [](const Plan& plan) { return plan.reduction.runs > 1; }},
    {"planes_of_samples", {4, 6, 50, 40}, c, {2, 3}, whole_sets},
    {"columns", {2500, 40}, c, {0}, [](const Plan& plan) { return columns(plan) && chunks(plan); }},
    {"wide_columns", {40, 1500}, c, {0}, [](const Plan& plan) { return columns(plan) && plan.sets.pieces > 1; }},
    {"few_columns", {12001, 3}, c, {0}, [](const Plan& plan) { return plan.reduction.tail_n > 0; }},
    {"few_columns_in_chunks",
     {40001, 3},
     c,
     {0},
     [](const Plan& plan) { return plan.reduction.interleave > 1 && plan.reduction.tail_n > 0 && chunks(plan); }},
    {"columns_of_samples", {3, 30, 30, 33}, c, {1, 2}, columns},
    {"folded_groups", {3, 30, 30, 8, 4}, c, {1, 2, 4}, [](const Plan& plan) { return plan.reduction.fold > 1; }},
    {"folded_groups_in_chunks",
     {2, 50, 50, 4, 4},
     c,
     {1, 2, 4},
     [](const Plan& plan) { return plan.reduction.fold > 1 && chunks(plan); }},
    {"folded_groups_of_few_channels",
     {2, 80, 101, 2, 3},
     c,
     {1, 2, 4},
     [](const Plan& plan) { return plan.reduction.fold > 1 && plan.reduction.interleave > 1; }},
    {"folded_groups_of_two_axes",
     {3, 900, 6, 2, 2},
     c,
     {1, 3, 4},
     [](const Plan& plan) { return plan.reduction.fold == 4; }},
    {"few_columns_of_two_axes", {3001, 4, 5}, c, {0}, [](const Plan& plan) { return plan.reduction.interleave > 1; }},
    {"packed_rows", {20, 2000}, strided, {1}, [](const Plan& plan) { return plan.reduction.packed; }},
    {"packed_columns",
     {2000, 20},
     strided,
     {0},
     [](const Plan& plan) { return plan.reduction.packed && columns(plan); }},
    {"far_rows", {20, 2000}, {.name = "strided", .step = 9}, {1}, columns},
};

class PromiseOfBits : public testing::TestWithParam<Work> {};
INSTANTIATE_TEST_SUITE_P(, PromiseOfBits, testing::ValuesIn(works), [](const auto& info) { return info.param.name; });

struct Result {
    std::vector<float> y;
    std::vector<double> moments;

    friend bool operator==(const Result& a, const Result& b) {
        return different_bits(a.y, b.y) == 0 && different_bits(a.moments, b.moments) == 0;
    }
};

Tensor<float> data_of(const Work& work) {
    Random random(1);
    Tensor<float> x(work.shape, work.layout);
    x.fill([&](std::int64_t) { return 100 + random.unit(); });
    return x;
}

/// Normalizes x, with a weight along the last axis and a bias along the first.
Result run(const TensorView& x, const std::vector<int>& reduce, int threads) {
    const Shape shape(x.shape, x.shape + x.rank);
    Tensor<float> y(shape), weight({shape.back()});
    weight.fill([](std::int64_t i) { return 1 + 0.125 * static_cast<double>(i % 5); });
    Shape statistics = shape;
    for (int axis : reduce) at(statistics, axis) = 1;
    Tensor<double> count(statistics), mean(statistics), m2(statistics);
    normalize(x, {Axes(reduce)}, y.view(),
              {.weight = weight.view(), .moments = {count.view(), mean.view(), m2.view()}, .num_threads = threads});
    Result result{y.values(), count.values()};
    for (Tensor<double>* each : {&mean, &m2}) {
        const std::vector<double> values = each->values();
        result.moments.insert(result.moments.end(), values.begin(), values.end());
    }
    return result;
}

TEST_P(PromiseOfBits, WorkTakesTheWayThatItIsHereFor) {
    const Work& work = GetParam();
    detail::PlanRequest request;
    request.threads = 3;
    const Plan plan = detail::make_plan(nest_of(geometry(work.shape, work.layout), work.reduce), request);
    EXPECT_EQ(plan.threads, 3) << "too small for threads";
    EXPECT_TRUE(work.takes(plan)) << detail::to_string(plan);
}

TEST_P(PromiseOfBits, EveryNumberOfThreads) {
    Tensor<float> x = data_of(GetParam());
    const Result expected = run(x.view(), GetParam().reduce, 1);
    for (int threads : {2, 3, 4, 8, 0}) {
        EXPECT_TRUE(run(x.view(), GetParam().reduce, threads) == expected) << threads << " threads";
    }
}

TEST_P(PromiseOfBits, StatisticsAloneAreThoseOfNormalize) {
    Tensor<float> x = data_of(GetParam());
    Shape statistics = GetParam().shape;
    for (int axis : GetParam().reduce) at(statistics, axis) = 1;
    Tensor<double> mean(statistics), m2(statistics);
    for (int threads : {1, 3}) {
        moments(x.view(), {Axes(GetParam().reduce)}, {{}, mean.view(), m2.view()}, {.num_threads = threads});
        const std::vector<double> all = run(x.view(), GetParam().reduce, 1).moments;
        const auto sets = static_cast<std::ptrdiff_t>(mean.size());
        EXPECT_EQ(different_bits(mean.values(), {all.begin() + sets, all.begin() + 2 * sets}), 0);
        EXPECT_EQ(different_bits(m2.values(), {all.begin() + 2 * sets, all.end()}), 0);
    }
}

TEST_P(PromiseOfBits, StatisticsAreTheSameForEveryLayoutOfTheOutput) {
    const Work& work = GetParam();
    Tensor<float> x = data_of(work);
    Shape statistics = work.shape;
    for (int axis : work.reduce) at(statistics, axis) = 1;
    std::vector<double> expected;
    for (const Layout& layout :
         {c, Layout{.name = "fortran", .order = Layout::Order::fortran}, Layout{.name = "padded", .gap = 5}}) {
        Tensor<float> y(work.shape, layout);
        Tensor<double> m2(statistics);
        normalize(x.view(), {Axes(work.reduce)}, y.view(), {.moments = {{}, {}, m2.view()}, .num_threads = 2});
        if (expected.empty()) expected = m2.values();
        EXPECT_EQ(different_bits(m2.values(), expected), 0) << layout.name;
    }
}

TEST(PromiseOfIsas, EveryInstructionSetButTheBaseline) {
    const std::vector<Isa> isas = isas_with_equal_bits();
    if (isas.size() < 2) GTEST_SKIP() << "one instruction set on this machine";
    for (const Work& work : works) {
        Tensor<float> x = data_of(work);
        std::vector<Result> results;
        for (Isa isa : isas) {
            const UseIsa use(isa);
            results.push_back(run(x.view(), work.reduce, 2));
            EXPECT_TRUE(results.back() == results.front()) << work.name << " on " << name(isa);
        }
    }
}

std::vector<Work> works_with_batch() {
    std::vector<Work> result;
    for (const Work& work : works) {
        if (work.reduce.front() != 0) result.push_back(work);
    }
    return result;
}

class PromiseOfBatch : public testing::TestWithParam<Work> {};
INSTANTIATE_TEST_SUITE_P(, PromiseOfBatch, testing::ValuesIn(works_with_batch()),
                         [](const auto& info) { return info.param.name; });

TEST_P(PromiseOfBatch, ASampleAloneHasTheBitsOfTheBatch) {
    Tensor<float> x = data_of(GetParam());
    const Result batch = run(x.view(), GetParam().reduce, 3);
    const std::int64_t samples = GetParam().shape[0];
    for (std::int64_t sample : {std::int64_t{0}, samples / 2, samples - 1}) {
        TensorView alone = x.view();
        alone.data = static_cast<float*>(alone.data) + sample * alone.strides[0];
        alone.shape[0] = 1;
        const Result result = run(alone, GetParam().reduce, 2);
        const auto size = length(result.y);
        const std::vector<float> expected(batch.y.begin() + sample * size, batch.y.begin() + (sample + 1) * size);
        EXPECT_EQ(different_bits(result.y, expected), 0) << "sample " << sample;
    }
}

// ---- Values ---------------------------------------------------------------------------------------------------------

/// Shapes small enough for an oracle, one for each kernel: rows, planes of channels, columns, columns in blocks, folds.
const Work small[] = {
    {"row", {5, 300}, c, {1}, nullptr},
    {"row_in_blocks", {3, 9000}, c, {1}, nullptr},
    {"channel_planes", {3, 5, 6, 7}, c, {0, 2, 3}, nullptr},
    {"column", {40, 21}, c, {0}, nullptr},
    {"column_in_blocks", {2100, 3}, c, {0}, nullptr},
    {"column_of_samples", {3, 5, 7, 20}, c, {1, 2}, nullptr},
    {"few_columns", {130, 3}, c, {0}, nullptr},
    {"few_folded_columns", {2, 9, 11, 2, 3}, c, {1, 2, 4}, nullptr},
    {"folded_group", {2, 6, 6, 4, 3}, c, {1, 2, 4}, nullptr},
    {"packed_row", {5, 300}, strided, {1}, nullptr},
    {"packed_column", {300, 9}, strided, {0}, nullptr},
};

class PromiseOfValues : public testing::TestWithParam<Work> {};
INSTANTIATE_TEST_SUITE_P(, PromiseOfValues, testing::ValuesIn(small), [](const auto& info) { return info.param.name; });

template <class T>
void expect_constant_sets(const Work& work, double value) {
    const Numbering sets = sets_of(work.shape, work.reduce);
    Tensor<T> x(work.shape, work.layout), y(work.shape), weight({}), bias({});
    Shape statistics = work.shape;
    for (int axis : work.reduce) at(statistics, axis) = 1;
    Tensor<double> mean(statistics), m2(statistics);
    const auto value_of = [&](std::int64_t i) {
        return static_cast<T>(value * (1 + static_cast<double>(at(sets.of, i)) / 7));
    };
    x.fill(value_of);
    weight.fill([](std::int64_t) { return 1.7; });
    bias.fill([](std::int64_t) { return 0.3; });
    normalize(x.view(), {Axes(work.reduce)}, y.view(),
              {.weight = weight.view(), .bias = bias.view(), .moments = {{}, mean.view(), m2.view()}});
    std::int64_t not_bias = 0, wrong_mean = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) {
        not_bias += bits(y[i]) != bits(bias[0]) ? 1 : 0;
        wrong_mean += mean[at(sets.of, i)] != static_cast<double>(value_of(i)) ? 1 : 0;
    }
    EXPECT_EQ(not_bias, 0) << value;
    EXPECT_EQ(wrong_mean, 0) << value;
    EXPECT_EQ(m2.values(), numbers(m2.size(), 0)) << value;
}

TEST_P(PromiseOfValues, ConstantSetsGiveExactlyTheBias) {
    for (double value : {0.1, -1e4, 1e30, 0.0}) {
        expect_constant_sets<float>(GetParam(), value);
        expect_constant_sets<double>(GetParam(), value);
    }
}

TEST_P(PromiseOfValues, FloatIsWithin2e6AtEveryMean) {
    const Work& work = GetParam();
    const Numbering sets = sets_of(work.shape, work.reduce);
    for (double mean : {0.0, 1.0, -100.0, 1e4, -1e5, 1e6}) {
        Random random(3);
        Tensor<float> x(work.shape, work.layout), y(work.shape);
        x.fill([&](std::int64_t) { return mean + random.unit(); });
        normalize(x.view(), {Axes(work.reduce)}, y.view());
        const std::vector<float> input = x.values();
        const std::vector<long double> exact = exact_normalize(input, sets, exact_moments(input, sets), 1e-5);
        EXPECT_LT(largest_error(y.values(), exact), 2e-6) << "mean " << mean;
    }
}

TEST_P(PromiseOfValues, DoubleAtAMeanOf1e8) {
    const Work& work = GetParam();
    const Numbering sets = sets_of(work.shape, work.reduce);
    Random random(3);
    Tensor<double> x(work.shape, work.layout), y(work.shape);
    x.fill([&](std::int64_t) { return 1e8 + random.unit(); });
    normalize(x.view(), {Axes(work.reduce)}, y.view());
    // A shift changes nothing but the mean; this one is exact, and long double could not hold a mean near 1e8.
    std::vector<double> shifted = x.values();
    for (double& value : shifted) value -= 1e8;
    EXPECT_LT(largest_error(y.values(), exact_normalize(shifted, sets, exact_moments(shifted, sets), 1e-5)), 1e-14);
}

TEST_P(PromiseOfValues, TinyAndHugeFloatsHaveUnitVariance) {
    const Work& work = GetParam();
    const Numbering sets = sets_of(work.shape, work.reduce);
    for (double scale : {1e-30, 1e30}) {
        Random random(4);
        Tensor<float> x(work.shape, work.layout), y(work.shape);
        x.fill([&](std::int64_t) { return scale * random.unit(); });
        normalize(x.view(), {Axes(work.reduce)}, y.view(), {.eps = 0});
        for (const ExactMoments& set : exact_moments(y.values(), sets)) {
            EXPECT_NEAR(static_cast<double>(set.m2 / set.count), 1, 1e-6) << scale;
        }
    }
}

TEST_P(PromiseOfValues, NotFiniteSpoilsOnlyItsOwnSet) {
    const Work& work = GetParam();
    const Numbering sets = sets_of(work.shape, work.reduce);
    Random random(5);
    Tensor<float> x(work.shape, work.layout), clean(work.shape), y(work.shape);
    x.fill([&](std::int64_t) { return random.unit(); });
    normalize(x.view(), {Axes(work.reduce)}, clean.view());
    std::vector<bool> spoiled(static_cast<std::size_t>(sets.count), false);
    for (const auto& [place, value] : {std::pair{std::int64_t{0}, nan}, std::pair{x.size() - 1, infinity}}) {
        x[place] = static_cast<float>(value);
        spoiled[static_cast<std::size_t>(at(sets.of, place))] = true;
    }
    normalize(x.view(), {Axes(work.reduce)}, y.view(), {.num_threads = 2});
    std::int64_t changed = 0, finite = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) {
        if (spoiled[static_cast<std::size_t>(at(sets.of, i))]) {
            finite += std::isfinite(y[i]) ? 1 : 0;
        } else {
            changed += bits(y[i]) != bits(clean[i]) ? 1 : 0;
        }
    }
    EXPECT_EQ(changed, 0);
    EXPECT_EQ(finite, 0);
}

TEST_P(PromiseOfValues, VarianceIsNeverNegative) {
    const Work& work = GetParam();
    Shape statistics = work.shape;
    for (int axis : work.reduce) at(statistics, axis) = 1;
    struct Pair {
        double rare, common;
    };
    // A few elements far from all others, the worst case of a shifted sum; and deviations whose squares underflow.
    for (const Pair& pair : {Pair{1e15, 1.1}, Pair{1e150, 0.1}, Pair{0, 1.5e-162}}) {
        Tensor<double> x(work.shape, work.layout), m2(statistics);
        x.fill([&](std::int64_t i) { return i % 7 == 0 ? pair.rare : pair.common; });
        moments(x.view(), {Axes(work.reduce)}, {{}, {}, m2.view()});
        for (double value : m2.values()) EXPECT_GE(value, 0) << pair.rare << " and " << pair.common;
    }
}

/// Where x stands still the members of a set have the order of the axes, wherever y lies.
TEST(Promises, StatisticsDoNotDependOnTheLayoutOfY) {
    const Shape shape = {5, 6, 7};
    const std::vector<float> x = {1, 4, 9, 16, 25, 36};
    const std::vector<double> weights = [] {
        std::vector<double> result(210);
        for (std::size_t i = 0; i < 210; ++i) result[i] = 0.1 + static_cast<double>(i * i % 97);
        return result;
    }();
    const Grouping sets{{0, 1, 2}, {.sample_weight = view(weights.data(), {5, 6, 7})}};
    const TensorView repeated = view(x.data(), {5, 6, 7}, {0, 1, 0});
    Moments expected;
    moments(repeated, sets, {view(&expected.count, {}), view(&expected.mean, {}), view(&expected.m2, {})});
    for (const Layout& layout : layouts()) {
        Tensor<float> y(shape, layout);
        Moments used;
        NormalizeOptions options;
        options.moments = {view(&used.count, {}), view(&used.mean, {}), view(&used.m2, {})};
        normalize(repeated, sets, y.view(), options);
        EXPECT_EQ(used.mean, expected.mean) << layout.name;
        EXPECT_EQ(used.m2, expected.m2) << layout.name;
    }
}

}  // namespace
}  // namespace anynorm::test
