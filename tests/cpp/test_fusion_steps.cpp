// SPDX-License-Identifier: Apache-2.0
// Norms that round to 8 bits with a scale and a zero point for every channel, or along any axes: quantize() of the norm
// to the bit.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "refusal.hpp"
#include "selections.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {3, 8, 5, 6};

Tensor<float> sample(const Layout& layout, const Shape& of = shape) {
    Random random(3);
    Tensor<float> x(of, layout);
    x.fill([&](std::int64_t) { return 0.5 + 2 * random.unit(); });
    return x;
}

/// Scales and zero points of a shape of their own.
template <class Q>
struct Steps {
    explicit Steps(const Shape& own, const Layout& layout = {}) : scale(own, layout), zero_point(own, layout) {
        scale.fill([](std::int64_t i) { return 0.01 * static_cast<double>(1 + i % 9); });
        zero_point.fill([](std::int64_t i) { return i * 37 % 100; });
    }
    Tensor<float> scale;
    Tensor<Q> zero_point;
};

using Call = std::function<void(const TensorView&, const TensorView&, const Fusion&)>;

std::vector<Call> norms() {
    return {
        [](auto& x, auto& y, auto& f) { layer_norm(x, y, {-1}, {.fusion = f}); },
        [](auto& x, auto& y, auto& f) { layer_norm(x, y, {1}, {.fusion = f}); },
        [](auto& x, auto& y, auto& f) { rms_norm(x, y, {2, 3}, {.fusion = f}); },
        [](auto& x, auto& y, auto& f) { group_norm(x, y, 4, {.fusion = f}); },
        [](auto& x, auto& y, auto& f) { instance_norm(x, y, {.fusion = f}); },
        [](auto& x, auto& y, auto& f) { batch_norm(x, y, {.training = true, .fusion = f}); },
        [](auto& x, auto& y, auto& f) { normalize(x, {Axes::range(0, 4)}, y, {.fusion = f}); },
    };
}

template <class Q, class Y>
void expect_quantized(const Layout& layout, const Shape& own, const Call& norm) {
    Tensor<float> x = sample(layout);
    Tensor<Y> y(shape);
    Tensor<Q> fused(shape, layout), expected(shape);
    Steps<Q> steps(own, layout);
    norm(x.view(), y.view(), {.activation = Activation::silu});
    quantize(y.view(), expected.view(), steps.scale.view(), steps.zero_point.view());
    norm(x.view(), fused.view(),
         {.activation = Activation::silu, .scales = steps.scale.view(), .zero_points = steps.zero_point.view()});
    EXPECT_EQ(fused.values(), expected.values()) << layout.name << " " << own.size();
    EXPECT_EQ(fused.changed_gaps(), 0) << layout.name;
    // An array of the one and a number for the other.
    quantize(y.view(), expected.view(), steps.scale.view());
    norm(x.view(), fused.view(), {.activation = Activation::silu, .scales = steps.scale.view()});
    EXPECT_EQ(fused.values(), expected.values()) << layout.name << " " << own.size();
}

TEST(FusionSteps, EqualQuantizeOfLayoutsAndNorms) {
    for (const Layout& layout : layouts()) {
        for (const Shape& own : {Shape{8, 1, 1}, {6}, {3, 1, 1, 1}, {3, 8, 5, 6}, {5, 1}, {1, 8, 1, 6}, {}}) {
            for (const Call& norm : norms()) {
                expect_quantized<std::int8_t, float>(layout, own, norm);
                expect_quantized<std::uint8_t, float>(layout, own, norm);
            }
        }
    }
}

/// Rows that are longer than a tile, pieces, and threads.
TEST(FusionSteps, EqualQuantizeOfLargeArrays) {
    for (const Shape& large : {Shape{40, 3000}, {3, 700, 9, 7}, {2, 5, 60, 50}}) {
        for (const Shape& own : {Shape{large.back()}, {large[1], 1, 1}}) {
            if (own.size() > large.size()) continue;
            for (const Axes& axes : {Axes{-1}, Axes{0}}) {
                Tensor<float> x = sample({}, large), y(large);
                Tensor<std::int8_t> fused(large), expected(large);
                Steps<std::int8_t> steps(own);
                normalize(x.view(), {axes}, y.view());
                quantize(y.view(), expected.view(), steps.scale.view(), steps.zero_point.view());
                for (int threads : {1, 3}) {
                    const Fusion fusion{.scales = steps.scale.view(), .zero_points = steps.zero_point.view()};
                    normalize(x.view(), {axes}, fused.view(), {.fusion = fusion, .num_threads = threads});
                    EXPECT_EQ(fused.values(), expected.values()) << threads;
                }
            }
        }
    }
}

/// What is in no set gets its own zero point.
TEST(FusionSteps, EqualQuantizeOfSelections) {
    const std::vector<int> reduce = {0, 2, 3};
    for (const SelectionKind& kind : selection_kinds()) {
        const SelectionCase selected(kind, shape, reduce, 7);
        const Grouping sets{{0, 2, 3}, selected.selection};
        for (const Layout& layout : layouts()) {
            for (const Shape& own : {Shape{8, 1, 1}, {6}, {3, 8, 5, 6}, {}}) {
                Tensor<float> x = sample(layout), y(shape);
                Tensor<std::uint8_t> fused(shape, layout), expected(shape);
                Steps<std::uint8_t> steps(own);
                normalize(x.view(), sets, y.view());
                quantize(y.view(), expected.view(), steps.scale.view(), steps.zero_point.view());
                const Fusion fusion{.scales = steps.scale.view(), .zero_points = steps.zero_point.view()};
                normalize(x.view(), sets, fused.view(), {.fusion = fusion});
                EXPECT_EQ(fused.values(), expected.values()) << kind.name << " " << layout.name << " " << own.size();
            }
        }
    }
}

struct Arrays {
    std::vector<float> x = std::vector<float>(24, 1.5f), sum = x, y = x, scales = std::vector<float>(24, 0.5f);
    std::vector<float> weights = scales;
    std::vector<std::int8_t> q = std::vector<std::int8_t>(24, 3), zero_points = q;
    std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(24, 3);
    std::vector<double> count = std::vector<double>(4, 0.25);
    bool mask[24] = {true};

    TensorView x_view() { return view(x.data(), {4, 6}); }
    TensorView q_view() { return view(q.data(), {4, 6}); }
    void norm(const Fusion& fusion) { layer_norm(x_view(), q_view(), {1}, {.fusion = fusion}); }
    friend bool operator==(const Arrays&, const Arrays&) = default;
};

TEST(FusionSteps, Refuses) {
    const struct {
        const char* message;
        void (*call)(Arrays&);
    } refused[] = {
        {"layer_norm: expected an output of dtype int8 or uint8 for a scale and a zero point, got float32",
         [](Arrays& a) {
             const Fusion fusion{.scales = view(a.scales.data(), {6})};
             layer_norm(a.x_view(), view(a.y.data(), {4, 6}), {1}, {.fusion = fusion});
         }},
        {"layer_norm: expected one scale or an array of them, got both",
         [](Arrays& a) { a.norm({.scale = 1, .scales = view(a.scales.data(), {6})}); }},
        {"layer_norm: expected one zero point or an array of them, got both",
         [](Arrays& a) { a.norm({.scale = 1, .zero_point = 1, .zero_points = view(a.zero_points.data(), {6})}); }},
        {"layer_norm: expected scale of a shape that broadcasts to (4, 6), got (4,)",
         [](Arrays& a) { a.norm({.scales = view(a.scales.data(), {4})}); }},
        {"layer_norm: expected zero_point of dtype int8 as output, got uint8",
         [](Arrays& a) { a.norm({.scale = 1, .zero_points = view(a.bytes.data(), {6})}); }},
        {"layer_norm: expected a scale above 0, in the range of float32, for an output of dtype int8, got 0",
         [](Arrays& a) { a.norm({.zero_points = view(a.zero_points.data(), {6})}); }},
        {"layer_norm: expected a scale above 0, in the range of float32, for an output of dtype int8, got -1",
         [](Arrays& a) {
             static const float scales[] = {1, 1, 1, -1, 1, 1};
             a.norm({.scales = view(scales, {6})});
         }},
        {"layer_norm: expected output apart from zero_point, got arrays that share memory",
         [](Arrays& a) { a.norm({.scale = 1, .zero_points = view(a.q.data(), {6})}); }},
        {"layer_norm: expected sum apart from scale, got arrays that share memory",
         [](Arrays& a) {
             a.norm({.residual = a.x_view(), .sum = view(a.sum.data(), {4, 6}), .scales = view(a.sum.data(), {6})});
         }},
        {"normalize: expected moments.count apart from scale, got arrays that share memory",
         [](Arrays& a) {
             normalize(
                 a.x_view(), {{1}}, a.q_view(),
                 {.moments = {.count = view(a.count.data(), {4})}, .fusion = {.scales = view(a.count.data(), {4, 1})}});
         }},
        {"group_norm: expected scale of a shape that broadcasts to (4, 6), got (5,)",
         [](Arrays& a) { group_norm(a.x_view(), a.q_view(), 3, {.fusion = {.scales = view(a.scales.data(), {5})}}); }},
        {"group_norm: expected where of a shape that broadcasts to (4, 6), got (5,)",
         [](Arrays& a) {
             group_norm(a.x_view(), view(a.y.data(), {4, 6}), 3, {.selection = {.where = view(a.mask, {5})}});
         }},
        {"group_norm_backward: expected sample_weight of a shape that broadcasts to (4, 6), got (4, 4)",
         [](Arrays& a) {
             group_norm_backward(a.x_view(), a.x_view(), 2, {.grad_input = view(a.y.data(), {4, 6})},
                                 {.selection = {.sample_weight = view(a.weights.data(), {4, 4})}});
         }},
    };
    for (const auto& each : refused) expect_refusal<Arrays>(each.call, each.message);
}

}  // namespace
}  // namespace anynorm::test
