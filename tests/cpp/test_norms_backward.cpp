// SPDX-License-Identifier: Apache-2.0
// The gradients of the five norms: those of normalize_backward() over axes that are placed by hand; what is refused.
#include <gtest/gtest.h>

#include <functional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "refusal.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

constexpr double eps = 1e-3;

struct Operands {
    TensorView grad_output, x, weight, bias;
    Gradients gradients;
    MomentsView given;
    RunningStatistics running;
};

/// A norm's backward call, and the axes that define it. They are axes of `split`, which is x's shape or, for group
/// norm, that with the channel axis split in two: the elements are the same in C order.
struct Norm {
    const char* name;
    Shape shape, split;
    std::vector<int> reduce, parameters;
    bool per_channel;  ///< the parameters have one axis; else those of `parameters`
    void (*call)(const Operands&);
    bool center = true, frozen = false;

    friend void PrintTo(const Norm& self, std::ostream* out) { *out << self.name; }
};

template <int channel_axis, bool training = true>
void call_batch(const Operands& o) {
    batch_norm_backward(o.grad_output, o.x, o.gradients,
                        {.weight = o.weight,
                         .bias = o.bias,
                         .running = o.running,
                         .training = training,
                         .eps = eps,
                         .channel_axis = channel_axis,
                         .given = o.given});
}
template <int channel_axis, bool use_input_stats = true>
void call_instance(const Operands& o) {
    instance_norm_backward(o.grad_output, o.x, o.gradients,
                           {.weight = o.weight,
                            .bias = o.bias,
                            .running = o.running,
                            .use_input_stats = use_input_stats,
                            .eps = eps,
                            .channel_axis = channel_axis,
                            .given = o.given});
}
template <int channel_axis, int groups>
void call_group(const Operands& o) {
    group_norm_backward(
        o.grad_output, o.x, groups, o.gradients,
        {.weight = o.weight, .bias = o.bias, .eps = eps, .channel_axis = channel_axis, .given = o.given});
}
template <int... axes>
void call_layer(const Operands& o) {
    layer_norm_backward(o.grad_output, o.x, {axes...}, o.gradients,
                        {.weight = o.weight, .bias = o.bias, .eps = eps, .given = o.given});
}
template <int... axes>
void call_rms(const Operands& o) {
    rms_norm_backward(o.grad_output, o.x, {axes...}, {o.gradients.grad_input, o.gradients.grad_weight, {}},
                      {.weight = o.weight, .eps = eps, .given = o.given});
}

const Norm norms[] = {
    {"batch", {3, 8, 5, 6}, {3, 8, 5, 6}, {0, 2, 3}, {1}, true, call_batch<1>},
    {"batch_channels_last", {3, 5, 6, 8}, {3, 5, 6, 8}, {0, 1, 2}, {3}, true, call_batch<-1>},
    {"batch_matrix", {40, 7}, {40, 7}, {0}, {1}, true, call_batch<-1>},
    {"batch_first_axis", {4, 9, 5}, {4, 9, 5}, {1, 2}, {0}, true, call_batch<-3>},
    {"batch_frozen", {3, 8, 5, 6}, {3, 8, 5, 6}, {0, 2, 3}, {1}, true, call_batch<1, false>, true, true},
    {"instance", {3, 8, 5, 6}, {3, 8, 5, 6}, {2, 3}, {1}, true, call_instance<1>},
    {"instance_channels_last", {3, 5, 6, 8}, {3, 5, 6, 8}, {1, 2}, {3}, true, call_instance<-1>},
    {"instance_frozen", {3, 5, 6, 8}, {3, 5, 6, 8}, {1, 2}, {3}, true, call_instance<-1, false>, true, true},
    {"group", {3, 8, 5, 6}, {3, 4, 2, 5, 6}, {2, 3, 4}, {1, 2}, true, call_group<1, 4>},
    {"group_channels_last", {3, 5, 6, 8}, {3, 5, 6, 4, 2}, {1, 2, 4}, {3, 4}, true, call_group<-1, 4>},
    {"group_of_all", {3, 8, 5, 6}, {3, 1, 8, 5, 6}, {2, 3, 4}, {1, 2}, true, call_group<1, 1>},
    {"layer", {3, 4, 33}, {3, 4, 33}, {2}, {2}, false, call_layer<-1>},
    {"layer_two_axes", {3, 4, 5, 6}, {3, 4, 5, 6}, {2, 3}, {2, 3}, false, call_layer<3, -2>},
    {"layer_over_channels", {3, 8, 5, 6}, {3, 8, 5, 6}, {1}, {1}, false, call_layer<1>},
    {"layer_over_all", {3, 4, 5}, {3, 4, 5}, {0, 1, 2}, {0, 1, 2}, false, call_layer<0, 1, 2>},
    {"layer_over_none", {3, 4}, {3, 4}, {}, {}, false, call_layer<>},
    {"rms", {3, 4, 33}, {3, 4, 33}, {2}, {2}, false, call_rms<-1>, false},
    {"rms_first_axes", {3, 8, 5}, {3, 8, 5}, {0, 1}, {0, 1}, false, call_rms<0, 1>, false},
};

/// The lengths along some axes, and 1 along the others.
Shape spread(const Shape& shape, const std::vector<int>& axes) {
    Shape result(shape.size(), 1);
    for (const int axis : axes) at(result, axis) = at(shape, axis);
    return result;
}

Shape along(const Shape& shape, const std::vector<int>& axes) {
    Shape result;
    for (const int axis : axes) result.push_back(at(shape, axis));
    return result;
}

std::vector<int> all_but(const std::vector<int>& axes, int rank) {
    std::vector<int> result;
    for (int axis = 0; axis < rank; ++axis) {
        if (std::find(axes.begin(), axes.end(), axis) == axes.end()) result.push_back(axis);
    }
    return result;
}

class NormsBackward : public testing::TestWithParam<Norm> {};
INSTANTIATE_TEST_SUITE_P(, NormsBackward, testing::ValuesIn(norms),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(NormsBackward, AreThoseOfNormalizeOnPlacedAxes) {
    const Norm& norm = GetParam();
    const Shape placed = spread(norm.split, norm.parameters);
    const Shape named = norm.per_channel ? Shape{size_of(placed)} : along(norm.split, norm.parameters);
    const std::vector<int> kept = all_but(norm.reduce, static_cast<int>(norm.split.size()));
    const bool rms = !norm.center;
    for (const bool given : {false, true}) {
        SCOPED_TRACE(given ? "given moments" : "statistics of x");
        Random random(6);
        Tensor<float> dy(norm.shape), x(norm.shape), dx(norm.shape), expected_dx(norm.split);
        Tensor<double> weight(named), bias(named), dw(named), db(named), expected_dw(placed), expected_db(placed);
        Tensor<double> count(along(norm.split, kept)), mean(count.shape()), m2(count.shape());
        Tensor<float> running_mean(named), running_var(named);
        dy.fill([&](std::int64_t) { return random.unit(); });
        x.fill([&](std::int64_t) { return 3 + random.unit(); });
        weight.fill([&](std::int64_t) { return random.uniform(-2, 2); });
        running_mean.fill([&](std::int64_t) { return random.uniform(2, 4); });
        running_var.fill([&](std::int64_t) { return random.uniform(1, 2); });

        // The same elements over the shape that has the norm's axes.
        const auto view_of = [](auto& tensor, const Shape& shape) {
            TensorView result = tensor.view();
            return view(static_cast<std::remove_reference_t<decltype(tensor[0])>*>(result.data),
                        std::span<const std::int64_t>(shape));
        };
        const TensorView split_x = view_of(x, norm.split);
        const Grouping sets{Axes(std::span<const int>(norm.reduce))};
        const MomentsView views{count.view(), mean.view(), m2.view()};
        if (norm.frozen && !given) {
            for (std::int64_t i = 0; i < count.size(); ++i) {
                count[i] = 1;
                mean[i] = static_cast<double>(running_mean[i % running_mean.size()]);
                m2[i] = static_cast<double>(running_var[i % running_var.size()]);
            }
        } else {
            moments(split_x, sets, views, {.center = norm.center});
        }
        Operands operands{dy.view(), x.view(), weight.view(), bias.view(), {dx.view(), dw.view(), db.view()}, {}, {}};
        if (given) operands.given = views;
        if (norm.frozen) operands.running = {running_mean.view(), running_var.view(), 0.1};
        norm.call(operands);

        NormalizeBackwardOptions options{
            .weight = view_of(weight, placed), .eps = eps, .center = norm.center, .frozen = norm.frozen};
        if (given || norm.frozen) options.given = views;
        normalize_backward(view_of(dy, norm.split), split_x, sets,
                           {expected_dx.view(), expected_dw.view(), rms ? TensorView{} : expected_db.view()}, options);
        EXPECT_EQ(different_bits(dx.values(), expected_dx.values()), 0);
        EXPECT_EQ(different_bits(dw.values(), expected_dw.values()), 0);
        EXPECT_EQ(different_bits(db.values(), expected_db.values()), 0);
    }
}

TEST(RmsNormBackward, EpsIsTheMachineEpsilonOfX) {
    std::vector<float> dy = {1, 0, 0, 2}, x(4, 1e-4f), dx(4), expected(4);
    const auto all = [](std::vector<float>& values) { return view(values.data(), {4}); };
    rms_norm_backward(all(dy), all(x), {0}, {.grad_input = all(dx)});
    rms_norm_backward(all(dy), all(x), {0}, {.grad_input = all(expected)}, {.eps = 0x1p-23});
    EXPECT_EQ(dx, expected);
}

// --- errors ----------------------------------------------------------------------------------------------------------

/// Every array that a call may take, of which none may change. x is (2, 6, 4).
struct Arrays {
    std::vector<float> dy = std::vector<float>(100, 1.5f), x = std::vector<float>(100, 2.5f),
                       dx = std::vector<float>(200, 3.5f);
    std::vector<double> weight = numbers(48, 4.5), bias = numbers(48, 5.5), dw = numbers(48, 6.5),
                        db = numbers(48, 7.5), count = numbers(48, 8.5), mean = numbers(48, 9.5),
                        m2 = numbers(48, 10.5);

    TensorView dy_view() { return view(dy.data(), {2, 6, 4}); }
    TensorView x_view() { return view(x.data(), {2, 6, 4}); }
    TensorView dx_view() { return view(dx.data(), {2, 6, 4}); }
    MomentsView given(std::initializer_list<std::int64_t> shape) {
        return {view(count.data(), shape), view(mean.data(), shape), view(m2.data(), shape)};
    }

    friend bool operator==(const Arrays&, const Arrays&) = default;
};

TensorView of(std::vector<double>& values, std::initializer_list<std::int64_t> shape) {
    return view(values.data(), shape);
}

struct Row {
    const char* name;
    const char* message;
    void (*call)(Arrays&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    // grad_output and x
    {"without_grad_output",
     "normalize_backward: expected grad_output of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { normalize_backward({}, a.x_view(), {{2}}, {a.dx_view(), {}, {}}); }},
    {"without_x", "layer_norm_backward: expected x of dtype float16, bfloat16, float32 or float64, got none",
     [](Arrays& a) { layer_norm_backward(a.dy_view(), {}, {2}, {a.dx_view(), {}, {}}); }},
    {"grad_output_of_other_shape", "rms_norm_backward: expected grad_output of shape (2, 6, 4), got (2, 4, 6)",
     [](Arrays& a) { rms_norm_backward(view(a.dy.data(), {2, 4, 6}), a.x_view(), {2}, {a.dx_view(), {}, {}}); }},
    {"grad_output_of_groups", "group_norm_backward: expected grad_output of shape (2, 6, 4), got (48,)",
     [](Arrays& a) { group_norm_backward(view(a.dy.data(), {48}), a.x_view(), 2, {a.dx_view(), {}, {}}); }},
    {"batch_of_rank_1", "batch_norm_backward: expected x of rank 2 to 16, got 1",
     [](Arrays& a) { batch_norm_backward(view(a.dy.data(), {6}), view(a.x.data(), {6}), {}, {.training = true}); }},
    {"group_of_rank_16", "group_norm_backward: expected x of rank 2 to 15, got 16",
     [](Arrays& a) {
         const TensorView x = view(a.x.data(), {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
         group_norm_backward(x, x, 1, {});
     }},
    // axes
    {"axis_too_high", "normalize_backward: expected axis from -3 to 2, got 3",
     [](Arrays& a) { normalize_backward(a.dy_view(), a.x_view(), {{3}}, {a.dx_view(), {}, {}}); }},
    {"instance_channel_axis_0",
     "instance_norm_backward: expected channel_axis other than 0, the axis of the samples, got 0",
     [](Arrays& a) { instance_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}}, {.channel_axis = -3}); }},
    {"groups_that_do_not_divide",
     "group_norm_backward: expected num_groups of at least 1 that divides the number of channels, got 6 channels and "
     "num_groups=4",
     [](Arrays& a) { group_norm_backward(a.dy_view(), a.x_view(), 4, {a.dx_view(), {}, {}}); }},
    // parameters
    {"layer_weight", "layer_norm_backward: expected weight of shape (4,), got (6,)",
     [](Arrays& a) {
         layer_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), {}, {}}, {.weight = of(a.weight, {6})});
     }},
    {"layer_bias", "layer_norm_backward: expected bias of shape (6, 4), got (24,)",
     [](Arrays& a) {
         layer_norm_backward(a.dy_view(), a.x_view(), {1, 2}, {a.dx_view(), {}, {}}, {.bias = of(a.bias, {24})});
     }},
    {"rms_weight", "rms_norm_backward: expected weight of shape (4,), got (4, 1)",
     [](Arrays& a) {
         rms_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), {}, {}}, {.weight = of(a.weight, {4, 1})});
     }},
    {"group_bias", "group_norm_backward: expected bias of shape (6,), got (2,)",
     [](Arrays& a) {
         group_norm_backward(a.dy_view(), a.x_view(), 2, {a.dx_view(), {}, {}}, {.bias = of(a.bias, {2})});
     }},
    {"batch_bias", "batch_norm_backward: expected bias of shape (6,), got (4,)",
     [](Arrays& a) {
         batch_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}},
                             {.bias = of(a.bias, {4}), .training = true});
     }},
    {"normalize_bias", "normalize_backward: expected bias of a shape that broadcasts to (2, 6, 4), got (6,)",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), {}, {}}, {.bias = of(a.bias, {6})});
     }},
    // where to write
    {"grad_input", "batch_norm_backward: expected grad_input of shape (2, 6, 4), got (48,)",
     [](Arrays& a) {
         batch_norm_backward(a.dy_view(), a.x_view(), {view(a.dx.data(), {48}), {}, {}}, {.training = true});
     }},
    {"grad_input_of_groups", "group_norm_backward: expected grad_input of shape (2, 6, 4), got (2, 2, 3, 4)",
     [](Arrays& a) { group_norm_backward(a.dy_view(), a.x_view(), 2, {view(a.dx.data(), {2, 2, 3, 4}), {}, {}}); }},
    {"grad_weight", "layer_norm_backward: expected grad_weight of shape (4,), got (6,)",
     [](Arrays& a) { layer_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), of(a.dw, {6}), {}}); }},
    {"grad_bias", "instance_norm_backward: expected grad_bias of shape (6,), got (2, 6)",
     [](Arrays& a) { instance_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, of(a.db, {2, 6})}); }},
    {"grad_bias_of_rms", "rms_norm_backward: expected no grad_bias, for want of a bias, got one",
     [](Arrays& a) { rms_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), {}, of(a.db, {4})}); }},
    {"grad_weight_not_of_weight", "normalize_backward: expected grad_weight of shape (4,), got (6, 1)",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), of(a.dw, {6, 1}), {}},
                            {.weight = of(a.weight, {4})});
     }},
    {"grad_bias_not_of_bias", "normalize_backward: expected grad_bias of shape (6, 1), got (1,)",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), {}, of(a.db, {1})},
                            {.bias = of(a.bias, {6, 1})});
     }},
    {"grad_weight_that_does_not_broadcast",
     "normalize_backward: expected grad_weight of a shape that broadcasts to (2, 6, 4), got (6,)",
     [](Arrays& a) { normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), of(a.dw, {6}), {}}); }},
    {"grad_input_overlaps_x", "normalize_backward: expected grad_input apart from x, got arrays that share memory",
     [](Arrays& a) { normalize_backward(a.dy_view(), a.x_view(), {{2}}, {view(a.x.data() + 1, {2, 6, 4}), {}, {}}); }},
    {"grad_weight_is_weight",
     "layer_norm_backward: expected grad_weight apart from weight, got arrays that share memory",
     [](Arrays& a) {
         layer_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), of(a.weight, {4}), {}},
                             {.weight = of(a.weight, {4})});
     }},
    {"grad_bias_is_grad_weight",
     "batch_norm_backward: expected grad_bias apart from grad_weight, got arrays that share memory",
     [](Arrays& a) {
         batch_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), of(a.dw, {6}), of(a.dw, {6})}, {.training = true});
     }},
    {"grad_input_repeats",
     "normalize_backward: expected grad_input without elements that share memory, got strides that reach one element "
     "twice",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{2}}, {view(a.dx.data(), {2, 6, 4}, {0, 4, 1}), {}, {}});
     }},
    {"grad_input_is_a_given_mean",
     "normalize_backward: expected grad_input apart from the given mean, got arrays that share memory",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{}}, {view(a.mean.data(), {2, 6, 4}), {}, {}},
                            {.given = a.given({2, 6, 4})});
     }},
    {"grad_input_is_a_given_mean_low",
     "normalize_backward: expected grad_input apart from the given mean_low, got arrays that share memory",
     [](Arrays& a) {
         MomentsView given = a.given({2, 6, 4});
         given.mean_low = view(a.dx.data(), {2, 6, 4});
         normalize_backward(a.dy_view(), a.x_view(), {{}}, {a.dx_view(), {}, {}}, {.given = given});
     }},
    // options
    {"eps_negative", "layer_norm_backward: expected eps of at least 0, got -1",
     [](Arrays& a) { layer_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dx_view(), {}, {}}, {.eps = -1}); }},
    {"threads_negative", "group_norm_backward: expected num_threads of at least 0, got -1",
     [](Arrays& a) { group_norm_backward(a.dy_view(), a.x_view(), 2, {a.dx_view(), {}, {}}, {.num_threads = -1}); }},
    {"given_in_part", "normalize_backward: expected given moments with count, mean and m2, got some of them",
     [](Arrays& a) {
         normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), {}, {}},
                            {.given = {{}, of(a.mean, {2, 6}), {}}});
     }},
    {"given_of_other_shape", "batch_norm_backward: expected moments.count of shape (6,), got (4,)",
     [](Arrays& a) {
         batch_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}}, {.training = true, .given = a.given({4})});
     }},
    {"frozen_without_moments", "normalize_backward: expected the moments that are frozen, got none",
     [](Arrays& a) { normalize_backward(a.dy_view(), a.x_view(), {{2}}, {a.dx_view(), {}, {}}, {.frozen = true}); }},
    {"batch_without_statistics",
     "batch_norm_backward: expected running_mean and running_var, whose statistics are used, got none",
     [](Arrays& a) { batch_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}}); }},
    {"instance_without_statistics",
     "instance_norm_backward: expected running_mean and running_var, whose statistics are used, got none",
     [](Arrays& a) {
         instance_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}}, {.use_input_stats = false});
     }},
    {"running_mean_only", "batch_norm_backward: expected running mean and variance together, got the mean only",
     [](Arrays& a) {
         batch_norm_backward(a.dy_view(), a.x_view(), {a.dx_view(), {}, {}}, {.running = {of(a.mean, {6}), {}}});
     }},
};

class BackwardErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, BackwardErrors, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(BackwardErrors, SayWhatAndWriteNothing) { expect_refusal(GetParam().call, GetParam().message); }

/// What looks like one of the errors, and is not.
TEST(BackwardNoError, InPlaceOverTheBiasAndNothingAtAll) {
    Arrays a;
    EXPECT_NO_THROW(layer_norm_backward(a.dy_view(), a.x_view(), {2}, {a.dy_view(), {}, of(a.bias, {4})},
                                        {.bias = of(a.bias, {4})}));
    EXPECT_NO_THROW(normalize_backward(a.dy_view(), a.x_view(), {{2}}, {}));
    EXPECT_NO_THROW(batch_norm_backward(a.dy_view(), a.x_view(), {a.x_view(), {}, {}}, {.training = true}));
}

}  // namespace
}  // namespace anynorm::test
