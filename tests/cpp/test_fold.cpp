// SPDX-License-Identifier: Apache-2.0
// fold_batch_norm(): against the definition in long double for every layout and kind of layer; what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/fold.hpp"
#include "refusal.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

constexpr double eps = 1e-3;

/// A kind of layer: the shape of its weight, and the output channel of an element.
struct Layer {
    const char* name;
    Shape shape;
    std::int64_t channels;
    int channel_axis;
    bool transpose;
    std::int64_t groups;

    friend void PrintTo(const Layer& self, std::ostream* out) { *out << self.name; }

    /// By the indices of an element, written out.
    std::int64_t channel_of(std::int64_t place) const {
        std::vector<std::int64_t> index(shape.size());
        for (std::size_t axis = shape.size(); axis-- > 0;) {
            index[axis] = place % shape[axis];
            place /= shape[axis];
        }
        if (transpose) return index[0] / (shape[0] / groups) * shape[1] + index[1];
        return at(index, channel_axis < 0 ? channel_axis + length(shape) : channel_axis);
    }
};

const Layer layers[] = {
    {"linear", {6, 5}, 6, 0, false, 1},
    {"linear_channels_last", {5, 6}, 6, -1, false, 1},
    {"scale_alone", {7}, 7, 0, false, 1},
    {"conv1d", {6, 4, 3}, 6, 0, false, 1},
    {"conv2d_groups", {6, 2, 3, 3}, 6, 0, false, 3},
    {"conv2d_channels_last", {3, 3, 4, 600}, 600, -1, false, 1},
    {"conv3d", {4, 3, 2, 3, 2}, 4, 0, false, 1},
    {"transpose", {4, 6, 3}, 6, 0, true, 1},
    {"transpose_groups", {6, 5, 2, 3}, 15, 0, true, 3},
    {"transpose_depthwise", {6, 1, 3, 3}, 6, 0, true, 6},
    {"no_inputs", {6, 0}, 6, 0, false, 1},
    {"no_channels", {0, 5}, 0, 0, false, 1},
};

struct Product {
    Layer layer;
    Layout layout;
};
std::vector<Product> products() {
    std::vector<Product> result;
    for (const Layer& layer : layers) {
        for (const Layout& layout : layouts()) result.push_back({layer, layout});
    }
    return result;
}
class Fold : public testing::TestWithParam<Product> {};
INSTANTIATE_TEST_SUITE_P(, Fold, testing::ValuesIn(products()), [](const auto& info) {
    return std::string(info.param.layer.name) + "_" + info.param.layout.name;
});

/// The arrays of a call; T is the type of the layer, S that of the statistics.
template <class T, class S>
struct Arrays {
    Tensor<T> weight, bias, folded_weight, folded_bias;
    Tensor<S> mean, var, bn_weight, bn_bias;

    Arrays(const Layer& layer, const Layout& layout)
        : weight(layer.shape, layout),
          bias({layer.channels}, layout),
          folded_weight(layer.shape, layouts()[2]),
          folded_bias({layer.channels}, layout),
          mean({layer.channels}, layout),
          var({layer.channels}),
          bn_weight({layer.channels}),
          bn_bias({layer.channels}, layout) {
        Random random(11);
        const auto unit = [&](std::int64_t) { return random.unit(); };
        for (Tensor<T>* each : {&weight, &bias}) each->fill(unit);
        for (Tensor<S>* each : {&mean, &bn_weight, &bn_bias}) each->fill(unit);
        var.fill([&](std::int64_t) { return random.uniform(0.01, 4); });
    }
};

template <class T, class S>
void check(const Layer& layer, const Layout& layout, bool optional) {
    Arrays<T, S> a(layer, layout);
    FoldBatchNormOptions options{
        .eps = eps, .channel_axis = layer.channel_axis, .transpose = layer.transpose, .groups = layer.groups};
    if (optional) {
        options.bias = a.bias.view();
        options.bn_weight = a.bn_weight.view();
        options.bn_bias = a.bn_bias.view();
    }
    const auto scale = [&](std::int64_t channel) {
        return (optional ? static_cast<long double>(a.bn_weight[channel]) : 1) /
               std::sqrt(static_cast<long double>(a.var[channel]) + static_cast<long double>(eps));
    };
    const auto close = [](T got, long double exact) {
        return std::fabs(static_cast<long double>(got) - exact) <=
               std::fabs(exact) * static_cast<long double>(std::numeric_limits<T>::epsilon()) *
                   (sizeof(T) == 4 ? 0.51L : 2);
    };
    fold_batch_norm(a.weight.view(), a.mean.view(), a.var.view(), a.folded_weight.view(), a.folded_bias.view(),
                    options);
    for (std::int64_t i = 0; i < a.weight.size(); ++i) {
        EXPECT_TRUE(close(a.folded_weight[i], static_cast<long double>(a.weight[i]) * scale(layer.channel_of(i)))) << i;
    }
    for (std::int64_t c = 0; c < layer.channels; ++c) {
        const long double shift = optional ? static_cast<long double>(a.bn_bias[c]) : 0;
        const long double bias = optional ? static_cast<long double>(a.bias[c]) : 0;
        const long double exact = (bias - static_cast<long double>(a.mean[c])) * scale(c) + shift;
        // The two terms may cancel.
        EXPECT_NEAR(static_cast<double>(a.folded_bias[c]), static_cast<double>(exact),
                    sizeof(T) == 4 ? 4e-7 * (1 + std::fabs(static_cast<double>(exact))) : 2e-13)
            << c;
    }
    EXPECT_EQ(a.folded_weight.changed_gaps() + a.folded_bias.changed_gaps(), 0);

    // In place: the same bits.
    options.bias = a.bias.view();
    if (!optional) a.bias.fill([](std::int64_t) { return 0; });
    fold_batch_norm(a.weight.view(), a.mean.view(), a.var.view(), a.weight.view(), a.bias.view(), options);
    EXPECT_EQ(different_bits(a.weight.values(), a.folded_weight.values()), 0);
    EXPECT_EQ(different_bits(a.bias.values(), a.folded_bias.values()), 0);
}

TEST_P(Fold, IsTheDefinition) {
    const auto& [layer, layout] = GetParam();
    for (const bool optional : {true, false}) {
        check<float, float>(layer, layout, optional);
        check<float, double>(layer, layout, optional);
        check<double, float>(layer, layout, optional);
    }
}

/// Halves are rounded once, from float64.
TEST(FoldHalves, AreThoseOfFloat64RoundedOnce) {
    const std::vector<double> wide = {1, -0.333251953125, 3.140625, 1024};
    std::vector<double> exact(4), mean = {0.25, -1}, var = {0.5, 3}, bias(2);
    std::vector<BFloat16> halves = {{0x3f80}, {0xbeaa}, {0x4049}, {0x4480}}, folded(4), half_bias(2);
    // The same numbers in both types, but for 1/3, which is shorter in bfloat16.
    std::vector<double> same = wide;
    same[1] = -0.33203125;
    const auto f64 = [](std::vector<double>& values, std::initializer_list<std::int64_t> shape) {
        return view(values.data(), shape);
    };
    fold_batch_norm(f64(same, {2, 2}), f64(mean, {2}), f64(var, {2}), f64(exact, {2, 2}), f64(bias, {2}));
    fold_batch_norm(view(halves.data(), {2, 2}), f64(mean, {2}), f64(var, {2}), view(folded.data(), {2, 2}),
                    view(half_bias.data(), {2}));
    const auto value = [](BFloat16 half) {
        return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(half.bits) << 16));
    };
    for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(value(folded[i]), exact[i], std::fabs(exact[i]) * 0x1p-9) << i;
    for (std::size_t i = 0; i < 2; ++i) EXPECT_NEAR(value(half_bias[i]), bias[i], std::fabs(bias[i]) * 0x1p-9) << i;
}

// --- errors ----------------------------------------------------------------------------------------------------------

struct Numbers {
    std::vector<double> weight = numbers(200, 1.5), bias = numbers(20, 2.5), mean = numbers(20, 3.5),
                        var = numbers(20, 4.5), folded = numbers(200, 5.5), folded_bias = numbers(20, 6.5);

    friend bool operator==(const Numbers&, const Numbers&) = default;

    TensorView w() { return view(weight.data(), {6, 4, 3}); }
    TensorView w_out() { return view(folded.data(), {6, 4, 3}); }
    TensorView of(std::vector<double>& values, std::int64_t n = 6) { return view(values.data(), {n}); }
    void fold(const FoldBatchNormOptions& options, std::int64_t channels = 6) {
        fold_batch_norm(w(), of(mean, channels), of(var, channels), w_out(), of(folded_bias, channels), options);
    }
};

struct Row {
    const char* name;
    const char* message;
    void (*call)(Numbers&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    {"without_weight", "expected weight of dtype float16, bfloat16, float32 or float64, got none",
     [](Numbers& n) { fold_batch_norm({}, n.of(n.mean), n.of(n.var), n.w_out(), n.of(n.folded_bias)); }},
    {"weight_of_rank_0", "expected weight of rank 1 to 16, got 0",
     [](Numbers& n) {
         fold_batch_norm(view(n.weight.data(), {}), n.of(n.mean), n.of(n.var), n.w_out(), n.of(n.folded_bias));
     }},
    {"transpose_of_rank_1", "expected weight of rank 2 to 15, got 1",
     [](Numbers& n) {
         fold_batch_norm(n.of(n.weight), n.of(n.mean), n.of(n.var), n.w_out(), n.of(n.folded_bias),
                         {.transpose = true});
     }},
    {"mean", "expected running_mean of shape (6,), got (4,)",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean, 4), n.of(n.var), n.w_out(), n.of(n.folded_bias)); }},
    {"without_var", "expected running_var of dtype float32 or float64, got none",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean), {}, n.w_out(), n.of(n.folded_bias)); }},
    {"bias", "expected bias of shape (6,), got (5,)", [](Numbers& n) { n.fold({.bias = n.of(n.bias, 5)}); }},
    {"bn_weight", "expected bn_weight of shape (6,), got (1,)",
     [](Numbers& n) { n.fold({.bn_weight = n.of(n.bias, 1)}); }},
    {"bn_bias", "expected bn_bias of shape (3,), got (6,)",
     [](Numbers& n) { n.fold({.bn_bias = n.of(n.bias), .channel_axis = 2}, 3); }},
    {"eps", "expected eps of at least 0, got -1", [](Numbers& n) { n.fold({.eps = -1}); }},
    {"channel_axis", "expected channel_axis from -3 to 2, got 3", [](Numbers& n) { n.fold({.channel_axis = 3}); }},
    {"channel_axis_of_transpose",
     "expected channel_axis or a transposed convolution, whose channels are on axis 1, got both",
     [](Numbers& n) { n.fold({.channel_axis = 1, .transpose = true}, 4); }},
    {"groups_0",
     "expected groups of at least 1 that divides the number of output channels, got 6 output channels and groups=0",
     [](Numbers& n) { n.fold({.groups = 0}); }},
    {"groups",
     "expected groups of at least 1 that divides the number of output channels, got 6 output channels and groups=4",
     [](Numbers& n) { n.fold({.groups = 4}); }},
    {"groups_of_transpose",
     "expected groups of at least 1 that divides the number of input channels, got 6 input channels and groups=5",
     [](Numbers& n) { n.fold({.transpose = true, .groups = 5}, 20); }},
    {"channels_of_groups", "expected running_mean of shape (12,), got (4,)",
     [](Numbers& n) { n.fold({.transpose = true, .groups = 3}, 4); }},
    {"folded_weight", "expected folded weight of shape (6, 4, 3), got (6,)",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), n.of(n.folded), n.of(n.folded_bias)); }},
    {"without_folded_bias", "expected folded bias of dtype float16, bfloat16, float32 or float64, got none",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), n.w_out(), {}); }},
    {"folded_weight_repeats",
     "expected folded weight without elements that share memory, got strides that reach one element twice",
     [](Numbers& n) {
         fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), view(n.folded.data(), {6, 4, 3}, {0, 3, 1}),
                         n.of(n.folded_bias));
     }},
    {"folded_weight_overlaps", "expected folded weight apart from weight, got arrays that share memory",
     [](Numbers& n) {
         fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), view(n.weight.data() + 1, {6, 4, 3}), n.of(n.folded_bias));
     }},
    {"folded_bias_is_the_mean", "expected folded bias apart from running_mean, got arrays that share memory",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), n.w_out(), n.of(n.mean)); }},
    {"folded_bias_in_folded_weight", "expected folded bias apart from folded weight, got arrays that share memory",
     [](Numbers& n) { fold_batch_norm(n.w(), n.of(n.mean), n.of(n.var), n.w_out(), n.of(n.folded)); }},
};

class FoldErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(, FoldErrors, testing::ValuesIn(table), [](const auto& info) { return info.param.name; });

TEST_P(FoldErrors, SayWhatAndWriteNothing) {
    expect_refusal(GetParam().call, std::string("fold_batch_norm: ") + GetParam().message);
}

}  // namespace
}  // namespace anynorm::test
