// SPDX-License-Identifier: Apache-2.0
// normalize_backward() against the definition in long double, for every way in which sets and parameters can lie in
// memory, and its bits against themselves.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "anynorm/normalize.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

/// Which axes are averaged over, and which the parameters vary along.
struct Kind {
    const char* name;
    Shape shape;
    std::vector<int> reduce, parameters;
    bool center = true, frozen = false;

    friend void PrintTo(const Kind& self, std::ostream* out) { *out << self.name; }
};

std::vector<Kind> kinds() {
    return {
        {"batch", {5, 6, 4, 7}, {0, 2, 3}, {1}},
        {"batch_frozen", {5, 6, 4, 7}, {0, 2, 3}, {1}, true, true},
        {"columns", {50, 37}, {0}, {1}},
        {"layer", {11, 50}, {1}, {1}},
        {"layer_three_axes", {6, 5, 4, 9}, {1, 2, 3}, {1, 2, 3}},
        {"rms", {13, 30}, {1}, {1}, false},
        {"instance", {6, 5, 9, 8}, {2, 3}, {1}},
        {"group", {6, 4, 5, 9, 8}, {2, 3, 4}, {1, 2}},
        {"everything", {13, 21, 17}, {0, 1, 2}, {1}},
        {"nothing", {4, 5}, {}, {1}},
        {"scalar_parameter", {4, 5, 6}, {1}, {}},
        {"parameters_everywhere", {4, 15, 16}, {0, 2}, {0, 1, 2}},
        {"mixed", {6, 7, 8, 9}, {1, 3}, {0, 1}},
    };
}

/// Large enough for several pieces, several threads and every way to cut.
std::vector<Kind> large_kinds() {
    return {
        {"batch", {9, 40, 13, 17}, {0, 2, 3}, {1}}, {"batch_three_channels", {40, 3, 31, 33}, {0, 2, 3}, {1}},
        {"columns", {1500, 37}, {0}, {1}},          {"columns_wide", {70, 1100}, {0}, {1}},
        {"layer_many", {3000, 20}, {1}, {1}},       {"layer_few_long", {3, 40000}, {1}, {1}},
        {"rms", {130, 300}, {1}, {1}, false},       {"group", {5, 4, 8, 40, 31}, {2, 3, 4}, {1, 2}},
        {"columns_of_3", {30001, 3}, {0}, {1}},     {"columns_of_24", {5003, 24}, {0}, {1}},
    };
}

/// Few neighbours in the last place, which repeat: joined to rows of whole packs where there is such a row, and a rest.
std::vector<Kind> few_channels() {
    return {
        {"columns_of_3", {1201, 3}, {0}, {1}},         {"columns_of_16", {515, 16}, {0}, {1}},
        {"columns_of_31", {83, 31}, {0}, {1}},         {"columns_of_33", {700, 33}, {0}, {1}},
        {"columns_of_100", {401, 100}, {0}, {1}},      {"columns_frozen", {515, 12}, {0}, {1}, true, true},
        {"columns_one_parameter", {515, 12}, {0}, {}}, {"instance_last", {3, 171, 12}, {1}, {2}},
        {"instance_short", {40, 5, 3}, {1}, {2}},      {"group_last", {2, 173, 4, 3}, {1, 3}, {2, 3}},
        {"parameter_along_rows", {515, 8}, {0}, {0}},
    };
}

/// Everything in C order.
struct Exact {
    std::vector<long double> grad_input, grad_weight, grad_bias;
};

Exact exact_backward(const Kind& kind, const std::vector<double>& dy, const std::vector<double>& x,
                     const std::vector<ExactMoments>& moments, const std::vector<double>& weight, double eps) {
    const Numbering sets = sets_of(kind.shape, kind.reduce), places = number_along(kind.shape, kind.parameters);
    const auto set_count = static_cast<std::size_t>(sets.count), size = static_cast<std::size_t>(places.count);
    std::vector<long double> g_mean(set_count), g_xhat_mean(set_count), xhat(x.size()), rstd(set_count);
    std::vector<long double> count(set_count);
    Exact exact{std::vector<long double>(x.size()), std::vector<long double>(size), std::vector<long double>(size)};
    for (std::size_t set = 0; set < set_count; ++set)
        rstd[set] = 1 / std::sqrt(moments[set].m2 / moments[set].count + static_cast<long double>(eps));
    for (std::size_t i = 0; i < x.size(); ++i) {
        const auto set = static_cast<std::size_t>(sets.of[i]), place = static_cast<std::size_t>(places.of[i]);
        xhat[i] = (static_cast<long double>(x[i]) - moments[set].mean) * rstd[set];
        const long double g = static_cast<long double>(dy[i]) * weight[place];
        count[set] += 1;
        g_mean[set] += g;
        g_xhat_mean[set] += g * xhat[i];
        exact.grad_weight[place] += dy[i] * xhat[i];
        exact.grad_bias[place] += dy[i];
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        const auto set = static_cast<std::size_t>(sets.of[i]), place = static_cast<std::size_t>(places.of[i]);
        long double g = static_cast<long double>(dy[i]) * weight[place];
        if (!kind.frozen) g -= (kind.center ? g_mean[set] : 0) / count[set] + xhat[i] * g_xhat_mean[set] / count[set];
        exact.grad_input[i] = rstd[set] * g;
    }
    return exact;
}

Shape parameter_shape(const Kind& kind) {
    Shape shape(kind.shape.size(), 1);
    for (const int axis : kind.parameters) at(shape, axis) = at(kind.shape, axis);
    return shape;
}

template <class T>
std::vector<double> as_doubles(Tensor<T>& tensor) {
    std::vector<double> values;
    for (std::int64_t i = 0; i < tensor.size(); ++i) values.push_back(static_cast<double>(tensor[i]));
    return values;
}

Axes axes_of(const std::vector<int>& axes) { return Axes(std::span<const int>(axes)); }

/// A call of T on arrays in given layouts.
template <class T>
struct Backward {
    Kind kind;
    Tensor<T> dy, x, dx;
    Tensor<float> weight, grad_weight;
    Tensor<double> grad_bias, count, mean, m2;
    static constexpr double eps = 1e-3;

    Backward(const Kind& of, const Layout& dy_layout, const Layout& x_layout, const Layout& dx_layout)
        : kind(of),
          dy(of.shape, dy_layout),
          x(of.shape, x_layout),
          dx(of.shape, dx_layout),
          weight(parameter_shape(of)),
          grad_weight(parameter_shape(of)),
          grad_bias(parameter_shape(of)),
          count(statistics_shape()),
          mean(statistics_shape()),
          m2(statistics_shape()) {
        Random random(5);
        dy.fill([&](std::int64_t) { return 0.5 + random.unit(); });
        x.fill([&](std::int64_t) { return 20 + 3 * random.unit(); });
        weight.fill([&](std::int64_t) { return random.uniform(-2, 2); });
    }

    Shape statistics_shape() const {
        Shape shape = kind.shape;
        for (const int axis : kind.reduce) at(shape, axis) = 1;
        return shape;
    }

    MomentsView moments_views() { return {count.view(), mean.view(), m2.view()}; }

    void run(bool given = false, int threads = 0) {
        const Grouping sets{axes_of(kind.reduce)};
        NormalizeBackwardOptions options{
            .weight = weight.view(), .eps = eps, .center = kind.center, .frozen = kind.frozen, .num_threads = threads};
        if (given || kind.frozen) {
            moments(x.view(), sets, moments_views(), {.center = kind.center});
            options.given = moments_views();
        }
        normalize_backward(dy.view(), x.view(), sets, {dx.view(), grad_weight.view(), grad_bias.view()}, options);
    }

    Exact exact() {
        const std::vector<double> values = as_doubles(x);
        return exact_backward(kind, as_doubles(dy), values,
                              exact_moments(values, sets_of(kind.shape, kind.reduce), kind.center), as_doubles(weight),
                              eps);
    }

    void expect_exact(double tolerance) {
        const Exact right = exact();
        // Sums of n terms of size 1 are compared to their spread, sqrt(n), not to their value, which may be near 0.
        const double terms = static_cast<double>(x.size()) / static_cast<double>(weight.size());
        EXPECT_LT(largest_error(as_doubles(dx), right.grad_input), tolerance) << "grad_input";
        EXPECT_LT(largest_error(as_doubles(grad_weight), right.grad_weight), 2e-6 * std::sqrt(terms)) << "grad_weight";
        EXPECT_LT(largest_error(as_doubles(grad_bias), right.grad_bias), 1e-13 * terms) << "grad_bias";
        EXPECT_EQ(dx.changed_gaps(), 0);
    }
};

void expect_bits_of_one_thread(const Kind& kind) {
    Backward<float> one(kind, {}, {}, {});
    one.run(false, 1);
    for (const int threads : {2, 3, 7}) {
        Backward<float> other(kind, {}, {}, {});
        other.run(false, threads);
        EXPECT_EQ(different_bits(one.dx.values(), other.dx.values()), 0);
        EXPECT_EQ(different_bits(one.grad_weight.values(), other.grad_weight.values()), 0);
        EXPECT_EQ(different_bits(one.grad_bias.values(), other.grad_bias.values()), 0);
    }
}

class BackwardKinds : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, BackwardKinds, testing::ValuesIn(kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(FewChannels, BackwardKinds, testing::ValuesIn(few_channels()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(BackwardKinds, IsTheDefinitionInEveryLayout) {
    for (const Layout& layout : layouts()) {
        SCOPED_TRACE(layout.name);
        Backward<float> same(GetParam(), layout, layout, layout);
        same.run();
        same.expect_exact(3e-6);
        Backward<double> wide(GetParam(), layout, layout, layout);
        wide.run();
        wide.expect_exact(1e-12);
    }
}

class SlowBackwardKinds : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, SlowBackwardKinds, testing::ValuesIn(large_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(SlowBackwardKinds, IsTheDefinition) {
    for (const std::size_t layout : {0, 1, 4}) {  // c, channels last, strided
        SCOPED_TRACE(layouts().at(layout).name);
        Backward<float> call(GetParam(), layouts()[layout], layouts()[layout], layouts()[0]);
        call.run();
        call.expect_exact(3e-6);
    }
}

TEST_P(SlowBackwardKinds, BitsDoNotDependOnThreads) { expect_bits_of_one_thread(GetParam()); }

TEST_P(BackwardKinds, IsTheDefinitionInMixedLayouts) {
    const std::vector<Layout>& all = layouts();
    for (std::size_t i = 0; i < all.size(); ++i) {
        const Layout &dy = all[(i + 1) % all.size()], &dx = all[(i + 3) % all.size()];
        SCOPED_TRACE(std::string(all[i].name) + ", " + dy.name + ", " + dx.name);
        Backward<float> mixed(GetParam(), dy, all[i], dx);
        mixed.run();
        mixed.expect_exact(3e-6);
    }
}

TEST_P(BackwardKinds, OnEveryInstructionSet) {
    for (const Isa isa : isas_of_this_machine()) {
        SCOPED_TRACE(name(isa));
        const UseIsa use(isa);
        Backward<float> one(GetParam(), {}, {}, {});
        one.run();
        one.expect_exact(3e-6);
    }
}

TEST_P(BackwardKinds, BitsDoNotDependOnTheInstructionSet) {
    const std::vector<Isa> isas = isas_with_equal_bits();
    if (isas.size() < 2) GTEST_SKIP() << "one instruction set on this machine";
    const auto on = [](Isa isa) {
        const UseIsa use(isa);
        Backward<float> one(GetParam(), {}, {}, {});
        one.run();
        return one;
    };
    Backward<float> first = on(isas[0]);
    for (std::size_t i = 1; i < isas.size(); ++i) {
        Backward<float> other = on(isas[i]);
        EXPECT_EQ(different_bits(first.dx.values(), other.dx.values()), 0);
        EXPECT_EQ(different_bits(first.grad_weight.values(), other.grad_weight.values()), 0);
        EXPECT_EQ(different_bits(first.grad_bias.values(), other.grad_bias.values()), 0);
    }
}

TEST_P(BackwardKinds, TakesTheStatisticsOfTheForwardCall) {
    Backward<float> computed(GetParam(), {}, {}, {}), given(GetParam(), {}, {}, {});
    computed.run();
    given.run(true);
    given.expect_exact(3e-6);
}

TEST_P(BackwardKinds, BitsDoNotDependOnThreads) { expect_bits_of_one_thread(GetParam()); }

TEST_P(BackwardKinds, InPlace) {
    Backward<float> apart(GetParam(), {}, {}, {});
    apart.run();
    for (const bool over_x : {false, true}) {
        Backward<float> in_place(GetParam(), {}, {}, {});
        Tensor<float>& target = over_x ? in_place.x : in_place.dy;
        const Grouping sets{axes_of(GetParam().reduce)};
        moments(in_place.x.view(), sets, in_place.moments_views(), {.center = GetParam().center});
        NormalizeBackwardOptions options{.weight = in_place.weight.view(),
                                         .eps = Backward<float>::eps,
                                         .center = GetParam().center,
                                         .given = in_place.moments_views(),
                                         .frozen = GetParam().frozen};
        normalize_backward(in_place.dy.view(), in_place.x.view(), sets,
                           {target.view(), in_place.grad_weight.view(), in_place.grad_bias.view()}, options);
        std::vector<long double> expected;
        for (const float value : apart.dx.values()) expected.push_back(value);
        EXPECT_LT(largest_error(target.values(), expected), 3e-6);
    }
}

TEST_P(BackwardKinds, EachGradientIsOptional) {
    Backward<float> all(GetParam(), {}, {}, {});
    all.run();
    for (int only = 0; only < 3; ++only) {
        Backward<float> some(GetParam(), {}, {}, {});
        const Grouping sets{axes_of(GetParam().reduce)};
        NormalizeBackwardOptions options{.weight = some.weight.view(),
                                         .eps = Backward<float>::eps,
                                         .center = GetParam().center,
                                         .frozen = GetParam().frozen};
        if (GetParam().frozen) {
            moments(some.x.view(), sets, some.moments_views());
            options.given = some.moments_views();
        }
        Gradients gradients;
        if (only == 0) gradients.grad_input = some.dx.view();
        if (only == 1) gradients.grad_weight = some.grad_weight.view();
        if (only == 2) gradients.grad_bias = some.grad_bias.view();
        normalize_backward(some.dy.view(), some.x.view(), sets, gradients, options);
        std::vector<long double> expected;
        if (only == 0) {
            for (const float value : all.dx.values()) expected.push_back(value);
            EXPECT_LT(largest_error(some.dx.values(), expected), 1e-6);
        } else if (only == 1) {
            EXPECT_EQ(different_bits(some.grad_weight.values(), all.grad_weight.values()), 0);
        } else {
            EXPECT_EQ(different_bits(some.grad_bias.values(), all.grad_bias.values()), 0);
        }
    }
}

TEST(Backward, ParametersOfTwoShapes) {
    const Kind kind{"two", {20, 6, 30}, {2}, {1}};
    Backward<float> both(kind, {}, {}, {});
    both.run();
    Tensor<double> per_column({30});
    NormalizeBackwardOptions options{.weight = both.weight.view(), .eps = Backward<float>::eps};
    Tensor<float> grad_weight({1, 6, 1});
    normalize_backward(both.dy.view(), both.x.view(), {{2}}, {{}, grad_weight.view(), per_column.view()}, options);
    EXPECT_EQ(different_bits(grad_weight.values(), both.grad_weight.values()), 0);
    for (std::int64_t column = 0; column < 30; ++column) {
        double sum = 0;
        for (std::int64_t row = 0; row < 120; ++row) sum += static_cast<double>(both.dy[row * 30 + column]);
        EXPECT_NEAR(per_column[column], sum, 1e-12);
    }
}

TEST(Backward, NoElements) {
    Tensor<float> grad_weight({3}), grad_bias({3});
    const TensorView none = view(static_cast<float*>(nullptr), {0, 3});
    normalize_backward(none, none, {{0}}, {none, grad_weight.view(), grad_bias.view()});
    for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(grad_weight[i] + grad_bias[i], 0);
}

}  // namespace
}  // namespace anynorm::test
