// SPDX-License-Identifier: Apache-2.0
// The engine's two calls, moments() and normalize(), with what the named norms do not use of them.
#include "anynorm/normalize.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {3, 8, 5, 6};

template <class T = float>
Tensor<T> sample(const Shape& of, const Layout& layout = {}, double mean = 2) {
    Random random(8);
    Tensor<T> x(of, layout);
    x.fill([&](std::int64_t) { return mean + random.unit(); });
    return x;
}

ExactParameter parameter(const Shape& of, const std::vector<int>& axes, const std::vector<double>& values) {
    return {number_along(of, axes), values};
}

std::vector<double> random_numbers(std::int64_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<double> values = numbers(n);
    for (double& value : values) value = random.uniform(0.5, 1.5);
    return values;
}

// ---- Statistics -----------------------------------------------------------------------------------------------------

TEST(MomentsCall, ShapesWithAndWithoutTheReducedAxes) {
    Tensor<float> x = sample(shape);
    const std::vector<ExactMoments> exact = exact_moments(x.values(), sets_of(shape, {1, 3}));
    for (const Shape& statistics : {Shape{3, 5}, Shape{3, 1, 5, 1}}) {
        Tensor<double> count(statistics), mean(statistics, {.name = "reversed", .reversed = true}),
            m2(statistics, {.name = "padded", .gap = 2});
        moments(x.view(), {{1, 3}}, {count.view(), mean.view(), m2.view()});
        for (std::int64_t set = 0; set < 15; ++set) {
            EXPECT_EQ(count[set], 48);
            EXPECT_NEAR(mean[set], static_cast<double>(at(exact, set).mean), 1e-14);
            EXPECT_NEAR(m2[set] / static_cast<double>(at(exact, set).m2), 1, 1e-13);
        }
        EXPECT_EQ(mean.changed_gaps() + m2.changed_gaps(), 0);
    }
}

TEST(MomentsCall, AnArrayOfMomentsIsFourViewsOfStrideFour) {
    Tensor<double> x = sample<double>({4, 100});
    std::vector<Moments> sets(4);
    moments(x.view(), {{-1}},
            {.count = view(&sets[0].count, {4}, {4}),
             .mean = view(&sets[0].mean, {4}, {4}),
             .m2 = view(&sets[0].m2, {4}, {4}),
             .mean_low = view(&sets[0].mean_low, {4}, {4})});
    Tensor<double> low({4});
    moments(x.view(), {{-1}}, {.mean_low = low.view()});
    for (std::int64_t row = 0; row < 4; ++row) {
        Moments expected;
        for (std::int64_t i = 0; i < 100; ++i) expected.push(x[row * 100 + i]);
        EXPECT_EQ(at(sets, row).count, 100);
        EXPECT_NEAR(at(sets, row).mean, expected.mean, 1e-14);
        EXPECT_EQ(at(sets, row).mean_low, low[row]);
        EXPECT_NEAR(at(sets, row).variance(1), expected.variance(1), 1e-14);
    }
}

TEST(MomentsCall, EachOutputIsOptional) {
    Tensor<float> x = sample({4, 10});
    Tensor<double> all[4] = {Tensor<double>({4}), Tensor<double>({4}), Tensor<double>({4}), Tensor<double>({4})};
    moments(x.view(), {{1}}, {all[0].view(), all[1].view(), all[2].view(), {}, all[3].view()});
    moments(x.view(), {{1}}, {});
    TensorView MomentsView::* const members[] = {&MomentsView::count, &MomentsView::mean, &MomentsView::m2,
                                                 &MomentsView::mean_low};
    for (std::size_t only = 0; only < 4; ++only) {
        Tensor<double> out({4});
        MomentsView views;
        views.*members[only] = out.view();
        moments(x.view(), {{1}}, views);
        EXPECT_EQ(different_bits(out.values(), all[only].values()), 0);
    }
}

TEST(MomentsCall, AboutZero) {
    Tensor<double> x = sample<double>({4, 100});
    Tensor<double> mean({4}), m2({4});
    moments(x.view(), {{1}}, {{}, mean.view(), m2.view()}, {.center = false});
    const std::vector<ExactMoments> exact = exact_moments(x.values(), sets_of({4, 100}, {1}), false);
    for (std::int64_t row = 0; row < 4; ++row) {
        EXPECT_EQ(mean[row], 0);
        EXPECT_NEAR(m2[row] / static_cast<double>(at(exact, row).m2), 1, 1e-14);
    }
}

TEST(MomentsCall, NoElements) {
    Tensor<double> count({3}), mean({3}), m2({3});
    moments(view(static_cast<float*>(nullptr), {3, 0}), {{1}}, {count.view(), mean.view(), m2.view()});
    for (std::int64_t set = 0; set < 3; ++set) {
        EXPECT_EQ(count[set], 0);
        EXPECT_TRUE(std::isnan(mean[set]));
        EXPECT_EQ(m2[set], 0);
    }
    // No sets at all: nothing to write.
    moments(view(static_cast<float*>(nullptr), {0, 3}), {{1}}, {view(static_cast<double*>(nullptr), {0}), {}, {}});
    normalize(view(static_cast<float*>(nullptr), {0, 3}), {{1}}, view(static_cast<float*>(nullptr), {0, 3}));
}

TEST(MomentsCall, OneElementOfRankZero) {
    const double x = 4;
    double count = 0, mean = 0, m2 = 1, y = 0;
    normalize(view(&x, {}), {}, view(&y, {}), {.moments = {view(&count, {}), view(&mean, {}), view(&m2, {})}});
    EXPECT_EQ(count, 1);
    EXPECT_EQ(mean, 4);
    EXPECT_EQ(m2, 0);
    EXPECT_EQ(y, 0);
}

TEST(MomentsCall, RankSixteen) {
    const Shape sixteen = {2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 3};
    Tensor<float> x = sample(sixteen, {.name = "fortran", .order = Layout::Order::fortran}), y(sixteen);
    normalize(x.view(), {{0, 4, 8, 15}}, y.view());
    const Numbering sets = sets_of(sixteen, {0, 4, 8, 15});
    EXPECT_LT(largest_error(y.values(), exact_normalize(x.values(), sets, exact_moments(x.values(), sets), 1e-5)),
              1e-6);
}

// ---- Given statistics -----------------------------------------------------------------------------------------------

template <class T>
void expect_given(const Shape& statistics, const Layout& layout) {
    Tensor<float> x = sample(shape, layout), y(shape);
    Tensor<T> count(statistics), mean(statistics), m2(statistics, {.name = "strided", .step = 2});
    const std::vector<int> reduce = {0, 2, 3};
    std::vector<ExactMoments> exact(8);
    for (std::int64_t set = 0; set < 8; ++set) {
        at(exact, set) = {static_cast<long double>(count[set] = static_cast<T>(2 + set)),
                          static_cast<long double>(mean[set] = static_cast<T>(0.25) * static_cast<T>(set)),
                          static_cast<long double>(m2[set] = static_cast<T>(5 + set))};
    }
    Tensor<double> count_out({8}), mean_out({1, 8, 1, 1}), m2_out({8});
    normalize(x.view(), {{0, 2, 3}}, y.view(),
              {.given = {count.view(), mean.view(), m2.view()},
               .moments = {count_out.view(), mean_out.view(), m2_out.view()}});
    EXPECT_LT(largest_error(y.values(), exact_normalize(x.values(), sets_of(shape, reduce), exact, 1e-5)), 1e-6);
    for (std::int64_t set = 0; set < 8; ++set) {
        EXPECT_EQ(count_out[set], static_cast<double>(count[set]));
        EXPECT_EQ(mean_out[set], static_cast<double>(mean[set]));
        EXPECT_EQ(m2_out[set], static_cast<double>(m2[set]));
    }
}

TEST(GivenMoments, AreUsedAndReturned) {
    for (const Layout& layout : layouts()) {
        SCOPED_TRACE(layout.name);
        expect_given<double>({8}, layout);
        expect_given<double>({1, 8, 1, 1}, layout);
        expect_given<float>({8}, layout);
    }
}

TEST(GivenMoments, AVarianceIsM2OfACountOfOne) {
    const std::vector<double> x = {1, 3, 5, 7}, mean = {2, 4}, variance = {4, 9};
    const double one = 1;
    std::vector<double> y(4);
    normalize(view(x.data(), {2, 2}), {{1}}, view(y.data(), {2, 2}),
              {.eps = 0, .given = {view(&one, {2}, {0}), view(mean.data(), {2}), view(variance.data(), {2})}});
    EXPECT_EQ(y, (std::vector<double>{-0.5, 0.5, 1.0 / 3, 1}));
}

TEST(GivenMoments, WithoutCenterTheirMeanIsNotUsed) {
    const std::vector<double> x = {2, 4};
    const double one = 1, mean = 100, variance = 4;
    std::vector<double> y(2);
    normalize(view(x.data(), {2}), {{0}}, view(y.data(), {2}),
              {.eps = 0, .center = false, .given = {view(&one, {}), view(&mean, {}), view(&variance, {})}});
    EXPECT_EQ(y, (std::vector<double>{1, 2}));
}

TEST(GivenMoments, OfTheCallItselfGiveItsOutput) {
    Tensor<double> x = sample<double>(shape), y(shape), again(shape);
    Tensor<double> count({3, 8}), mean({3, 8}), m2({3, 8});
    const MomentsView views = {count.view(), mean.view(), m2.view()};
    normalize(x.view(), {{2, 3}}, y.view(), {.moments = views});
    normalize(x.view(), {{2, 3}}, again.view(), {.given = views});
    const std::vector<double> expected = y.values();
    EXPECT_LT(largest_error(again.values(), std::vector<long double>(expected.begin(), expected.end())), 1e-14);
}

// ---- Parameters -----------------------------------------------------------------------------------------------------

struct Broadcast {
    const char* name;
    Shape shape;
    std::vector<int> axes;

    friend void PrintTo(const Broadcast& self, std::ostream* out) { *out << self.name; }
};
const Broadcast broadcasts[] = {
    {"scalar", {}, {}},
    {"one", {1}, {}},
    {"last", {6}, {3}},
    {"channel", {8, 1, 1}, {1}},
    {"sample", {3, 1, 1, 1}, {0}},
    {"plane", {5, 6}, {2, 3}},
    {"channel_and_last", {8, 1, 6}, {1, 3}},
    {"all", {3, 8, 5, 6}, {0, 1, 2, 3}},
};

class Parameters : public testing::TestWithParam<Broadcast> {};
INSTANTIATE_TEST_SUITE_P(, Parameters, testing::ValuesIn(broadcasts), [](const auto& info) { return info.param.name; });

template <class X, class W>
void expect_broadcast(const Broadcast& broadcast, const Layout& layout) {
    SCOPED_TRACE(std::string(layout.name) + " " + short_name<X>() + " with weights of " + short_name<W>());
    Tensor<X> x = sample<X>(shape, layout), y(shape, layout);
    Tensor<W> weight(broadcast.shape, {.name = "fortran", .order = Layout::Order::fortran, .gap = 1}),
        bias(broadcast.shape, {.name = "reversed", .reversed = true});
    const std::vector<double> w = random_numbers(weight.size(), 1), b = random_numbers(bias.size(), 2);
    weight.fill([&](std::int64_t i) { return at(w, i); });
    bias.fill([&](std::int64_t i) { return at(b, i); });
    const Numbering sets = sets_of(shape, {0, 2});
    const ExactParameter exact_weight = parameter(shape, broadcast.axes, w);
    const ExactParameter exact_bias = parameter(shape, broadcast.axes, b);
    const std::vector<ExactMoments> exact = exact_moments(x.values(), sets);
    const double tolerance = sizeof(X) == 4 || sizeof(W) == 4 ? 1e-6 : 1e-14;
    normalize(x.view(), {{0, 2}}, y.view(), {.weight = weight.view(), .bias = bias.view()});
    EXPECT_LT(largest_error(y.values(), exact_normalize(x.values(), sets, exact, 1e-5, exact_weight, exact_bias)),
              tolerance);
    normalize(x.view(), {{0, 2}}, y.view(), {.weight = weight.view()});
    EXPECT_LT(largest_error(y.values(), exact_normalize(x.values(), sets, exact, 1e-5, exact_weight)), tolerance);
    normalize(x.view(), {{0, 2}}, y.view(), {.bias = bias.view()});
    EXPECT_LT(largest_error(y.values(), exact_normalize(x.values(), sets, exact, 1e-5, {}, exact_bias)), tolerance);
    EXPECT_EQ(y.changed_gaps(), 0);
}

TEST_P(Parameters, BroadcastByNumPysRules) {
    for (const Layout& layout : layouts()) {
        expect_broadcast<float, float>(GetParam(), layout);
        expect_broadcast<double, double>(GetParam(), layout);
        expect_broadcast<float, double>(GetParam(), layout);
        expect_broadcast<double, float>(GetParam(), layout);
    }
}

// ---- Layouts that no named norm has ---------------------------------------------------------------------------------

/// nChw16c, as oneDNN keeps activations: channels in blocks of 16, the block innermost.
struct Blocked {
    std::int64_t n = 2, blocks = 3, h = 5, w = 7;
    Shape nchw = {n, blocks * 16, h, w};
    Shape five = {n, blocks, 16, h, w};  // the same elements in C order

    /// The blocked memory as a view of shape (N, C / 16, 16, H, W).
    TensorView view_of(std::vector<float>& memory) const {
        return view(memory.data(), {n, blocks, 16, h, w}, {blocks * h * w * 16, h * w * 16, 1, w * 16, 16});
    }
    std::int64_t offset(std::int64_t place) const {
        const std::int64_t plane = place % (h * w), channel = place / (h * w) % (blocks * 16);
        const std::int64_t image = place / (h * w) / (blocks * 16);
        return ((image * blocks + channel / 16) * h * w + plane) * 16 + channel % 16;
    }
};

TEST(BlockedChannels, BatchInstanceAndGroupNormThroughNormalize) {
    const Blocked blocked;
    Tensor<float> plain = sample(blocked.nchw);
    std::vector<float> x(static_cast<std::size_t>(plain.size())), y(x.size());
    for (std::int64_t i = 0; i < plain.size(); ++i) at(x, blocked.offset(i)) = plain[i];
    std::vector<double> weight = random_numbers(48, 3);
    const TensorView weight_view = view(weight.data(), {3, 16, 1, 1});
    struct Case {
        Axes axes;
        std::vector<int> reduce;  // of (N, C / 16, 16, H, W)
    };
    for (const Case& each : {Case{{0, 3, 4}, {0, 3, 4}}, Case{{3, 4}, {3, 4}}, Case{{2, 3, 4}, {2, 3, 4}}}) {
        normalize(blocked.view_of(x), {each.axes}, blocked.view_of(y), {.weight = weight_view});
        const Numbering sets = sets_of(blocked.five, each.reduce);
        std::vector<float> got;
        for (std::int64_t i = 0; i < plain.size(); ++i) got.push_back(at(y, blocked.offset(i)));
        const std::vector<ExactMoments> exact = exact_moments(plain.values(), sets);
        EXPECT_LT(largest_error(
                      got, exact_normalize(plain.values(), sets, exact, 1e-5, parameter(blocked.five, {1, 2}, weight))),
                  1e-6);
    }
}

/// x may repeat elements: a broadcast view, and overlapping windows of a signal.
TEST(RepeatedElements, BroadcastAndWindows) {
    std::vector<double> signal(20);
    std::iota(signal.begin(), signal.end(), 0.0);
    std::vector<double> y(5 * 4);
    normalize(view(signal.data(), {5, 4}, {2, 1}), {{1}}, view(y.data(), {5, 4}), {.eps = 0});
    for (std::size_t i = 0; i < y.size(); ++i) {
        EXPECT_NEAR(y[i], (static_cast<double>(i % 4) - 1.5) / std::sqrt(1.25), 1e-15);
    }
    normalize(view(signal.data(), {5, 4}, {0, 1}), {{0, 1}}, view(y.data(), {5, 4}), {.eps = 0});
    EXPECT_NEAR(y[19], 1.5 / std::sqrt(1.25), 1e-15);
    double mean[5] = {}, m2[5] = {};
    moments(view(signal.data(), {5, 4}, {1, 0}), {{1}}, {{}, view(mean, {5}), view(m2, {5})});
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(mean[i], i);
        EXPECT_EQ(m2[i], 0);
    }
}

}  // namespace
}  // namespace anynorm::test
