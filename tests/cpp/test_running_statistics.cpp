// SPDX-License-Identifier: Apache-2.0
// Running statistics as PyTorch keeps them: the share of the new value is `momentum`, the variance is unbiased.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {3, 4, 5, 6};
constexpr std::int64_t channels = 4;

template <class T>
class RunningStatisticsOf : public testing::Test {
  protected:
    RunningStatisticsOf() : x(shape), y(shape), mean({channels}, {.name = "strided", .step = 2}), var({channels}) {
        Random random(4);
        x.fill([&](std::int64_t i) { return static_cast<double>(i % 7) + random.unit(); });
        mean.fill([](std::int64_t i) { return 10 + i; });
        var.fill([](std::int64_t i) { return 2 + i; });
        old_mean = mean.values();
        old_var = var.values();
    }

    void expect_updated(const std::vector<ExactMoments>& sets, double momentum) {
        const std::int64_t count = length(sets) / channels;
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            double new_mean = 0, new_var = 0;
            for (std::int64_t sample = 0; sample < count; ++sample) {
                const ExactMoments& set = at(sets, sample * channels + channel);
                new_mean += static_cast<double>(set.mean / static_cast<long double>(count));
                new_var += static_cast<double>(set.m2 / (set.count - 1) / static_cast<long double>(count));
            }
            const double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-13;
            EXPECT_NEAR(mean[channel], (1 - momentum) * at(old_mean, channel) + momentum * new_mean, tolerance);
            EXPECT_NEAR(var[channel], (1 - momentum) * at(old_var, channel) + momentum * new_var, tolerance);
        }
        EXPECT_EQ(mean.changed_gaps(), 0);
    }
    void expect_unchanged() {
        EXPECT_EQ(different_bits(mean.values(), old_mean), 0);
        EXPECT_EQ(different_bits(var.values(), old_var), 0);
    }
    RunningStatistics running(double momentum) { return {mean.view(), var.view(), momentum}; }

    Tensor<float> x, y;
    Tensor<T> mean, var;
    std::vector<T> old_mean, old_var;
};

using Types = testing::Types<float, double>;
struct TypeName {
    template <class T>
    static std::string GetName(int) {
        return short_name<T>();
    }
};
TYPED_TEST_SUITE(RunningStatisticsOf, Types, TypeName);

TYPED_TEST(RunningStatisticsOf, BatchNormUpdatesThem) {
    for (double momentum : {0.1, 0.0, 1.0}) {
        this->old_mean = this->mean.values();
        this->old_var = this->var.values();
        batch_norm(this->x.view(), this->y.view(), {.running = this->running(momentum), .training = true});
        this->expect_updated(exact_moments(this->x.values(), sets_of(shape, {0, 2, 3})), momentum);
    }
}

TYPED_TEST(RunningStatisticsOf, InstanceNormUpdatesThemWithTheAverageOverSamples) {
    instance_norm(this->x.view(), this->y.view(), {.running = this->running(0.3)});
    this->expect_updated(exact_moments(this->x.values(), sets_of(shape, {2, 3})), 0.3);
}

TYPED_TEST(RunningStatisticsOf, BatchNormReadsThemWhenNotTraining) {
    batch_norm(this->x.view(), this->y.view(), {.running = this->running(0.1), .eps = 0.5});
    this->expect_unchanged();
    for (std::int64_t i = 0; i < this->x.size(); ++i) {
        const std::int64_t channel = i / 30 % channels;
        const double expected = (static_cast<double>(this->x[i]) - (10.0 + static_cast<double>(channel))) /
                                std::sqrt(2.5 + static_cast<double>(channel));
        ASSERT_NEAR(static_cast<double>(this->y[i]), expected, 3e-6) << i;
    }
}

TYPED_TEST(RunningStatisticsOf, InstanceNormReadsThemWithoutInputStatistics) {
    Tensor<float> batch(shape);
    batch_norm(this->x.view(), batch.view(), {.running = this->running(0.1)});
    instance_norm(this->x.view(), this->y.view(), {.running = this->running(0.1), .use_input_stats = false});
    this->expect_unchanged();
    EXPECT_EQ(different_bits(this->y.values(), batch.values()), 0);
}

TYPED_TEST(RunningStatisticsOf, UpdateDoesNotChangeTheOutput) {
    Tensor<float> without(shape);
    batch_norm(this->x.view(), without.view(), {.training = true});
    batch_norm(this->x.view(), this->y.view(), {.running = this->running(0.1), .training = true});
    EXPECT_EQ(different_bits(this->y.values(), without.values()), 0);
    instance_norm(this->x.view(), without.view());
    instance_norm(this->x.view(), this->y.view(), {.running = this->running(0.1)});
    EXPECT_EQ(different_bits(this->y.values(), without.values()), 0);
}

TYPED_TEST(RunningStatisticsOf, MomentsAreReturnedBesides) {
    for (const bool keeps_axes : {false, true}) {
        const Shape statistics = keeps_axes ? Shape{1, channels, 1, 1} : Shape{channels};
        Tensor<double> mean(statistics), m2(statistics);
        this->old_mean = this->mean.values();
        this->old_var = this->var.values();
        const auto exact = exact_moments(this->x.values(), sets_of(shape, {0, 2, 3}));
        batch_norm(this->x.view(), this->y.view(),
                   {.running = this->running(0.5), .training = true, .moments = {{}, mean.view(), m2.view()}});
        this->expect_updated(exact, 0.5);
        for (std::int64_t channel = 0; channel < channels; ++channel) {
            EXPECT_NEAR(mean[channel], static_cast<double>(at(exact, channel).mean), 1e-13);
            EXPECT_NEAR(m2[channel] / static_cast<double>(at(exact, channel).m2), 1, 1e-13);
        }
    }
}

TYPED_TEST(RunningStatisticsOf, ChannelsLast) {
    const Shape last = {3, 5, 6, channels};
    Tensor<float> x(last, {.name = "reversed", .reversed = true}), y(last);
    x.fill([&](std::int64_t i) { return this->x[i]; });
    batch_norm(x.view(), y.view(), {.running = this->running(0.1), .training = true, .channel_axis = -1});
    this->expect_updated(exact_moments(x.values(), sets_of(last, {0, 1, 2})), 0.1);
}

TYPED_TEST(RunningStatisticsOf, GivenMomentsAreWhatTheyAreUpdatedWith) {
    Tensor<double> count({channels}), mean({channels}), m2({channels});
    std::vector<ExactMoments> given;
    for (std::int64_t channel = 0; channel < channels; ++channel) {
        given.push_back({11, static_cast<long double>(channel), 5});
    }
    count.fill([](std::int64_t) { return 11; });
    mean.fill([](std::int64_t i) { return i; });
    m2.fill([](std::int64_t) { return 5; });
    batch_norm(this->x.view(), this->y.view(),
               {.running = this->running(0.2), .training = true, .given = {count.view(), mean.view(), m2.view()}});
    this->expect_updated(given, 0.2);
}

TYPED_TEST(RunningStatisticsOf, NoElementsLeaveThemAsTheyAre) {
    for (const Shape& empty : {Shape{0, channels, 5}, Shape{3, channels, 0}}) {
        Tensor<float> x(empty), y(empty);
        batch_norm(x.view(), y.view(), {.running = this->running(0.1), .training = true});
        instance_norm(x.view(), y.view(), {.running = this->running(0.1)});
        this->expect_unchanged();
    }
}

}  // namespace
}  // namespace anynorm::test
