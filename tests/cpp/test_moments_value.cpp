// SPDX-License-Identifier: Apache-2.0
// struct Moments: Welford's push, Chan's merge, and what they say of no elements, NaN and infinities.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ostream>
#include <vector>

#include "anynorm/moments.hpp"
#include "oracle.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

std::vector<double> data_at(double mean, std::int64_t n) {
    Random random(7);
    std::vector<double> x = numbers(n);
    for (double& value : x) value = mean + random.unit();
    return x;
}

Moments pushed(const std::vector<double>& x) {
    Moments moments;
    for (double value : x) moments.push(value);
    return moments;
}

ExactMoments exact(const std::vector<double>& x) { return exact_moments(x, sets_of({length(x)}, {0}))[0]; }

void expect_same(const Moments& a, const Moments& b) {
    EXPECT_EQ(bits(a.count), bits(b.count));
    EXPECT_EQ(bits(a.mean), bits(b.mean));
    EXPECT_EQ(bits(a.m2), bits(b.m2));
    EXPECT_EQ(bits(a.mean_low), bits(b.mean_low));
}

TEST(Moments, EmptyHasNoMeanAndNoVariance) {
    const Moments empty;
    EXPECT_EQ(empty.count, 0);
    EXPECT_EQ(empty.m2, 0);
    EXPECT_TRUE(std::isnan(empty.mean));
    EXPECT_TRUE(std::isnan(empty.variance()));
    EXPECT_TRUE(std::isnan(empty.variance(1)));
    EXPECT_TRUE(std::isnan(empty.rstd(1e-5)));
}

TEST(Moments, OneElement) {
    Moments moments;
    moments.push(2.5);
    EXPECT_EQ(moments.count, 1);
    EXPECT_EQ(moments.mean, 2.5);
    EXPECT_EQ(moments.variance(), 0);
    EXPECT_TRUE(std::isnan(moments.variance(1)));
    EXPECT_EQ(moments.rstd(0.25), 2);
}

TEST(Moments, VarianceTakesACorrection) {
    const Moments moments = pushed({1, 2, 3, 4});
    EXPECT_DOUBLE_EQ(moments.mean, 2.5);
    EXPECT_DOUBLE_EQ(moments.m2, 5);
    EXPECT_DOUBLE_EQ(moments.variance(), 1.25);
    EXPECT_DOUBLE_EQ(moments.variance(1), 5.0 / 3);
    EXPECT_DOUBLE_EQ(moments.rstd(0.31), 1 / std::sqrt(1.56));
    EXPECT_TRUE(std::isnan(moments.variance(4)));
    EXPECT_TRUE(std::isnan(moments.variance(5)));
}

TEST(Moments, EmptyIsNeutralInMerge) {
    const Moments full = pushed({1, 2, 4});
    Moments left = full, right;
    left.merge(Moments{});
    expect_same(left, full);
    right.merge(full);
    expect_same(right, full);
    Moments none;
    none.merge(Moments{});
    expect_same(none, Moments{});
}

struct NamedMean {
    const char* name;
    double mean;

    friend void PrintTo(const NamedMean& self, std::ostream* out) { *out << self.name; }
};

class MomentsAtMean : public testing::TestWithParam<NamedMean> {};
INSTANTIATE_TEST_SUITE_P(, MomentsAtMean,
                         testing::Values(NamedMean{"0", 0}, NamedMean{"1", 1}, NamedMean{"minus_1e4", -1e4},
                                         NamedMean{"1e8", 1e8}, NamedMean{"minus_1e12", -1e12}),
                         [](const auto& info) { return info.param.name; });

/// The moments of data around `mean`, which is taken from them exactly; the mean is what remains.
ExactMoments exact_about(double mean, std::vector<double> x) {
    for (double& value : x) value -= mean;
    return exact(x);
}

void expect_near(const Moments& moments, double mean, const ExactMoments& expected, double tolerance) {
    EXPECT_EQ(moments.count, static_cast<double>(expected.count));
    EXPECT_NEAR((moments.mean - mean) + moments.mean_low, static_cast<double>(expected.mean), tolerance);
    EXPECT_NEAR(moments.m2 / static_cast<double>(expected.m2), 1, tolerance);
}

TEST_P(MomentsAtMean, PushAgreesWithTwoPasses) {
    const double mean = GetParam().mean;
    const std::vector<double> x = data_at(mean, 1000);
    expect_near(pushed(x), mean, exact_about(mean, x), 1e-14);
}

TEST_P(MomentsAtMean, MergeOfPartsAgreesWithTwoPasses) {
    const double mean = GetParam().mean;
    const std::vector<double> x = data_at(mean, 1000);
    const ExactMoments expected = exact_about(mean, x);
    for (std::int64_t cut : {1, 17, 500, 999}) {
        SCOPED_TRACE(cut);
        Moments all = pushed({x.begin(), x.begin() + cut});
        all.merge(pushed({x.begin() + cut, x.end()}));
        expect_near(all, mean, expected, 1e-14);
    }
}

TEST_P(MomentsAtMean, MergeOfManyPartsAgreesWithTwoPasses) {
    const double mean = GetParam().mean;
    const std::vector<double> x = data_at(mean, 1000);
    Moments all;
    for (std::int64_t from = 0; from < 1000; from += 8) {
        Moments part = pushed({x.begin() + from, x.begin() + from + 8});
        all.merge(part);
    }
    expect_near(all, mean, exact_about(mean, x), 1e-14);
}

TEST(Moments, MergeKeepsTheDistanceOfTheMeans) {
    Moments low = pushed({0, 0, 0}), high = pushed({6});
    low.merge(high);  // 0 0 0 6
    EXPECT_DOUBLE_EQ(low.mean, 1.5);
    EXPECT_DOUBLE_EQ(low.m2, 27);
}

TEST(Moments, EqualElementsHaveNoVariance) {
    for (double value : {0.1, -3e30, 1e-300}) {
        Moments moments = pushed(numbers(100, value));
        moments.merge(pushed(numbers(7, value)));
        EXPECT_EQ(moments.mean, value);
        EXPECT_EQ(moments.m2, 0);
        EXPECT_EQ(moments.mean_low, 0);
    }
}

TEST(Moments, NanStays) {
    for (const std::vector<double>& x : {std::vector<double>{nan}, {1, nan}, {nan, 1, 2}}) {
        const Moments moments = pushed(x);
        EXPECT_TRUE(std::isnan(moments.mean));
        EXPECT_TRUE(std::isnan(moments.variance()));
        Moments merged = pushed({1, 2});
        merged.merge(moments);
        EXPECT_EQ(merged.count, 2.0 + static_cast<double>(x.size()));
        EXPECT_TRUE(std::isnan(merged.mean));
        EXPECT_TRUE(std::isnan(merged.variance()));
    }
}

TEST(Moments, InfinityLeavesNoVariance) {
    EXPECT_TRUE(std::isnan(pushed({infinity}).variance()));
    EXPECT_EQ(pushed({-infinity}).mean, -infinity);
    EXPECT_EQ(pushed({1, infinity, 2}).mean, infinity);
    EXPECT_EQ(pushed({0.1, 0.3, infinity, 2}).mean_low, 0);
    EXPECT_EQ(pushed({infinity, infinity}).mean, infinity);
    EXPECT_TRUE(std::isnan(pushed({infinity, infinity}).variance()));
    EXPECT_TRUE(std::isnan(pushed({1, infinity, 2}).variance()));
    EXPECT_TRUE(std::isnan(pushed({infinity, -infinity}).mean));
}

}  // namespace
}  // namespace anynorm::test
