// SPDX-License-Identifier: Apache-2.0
// What a norm does besides in the same pass: each fused call equals, to the bit, the calls that it stands for.
#include "anynorm/fusion.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {3, 8, 5, 6};

template <class T = float>
Tensor<T> sample(std::uint64_t seed, const Layout& layout = {}, const Shape& of = shape) {
    Random random(seed);
    Tensor<T> x(of, layout);
    x.fill([&](std::int64_t) { return 0.5 + 2 * random.unit(); });
    return x;
}

/// A norm of x into y with what is fused.
struct Norm {
    const char* title;
    std::function<void(const TensorView&, const TensorView&, const Fusion&)> call;
};

std::vector<Norm> norms() {
    return {
        {"layer", [](auto& x, auto& y, auto& f) { layer_norm(x, y, {-1}, {.fusion = f}); }},
        {"layer_channels", [](auto& x, auto& y, auto& f) { layer_norm(x, y, {1}, {.fusion = f}); }},
        {"rms", [](auto& x, auto& y, auto& f) { rms_norm(x, y, {2, 3}, {.fusion = f}); }},
        {"group", [](auto& x, auto& y, auto& f) { group_norm(x, y, 4, {.fusion = f}); }},
        {"instance", [](auto& x, auto& y, auto& f) { instance_norm(x, y, {.fusion = f}); }},
        {"batch", [](auto& x, auto& y, auto& f) { batch_norm(x, y, {.training = true, .fusion = f}); }},
        {"all", [](auto& x, auto& y, auto& f) { normalize(x, {Axes::range(0, 4)}, y, {.fusion = f}); }},
    };
}

constexpr Activation all_activations[] = {Activation::none, Activation::relu, Activation::silu, Activation::gelu,
                                          Activation::gelu_tanh};

/// The activation alone: statistics that leave x as it is.
template <class T>
std::vector<T> activated(Tensor<T>& h, Activation activation) {
    double count = 1, mean = 0, m2 = 1;
    NormalizeOptions options;
    options.given = {view(&count, {}), view(&mean, {}), view(&m2, {})};
    options.eps = 0;
    options.fusion.activation = activation;
    Tensor<T> y(h.shape());
    normalize(h.view(), {Axes::range(0, 4)}, y.view(), options);
    return y.values();
}

TEST(Fusion, ActivationsOfLayoutsAndNorms) {
    std::size_t turn = 0;
    for (const Layout& layout : layouts()) {
        for (const Norm& norm : norms()) {
            Tensor<float> x = sample(3, layout), y(shape, layout), plain(shape);
            const Activation activation = all_activations[turn++ % 5];
            norm.call(x.view(), plain.view(), {});
            norm.call(x.view(), y.view(), {.activation = activation});
            EXPECT_EQ(different_bits(activated(plain, activation), y.values()), 0) << layout.name << " " << norm.title;
            EXPECT_EQ(y.changed_gaps(), 0) << layout.name << " " << norm.title;
        }
    }
}

TEST(Fusion, ResidualsOfLayoutsAndNorms) {
    for (const Layout& layout : layouts()) {
        for (const Norm& norm : norms()) {
            Tensor<float> x = sample(3, layout), residual = sample(4), sum(shape, layout), y(shape), expected(shape);
            norm.call(x.view(), y.view(), {.residual = residual.view(), .sum = sum.view()});
            std::vector<float> terms;
            for (std::int64_t i = 0; i < x.size(); ++i) terms.push_back(x[i] + residual[i]);
            norm.call(sum.view(), expected.view(), {});
            EXPECT_EQ(different_bits(terms, sum.values()), 0) << layout.name << " " << norm.title;
            EXPECT_EQ(different_bits(expected.values(), y.values()), 0) << layout.name << " " << norm.title;
            EXPECT_EQ(sum.changed_gaps(), 0) << layout.name << " " << norm.title;
        }
    }
}

TEST(Fusion, EightBitsOfLayoutsAndNorms) {
    for (const Layout& layout : layouts()) {
        for (const Norm& norm : norms()) {
            Tensor<float> x = sample(3, layout), plain(shape);
            Tensor<std::int8_t> q(shape, layout), expected(shape);
            norm.call(x.view(), plain.view(), {.activation = Activation::silu});
            norm.call(x.view(), q.view(), {.activation = Activation::silu, .scale = 0.02, .zero_point = -30});
            quantize(plain.view(), expected.view(), 0.02, -30);
            EXPECT_EQ(q.values(), expected.values()) << layout.name << " " << norm.title;
        }
    }
}

TEST(Fusion, QuantizeHasTheSameBitsForAnyThreads) {
    const Shape large = {7, 300, 100};
    for (const Layout& layout : layouts()) {
        Tensor<float> y = sample(3, layout, large);
        Tensor<std::int8_t> one(large), three(large, layout);
        quantize(y.view(), one.view(), 0.02, 3, 1);
        quantize(y.view(), three.view(), 0.02, 3, 3);
        EXPECT_EQ(one.values(), three.values()) << layout.name;
        EXPECT_EQ(three.changed_gaps(), 0) << layout.name;
    }
}

/// A step for each place along some axes is the call for each of them.
TEST(Fusion, QuantizeByChannels) {
    const std::vector<Shape> along = {{8, 1, 1}, {6}, {3, 1, 1, 1}, {3, 8, 5, 6}, {1}, {}};
    for (const Layout& layout : layouts()) {
        for (const Shape& own : along) {
            Tensor<double> y = sample<double>(5, layout);
            Tensor<float> scale(own);
            Tensor<std::uint8_t> zero_point(own), q(shape, layout), expected(shape);
            scale.fill([](std::int64_t i) { return 0.01 * static_cast<double>(1 + i % 9); });
            zero_point.fill([](std::int64_t i) { return i * 37 % 256; });
            Shape full(shape.size() - own.size(), 1);
            full.insert(full.end(), own.begin(), own.end());
            std::vector<int> axes;
            for (int axis = 0; axis < 4; ++axis) {
                if (at(full, axis) != 1) axes.push_back(axis);
            }
            const Numbering places = number_along(shape, axes);
            for (const bool shifted : {false, true}) {
                quantize(y.view(), q.view(), scale.view(), shifted ? zero_point.view() : TensorView{}, 2);
                for (std::int64_t i = 0; i < y.size(); ++i) {
                    const std::int64_t place = at(places.of, i);
                    double value = y[i];
                    std::uint8_t result = 0;
                    quantize(view(&value, {}), view(&result, {}), static_cast<double>(scale[place]),
                             shifted ? zero_point[place] : 0);
                    expected[i] = result;
                }
                EXPECT_EQ(expected.values(), q.values()) << layout.name << " " << own.size();
                EXPECT_EQ(q.changed_gaps(), 0) << layout.name;
            }
        }
    }
}

TEST(Fusion, ThreadsAndPieces) {
    const Shape large = {700, 900};
    for (const Axes& axes : {Axes{1}, Axes{0}, Axes{0, 1}}) {
        Tensor<float> x = sample(3, {}, large), residual = sample(4, {}, large), sum(large), y(large), expected(large);
        for (int threads : {1, 3}) {
            const Fusion fusion{.residual = residual.view(), .sum = sum.view(), .activation = Activation::relu};
            normalize(x.view(), {axes}, y.view(), {.fusion = fusion, .num_threads = threads});
            normalize(sum.view(), {axes}, expected.view(), {});
            std::int64_t wrong = 0;
            for (std::int64_t i = 0; i < y.size(); ++i) {
                wrong += bits(sum[i]) != bits(x[i] + residual[i]) ? 1 : 0;
                wrong += bits(y[i]) != bits(std::max(expected[i], 0.0F)) ? 1 : 0;
            }
            EXPECT_EQ(wrong, 0) << threads;
        }
    }
}

TEST(Fusion, Quantize) {
    float values[] = {-1, 0, 0.25F, 0.75F, 100, static_cast<float>(nan)};
    std::uint8_t q[6] = {};
    quantize(view(values, {6}), view(q, {6}), 0.5, 10);
    EXPECT_EQ(std::vector<int>(q, q + 6), (std::vector<int>{8, 10, 10, 12, 210, 10}));
    quantize(view(values + 4, {5}, {-1}), view(q, {5}), 0.5, 10);
    EXPECT_EQ(std::vector<int>(q, q + 5), (std::vector<int>{210, 12, 10, 10, 8}));
}

// ---- Errors ---------------------------------------------------------------------------------------------------------

struct Arrays {
    float x[24] = {}, residual[24] = {}, sum[24] = {}, y[24] = {}, var[6] = {};
    std::int8_t q[24] = {};

    TensorView x_view() { return view(x, {4, 6}); }
    TensorView y_view() { return view(y, {4, 6}); }
    TensorView q_view() { return view(q, {4, 6}); }
    Fusion sums() { return {.residual = view(residual, {4, 6}), .sum = view(sum, {4, 6})}; }
    void norm(const Fusion& fusion) { layer_norm(x_view(), y_view(), {1}, {.fusion = fusion}); }
    void norm_to_8_bits(const Fusion& fusion) { layer_norm(x_view(), q_view(), {1}, {.fusion = fusion}); }
};

struct Refused {
    const char* title;
    const char* message;
    std::function<void(Arrays&)> call;
};

const Refused refused[] = {
    {"activation", "layer_norm: expected one of the activations, got number 9",
     [](Arrays& a) { a.norm({.activation = static_cast<Activation>(9)}); }},
    {"residual_alone", "layer_norm: expected residual and the sum to write, both or neither, got residual alone",
     [](Arrays& a) { a.norm({.residual = a.sums().residual}); }},
    {"residual_shape", "layer_norm: expected residual of shape (4, 6), got (6,)",
     [](Arrays& a) { a.norm({.residual = view(a.residual, {6}), .sum = a.sums().sum}); }},
    {"sum_of_bytes", "layer_norm: expected sum of dtype float16, bfloat16, float32 or float64, got int8",
     [](Arrays& a) { a.norm({.residual = a.sums().residual, .sum = a.q_view()}); }},
    {"sum_itself",
     "layer_norm: expected sum without elements that share memory, got strides that reach one element twice",
     [](Arrays& a) { a.norm({.residual = a.sums().residual, .sum = view(a.sum, {4, 6}, {0, 1})}); }},
    {"sum_is_output", "layer_norm: expected sum apart from output, got arrays that share memory",
     [](Arrays& a) { a.norm({.residual = a.sums().residual, .sum = a.y_view()}); }},
    {"sum_over_x", "layer_norm: expected sum apart from x (or the same array), got arrays that share memory",
     [](Arrays& a) { a.norm({.residual = a.sums().residual, .sum = view(a.x + 23, {4, 6}, {-6, -1})}); }},
    {"group_norm_residual", "group_norm: expected residual of shape (4, 6), got (6,)",
     [](Arrays& a) {
         group_norm(a.x_view(), a.y_view(), 2, {.fusion = {.residual = view(a.residual, {6}), .sum = a.sums().sum}});
     }},
    {"running_mean_in_sum", "batch_norm: expected running_mean apart from sum, got arrays that share memory",
     [](Arrays& a) {
         batch_norm(
             a.x_view(), a.y_view(),
             {.running = {.mean = view(a.sum, {6}), .var = view(a.var, {6})}, .training = true, .fusion = a.sums()});
     }},
    {"no_scale", "layer_norm: expected a scale above 0, in the range of float32, for an output of dtype int8, got 0",
     [](Arrays& a) { a.norm_to_8_bits({}); }},
    {"zero_point", "layer_norm: expected a zero point from -128 to 127 for an output of dtype int8, got 128",
     [](Arrays& a) { a.norm_to_8_bits({.scale = 1, .zero_point = 128}); }},
    {"scale_of_floats",
     "layer_norm: expected an output of dtype int8 or uint8 for a scale and a zero point, got float32",
     [](Arrays& a) { a.norm({.scale = 1}); }},
    {"x_of_bytes", "layer_norm: expected x of dtype float16, bfloat16, float32 or float64, got int8",
     [](Arrays& a) { layer_norm(a.q_view(), a.y_view(), {1}); }},
    {"gradient_activation", "layer_norm_backward: expected one of the activations, got number 9",
     [](Arrays& a) {
         layer_norm_backward(a.x_view(), a.x_view(), {1}, {.grad_input = a.y_view()},
                             {.fusion = {.activation = static_cast<Activation>(9)}});
     }},
    {"gradient_of_bytes",
     "layer_norm_backward: expected grad_input of dtype float16, bfloat16, float32 or float64, got int8",
     [](Arrays& a) { layer_norm_backward(a.x_view(), a.x_view(), {1}, {.grad_input = a.q_view()}); }},
    {"quantize_to_floats", "quantize: expected output of dtype int8 or uint8, got float32",
     [](Arrays& a) { quantize(a.x_view(), a.y_view(), 1); }},
    {"quantize_scale",
     "quantize: expected a scale above 0, in the range of float32, for an output of dtype int8, got nan",
     [](Arrays& a) { quantize(a.x_view(), a.q_view(), nan); }},
    {"quantize_threads", "quantize: expected num_threads of at least 0, got -1",
     [](Arrays& a) { quantize(a.x_view(), a.q_view(), 1, 0, -1); }},
    {"quantize_scales", "quantize: expected scale of a shape that broadcasts to (4, 6), got (5,)",
     [](Arrays& a) { quantize(a.x_view(), a.q_view(), view(a.var, {5})); }},
    {"quantize_scale_of_one",
     "quantize: expected a scale above 0, in the range of float32, for an output of dtype int8, got 0",
     [](Arrays& a) { quantize(a.x_view(), a.q_view(), view(a.var, {6})); }},
    {"quantize_zero_points", "quantize: expected zero_point of dtype int8 as output, got float32",
     [](Arrays& a) { quantize(a.x_view(), a.q_view(), view(a.var, {6}), view(a.var, {6})); }},
    {"quantize_shape", "quantize: expected output of shape (4, 6), got (24,)",
     [](Arrays& a) { quantize(a.x_view(), view(a.q, {24}), 1); }},
};

/// The sum of grad_output * layer_norm(x), activated.
double loss(Tensor<double>& x, Tensor<double>& grad_output, const LayerNormOptions& options) {
    Tensor<double> y({4, 70});
    layer_norm(x.view(), y.view(), {1}, options);
    double sum = 0;
    for (std::int64_t i = 0; i < 4 * 70; ++i) sum += grad_output[i] * y[i];
    return sum;
}

TEST(Fusion, GradientsGoThroughActivations) {
    for (Activation activation : {Activation::relu, Activation::silu, Activation::gelu, Activation::gelu_tanh}) {
        Random random(8);
        Tensor<double> x({4, 70}), grad_output({4, 70}), weight({70}), bias({70}), grad_input({4, 70}), grad_bias({70});
        for (Tensor<double>* each : {&x, &grad_output, &weight, &bias}) {
            each->fill([&](std::int64_t) { return random.uniform(-2, 2); });
        }
        const LayerNormOptions options{
            .weight = weight.view(), .bias = bias.view(), .fusion = {.activation = activation}};
        layer_norm_backward(grad_output.view(), x.view(), {1},
                            {.grad_input = grad_input.view(), .grad_bias = grad_bias.view()}, options);
        constexpr double step = 1e-6;
        for (std::int64_t i : {0, 77, 279}) {
            const double at = x[i];
            x[i] = at + step;
            const double above = loss(x, grad_output, options);
            x[i] = at - step;
            EXPECT_NEAR((above - loss(x, grad_output, options)) / (2 * step), grad_input[i], 1e-7) << name(activation);
            x[i] = at;
        }
        bias[3] += step;
        const double above = loss(x, grad_output, options);
        bias[3] -= 2 * step;
        EXPECT_NEAR((above - loss(x, grad_output, options)) / (2 * step), grad_bias[3], 1e-7) << name(activation);
    }
}

TEST(Fusion, Refuses) {
    for (const Refused& each : refused) {
        Arrays arrays;
        try {
            each.call(arrays);
            ADD_FAILURE() << each.title << " was accepted";
        } catch (const std::invalid_argument& error) {
            EXPECT_STREQ(error.what(), each.message);
        }
    }
}

}  // namespace
}  // namespace anynorm::test
