// SPDX-License-Identifier: Apache-2.0
// Batch renormalization and its gradients against the formula in long double.
#include <gtest/gtest.h>

#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/batch_renorm.hpp"
#include "anynorm/norms.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {5, 6, 7, 3};
constexpr std::int64_t channels = 6;
constexpr double eps = 1e-3, r_max = 1.5, d_max = 0.75;

/// The operands of a call. Running statistics are near those of x for some channels and far for others, so that r and d
/// are clipped at either end somewhere and not clipped elsewhere.
template <class T>
struct Operands {
    Tensor<T> x, y, grad_output, grad_input;
    Tensor<double> weight{{channels}}, bias{{channels}, {.name = "strided", .step = 2}};
    Tensor<float> mean{{channels}}, var{{channels}};

    explicit Operands(const Layout& layout = {})
        : x(shape, layout), y(shape, layout), grad_output(shape, layout), grad_input(shape, layout) {
        Random random(7);
        x.fill([&](std::int64_t) { return 3 + 2 * random.unit(); });
        grad_output.fill([&](std::int64_t) { return random.unit(); });
        weight.fill([](std::int64_t c) { return 0.5 + 0.25 * static_cast<double>(c); });
        bias.fill([](std::int64_t c) { return 1 - static_cast<double>(c); });
        mean.fill([](std::int64_t c) { return 1 + static_cast<double>(c); });
        var.fill([](std::int64_t c) { return 0.5 * static_cast<double>(1 + c * c); });
    }
    BatchRenormOptions options() {
        return {.weight = weight.view(),
                .bias = bias.view(),
                .running = {.mean = mean.view(), .var = var.view(), .momentum = 0.0},
                .training = true,
                .eps = eps,
                .r_max = r_max,
                .d_max = d_max};
    }
    BatchNormOptions batch_norm_options() {
        const BatchRenormOptions o = options();
        return {.weight = o.weight, .bias = o.bias, .running = o.running, .training = true, .eps = eps};
    }
};

/// What the formula says, with r and d.
struct Exact {
    Numbering sets = sets_of(shape, {0, 2, 3});
    std::vector<ExactMoments> moments;
    std::vector<long double> rstd, r, d;
    int clipped = 0;

    template <class T>
    explicit Exact(Operands<T>& o) : moments(exact_moments(o.x.values(), sets)) {
        for (std::int64_t c = 0; c < channels; ++c) {
            const ExactMoments& set = at(moments, c);
            const long double sigma = std::sqrt(set.m2 / set.count + static_cast<long double>(eps));
            const long double running = std::sqrt(static_cast<long double>(o.var[c]) + static_cast<long double>(eps));
            const long double raw_r = sigma / running,
                              raw_d = (set.mean - static_cast<long double>(o.mean[c])) / running;
            rstd.push_back(1 / sigma);
            r.push_back(
                std::min(std::max(raw_r, 1 / static_cast<long double>(r_max)), static_cast<long double>(r_max)));
            d.push_back(std::min(std::max(raw_d, -static_cast<long double>(d_max)), static_cast<long double>(d_max)));
            clipped += (r.back() != raw_r ? 1 : 0) + (d.back() != raw_d ? 1 : 0);
        }
    }
    long double xhat(long double x, std::int64_t c) const { return (x - at(moments, c).mean) * at(rstd, c); }
};

template <class T>
class BatchRenormOf : public testing::Test {};
using Types = testing::Types<float, double>;
struct TypeName {
    template <class T>
    static std::string GetName(int) {
        return short_name<T>();
    }
};
TYPED_TEST_SUITE(BatchRenormOf, Types, TypeName);

TYPED_TEST(BatchRenormOf, IsTheFormulaInEveryLayout) {
    for (const Layout& layout : layouts()) {
        Operands<TypeParam> o(layout);
        const Exact exact(o);
        ASSERT_GE(exact.clipped, 4);
        ASSERT_LT(exact.clipped, 2 * channels);
        batch_renorm(o.x.view(), o.y.view(), o.options());
        std::vector<long double> expected;
        for (std::int64_t i = 0; i < o.x.size(); ++i) {
            const std::int64_t c = at(exact.sets.of, i);
            const long double corrected =
                exact.xhat(static_cast<long double>(o.x[i]), c) * at(exact.r, c) + at(exact.d, c);
            expected.push_back(corrected * static_cast<long double>(o.weight[c]) + static_cast<long double>(o.bias[c]));
        }
        EXPECT_LE(largest_error(o.y.values(), expected), sizeof(TypeParam) == 4 ? 1e-6 : 1e-14) << layout.name;
        EXPECT_EQ(o.y.changed_gaps(), 0) << layout.name;
    }
}

TYPED_TEST(BatchRenormOf, GradientsAreThoseOfTheFormulaWithConstantRAndD) {
    for (const Layout& layout : layouts()) {
        Operands<TypeParam> o(layout);
        const Exact exact(o);
        std::vector<long double> sums(channels), products(channels), grad_input;
        for (std::int64_t i = 0; i < o.x.size(); ++i) {
            const std::int64_t c = at(exact.sets.of, i);
            const long double dy = o.grad_output[i];
            at(sums, c) += dy;
            at(products, c) += dy * exact.xhat(static_cast<long double>(o.x[i]), c);
        }
        for (std::int64_t i = 0; i < o.x.size(); ++i) {
            const std::int64_t c = at(exact.sets.of, i);
            const long double n = at(exact.moments, c).count, dy = o.grad_output[i];
            const long double centred =
                dy - at(sums, c) / n - exact.xhat(static_cast<long double>(o.x[i]), c) * at(products, c) / n;
            grad_input.push_back(centred * static_cast<long double>(o.weight[c]) * at(exact.r, c) * at(exact.rstd, c));
        }
        std::vector<long double> grad_weight;
        for (std::int64_t c = 0; c < channels; ++c)
            grad_weight.push_back(at(products, c) * at(exact.r, c) + at(sums, c) * at(exact.d, c));

        Tensor<double> weight_gradient({channels}, {.name = "strided", .step = 2});
        Tensor<float> bias_gradient({channels});
        batch_renorm_backward(o.grad_output.view(), o.x.view(),
                              {o.grad_input.view(), weight_gradient.view(), bias_gradient.view()}, o.options());
        const bool single = sizeof(TypeParam) == 4;
        EXPECT_LE(largest_error(o.grad_input.values(), grad_input), single ? 1e-6 : 1e-14) << layout.name;
        EXPECT_LE(largest_error(weight_gradient.values(), grad_weight), single ? 1e-5 : 1e-13) << layout.name;
        EXPECT_LE(largest_error(bias_gradient.values(), sums), 1e-6) << layout.name;
    }
}

TYPED_TEST(BatchRenormOf, WithinClosedLimitsIsBatchNormToTheBit) {
    Operands<TypeParam> o, other;
    BatchRenormOptions closed = o.options();
    closed.r_max = 1;
    closed.d_max = 0;
    closed.running.momentum = 0.25;
    BatchNormOptions plain = other.batch_norm_options();
    plain.running.momentum = 0.25;
    batch_renorm(o.x.view(), o.y.view(), closed);
    batch_norm(other.x.view(), other.y.view(), plain);
    EXPECT_EQ(different_bits(o.y.values(), other.y.values()), 0);
    EXPECT_EQ(different_bits(o.mean.values(), other.mean.values()), 0);
    EXPECT_EQ(different_bits(o.var.values(), other.var.values()), 0);
    EXPECT_NE(different_bits(o.var.values(), Operands<TypeParam>().var.values()), 0);
}

TYPED_TEST(BatchRenormOf, WithoutTrainingIsBatchNormToTheBit) {
    Operands<TypeParam> o, other;
    BatchRenormOptions inference = o.options();
    BatchNormOptions plain = other.batch_norm_options();
    inference.training = plain.training = false;
    batch_renorm(o.x.view(), o.y.view(), inference);
    batch_norm(other.x.view(), other.y.view(), plain);
    EXPECT_EQ(different_bits(o.y.values(), other.y.values()), 0);
    Tensor<double> weight({channels}), bias({channels}), other_weight({channels}), other_bias({channels});
    batch_renorm_backward(o.grad_output.view(), o.x.view(), {o.grad_input.view(), weight.view(), bias.view()},
                          inference);
    batch_norm_backward(other.grad_output.view(), other.x.view(),
                        {other.grad_input.view(), other_weight.view(), other_bias.view()}, plain);
    EXPECT_EQ(different_bits(o.grad_input.values(), other.grad_input.values()), 0);
    EXPECT_EQ(different_bits(weight.values(), other_weight.values()), 0);
    EXPECT_EQ(different_bits(bias.values(), other_bias.values()), 0);
}

TYPED_TEST(BatchRenormOf, UnclippedIsWhatInferenceGives) {
    Operands<TypeParam> o, other;
    BatchRenormOptions open = o.options();
    open.r_max = open.d_max = infinity;
    batch_renorm(o.x.view(), o.y.view(), open);
    BatchNormOptions plain = other.batch_norm_options();
    plain.training = false;
    batch_norm(other.x.view(), other.y.view(), plain);
    for (std::int64_t i = 0; i < o.x.size(); ++i)
        ASSERT_NEAR(o.y[i], other.y[i], sizeof(TypeParam) == 4 ? 2e-6 : 1e-13) << i;
}

TYPED_TEST(BatchRenormOf, GivenMomentsAreThoseOfTheBatch) {
    Operands<TypeParam> o;
    for (const bool keeps_axes : {false, true}) {
        const Shape of_statistics = keeps_axes ? Shape{1, channels, 1, 1} : Shape{channels};
        Tensor<double> count(of_statistics), mean(of_statistics), m2(of_statistics), mean_low(of_statistics),
            returned({channels});
        const MomentsView batch{count.view(), mean.view(), m2.view(), {}, mean_low.view()};
        moments(o.x.view(), {{0, 2, 3}}, batch);
        batch_renorm(o.x.view(), o.y.view(), o.options());
        const auto expected = o.y.values();
        BatchRenormOptions given = o.options();
        given.given = batch;
        given.moments = {{}, returned.view(), {}};
        batch_renorm(o.x.view(), o.y.view(), given);
        EXPECT_EQ(different_bits(o.y.values(), expected), 0);
        EXPECT_EQ(different_bits(returned.values(), mean.values()), 0);
    }
}

TYPED_TEST(BatchRenormOf, OfAMaskIsThatOfWhatIsLeft) {
    const bool kept[] = {true, false, true, true, false};
    const double weights[] = {2, 0, 2, 2, 0};
    const Shape left = {3, 6, 7, 3};
    const std::int64_t sample = 6 * 7 * 3, places[] = {0, 2, 3};
    for (const Layout& layout : layouts()) {
        Operands<TypeParam> o(layout), few;
        Tensor<TypeParam> x(left), y(left), grad_output(left), grad_input(left);
        const auto kept_of = [&](Tensor<TypeParam>& all) {
            return [&](std::int64_t i) { return all[places[i / sample] * sample + i % sample]; };
        };
        x.fill(kept_of(o.x));
        grad_output.fill(kept_of(o.grad_output));
        Tensor<double> weight({channels}), bias({channels}), expected_weight({channels}), expected_bias({channels}),
            weight2({channels});
        BatchRenormOptions masked = o.options(), compacted = few.options();
        masked.running.momentum = compacted.running.momentum = 0.25;
        masked.selection.where = view(kept, {5, 1, 1, 1});
        o.y.fill([](std::int64_t) { return 9; });
        batch_renorm_backward(o.grad_output.view(), o.x.view(), {o.grad_input.view(), weight.view(), bias.view()},
                              masked);
        batch_renorm_backward(grad_output.view(), x.view(),
                              {grad_input.view(), expected_weight.view(), expected_bias.view()}, compacted);
        batch_renorm(o.x.view(), o.y.view(), masked);
        batch_renorm(x.view(), y.view(), compacted);
        const double tolerance = sizeof(TypeParam) == 4 ? 1e-6 : 1e-13;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            ASSERT_NEAR(kept_of(o.y)(i), y[i], tolerance) << layout.name << ' ' << i;
            ASSERT_NEAR(kept_of(o.grad_input)(i), grad_input[i], tolerance) << layout.name << ' ' << i;
        }
        for (std::int64_t c = 0; c < channels; ++c) {
            EXPECT_NEAR(weight[c], expected_weight[c], 100 * tolerance) << layout.name;
            EXPECT_NEAR(bias[c], expected_bias[c], 100 * tolerance) << layout.name;
            EXPECT_NEAR(o.mean[c], few.mean[c], 1e-6) << layout.name;
            EXPECT_NEAR(o.var[c], few.var[c], 1e-6 * few.var[c]) << layout.name;
        }
        for (std::int64_t i = 0; i < sample; ++i) ASSERT_EQ(o.y[sample + i], 0) << layout.name;

        Operands<TypeParam> heavy;
        BatchRenormOptions weighted = heavy.options();
        weighted.selection.sample_weight = view(weights, {5, 1, 1, 1});
        weighted.moments.weight2 = weight2.view();
        batch_renorm(o.x.view(), o.y.view(), weighted);
        for (std::int64_t i = 0; i < x.size(); ++i) ASSERT_NEAR(kept_of(o.y)(i), y[i], 2 * tolerance) << layout.name;
        for (std::int64_t c = 0; c < channels; ++c) EXPECT_EQ(weight2[c], 3 * 21 * 4.0);
    }
}

TYPED_TEST(BatchRenormOf, OneElementIsItsOwnMean) {
    const Shape one = {1, channels, 1};
    Operands<TypeParam> o;
    Tensor<TypeParam> x(one), y(one);
    x.fill([](std::int64_t c) { return 1.25 + static_cast<double>(c); });
    BatchRenormOptions options = o.options();
    EXPECT_THROW(batch_renorm(x.view(), y.view(), options), std::invalid_argument);
    options.one_element = OneElement::bias;
    options.running.momentum = 0.5;
    batch_renorm(x.view(), y.view(), options);
    for (std::int64_t c = 0; c < channels; ++c) {
        const double d = 0.25 / std::sqrt(static_cast<double>(o.var[c]) + eps);
        EXPECT_NEAR(y[c], std::min(d, d_max) * o.weight[c] + o.bias[c], 1e-6);
        EXPECT_EQ(o.mean[c], static_cast<float>(1 + c));
    }
}

TEST(BatchRenorm, OfNoElementsHasGradientsOfZero) {
    Operands<float> o;
    const TensorView none = view(static_cast<float*>(nullptr), {0, channels, 4});
    Tensor<double> weight({channels}), bias({channels});
    batch_renorm(none, none, o.options());
    batch_renorm_backward(none, none, {none, weight.view(), bias.view()}, o.options());
    EXPECT_EQ(different_bits(weight.values(), numbers(channels)), 0);
    EXPECT_EQ(different_bits(bias.values(), numbers(channels)), 0);
}

// --- errors ----------------------------------------------------------------------------------------------------------

struct Row {
    const char* name;
    const char* message;
    void (*change)(BatchRenormOptions&, Gradients&);

    friend void PrintTo(const Row& self, std::ostream* out) { *out << self.name; }
};

const Row table[] = {
    {"without_running", "expected running_mean and running_var, got none",
     [](BatchRenormOptions& o, Gradients&) { o.running.mean = o.running.var = {}; }},
    {"r_max_below_1", "expected r_max of at least 1, got 0.5",
     [](BatchRenormOptions& o, Gradients&) { o.r_max = 0.5; }},
    {"r_max_nan", "expected r_max of at least 1, got nan", [](BatchRenormOptions& o, Gradients&) { o.r_max = nan; }},
    {"d_max_negative", "expected d_max of at least 0, got -1", [](BatchRenormOptions& o, Gradients&) { o.d_max = -1; }},
    {"eps_negative", "expected eps of at least 0, got -1", [](BatchRenormOptions& o, Gradients&) { o.eps = -1; }},
    {"threads_negative", "expected num_threads of at least 0, got -1",
     [](BatchRenormOptions& o, Gradients&) { o.num_threads = -1; }},
    {"channel_axis", "expected channel_axis from -4 to 3, got 4",
     [](BatchRenormOptions& o, Gradients&) { o.channel_axis = 4; }},
    {"weight_of_other_shape", "expected weight of shape (6,), got (5,)",
     [](BatchRenormOptions& o, Gradients&) { o.weight.shape[0] = 5; }},
    {"labels", "expected no running statistics where labels or segments split the channels, got some",
     [](BatchRenormOptions& o, Gradients&) {
         static const std::int64_t labels[] = {0, 1, 0, 1, 0};
         o.selection.labels = view(labels, {5, 1, 1, 1});
         o.selection.num_groups = 2;
     }},
    {"mask_of_other_shape", "expected where of a shape that broadcasts to (5, 6, 7, 3), got (5,)",
     [](BatchRenormOptions& o, Gradients&) {
         static const bool mask[5] = {};
         o.selection.where = view(mask, {5});
     }},
    {"given_in_part", "expected given moments with count, mean and m2, got some of them",
     [](BatchRenormOptions& o, Gradients&) { o.given.mean = o.weight; }},
};

const Row backward_table[] = {
    {"grad_weight_of_other_shape", "expected grad_weight of shape (6,), got (5,)",
     [](BatchRenormOptions&, Gradients& g) { g.grad_weight.shape[0] = 5; }},
    {"grad_weight_overlaps_weight", "expected grad_weight apart from weight, got arrays that share memory",
     [](BatchRenormOptions& o, Gradients& g) { g.grad_weight = o.weight; }},
    {"grad_weight_overlaps_sample_weight",
     "expected grad_weight apart from sample_weight, got arrays that share memory",
     [](BatchRenormOptions& o, Gradients& g) {
         o.selection.sample_weight = g.grad_weight;
         o.selection.sample_weight.rank = 4;
         for (int axis = 0; axis < 4; ++axis) o.selection.sample_weight.shape[axis] = 1;
     }},
    {"grad_weight_overlaps_grad_bias", "expected grad_weight apart from grad_bias, got arrays that share memory",
     [](BatchRenormOptions&, Gradients& g) { g.grad_weight = g.grad_bias; }},
    {"grad_bias_overlaps_itself",
     "expected grad_bias without elements that share memory, got strides that reach one element twice",
     [](BatchRenormOptions&, Gradients& g) { g.grad_bias.strides[0] = 0; }},
    {"grad_input_of_other_shape", "expected grad_input of shape (5, 6, 7, 3), got (5, 6, 7, 2)",
     [](BatchRenormOptions&, Gradients& g) { g.grad_input.shape[3] = 2; }},
    {"grad_input_overlaps_weight", "expected grad_input apart from weight, got arrays that share memory",
     [](BatchRenormOptions& o, Gradients& g) {
         o.weight.data = g.grad_input.data;
         o.weight.dtype = g.grad_input.dtype;
     }},
};

class BatchRenormErrors : public testing::TestWithParam<Row> {};
INSTANTIATE_TEST_SUITE_P(Both, BatchRenormErrors, testing::ValuesIn(table),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Backward, BatchRenormErrors, testing::ValuesIn(backward_table),
                         [](const auto& info) { return info.param.name; });

TEST_P(BatchRenormErrors, SayWhatAndWriteNothing) {
    Operands<float> o;
    Tensor<double> weight({channels}), bias({channels});
    o.y.fill([](std::int64_t) { return 9; });
    const auto refused = [&](const char* caller, const auto& call) {
        BatchRenormOptions options = o.options();
        Gradients gradients{o.grad_input.view(), weight.view(), bias.view()};
        GetParam().change(options, gradients);
        const std::vector<std::vector<float>> before = {o.y.values(), o.grad_input.values(), o.mean.values()};
        const auto parameters = weight.values();
        try {
            call(options, gradients);
            FAIL() << "no std::invalid_argument";
        } catch (const std::invalid_argument& error) {
            EXPECT_EQ(error.what(), std::string(caller) + ": " + GetParam().message);
        }
        EXPECT_EQ(before, (std::vector<std::vector<float>>{o.y.values(), o.grad_input.values(), o.mean.values()}));
        EXPECT_EQ(different_bits(parameters, weight.values()), 0);
    };
    refused("batch_renorm_backward", [&](const BatchRenormOptions& options, const Gradients& gradients) {
        batch_renorm_backward(o.grad_output.view(), o.x.view(), gradients, options);
    });
    const std::string group = testing::UnitTest::GetInstance()->current_test_info()->test_suite_name();
    if (group.starts_with("Backward")) return;
    refused("batch_renorm", [&](const BatchRenormOptions& options, const Gradients&) {
        batch_renorm(o.x.view(), o.y.view(), options);
    });
}

}  // namespace
}  // namespace anynorm::test
