// SPDX-License-Identifier: Apache-2.0
// The five norms against their definition, for every layout of x and y and every mix of element types.
#include "anynorm/norms.hpp"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

struct Operands {
    TensorView x, y, weight, bias;
    MomentsView moments;
};

/// A norm, and the axes that define it. They are axes of `split`, which is x's shape or, for group norm, that with the
/// channel axis split in two: the elements are the same in C order.
struct Norm {
    const char* name;
    Shape shape, split;
    std::vector<int> reduce, parameters;
    bool per_channel;  ///< the parameters have one axis; else those of `parameters`
    void (*call)(const Operands&);

    friend void PrintTo(const Norm& self, std::ostream* out) { *out << self.name; }
};

constexpr double eps = 1e-3;

template <int channel_axis>
void call_batch(const Operands& o) {
    batch_norm(o.x, o.y,
               {.weight = o.weight,
                .bias = o.bias,
                .training = true,
                .eps = eps,
                .channel_axis = channel_axis,
                .moments = o.moments});
}
template <int channel_axis>
void call_instance(const Operands& o) {
    instance_norm(o.x, o.y,
                  {.weight = o.weight, .bias = o.bias, .eps = eps, .channel_axis = channel_axis, .moments = o.moments});
}
template <int channel_axis, int groups>
void call_group(const Operands& o) {
    group_norm(o.x, o.y, groups,
               {.weight = o.weight, .bias = o.bias, .eps = eps, .channel_axis = channel_axis, .moments = o.moments});
}
template <int... axes>
void call_layer(const Operands& o) {
    layer_norm(o.x, o.y, {axes...}, {.weight = o.weight, .bias = o.bias, .eps = eps, .moments = o.moments});
}
template <int... axes>
void call_rms(const Operands& o) {
    rms_norm(o.x, o.y, {axes...}, {.weight = o.weight, .eps = eps, .moments = o.moments});
}

const Norm norms[] = {
    {"batch", {3, 8, 5, 6}, {3, 8, 5, 6}, {0, 2, 3}, {1}, true, call_batch<1>},
    {"batch_channels_last", {3, 5, 6, 8}, {3, 5, 6, 8}, {0, 1, 2}, {3}, true, call_batch<-1>},
    {"batch_matrix", {40, 7}, {40, 7}, {0}, {1}, true, call_batch<-1>},
    {"batch_first_axis", {4, 9, 5}, {4, 9, 5}, {1, 2}, {0}, true, call_batch<-3>},
    {"instance", {3, 8, 5, 6}, {3, 8, 5, 6}, {2, 3}, {1}, true, call_instance<1>},
    {"instance_channels_last", {3, 5, 6, 8}, {3, 5, 6, 8}, {1, 2}, {3}, true, call_instance<-1>},
    {"instance_matrix", {4, 7}, {4, 7}, {}, {1}, true, call_instance<1>},
    {"group", {3, 8, 5, 6}, {3, 4, 2, 5, 6}, {2, 3, 4}, {1, 2}, true, call_group<1, 4>},
    {"group_channels_last", {3, 5, 6, 8}, {3, 5, 6, 4, 2}, {1, 2, 4}, {3, 4}, true, call_group<-1, 4>},
    {"group_of_all", {3, 8, 5, 6}, {3, 1, 8, 5, 6}, {2, 3, 4}, {1, 2}, true, call_group<1, 1>},
    {"group_matrix", {5, 12}, {5, 3, 4}, {2}, {1, 2}, true, call_group<1, 3>},
    {"layer", {3, 4, 33}, {3, 4, 33}, {2}, {2}, false, call_layer<-1>},
    {"layer_two_axes", {3, 4, 5, 6}, {3, 4, 5, 6}, {2, 3}, {2, 3}, false, call_layer<3, -2>},
    {"layer_over_channels", {3, 8, 5, 6}, {3, 8, 5, 6}, {1}, {1}, false, call_layer<1>},
    {"layer_over_all", {3, 4, 5}, {3, 4, 5}, {0, 1, 2}, {0, 1, 2}, false, call_layer<0, 1, 2>},
    {"layer_over_none", {3, 4}, {3, 4}, {}, {}, false, call_layer<>},
    {"rms", {3, 4, 33}, {3, 4, 33}, {2}, {2}, false, call_rms<-1>},
    {"rms_first_axes", {3, 8, 5}, {3, 8, 5}, {0, 1}, {0, 1}, false, call_rms<0, 1>},
};

enum class Types : std::uint8_t { f32, f64, f32_to_f64, f64_to_f32 };
const char* const type_names[] = {"f32", "f64", "f32_to_f64", "f64_to_f32"};

class Norms : public testing::TestWithParam<std::tuple<Norm, Types>> {
  protected:
    const Norm& norm() const { return std::get<0>(GetParam()); }

    /// Calls test(X{}, Y{}) with the element types of x and y.
    template <class Test>
    void with_types(Test&& test) const {
        switch (std::get<1>(GetParam())) {
            case Types::f32:
                return test(float{}, float{});
            case Types::f64:
                return test(double{}, double{});
            case Types::f32_to_f64:
                return test(float{}, double{});
            case Types::f64_to_f32:
                return test(double{}, float{});
        }
    }
};

std::string norm_name(const testing::TestParamInfo<std::tuple<Norm, Types>>& info) {
    return std::string(std::get<0>(info.param).name) + "_" + type_names[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(, Norms,
                         testing::Combine(testing::ValuesIn(norms),
                                          testing::Values(Types::f32, Types::f64, Types::f32_to_f64,
                                                          Types::f64_to_f32)),
                         norm_name);

Shape shape_along(const Shape& shape, const std::vector<int>& axes) {
    Shape result;
    for (int axis : axes) result.push_back(at(shape, axis));
    return result;
}

/// One call in one pair of layouts: y, its gaps and the moments.
template <class X, class Y>
void expect_norm(const Norm& norm, const Layout& x_layout, const Layout& y_layout) {
    SCOPED_TRACE(std::string(x_layout.name) + " to " + y_layout.name);
    Random random(1);
    Tensor<X> x(norm.shape, x_layout);
    Tensor<Y> y(norm.shape, y_layout);
    x.fill([&](std::int64_t) { return 3 + random.unit(); });
    const std::vector<X> input = x.values();

    const Numbering sets = sets_of(norm.split, norm.reduce);
    ExactParameter weight{number_along(norm.split, norm.parameters), {}}, bias = weight;
    for (std::int64_t i = 0; i < weight.places.count; ++i) {
        weight.values.push_back(random.uniform(0.5, 1.5));
        bias.values.push_back(random.uniform(-1, 1));
    }
    const Shape parameter_shape =
        norm.per_channel ? Shape{weight.places.count} : shape_along(norm.split, norm.parameters);
    Tensor<double> w(parameter_shape, {.name = "reversed", .reversed = true});
    Tensor<double> b(parameter_shape, {.name = "strided", .step = 2});
    w.fill([&](std::int64_t i) { return at(weight.values, i); });
    b.fill([&](std::int64_t i) { return at(bias.values, i); });
    const bool rms = std::string(norm.name).starts_with("rms");
    if (rms) bias.values.clear();

    std::vector<int> kept;
    for (int axis = 0; axis < static_cast<int>(norm.split.size()); ++axis) {
        if (std::find(norm.reduce.begin(), norm.reduce.end(), axis) == norm.reduce.end()) kept.push_back(axis);
    }
    const Shape statistics = shape_along(norm.split, kept);
    Tensor<double> count(statistics), mean(statistics, {.name = "fortran", .order = Layout::Order::fortran}),
        m2(statistics);
    norm.call({x.view(), y.view(), w.view(), b.view(), {count.view(), mean.view(), m2.view()}});

    const std::vector<ExactMoments> exact = exact_moments(input, sets, !rms);
    const double tolerance = sizeof(Y) == 4 ? 1e-6 : 1e-14;
    EXPECT_LT(largest_error(y.values(), exact_normalize(input, sets, exact, eps, weight, bias)), tolerance);
    EXPECT_EQ(y.changed_gaps(), 0);
    EXPECT_EQ(different_bits(x.values(), input), 0);
    for (std::int64_t set = 0; set < sets.count; ++set) {
        EXPECT_EQ(count[set], static_cast<double>(at(exact, set).count));
        EXPECT_NEAR(mean[set], static_cast<double>(at(exact, set).mean), 1e-14);
        EXPECT_NEAR(m2[set], static_cast<double>(at(exact, set).m2), 1e-13 * static_cast<double>(at(exact, set).m2));
    }
}

TEST_P(Norms, EqualTheirDefinition) {
    with_types([&](auto x, auto y) {
        for (const Layout& layout : layouts()) {
            expect_norm<decltype(x), decltype(y)>(norm(), layout, layout);
            expect_norm<decltype(x), decltype(y)>(norm(), layout, layouts().front());
            expect_norm<decltype(x), decltype(y)>(norm(), layouts().front(), layout);
        }
    });
}

class NormsInPlace : public Norms {};
INSTANTIATE_TEST_SUITE_P(, NormsInPlace,
                         testing::Combine(testing::ValuesIn(norms), testing::Values(Types::f32, Types::f64)),
                         norm_name);

TEST_P(NormsInPlace, GiveTheSameBits) {
    with_types([&](auto type, auto) {
        for (const Layout& layout : layouts()) {
            SCOPED_TRACE(layout.name);
            Random random(2);
            Tensor<decltype(type)> x(norm().shape, layout), y(norm().shape, layout);
            x.fill([&](std::int64_t) { return random.unit(); });
            norm().call({x.view(), y.view(), {}, {}, {}});
            norm().call({x.view(), x.view(), {}, {}, {}});
            EXPECT_EQ(different_bits(x.values(), y.values()), 0);
        }
    });
}

TEST(RmsNorm, EpsIsTheMachineEpsilonOfX) {
    std::vector<float> x(4, 1e-4f), y(4);
    std::vector<double> wide(4, 1e-4), wide_y(4);
    rms_norm(view(x.data(), {4}), view(y.data(), {4}), {0});
    rms_norm(view(wide.data(), {4}), view(wide_y.data(), {4}), {0});
    const double square = static_cast<double>(x[0]) * static_cast<double>(x[0]);
    EXPECT_NEAR(static_cast<double>(y[0]), static_cast<double>(x[0]) / std::sqrt(square + 0x1p-23), 1e-7);
    EXPECT_NEAR(wide_y[0], 1e-4 / std::sqrt(1e-8 + 0x1p-52), 1e-14);
}

TEST(LayerNorm, EpsIsAddedToTheVariance) {
    const std::vector<double> x = {-1, 1};
    std::vector<double> y(2);
    layer_norm(view(x.data(), {2}), view(y.data(), {2}), {0}, {.eps = 3});
    EXPECT_EQ(y, (std::vector<double>{-0.5, 0.5}));
    layer_norm(view(x.data(), {2}), view(y.data(), {2}), {0}, {.eps = 0});
    EXPECT_EQ(y, x);
}

}  // namespace
}  // namespace anynorm::test
