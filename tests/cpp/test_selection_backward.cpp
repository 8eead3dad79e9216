// SPDX-License-Identifier: Apache-2.0
// normalize_backward() over sets that are named by labels, segments, masks and weights: against the definition, against
// the call on the compacted data, and its bits against themselves.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "any_array.hpp"
#include "anynorm/norms.hpp"
#include "selection_oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

constexpr double eps = 1e-3;

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

std::vector<Kind> kinds() {
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
std::vector<Kind> large_kinds() {
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
         .shape = {20, 300, 40},
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
        {.name = "labels_few", .shape = {20000, 10}, .reduce = {0}, .parameters = {1}, .groups = 30, .labels = {0}},
        {.name = "labels_many", .shape = {50000, 6}, .reduce = {0}, .parameters = {1}, .groups = 20000, .labels = {0}},
        {.name = "labels_vector", .shape = {200000}, .reduce = {0}, .parameters = {0}, .groups = 50, .labels = {0}},
        {.name = "segments_many", .shape = {60000, 5}, .reduce = {0}, .parameters = {1}, .segments = many},
        {.name = "long_rows", .shape = {3, 70000}, .reduce = {1}, .parameters = {1}, .masked = true, .where = {0}},
    };
}

Axes axes_of(const std::vector<int>& axes) { return Axes(std::span<const int>(axes)); }

/// The lengths along some axes, and 1 along the others.
Shape spread(const Shape& shape, const std::vector<int>& axes) {
    Shape result(shape.size(), 1);
    for (const int axis : axes) at(result, axis) = at(shape, axis);
    return result;
}

/// The dtypes of x, grad_output, grad_input and the parameters.
struct DTypes {
    DType x = DType::f32, grad_output = DType::f32, grad_input = DType::f32, parameters = DType::f32;

    bool wide() const { return x == DType::f64 || grad_output == DType::f64 || grad_input == DType::f64; }
};

double rounding_of(DType dtype) {
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

long double slope_of(Activation activation, long double y) {
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
        std::vector<std::int64_t> group;
        std::vector<double> weights;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            std::int64_t own = splits() ? -1 : 0;
            if (kind.groups > 0) own = static_cast<std::int64_t>(labels[at(label.of, i)]);
            for (std::int64_t g = 0; !kind.segments.empty() && g < groups(); ++g) {
                const std::int64_t first = kind.pairs ? 2 * g : g;
                if (at(rows.of, i) >= at(kind.segments, first) && at(rows.of, i) < at(kind.segments, first + 1)) {
                    own = g;
                    break;
                }
            }
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

void expect_same(Backward& a, Backward& b) {
    EXPECT_EQ(a.dx.memory(), b.dx.memory());
    EXPECT_EQ(a.grad_weight.memory(), b.grad_weight.memory());
    EXPECT_EQ(a.grad_bias.memory(), b.grad_bias.memory());
}

class SelectionBackward : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, SelectionBackward, testing::ValuesIn(kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(SelectionBackward, IsTheDefinitionInEveryLayout) {
    const std::vector<Layout>& all = layouts();
    for (std::size_t i = 0; i < all.size(); ++i) {
        SCOPED_TRACE(all[i].name);
        Backward call(GetParam(), {}, all[i], all[i], all[i]);
        call.run();
        call.expect_exact();
        Backward mixed(GetParam(), {DType::f64, DType::f64, DType::f64}, all[i], all[(i + 1) % all.size()],
                       all[(i + 3) % all.size()]);
        mixed.given = true;
        mixed.run();
        mixed.expect_exact();
    }
}

TEST_P(SelectionBackward, IsTheDefinitionForEveryDType) {
    const DTypes mixes[] = {{DType::f16, DType::f16, DType::f16, DType::f16},
                            {DType::bf16, DType::bf16, DType::bf16},
                            {DType::f16, DType::f32, DType::bf16, DType::f64},
                            {DType::f32, DType::f32, DType::f64},
                            {DType::f32, DType::f64, DType::f32, DType::bf16}};
    for (const DTypes& dtypes : mixes) {
        SCOPED_TRACE(std::string(name(dtypes.x)) + ", " + name(dtypes.grad_output) + ", " + name(dtypes.grad_input));
        Backward call(GetParam(), dtypes);
        call.run();
        call.expect_exact();
    }
}

TEST_P(SelectionBackward, ExcludedElementsAreNotLookedAt) {
    Backward clean(GetParam()), spoilt(GetParam());
    clean.run();
    spoilt.spoil();
    spoilt.run();
    expect_same(clean, spoilt);
}

TEST_P(SelectionBackward, ExcludedResultsAreWhatWasAskedFor) {
    for (const Excluded excluded : {Excluded::input, Excluded::keep}) {
        Backward zero(GetParam()), other(GetParam());
        other.excluded = excluded;
        zero.run();
        other.dx.fill([](std::int64_t i) { return i; });
        other.run();
        for (std::int64_t i = 0; i < zero.x.size(); ++i) {
            const double expected = at(zero.sets.of, i) >= 0      ? zero.dx[i]
                                    : excluded == Excluded::input ? zero.dy[i]
                                                                  : static_cast<double>(i);
            ASSERT_EQ(other.dx[i], expected) << i;
        }
    }
}

TEST_P(SelectionBackward, InPlace) {
    Backward apart(GetParam());
    apart.run();
    for (const bool over_x : {false, true}) {
        Backward call(GetParam());
        AnyArray& target = over_x ? call.x : call.dy;
        normalize_backward(call.dy.view(), call.x.view(), {axes_of(call.kind.reduce), call.selection()},
                           {target.view(), {}, {}}, call.options());
        for (std::int64_t i = 0; i < target.size(); ++i) {
            ASSERT_NEAR(target[i], apart.dx[i], 1e-5 * std::max(1.0, std::fabs(apart.dx[i]))) << i;
        }
    }
}

TEST_P(SelectionBackward, EachGradientIsOptional) {
    Backward all(GetParam());
    all.run();
    for (int only = 0; only < 3; ++only) {
        Backward some(GetParam());
        Gradients gradients;
        if (only == 0) gradients.grad_input = some.dx.view();
        if (only == 1) gradients.grad_weight = some.grad_weight.view();
        if (only == 2) gradients.grad_bias = some.grad_bias.view();
        normalize_backward(some.dy.view(), some.x.view(), {axes_of(some.kind.reduce), some.selection()}, gradients,
                           some.options());
        AnyArray& result = only == 0 ? some.dx : only == 1 ? some.grad_weight : some.grad_bias;
        AnyArray& expected = only == 0 ? all.dx : only == 1 ? all.grad_weight : all.grad_bias;
        for (std::int64_t i = 0; i < result.size(); ++i) {
            ASSERT_NEAR(result[i], expected[i], 1e-5 * std::max(1.0, std::fabs(expected[i]))) << only << " at " << i;
        }
    }
}

TEST_P(SelectionBackward, OnEveryInstructionSet) {
    const auto on = [](Isa isa) {
        const UseIsa use(isa);
        Backward call(GetParam());
        call.run();
        call.expect_exact();
        return call;
    };
    for (const Isa isa : isas_of_this_machine()) {
        SCOPED_TRACE(name(isa));
        on(isa);
    }
    const std::vector<Isa> isas = isas_with_equal_bits();
    for (std::size_t i = 1; i < isas.size(); ++i) {
        Backward first = on(isas[0]), other = on(isas[i]);
        expect_same(first, other);
    }
}

class LargeSelectionBackward : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, LargeSelectionBackward, testing::ValuesIn(large_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(LargeSelectionBackward, IsTheDefinitionForAnyNumberOfThreads) {
    Backward one(GetParam());
    one.run(1);
    one.expect_exact();
    for (const int threads : {2, 3, 7}) {
        Backward other(GetParam());
        other.run(threads);
        expect_same(one, other);
    }
}

// ---- The same call on the compacted data
// -----------------------------------------------------------------------------

/// A matrix of `rows` x `columns`, of which some rows are one set each column.
struct Rows {
    Tensor<float> x, dy, dx;
    Tensor<double> grad_weight;
    std::int64_t columns;

    Rows(std::int64_t rows, std::int64_t n)
        : x({rows, n}), dy({rows, n}), dx({rows, n}), grad_weight({n}), columns(n) {}

    void copy_row(std::int64_t to, Rows& from, std::int64_t row) {
        for (std::int64_t i = 0; i < columns; ++i) {
            x[to * columns + i] = from.x[row * columns + i];
            dy[to * columns + i] = from.dy[row * columns + i];
        }
    }
    void run(const Selection& selection = {}) {
        normalize_backward(dy.view(), x.view(), {{0}, selection}, {dx.view(), grad_weight.view(), {}});
    }
    void fill(std::uint64_t seed) {
        Random random(seed);
        x.fill([&](std::int64_t) { return 5 + random.unit(); });
        dy.fill([&](std::int64_t) { return random.unit(); });
    }
    void expect_row(std::int64_t row, Rows& of, std::int64_t other) {
        for (std::int64_t i = 0; i < columns; ++i) {
            const float value = dx[row * columns + i], expected = of.dx[other * columns + i];
            ASSERT_NEAR(value, expected, 1e-6 * std::max(1.0F, std::fabs(expected))) << row << ", " << i;
        }
    }
};

TEST(SelectionBackwardCompacted, AMaskIsTheRowsThatItLeaves) {
    constexpr std::int64_t rows = 90, columns = 21;
    Rows all(rows, columns), kept(rows - rows / 3, columns);
    all.fill(1);
    Tensor<std::int8_t> where({rows, 1});
    std::vector<std::int64_t> used;
    for (std::int64_t row = 0; row < rows; ++row) {
        where[row] = row % 3 != 0 ? 1 : 0;
        if (where[row] == 0) continue;
        kept.copy_row(length(used), all, row);
        used.push_back(row);
    }
    Selection selection;
    selection.where = where.view();
    selection.where.dtype = DType::boolean;
    all.run(selection);
    kept.run();
    for (std::int64_t i = 0; i < length(used); ++i) all.expect_row(at(used, i), kept, i);
    for (std::int64_t i = 0; i < columns; ++i) EXPECT_NEAR(all.grad_weight[i], kept.grad_weight[i], 1e-6);
}

TEST(SelectionBackwardCompacted, SegmentsAreALoopOverThem) {
    constexpr std::int64_t columns = 9;
    const std::vector<std::int64_t> offsets = {4, 10, 10, 31, 77};
    Rows all(80, columns);
    all.fill(2);
    Tensor<std::int64_t> segments({length(offsets)});
    segments.fill([&](std::int64_t i) { return at(offsets, i); });
    Selection selection;
    selection.segments = segments.view();
    all.run(selection);
    for (std::int64_t segment = 0; segment + 1 < length(offsets); ++segment) {
        const std::int64_t start = at(offsets, segment), n = at(offsets, segment + 1) - start;
        if (n == 0) continue;
        Rows own(n, columns);
        for (std::int64_t row = 0; row < n; ++row) own.copy_row(row, all, start + row);
        own.run();
        for (std::int64_t row = 0; row < n; ++row) all.expect_row(start + row, own, row);
    }
}

TEST(SelectionBackwardCompacted, IntegerWeightsAreRepetition) {
    constexpr std::int64_t columns = 12, rows = 15;
    Rows weighted(rows, columns);
    weighted.fill(3);
    Tensor<double> weight({rows, 1});
    weight.fill([](std::int64_t row) { return 1 + row % 3; });
    Rows repeated(30, columns);
    std::vector<std::int64_t> first;
    std::int64_t next = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        first.push_back(next);
        for (int i = 0; i < static_cast<int>(weight[row]); ++i) repeated.copy_row(next++, weighted, row);
        // The weighted element stands for all of its copies; its gradient arrives once, at the first of them.
        for (std::int64_t copy = at(first, row) + 1; copy < next; ++copy) {
            for (std::int64_t i = 0; i < columns; ++i) repeated.dy[copy * columns + i] = 0;
        }
    }
    ASSERT_EQ(next, 30);
    Selection selection;
    selection.sample_weight = weight.view();
    weighted.run(selection);
    repeated.run();
    for (std::int64_t row = 0; row < rows; ++row) {
        for (std::int64_t i = 0; i < columns; ++i) {
            double sum = 0;  // of the gradients of all copies of an element
            for (std::int64_t copy = 0; copy < static_cast<std::int64_t>(weight[row]); ++copy) {
                sum += static_cast<double>(repeated.dx[(at(first, row) + copy) * columns + i]);
            }
            EXPECT_NEAR(static_cast<double>(weighted.dx[row * columns + i]), sum, 2e-6) << row << ", " << i;
        }
    }
}

// ---- The ends
// --------------------------------------------------------------------------------------------------------

TEST(SelectionBackwardEnds, NoElementInAnySet) {
    Kind labels{.name = "", .shape = {20, 6}, .reduce = {0}, .parameters = {1}, .groups = 3, .labels = {0}};
    Kind masked{.name = "", .shape = {20, 6}, .reduce = {1}, .parameters = {1}, .masked = true, .where = {0, 1}};
    Kind segments{.name = "", .shape = {20, 6}, .reduce = {0}, .parameters = {0}, .segments = {7}};
    for (const Kind& kind : {labels, masked, segments}) {
        Backward call(kind);
        call.labels.fill([](std::int64_t) { return -1; });
        call.where.fill([](std::int64_t) { return 0; });
        call.run();
        for (const double value : call.dx.values()) EXPECT_EQ(value, 0);
        for (const double value : call.grad_weight.values()) EXPECT_EQ(value, 0);
        for (const double value : call.grad_bias.values()) EXPECT_EQ(value, 0);
    }
}

TEST(SelectionBackwardEnds, NoGroups) {
    Backward call({.name = "", .shape = {20, 6}, .reduce = {0}, .parameters = {1}, .groups = 1, .labels = {0}});
    call.labels.fill([](std::int64_t) { return -1; });
    Selection selection = call.selection();
    selection.num_groups = 0;
    normalize_backward(call.dy.view(), call.x.view(), {{0}, selection}, {call.dx.view(), call.grad_weight.view(), {}});
    for (const double value : call.dx.values()) EXPECT_EQ(value, 0);
    for (const double value : call.grad_weight.values()) EXPECT_EQ(value, 0);
}

TEST(SelectionBackwardEnds, NaNOfASetStaysInIt) {
    // A NaN in set 1 of layer norm; the parameters meet it where its elements are in the set, and nowhere else.
    Backward call({.name = "", .shape = {4, 10}, .reduce = {1}, .parameters = {1}, .masked = true, .where = {0, 1}});
    call.where.fill([](std::int64_t i) { return i != 10 && i != 15 ? 1 : 0; });
    call.x.set(12, nan);
    call.run();
    for (std::int64_t i = 0; i < 10; ++i) {
        EXPECT_EQ(std::isnan(call.grad_weight[i]), i != 0 && i != 5) << i;
        EXPECT_FALSE(std::isnan(call.grad_bias[i]));
    }
    for (std::int64_t i = 0; i < 40; ++i) {
        EXPECT_EQ(std::isnan(call.dx[i]), i / 10 == 1 && i != 10 && i != 15) << i;
    }
}

TEST(SelectionBackwardEnds, RankZero) {
    AnyArray x(DType::f32, {}), dx(DType::f32, {}), where(DType::boolean, {});
    x.fill([](std::int64_t) { return 3; });
    for (const bool used : {false, true}) {
        where.fill([&](std::int64_t) { return used; });
        Selection selection;
        selection.where = where.view();
        normalize_backward(x.view(), x.view(), {{}, selection}, {dx.view(), {}, {}}, {.excluded = Excluded::input});
        EXPECT_NEAR(dx[0], used ? 0 : 3, 1e-3);  // of terms of size 1000
    }
}

// ---- The norms
// -------------------------------------------------------------------------------------------------------

TEST(SelectionBackwardNorms, AreTheEngineOverTheirAxes) {
    const auto reshaped = [](TensorView view, const Shape& shape) {
        return anynorm::view(static_cast<float*>(view.data), std::span<const std::int64_t>(shape));
    };
    const Kind batch{.name = "batch",
                     .shape = {5, 6, 7},
                     .reduce = {0, 2},
                     .parameters = {1},
                     .groups = 3,
                     .labels = {0},
                     .masked = true,
                     .where = {0, 2}};
    const Kind instance{.name = "instance",
                        .shape = {4, 6, 9},
                        .reduce = {2},
                        .parameters = {1},
                        .masked = true,
                        .weighted = true,
                        .where = {0, 1, 2},
                        .sample_weight = {2}};
    const Kind group{.name = "group",
                     .shape = {4, 3, 2, 9},
                     .reduce = {2, 3},
                     .parameters = {1, 2},
                     .masked = true,
                     .where = {0, 1, 2, 3}};
    const Kind layer{
        .name = "layer", .shape = {4, 6, 9}, .reduce = {2}, .parameters = {2}, .masked = true, .where = {0, 1}};
    const Kind rms{.name = "rms",
                   .shape = {4, 6, 9},
                   .reduce = {1, 2},
                   .parameters = {1, 2},
                   .masked = true,
                   .where = {2},
                   .center = false};
    for (const Kind& kind : {batch, instance, group, layer, rms}) {
        SCOPED_TRACE(kind.name);
        Backward engine(kind), norm(kind);
        engine.excluded = Excluded::input;
        engine.run();
        Shape shape = kind.shape;
        const bool splits = length(shape) == 4;
        if (splits) shape = {4, 6, 9};
        const TensorView x = reshaped(norm.x.view(), shape), dy = reshaped(norm.dy.view(), shape);
        Shape of_parameters;
        for (const int axis : kind.parameters) of_parameters.push_back(at(kind.shape, axis));
        if (splits) of_parameters = {6};
        const TensorView weight = reshaped(norm.weight.view(), of_parameters);
        Gradients gradients{reshaped(norm.dx.view(), shape), reshaped(norm.grad_weight.view(), of_parameters), {}};
        Selection selection = norm.selection();
        if (splits) {
            selection.where = reshaped(selection.where, shape);
            selection.where.dtype = DType::boolean;
        }
        const std::string name = kind.name;
        constexpr Excluded excluded = Excluded::input;
        if (name == "batch") {
            batch_norm_backward(
                dy, x, gradients,
                {.weight = weight, .training = true, .eps = eps, .selection = selection, .excluded = excluded});
        } else if (name == "instance") {
            instance_norm_backward(dy, x, gradients,
                                   {.weight = weight, .eps = eps, .selection = selection, .excluded = excluded});
        } else if (name == "group") {
            group_norm_backward(dy, x, 3, gradients,
                                {.weight = weight, .eps = eps, .selection = selection, .excluded = excluded});
        } else if (name == "layer") {
            layer_norm_backward(dy, x, {2}, gradients,
                                {.weight = weight, .eps = eps, .selection = selection, .excluded = excluded});
        } else {
            rms_norm_backward(dy, x, {1, 2}, gradients,
                              {.weight = weight, .eps = eps, .selection = selection, .excluded = excluded});
        }
        EXPECT_EQ(engine.dx.memory(), norm.dx.memory());
        EXPECT_EQ(engine.grad_weight.memory(), norm.grad_weight.memory());
    }
}

// ---- What is refused
// -------------------------------------------------------------------------------------------------

std::string message_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing refused";
}

TEST(SelectionBackwardRefuses, AndWritesNothing) {
    const Kind kind{.name = "", .shape = {20, 6}, .reduce = {0}, .parameters = {1}, .groups = 3, .labels = {0}};
    struct Case {
        const char* message;
        void (*spoil)(Backward& call, Selection& selection, NormalizeBackwardOptions& options, Gradients& gradients);
    };
    const Case cases[] = {
        {"normalize_backward: expected labels below num_groups=2, got 2",
         [](Backward&, Selection& selection, NormalizeBackwardOptions&, Gradients&) { selection.num_groups = 2; }},
        {"normalize_backward: expected moments.count with a first axis of length 3, got shape (1, 6)",
         [](Backward& call, Selection&, NormalizeBackwardOptions& options, Gradients&) {
             options.given = {call.count.view(), call.mean.view(), call.m2.view()};
             options.given.count.shape[0] = 1;
             options.given.count.rank = 2;
             options.given.count.shape[1] = 6;
         }},
        {"normalize_backward: expected excluded as zero, input or keep, got number 3",
         [](Backward&, Selection&, NormalizeBackwardOptions& options, Gradients&) {
             options.excluded = static_cast<Excluded>(3);
         }},
        {"normalize_backward: expected grad_bias apart from sample_weight, got arrays that share memory",
         [](Backward& call, Selection& selection, NormalizeBackwardOptions&, Gradients&) {
             call.grad_bias.fill([](std::int64_t) { return 1; });
             selection.sample_weight = call.grad_bias.view();
         }},
        {"normalize_backward: expected labels or segments, got both",
         [](Backward& call, Selection& selection, NormalizeBackwardOptions&, Gradients&) {
             selection.segments = call.segments.view();
         }},
    };
    for (const Case& one : cases) {
        Backward call(kind);
        call.dx.fill([](std::int64_t i) { return i; });
        Selection selection = call.selection();
        NormalizeBackwardOptions options = call.options();
        Gradients gradients{call.dx.view(), call.grad_weight.view(), call.grad_bias.view()};
        one.spoil(call, selection, options, gradients);
        const auto before = call.grad_weight.memory();
        EXPECT_EQ(message_of(
                      [&] { normalize_backward(call.dy.view(), call.x.view(), {{0}, selection}, gradients, options); }),
                  one.message);
        for (std::int64_t i = 0; i < call.dx.size(); ++i) ASSERT_EQ(call.dx[i], i);
        EXPECT_EQ(call.grad_weight.memory(), before);
    }
}

}  // namespace
}  // namespace anynorm::test
