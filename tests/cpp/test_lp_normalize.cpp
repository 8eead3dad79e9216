// SPDX-License-Identifier: Apache-2.0
// lp_normalize() and its gradient: against the definition in long double, bits, hard values, what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/lp_normalize.hpp"
#include "lp_oracle.hpp"
#include "refusal.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

struct Sets {
    const char* name;
    Shape shape;
    std::vector<int> axes;

    friend void PrintTo(const Sets& self, std::ostream* out) { *out << self.name; }
    Axes axes_of() const { return Axes(std::span<const int>(axes)); }
};

const Sets all_sets[] = {
    {"channels", {3, 5, 7, 6}, {1}},     {"last", {4, 5, 37}, {2}},
    {"rgb", {6, 50, 3}, {-1}},           {"two_axes", {3, 8, 5, 6}, {0, 2}},
    {"all", {3, 4, 5, 6}, {0, 1, 2, 3}}, {"none", {3, 4, 5}, {}},
    {"length_1", {4, 1, 5}, {1}},        {"scalar", {}, {}},
    {"long_rows", {3, 4100}, {1}},       {"long_columns", {1030, 3}, {0}},
};
/// Above the size from which threads are used, with several chunks a set where it can be.
const Sets large_sets[] = {
    {"one", {100003}, {0}},          {"few_rows", {3, 30001}, {1}},           {"rows", {300, 300}, {1}},
    {"columns", {20011, 7}, {0}},    {"planes", {3, 2, 130, 125}, {0, 2, 3}}, {"channels", {4, 17, 61, 67}, {1}},
    {"odd_strips", {900, 129}, {0}}, {"all", {20, 20, 50, 5}, {0, 1, 2, 3}},
};

class LpNormalize : public testing::TestWithParam<Sets> {};
INSTANTIATE_TEST_SUITE_P(, LpNormalize, testing::ValuesIn(all_sets), [](const auto& info) { return info.param.name; });
class LpNormalizeLarge : public testing::TestWithParam<Sets> {};
INSTANTIATE_TEST_SUITE_P(, LpNormalizeLarge, testing::ValuesIn(large_sets),
                         [](const auto& info) { return info.param.name; });

constexpr double norms[] = {1, 2, infinity};

/// Multiples of 1/8 in [-3, 3]: the largest comes several times.
template <class T>
Tensor<T> eighths(const Shape& shape, const Layout& layout, std::uint64_t seed) {
    Random random(seed);
    Tensor<T> result(shape, layout);
    result.fill([&](std::int64_t) { return static_cast<double>(random.below(49) - 24) / 8; });
    return result;
}

template <class T>
void check_values(const Sets& sets, const Layout& layout, const Layout& other, double p) {
    constexpr double tolerance = sizeof(T) == 4 ? 3e-7 : 1e-14;
    const Numbering numbering = sets_of(sets.shape, [&] {
        std::vector<int> axes = sets.axes;
        for (int& axis : axes) axis += axis < 0 ? static_cast<int>(sets.shape.size()) : 0;
        return axes;
    }());
    Tensor<T> x = eighths<T>(sets.shape, layout, 5), dy = eighths<T>(sets.shape, other, 6);
    Tensor<T> y(sets.shape, other), dx(sets.shape, layout);
    for (const double eps : {1e-12, 2.5}) {
        lp_normalize(x.view(), y.view(), sets.axes_of(), {.p = p, .eps = eps});
        EXPECT_LE(largest_error(y.values(), exact_lp(x.values(), numbering, p, eps)), tolerance) << eps;
        EXPECT_EQ(y.changed_gaps(), 0);
        lp_normalize_backward(dy.view(), x.view(), dx.view(), sets.axes_of(), {.p = p, .eps = eps});
        const auto exact = exact_lp_backward(dy.values(), x.values(), numbering, p, eps);
        // Sets of one zero have no gradient at 0; theirs are clamped, and as large as 1 / eps.
        EXPECT_LE(largest_error(dx.values(), exact), 2 * tolerance) << eps;
        EXPECT_EQ(dx.changed_gaps(), 0);
    }
    for (Tensor<T>* target : {&dy, &x}) {  // in place
        Tensor<T> copy = *target;
        lp_normalize_backward(target == &dy ? copy.view() : dy.view(), target == &x ? copy.view() : x.view(),
                              copy.view(), sets.axes_of(), {.p = p, .eps = 2.5});
        EXPECT_EQ(different_bits(copy.values(), dx.values()), 0);
    }
    Tensor<T> copy = x;
    lp_normalize(copy.view(), copy.view(), sets.axes_of(), {.p = p, .eps = 2.5});
    EXPECT_EQ(different_bits(copy.values(), y.values()), 0);
}

TEST_P(LpNormalize, IsTheDefinition) {
    const std::vector<Layout>& all = layouts();
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (const double p : norms) {
            SCOPED_TRACE(std::string(all[i].name) + " p=" + std::to_string(p));
            check_values<float>(GetParam(), all[i], all[(i + 3) % all.size()], p);
            check_values<double>(GetParam(), all[i], all[(i + 5) % all.size()], p);
        }
    }
}

TEST_P(LpNormalizeLarge, IsTheDefinitionForAnyNumberOfThreads) {
    const Sets& sets = GetParam();
    const Numbering numbering = sets_of(sets.shape, sets.axes);
    Random random(8);
    const auto unit = [&](std::int64_t) { return random.unit(); };
    Tensor<float> x(sets.shape), dy(sets.shape), y(sets.shape), dx(sets.shape), again(sets.shape);
    x.fill(unit);
    dy.fill(unit);
    for (const double p : norms) {
        lp_normalize(x.view(), y.view(), sets.axes_of(), {.p = p, .num_threads = 1});
        lp_normalize_backward(dy.view(), x.view(), dx.view(), sets.axes_of(), {.p = p, .num_threads = 1});
        EXPECT_LE(largest_error(y.values(), exact_lp(x.values(), numbering, p, 1e-12)), 3e-7);
        EXPECT_LE(largest_error(dx.values(), exact_lp_backward(dy.values(), x.values(), numbering, p, 1e-12)), 3e-7);
        for (const int threads : {2, 3, 8}) {
            lp_normalize(x.view(), again.view(), sets.axes_of(), {.p = p, .num_threads = threads});
            EXPECT_EQ(different_bits(again.values(), y.values()), 0) << threads;
            lp_normalize_backward(dy.view(), x.view(), again.view(), sets.axes_of(), {.p = p, .num_threads = threads});
            EXPECT_EQ(different_bits(again.values(), dx.values()), 0) << threads;
        }
        Tensor<float> elsewhere(sets.shape, {.name = "fortran", .order = Layout::Order::fortran});
        lp_normalize(x.view(), elsewhere.view(), sets.axes_of(), {.p = p});
        EXPECT_EQ(different_bits(elsewhere.values(), y.values()), 0) << "in another layout";
        for (const Isa isa : isas_with_equal_bits()) {
            const UseIsa use(isa);
            lp_normalize(x.view(), again.view(), sets.axes_of(), {.p = p});
            if (isas_with_equal_bits().size() > 1 || p != 2) {
                EXPECT_EQ(different_bits(again.values(), y.values()), 0) << name(isa);
            }
        }
    }
}

/// A sample alone has the bits that it has in a batch.
TEST(LpNormalizeBits, OfASampleAlone) {
    const Shape shape = {5, 3, 20000}, alone = {1, 3, 20000};
    Random random(9);
    Tensor<float> x(shape), y(shape), one(alone), y_one(alone);
    x.fill([&](std::int64_t) { return random.unit(); });
    for (std::int64_t i = 0; i < one.size(); ++i) one[i] = x[2 * one.size() + i];
    for (const double p : norms) {
        for (const Axes& axes : {Axes{1}, Axes{2}, Axes{1, 2}}) {
            lp_normalize(x.view(), y.view(), axes, {.p = p});
            lp_normalize(one.view(), y_one.view(), axes, {.p = p});
            const std::vector<float> all = y.values();
            const auto first = all.begin() + 2 * one.size();
            EXPECT_EQ(different_bits(std::vector<float>(first, first + one.size()), y_one.values()), 0);
        }
    }
}

TEST(LpNormalizeValues, FarFromOneAndNotFinite) {
    const auto run = [](std::vector<float> x, double p, double eps) {
        std::vector<float> y(x.size());
        const auto n = static_cast<std::int64_t>(x.size());
        lp_normalize(view(x.data(), {n}), view(y.data(), {n}), {0}, {.p = p, .eps = eps});
        return y;
    };
    for (const double p : norms) {
        EXPECT_EQ(run({0x1p127f, 0, 0}, p, 1e-12), (std::vector<float>{1, 0, 0}));
        EXPECT_EQ(run({0, -1e-30f}, p, 0), (std::vector<float>{0, -1}));
        EXPECT_EQ(run({0, 0}, p, 1e-12), (std::vector<float>{0, 0}));
        EXPECT_TRUE(std::isnan(run({0, 0}, p, 0)[0]));
        const float huge = static_cast<float>(infinity);
        EXPECT_EQ(run({1, -huge}, p, 1e-12)[0], 0);
        EXPECT_TRUE(std::isnan(run({1, -huge}, p, 1e-12)[1]));
        for (const std::size_t place : {0u, 5u, 17u, 999u}) {  // wherever the NaN is, and next to a set without
            std::vector<float> x(2000, 1), y(2000);
            x[place] = static_cast<float>(nan);
            lp_normalize(view(x.data(), {2, 1000}), view(y.data(), {2, 1000}), {1}, {.p = p});
            EXPECT_TRUE(std::all_of(y.begin(), y.begin() + 1000, [](float value) { return std::isnan(value); }))
                << place;
            EXPECT_TRUE(std::none_of(y.begin() + 1000, y.end(), [](float value) { return std::isnan(value); }));
        }
    }
}

TEST(LpNormalizeGradient, IsTheDerivative) {
    const std::int64_t n = 7;
    Random random(10);
    std::vector<double> x(n), dy(n), dx(n), low(n), high(n);
    for (double& value : x) value = random.unit() + 2;  // no sign changes, no ties
    for (double& value : dy) value = random.unit();
    const auto all = [n](std::vector<double>& values) { return view(values.data(), {n}); };
    for (const double p : norms) {
        lp_normalize_backward(all(dy), all(x), all(dx), {0}, {.p = p});
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double step = 1e-6;
            std::vector<double> moved = x;
            moved[i] = x[i] - step;
            lp_normalize(all(moved), all(low), {0}, {.p = p});
            moved[i] = x[i] + step;
            lp_normalize(all(moved), all(high), {0}, {.p = p});
            double slope = 0;
            for (std::size_t j = 0; j < x.size(); ++j) slope += dy[j] * (high[j] - low[j]) / (2 * step);
            EXPECT_NEAR(dx[i], slope, 1e-9) << p;
        }
    }
}

// --- types -----------------------------------------------------------------------------------------------------------

TEST(LpNormalizeTypes, OfOperandsMayDiffer) {
    std::vector<Float16> halves = {{0x4200}, {0xc400}, {0x0000}};  // 3, -4, 0
    std::vector<float> dy = {1, 0, 0};
    std::vector<double> y(3), dx(3);
    std::vector<BFloat16> shorter(3);
    const auto x = view(halves.data(), {3});
    const std::vector<double> expected[] = {{3 / 7., -4 / 7., 0}, {0.6, -0.8, 0}, {0.75, -1, 0}};
    const std::vector<double> gradients[] = {{1 / 7. - 3 / 49., 3 / 49., 0}, {0.128, 0.096, 0}, {0.25, 3 / 16., 0}};
    for (std::size_t i = 0; i < 3; ++i) {
        lp_normalize(x, view(y.data(), {3}), {0}, {.p = norms[i]});
        lp_normalize(x, view(shorter.data(), {3}), {0}, {.p = norms[i]});
        lp_normalize_backward(view(dy.data(), {3}), x, view(dx.data(), {3}), {0}, {.p = norms[i]});
        for (std::size_t j = 0; j < 3; ++j) {
            EXPECT_NEAR(y[j], expected[i][j], 1e-15);
            EXPECT_NEAR(dx[j], gradients[i][j], 1e-15);
            const auto bits32 = static_cast<std::uint32_t>(shorter[j].bits) << 16;
            EXPECT_NEAR(static_cast<double>(std::bit_cast<float>(bits32)), expected[i][j], 0x1p-9);
        }
    }
}

TEST(LpNormalizeEmpty, WritesNothing) {
    std::vector<float> none;
    for (const double p : norms) {
        EXPECT_NO_THROW(lp_normalize(view(none.data(), {0, 3}), view(none.data(), {0, 3}), {1}, {.p = p}));
        EXPECT_NO_THROW(lp_normalize_backward(view(none.data(), {3, 0}), view(none.data(), {3, 0}),
                                              view(none.data(), {3, 0}), {1}, {.p = p}));
    }
}

// --- errors ----------------------------------------------------------------------------------------------------------

struct Arrays {
    std::vector<float> x = std::vector<float>(100, 1.5f), dy = std::vector<float>(100, 2.5f),
                       out = std::vector<float>(100, 3.5f);

    friend bool operator==(const Arrays&, const Arrays&) = default;

    TensorView of(std::vector<float>& values, std::int64_t skip = 0) { return view(values.data() + skip, {2, 6, 4}); }
};

struct Row {
    const char* name;
    const char* message;
    void (*call)(Arrays&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    {"without_x", "lp_normalize: expected x of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { lp_normalize({}, a.of(a.out), {1}); }},
    {"without_output", "lp_normalize: expected output of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { lp_normalize(a.of(a.x), {}, {1}); }},
    {"axis", "lp_normalize: expected axis from -3 to 2, got 3",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {3}); }},
    {"axis_twice", "lp_normalize: expected each axis once, got axis 1 twice",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {1, -2}); }},
    {"p", "lp_normalize: expected p of 1, 2 or infinity, got 3",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {1}, {.p = 3}); }},
    {"p_nan", "lp_normalize_backward: expected p of 1, 2 or infinity, got nan",
     [](Arrays& a) { lp_normalize_backward(a.of(a.dy), a.of(a.x), a.of(a.out), {1}, {.p = nan}); }},
    {"p_minus_infinity", "lp_normalize: expected p of 1, 2 or infinity, got -inf",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {1}, {.p = -infinity}); }},
    {"eps", "lp_normalize: expected eps of at least 0, got -1",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {1}, {.eps = -1}); }},
    {"threads", "lp_normalize: expected num_threads of at least 0, got -1",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.out), {1}, {.num_threads = -1}); }},
    {"output_of_other_shape", "lp_normalize: expected output of shape (2, 6, 4), got (48,)",
     [](Arrays& a) { lp_normalize(a.of(a.x), view(a.out.data(), {48}), {1}); }},
    {"output_overlaps", "lp_normalize: expected output apart from x (or the same array), got arrays that share memory",
     [](Arrays& a) { lp_normalize(a.of(a.x), a.of(a.x, 1), {1}); }},
    {"output_repeats",
     "lp_normalize: expected output without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) { lp_normalize(a.of(a.x), view(a.out.data(), {2, 6, 4}, {0, 4, 1}), {1}); }},
    {"grad_output", "lp_normalize_backward: expected grad_output of shape (2, 6, 4), got (6, 4)",
     [](Arrays& a) { lp_normalize_backward(view(a.dy.data(), {6, 4}), a.of(a.x), a.of(a.out), {1}); }},
    {"grad_input", "lp_normalize_backward: expected grad_input of shape (2, 6, 4), got (6, 4)",
     [](Arrays& a) { lp_normalize_backward(a.of(a.dy), a.of(a.x), view(a.out.data(), {6, 4}), {1}); }},
    {"grad_input_overlaps",
     "lp_normalize_backward: expected grad_input apart from grad_output, got arrays that share memory",
     [](Arrays& a) { lp_normalize_backward(a.of(a.dy), a.of(a.x), a.of(a.dy, 4), {1}); }},
};

class LpNormalizeErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, LpNormalizeErrors, testing::ValuesIn(table),
                         [](const auto& info) { return info.param.name; });

TEST_P(LpNormalizeErrors, SayWhatAndWriteNothing) { expect_refusal(GetParam().call, GetParam().message); }

}  // namespace
}  // namespace anynorm::test
