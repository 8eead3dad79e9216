// SPDX-License-Identifier: Apache-2.0
// Calls of normalize_backward() over sets that are named by data: of every kind, of any dtypes and layouts, with what
// the definition gives.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "any_array.hpp"
#include "anynorm/normalize.hpp"
#include "selection_oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test::selection_gradients {

inline constexpr double eps = 1e-3;

/// What is selected, and the axes that sets are reduced over and that the views vary along.
struct Kind {
    const char* name;
    Shape shape;
    std::vector<int> reduce, parameters;
    std::int64_t groups = 0;               ///< of labels; 0: none
    std::vector<int> labels{};             ///< their axes
    std::vector<std::int64_t> segments{};  ///< offsets, or pairs one after the other
    bool pairs = false, masked = false, weighted = false;
    std::vector<int> where{}, sample_weight{};  ///< the axes of those that there are
    bool center = true, frozen = false;
    Activation activation = Activation::none;

    friend void PrintTo(const Kind& self, std::ostream* out) { *out << self.name; }
};

inline std::vector<Kind> kinds() {
    return {
        {.name = "masked_layer",
         .shape = {7, 9, 33},
         .reduce = {2},
         .parameters = {2},
         .masked = true,
         .where = {0, 1}},
        {.name = "masked_layer_elements",
         .shape = {5, 6, 41},
         .reduce = {2},
         .parameters = {2},
         .masked = true,
         .where = {0, 1, 2}},
        {.name = "masked_batch",
         .shape = {5, 8, 20},
         .reduce = {0, 1},
         .parameters = {2},
         .masked = true,
         .where = {0, 1}},
        {.name = "masked_planes",
         .shape = {3, 6, 7, 9},
         .reduce = {0, 2, 3},
         .parameters = {1},
         .masked = true,
         .where = {0, 2, 3}},
        {.name = "masked_families",
         .shape = {6, 5, 20},
         .reduce = {0},
         .parameters = {1, 2},
         .masked = true,
         .where = {0, 1, 2}},
        {.name = "masked_groups",
         .shape = {4, 3, 5, 14},
         .reduce = {2, 3},
         .parameters = {1, 2},
         .masked = true,
         .where = {0, 3}},
        {.name = "masked_rms",
         .shape = {9, 50},
         .reduce = {1},
         .parameters = {1},
         .masked = true,
         .where = {1},
         .center = false},
        {.name = "masked_silu",
         .shape = {5, 7, 20},
         .reduce = {2},
         .parameters = {2},
         .masked = true,
         .where = {0, 2},
         .activation = Activation::silu},
        {.name = "masked_frozen",
         .shape = {3, 6, 35},
         .reduce = {0, 2},
         .parameters = {1},
         .masked = true,
         .where = {0, 2},
         .frozen = true},
        {.name = "mask_of_one", .shape = {4, 15}, .reduce = {1}, .parameters = {1}, .masked = true},
        {.name = "masked_short_rows",
         .shape = {300, 3},
         .reduce = {0},
         .parameters = {1},
         .masked = true,
         .where = {0}},
        {.name = "masked_short_rows_weighted",
         .shape = {160, 5},
         .reduce = {0},
         .parameters = {1},
         .masked = true,
         .weighted = true,
         .where = {0},
         .sample_weight = {0}},
        {.name = "masked_short_rows_silu",
         .shape = {120, 6},
         .reduce = {0},
         .parameters = {1},
         .masked = true,
         .where = {0},
         .activation = Activation::silu},
        {.name = "labels_short_rows_masked",
         .shape = {200, 7},
         .reduce = {0},
         .parameters = {1},
         .groups = 3,
         .labels = {0},
         .masked = true,
         .where = {0}},
        {.name = "segments_short_rows",
         .shape = {400, 3},
         .reduce = {0},
         .parameters = {1},
         .segments = {3, 150, 150, 153, 390}},
        {.name = "labels_rows", .shape = {60, 5}, .reduce = {0}, .parameters = {1}, .groups = 7, .labels = {0}},
        {.name = "labels_domains",
         .shape = {6, 4, 5, 7},
         .reduce = {0, 2, 3},
         .parameters = {1},
         .groups = 3,
         .labels = {0}},
        {.name = "labels_along_rows", .shape = {4, 90}, .reduce = {1}, .parameters = {1}, .groups = 5, .labels = {1}},
        {.name = "labels_two_axes",
         .shape = {6, 5, 8},
         .reduce = {0, 1, 2},
         .parameters = {0, 2},
         .groups = 4,
         .labels = {0, 2}},
        {.name = "labels_vector", .shape = {300}, .reduce = {0}, .parameters = {}, .groups = 9, .labels = {0}},
        {.name = "labels_silu",
         .shape = {40, 18},
         .reduce = {0},
         .parameters = {0},
         .groups = 4,
         .labels = {0},
         .activation = Activation::silu},
        {.name = "labels_gelu_along_rows",
         .shape = {3, 60},
         .reduce = {0, 1},
         .parameters = {0},
         .groups = 4,
         .labels = {1},
         .activation = Activation::gelu},
        {.name = "segments_rows", .shape = {50, 9}, .reduce = {0}, .parameters = {1}, .segments = {0, 7, 7, 20, 46}},
        {.name = "segments_vector", .shape = {200}, .reduce = {0}, .parameters = {0}, .segments = {3, 70, 71, 71, 200}},
        {.name = "segments_pairs",
         .shape = {50, 4, 3},
         .reduce = {0, 2},
         .parameters = {1, 2},
         .segments = {2, 9, 9, 9, 12, 40, 41, 50},
         .pairs = true},
        {.name = "segments_rms",
         .shape = {30, 17},
         .reduce = {0, 1},
         .parameters = {1},
         .segments = {0, 11, 30},
         .center = false},
        {.name = "weights",
         .shape = {12, 23},
         .reduce = {1},
         .parameters = {1},
         .weighted = true,
         .sample_weight = {0, 1}},
        {.name = "weights_of_samples",
         .shape = {8, 5, 11},
         .reduce = {0, 2},
         .parameters = {1},
         .weighted = true,
         .sample_weight = {0}},
        {.name = "weights_frozen",
         .shape = {8, 11},
         .reduce = {0},
         .parameters = {1},
         .weighted = true,
         .sample_weight = {0},
         .frozen = true},
        {.name = "everything",
         .shape = {9, 6, 15},
         .reduce = {0, 2},
         .parameters = {0, 1, 2},
         .groups = 3,
         .labels = {0},
         .masked = true,
         .weighted = true,
         .where = {0, 1, 2},
         .sample_weight = {2}},
        {.name = "everything_along_rows",
         .shape = {6, 70},
         .reduce = {1},
         .parameters = {1},
         .groups = 6,
         .labels = {1},
         .masked = true,
         .weighted = true,
         .where = {0, 1},
         .sample_weight = {0, 1},
         .activation = Activation::silu},
        {.name = "segments_mask_weights",
         .shape = {40, 12},
         .reduce = {0, 1},
         .parameters = {1},
         .segments = {0, 15, 33},
         .masked = true,
         .weighted = true,
         .where = {1},
         .sample_weight = {0}},
    };
}

/// Large enough for several pieces and every way to divide the sums.
inline std::vector<Kind> large_kinds() {
    std::vector<std::int64_t> many{0};
    while (many.back() < 60000) many.push_back(std::min<std::int64_t>(60000, many.back() + 1 + length(many) % 7));
    return {
        {.name = "masked_layer",
         .shape = {900, 3, 50},
         .reduce = {2},
         .parameters = {2},
         .masked = true,
         .where = {0, 1}},
        {.name = "masked_batch",
         .shape = {20, 150, 40},
         .reduce = {0, 1},
         .parameters = {2},
         .masked = true,
         .where = {0, 1}},
        {.name = "masked_planes",
         .shape = {9, 20, 31, 33},
         .reduce = {0, 2, 3},
         .parameters = {1},
         .masked = true,
         .where = {0, 2, 3}},
        {.name = "labels_few", .shape = {12000, 10}, .reduce = {0}, .parameters = {1}, .groups = 30, .labels = {0}},
        {.name = "labels_many", .shape = {50000, 6}, .reduce = {0}, .parameters = {1}, .groups = 20000, .labels = {0}},
        {.name = "labels_vector", .shape = {100000}, .reduce = {0}, .parameters = {0}, .groups = 50, .labels = {0}},
        {.name = "segments_many", .shape = {60000, 5}, .reduce = {0}, .parameters = {1}, .segments = many},
        {.name = "wide_parameters",
         .shape = {6, 40000},
         .reduce = {1},
         .parameters = {1},
         .masked = true,
         .where = {0, 1}},
        {.name = "long_rows", .shape = {3, 50000}, .reduce = {1}, .parameters = {1}, .masked = true, .where = {0}},
    };
}

inline Axes axes_of(const std::vector<int>& axes) { return Axes(std::span<const int>(axes)); }

/// The lengths along some axes, and 1 along the others.
inline Shape spread(const Shape& shape, const std::vector<int>& axes) {
    Shape result(shape.size(), 1);
    for (const int axis : axes) at(result, axis) = at(shape, axis);
    return result;
}

/// The dtypes of x, grad_output, grad_input and the parameters.
struct DTypes {
    DType x = DType::f32, grad_output = DType::f32, grad_input = DType::f32, parameters = DType::f32;

    bool wide() const { return x == DType::f64 || grad_output == DType::f64 || grad_input == DType::f64; }
};

inline double rounding_of(DType dtype) {
    switch (dtype) {
        case DType::f64:
            return 0x1p-53;
        case DType::f16:
            return 0x1p-11;
        case DType::bf16:
            return 0x1p-8;
        default:
            return 0x1p-24;
    }
}

inline long double slope_of(Activation activation, long double y) {
    if (activation == Activation::none) return 1;
    if (activation == Activation::silu) {
        const long double s = 1 / (1 + std::exp(-y));
        return s * (1 + y * (1 - s));
    }
    const long double pi = std::acos(-1.0L);
    return (1 + std::erf(y / std::sqrt(2.0L))) / 2 + y * std::exp(-y * y / 2) / std::sqrt(2 * pi);
}

/// A call on arrays in given layouts.
struct Backward {
    Kind kind;
    DTypes dtypes;
    AnyArray dy, x, dx, weight, bias, grad_weight, grad_bias, labels, segments, where, sample_weight, count, mean, m2;
    ExactSets sets;
    std::vector<ExactMoments> moments;
    Excluded excluded = Excluded::zero;
    bool given = false;

    explicit Backward(const Kind& of, const DTypes& types = {}, const Layout& x_layout = {},
                      const Layout& dy_layout = {}, const Layout& dx_layout = {})
        : kind(of),
          dtypes(types),
          dy(types.grad_output, of.shape, dy_layout),
          x(types.x, of.shape, x_layout),
          dx(types.grad_input, of.shape, dx_layout),
          weight(types.parameters, spread(of.shape, of.parameters)),
          bias(types.parameters, spread(of.shape, of.parameters)),
          grad_weight(types.parameters, spread(of.shape, of.parameters)),
          grad_bias(DType::f64, spread(of.shape, of.parameters)),
          labels(length(of.shape) % 2 == 0 ? DType::i32 : DType::i64, spread(of.shape, of.labels)),
          segments(length(of.shape) % 2 == 0 ? DType::i64 : DType::i32,
                   of.pairs ? Shape{length(of.segments) / 2, 2} : Shape{length(of.segments)}),
          where(DType::boolean, spread(of.shape, of.where)),
          sample_weight(length(of.shape) % 2 == 0 ? DType::f64 : DType::f32, spread(of.shape, of.sample_weight)),
          count(DType::f64, statistics_shape()),
          mean(DType::f64, statistics_shape()),
          m2(DType::f64, statistics_shape()) {
        Random random(7);
        dy.fill([&](std::int64_t) { return 0.5 + random.unit(); });
        x.fill([&](std::int64_t) { return 20 + 3 * random.unit(); });
        weight.fill([&](std::int64_t) { return random.uniform(-2, 2); });
        bias.fill([&](std::int64_t) { return random.unit(); });
        labels.fill([&](std::int64_t) { return random.below(of.groups + 1) - 1; });
        segments.fill([&](std::int64_t i) { return at(of.segments, i); });
        where.fill([&](std::int64_t) { return random.below(3) > 0; });
        sample_weight.fill([&](std::int64_t) { return random.below(4); });
        make_exact_sets();
    }

    std::int64_t groups() const {
        if (kind.groups > 0) return kind.groups;
        if (kind.segments.empty()) return 1;
        return kind.pairs ? length(kind.segments) / 2 : length(kind.segments) - 1;
    }
    bool splits() const { return kind.groups > 0 || !kind.segments.empty(); }

    Shape statistics_shape() const {
        Shape shape = kind.shape;
        for (const int axis : kind.reduce) at(shape, axis) = 1;
        if (splits()) shape.insert(shape.begin(), groups());
        return shape;
    }

    void make_exact_sets() {
        const auto along = [&](const std::vector<int>& axes) { return number_along(kind.shape, axes); };
        const Numbering rows = along({0}), label = along(kind.labels), mask = along(kind.where),
                        sample = along(kind.sample_weight);
        std::vector<std::int64_t> group, segment(static_cast<std::size_t>(rows.count), -1);
        for (std::int64_t g = 0; !kind.segments.empty() && g < groups(); ++g) {
            const std::int64_t first = kind.pairs ? 2 * g : g;
            for (std::int64_t row = at(kind.segments, first); row < at(kind.segments, first + 1); ++row)
                at(segment, row) = g;
        }
        std::vector<double> weights;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            std::int64_t own = splits() ? -1 : 0;
            if (kind.groups > 0) own = static_cast<std::int64_t>(labels[at(label.of, i)]);
            if (!kind.segments.empty()) own = at(segment, at(rows.of, i));
            if (kind.masked && where[at(mask.of, i)] == 0) own = -1;
            group.push_back(own);
            weights.push_back(kind.weighted ? sample_weight[at(sample.of, i)] : 1);
        }
        sets = exact_sets(sets_of(kind.shape, kind.reduce), group, groups(), weights);
        moments = exact_moments(x.values(), sets, kind.center);
        // (groups, kept axes) in C order is the order of the sets.
        count.fill([&](std::int64_t i) { return at(moments, i).count; });
        mean.fill([&](std::int64_t i) { return at(moments, i).mean; });
        m2.fill([&](std::int64_t i) { return at(moments, i).m2; });
    }

    Selection selection() {
        Selection result;
        if (kind.groups > 0) {
            result.labels = labels.view();
            result.num_groups = kind.groups;
        }
        if (!kind.segments.empty()) result.segments = segments.view();
        if (kind.masked) result.where = where.view();
        if (kind.weighted) result.sample_weight = sample_weight.view();
        return result;
    }

    NormalizeBackwardOptions options(int threads = 0) {
        const bool has_moments = given || kind.frozen;
        return {.weight = weight.view(),
                .bias = bias.view(),
                .eps = eps,
                .center = kind.center,
                .given = has_moments ? MomentsView{count.view(), mean.view(), m2.view()} : MomentsView{},
                .frozen = kind.frozen,
                .activation = kind.activation,
                .excluded = excluded,
                .num_threads = threads};
    }

    void run(int threads = 0) {
        normalize_backward(dy.view(), x.view(), {axes_of(kind.reduce), selection()},
                           {dx.view(), grad_weight.view(), grad_bias.view()}, options(threads));
    }

    ExactGradients exact() {
        const Numbering places = number_along(kind.shape, kind.parameters);
        const ExactParameter of_weight{places, weight.values()};
        std::vector<double> gradient = dy.values();
        for (std::int64_t i = 0; i < x.size(); ++i) {
            if (at(sets.of, i) < 0) continue;
            const ExactMoments& set = at(moments, at(sets.of, i));
            const long double rstd = 1 / std::sqrt(set.m2 / set.count + static_cast<long double>(eps));
            const auto element = static_cast<std::size_t>(i);
            const long double y = (static_cast<long double>(x[i]) - set.mean) * rstd * of_weight(element, 1) +
                                  static_cast<long double>(bias[at(places.of, i)]);
            gradient[element] = static_cast<double>(gradient[element] * slope_of(kind.activation, y));
        }
        return exact_backward(gradient, x.values(), sets, moments, of_weight, places, eps, kind.center, kind.frozen);
    }

    void expect_exact() {
        // Activations of float32 are right to some 1e-6, and their argument to rounding.
        const bool activated = kind.activation != Activation::none;
        const double tolerance = dtypes.wide() ? 1e-13 : activated ? 1e-5 : 5e-7;
        const ExactGradients right = exact();
        const auto expect_near = [&](AnyArray& values, const ExactGradient& gradient, double unit, const char* what) {
            for (std::int64_t i = 0; i < values.size(); ++i) {
                const double error = std::fabs(values[i] - static_cast<double>(at(gradient.value, i)));
                const double least = 0x1p-24;  // half of the smallest float16 above 0, doubled
                const double allowed =
                    unit * static_cast<double>(at(gradient.unit, i)) + least * (unit < 1e-12 ? 1e-6 : 1);
                ASSERT_LE(error, allowed) << what << " at " << i << " of " << values.size() << ": " << values[i];
            }
        };
        expect_near(dx, right.input, tolerance + rounding_of(dtypes.grad_input), "grad_input");
        expect_near(grad_weight, right.weight, tolerance + rounding_of(dtypes.parameters), "grad_weight");
        expect_near(grad_bias, right.bias, activated ? tolerance : 1e-13, "grad_bias");
        EXPECT_EQ(dx.changed_gaps(), 0);
    }

    /// NaN and infinity wherever an element is in no set.
    void spoil() {
        for (std::int64_t i = 0; i < x.size(); ++i) {
            if (at(sets.of, i) >= 0) continue;
            x.set(i, i % 2 == 0 ? nan : infinity);
            dy.set(i, i % 3 == 0 ? infinity : nan);
        }
    }
};

inline void expect_same(Backward& a, Backward& b) {
    EXPECT_EQ(a.dx.memory(), b.dx.memory());
    EXPECT_EQ(a.grad_weight.memory(), b.grad_weight.memory());
    EXPECT_EQ(a.grad_bias.memory(), b.grad_bias.memory());
}

}  // namespace anynorm::test::selection_gradients
