// SPDX-License-Identifier: Apache-2.0
// The gradient that comes to the sum with a residual from elsewhere: added to grad_input in the arithmetic of the call,
// and rounded once, for every way in which arrays can lie and sets can be chosen.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "any_array.hpp"
#include "anynorm/norms.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

const Shape shape = {6, 8, 5, 7};

/// The gradients of a norm for grad_output and x, with what is fused.
struct Norm {
    const char* title;
    std::function<void(const TensorView& dy, const TensorView& x, const Gradients&, const Fusion&)> call;
};

TensorView ones(std::int64_t n) {
    static std::vector<float> values(64, 1.5F);
    return view(values.data(), {n});
}

/// Statistics that are used as they are.
MomentsView fixed() {
    static double count = 1, mean = 0.25, m2 = 2;
    const auto spread = [](double* value) { return view(value, {6, 8}, {0, 0}); };
    return {spread(&count), spread(&mean), spread(&m2)};
}

/// Sets by data: what the kind says of the elements of `shape`.
struct Selected {
    std::vector<std::int64_t> labels = {0, 2, -1, 1, 0, 2}, segments = {0, 2, 2, 5};
    std::vector<std::int8_t> where;
    std::vector<double> sample_weight = {1, 0.5, 2, 0, 3, 1};

    Selected() {
        Random random(9);
        for (std::int64_t i = 0; i < size_of(shape); ++i) where.push_back(random.uniform(0, 1) < 0.7 ? 1 : 0);
    }
    static Selected& instance() {
        static Selected selected;
        return selected;
    }
    TensorView mask(const Shape& of) {
        TensorView result = view(where.data(), std::span<const std::int64_t>(of));
        result.dtype = DType::boolean;
        return result;
    }
};

std::vector<Norm> norms() {
    return {
        {"layer", [](auto& dy, auto& x, auto& g,
                     auto& f) { layer_norm_backward(dy, x, {-1}, g, {.weight = ones(7), .fusion = f}); }},
        {"layer_channels",
         [](auto& dy, auto& x, auto& g, auto& f) { layer_norm_backward(dy, x, {1}, g, {.fusion = f}); }},
        {"rms",
         [](auto& dy, auto& x, auto& g, auto& f) { rms_norm_backward(dy, x, {2, 3}, g, {.eps = 1e-5, .fusion = f}); }},
        {"group", [](auto& dy, auto& x, auto& g,
                     auto& f) { group_norm_backward(dy, x, 4, g, {.weight = ones(8), .fusion = f}); }},
        {"instance", [](auto& dy, auto& x, auto& g, auto& f) { instance_norm_backward(dy, x, g, {.fusion = f}); }},
        {"instance_given", [](auto& dy, auto& x, auto& g,
                              auto& f) { instance_norm_backward(dy, x, g, {.given = fixed(), .fusion = f}); }},
        {"batch", [](auto& dy, auto& x, auto& g,
                     auto& f) { batch_norm_backward(dy, x, g, {.weight = ones(8), .training = true, .fusion = f}); }},
        {"all",
         [](auto& dy, auto& x, auto& g, auto& f) {
             normalize_backward(dy, x, {Axes::range(0, 4)}, g, {.activation = f.activation, .grad_sum = f.grad_sum});
         }},
    };
}

/// Those whose sets data name, and what becomes of the rest.
std::vector<Norm> selected_norms(Excluded excluded) {
    Selected& of = Selected::instance();
    const Selection samples{.where = of.mask({6, 1, 1, 1})}, elements{.where = of.mask(shape)};
    const Selection rows{.where = of.mask({6, 8, 5, 1})};
    const Selection labels{.labels = view(of.labels.data(), {6, 1, 1, 1}), .num_groups = 3};
    const Selection along_rows{.labels = view(of.labels.data(), {1, 1, 5, 1}), .num_groups = 3};
    const Selection segments{.segments = view(of.segments.data(), {4})};
    const Selection weights{.sample_weight = view(of.sample_weight.data(), {6, 1, 1, 1})};
    const auto layer = [excluded](const Axes& axes, const Selection& selection) {
        return [=](auto& dy, auto& x, auto& g, auto& f) {
            layer_norm_backward(dy, x, axes, g, {.fusion = f, .selection = selection, .excluded = excluded});
        };
    };
    const auto batch = [excluded](const Selection& selection) {
        return [=](auto& dy, auto& x, auto& g, auto& f) {
            batch_norm_backward(dy, x, g,
                                {.training = true, .fusion = f, .selection = selection, .excluded = excluded});
        };
    };
    return {{"layer_masked_samples", layer({2, 3}, samples)},
            {"layer_masked", layer({1, 3}, elements)},
            {"batch_masked", batch(elements)},
            {"batch_labels", batch(labels)},
            {"layer_labels", layer({1, 2, 3}, along_rows)},
            {"layer_segments", layer({0, 3}, segments)},
            {"batch_weights", batch(weights)},
            {"short_rows_masked", layer({0, 1, 2}, rows)},
            {"short_rows_labels", layer({0, 1, 2}, along_rows)}};
}

struct DTypes {
    DType x, grad_output, grad_input, grad_sum;

    DType compute() const {
        const bool wide =
            x == DType::f64 || grad_output == DType::f64 || grad_input == DType::f64 || grad_sum == DType::f64;
        return wide ? DType::f64 : DType::f32;
    }
};

const DTypes all_dtypes[] = {
    {DType::f32, DType::f32, DType::f32, DType::f32},  {DType::bf16, DType::bf16, DType::bf16, DType::bf16},
    {DType::f16, DType::f16, DType::f16, DType::f32},  {DType::f32, DType::f32, DType::bf16, DType::f16},
    {DType::f32, DType::f32, DType::f32, DType::f64},  {DType::f64, DType::f64, DType::f64, DType::f64},
    {DType::f64, DType::f32, DType::f32, DType::bf16},
};

/// Half of the distance of neighbours, of values around 1.
double rounding_of(DType dtype) {
    return dtype == DType::f64 ? 0x1p-53 : dtype == DType::f32 ? 0x1p-24 : dtype == DType::bf16 ? 0x1p-8 : 0x1p-11;
}

/// Arrays of a call; their numbers are exact in every dtype.
struct Arrays {
    AnyArray dy, x, grad_sum, dx;

    Arrays(const DTypes& types, const Layout& one, const Layout& other, const Shape& of = shape)
        : dy(types.grad_output, of, one),
          x(types.x, of, other),
          grad_sum(types.grad_sum, of, one),
          dx(types.grad_input, of, other) {
        Random random(4);
        const auto number = [&](std::int64_t) { return std::round(random.unit() * 40) / 8; };
        dy.fill(number);
        x.fill(number);
        grad_sum.fill(number);
        dx.fill([](std::int64_t i) { return i % 3; });
    }
};

/// Both terms apart, in the type to compute in, and their sum.
void expect_sum(const Norm& norm, Arrays& arrays, const DTypes& types, Activation activation, const std::string& what) {
    AnyArray gradient(types.compute(), arrays.x.shape());
    gradient.fill([](std::int64_t i) { return i % 3; });
    std::vector<double> before = arrays.dx.values();
    AnyArray plain(types.grad_input, arrays.x.shape());  // says what is kept
    plain.fill([](std::int64_t i) { return 5 + i % 7; });
    AnyArray wide_x(types.compute(), arrays.x.shape()), wide_dy(types.compute(), arrays.x.shape());
    wide_x.fill([&](std::int64_t i) { return arrays.x[i]; });
    wide_dy.fill([&](std::int64_t i) { return arrays.dy[i]; });
    const double eps_of_compute = types.compute() == DType::f64 ? 1e-13 : 3e-6;
    norm.call(wide_dy.view(), wide_x.view(), {gradient.view()}, {.activation = activation});
    norm.call(arrays.dy.view(), arrays.x.view(), {plain.view()}, {.activation = activation});
    norm.call(arrays.dy.view(), arrays.x.view(), {arrays.dx.view()},
              {.grad_sum = arrays.grad_sum.view(), .activation = activation});
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < gradient.size(); ++i) {
        const bool kept = plain[i] == static_cast<double>(5 + i % 7) && gradient[i] == static_cast<double>(i % 3);
        const double exact = kept ? before[static_cast<std::size_t>(i)] : gradient[i] + arrays.grad_sum[i];
        const double error = std::fabs(arrays.dx[i] - exact);
        const double allowed =
            kept ? 0 : rounding_of(types.grad_input) * std::fabs(exact) + eps_of_compute * (1 + std::fabs(gradient[i]));
        wrong += error <= allowed * (1 + 1e-6) ? 0 : 1;
    }
    EXPECT_EQ(wrong, 0) << norm.title << " " << what;
    EXPECT_EQ(arrays.dx.changed_gaps(), 0) << norm.title << " " << what;
}

std::string names(const DTypes& types) {
    return std::string(name(types.x)) + " " + name(types.grad_output) + " " + name(types.grad_input) + " " +
           name(types.grad_sum);
}

TEST(GradSum, IsAddedForLayoutsTypesAndNorms) {
    std::size_t turn = 0;
    for (const Layout& layout : layouts()) {
        for (const DTypes& types : all_dtypes) {
            for (const Norm& norm : norms()) {
                Arrays arrays(types, layout, at(layouts(), turn++ % layouts().size()));
                expect_sum(norm, arrays, types, Activation::none, names(types) + " " + layout.name);
            }
        }
    }
}

TEST(GradSum, IsAddedBehindTheActivation) {
    std::size_t turn = 0;
    for (const Activation activation : {Activation::relu, Activation::silu, Activation::gelu}) {
        for (const DTypes& types : all_dtypes) {
            for (const Norm& norm : norms()) {
                const Layout& layout = at(layouts(), turn++ % layouts().size());
                Arrays arrays(types, {}, layout);
                expect_sum(norm, arrays, types, activation, names(types) + " " + layout.name);
            }
        }
    }
}

TEST(GradSum, IsAddedToWhatASelectionWrites) {
    std::size_t turn = 0;
    for (const Excluded excluded : {Excluded::zero, Excluded::input, Excluded::keep}) {
        for (const DTypes& types : all_dtypes) {
            for (const Norm& norm : selected_norms(excluded)) {
                const Layout& layout = at(layouts(), turn++ % layouts().size());
                Arrays arrays(types, layout, {});
                const Activation activation = turn % 2 == 0 ? Activation::none : Activation::silu;
                expect_sum(norm, arrays, types, activation,
                           names(types) + " " + layout.name + " " + std::to_string(static_cast<int>(excluded)));
            }
        }
    }
}

/// Contiguous float32: the bits of an addition in another pass, for any number of threads, and in place.
TEST(GradSum, HasTheBitsOfAnotherPass) {
    struct Kind {
        Shape shape;
        Axes axes;
    };
    for (const Kind& kind : {Kind{{700, 900}, {1}}, Kind{{3000, 20}, {1}}, Kind{{2000, 700}, {0}}, Kind{{5, 8000}, {1}},
                             Kind{{9, 40, 900}, {0, 2}}, Kind{{1000, 33}, {}}, Kind{{700, 900}, {0, 1}}}) {
        Random random(2);
        Tensor<float> x(kind.shape), dy(kind.shape), grad_sum(kind.shape), dx(kind.shape), plain(kind.shape);
        for (Tensor<float>* array : {&x, &dy, &grad_sum}) array->fill([&](std::int64_t) { return random.unit(); });
        grad_sum[3] = -0.0F;
        normalize_backward(dy.view(), x.view(), {kind.axes}, {plain.view()});
        for (std::int64_t i = 0; i < plain.size(); ++i) plain[i] += grad_sum[i];
        for (const int threads : {1, 3}) {
            normalize_backward(dy.view(), x.view(), {kind.axes}, {dx.view()},
                               {.grad_sum = grad_sum.view(), .num_threads = threads});
            EXPECT_EQ(different_bits(plain.values(), dx.values()), 0)
                << testing::PrintToString(kind.shape) << " " << threads;
        }
        for (Tensor<float>* array : {&grad_sum, &dy, &x}) {
            Tensor<float> kept = *array;
            normalize_backward(dy.view(), x.view(), {kind.axes}, {array->view()}, {.grad_sum = grad_sum.view()});
            EXPECT_EQ(different_bits(plain.values(), array->values()), 0) << testing::PrintToString(kind.shape);
            *array = kept;
        }
    }
}

TEST(GradSum, ParametersDoNotChange) {
    for (const Norm& norm : {norms()[0], norms()[6]}) {
        Arrays arrays({DType::f32, DType::f32, DType::f32, DType::f32}, {}, {});
        const Shape own = {norm.title == std::string("layer") ? 7 : 8};
        Tensor<double> weight(own), bias(own), plain_weight(own), plain_bias(own);
        norm.call(arrays.dy.view(), arrays.x.view(), {arrays.dx.view(), plain_weight.view(), plain_bias.view()}, {});
        norm.call(arrays.dy.view(), arrays.x.view(), {arrays.dx.view(), weight.view(), bias.view()},
                  {.grad_sum = arrays.grad_sum.view()});
        EXPECT_EQ(different_bits(plain_weight.values(), weight.values()), 0) << norm.title;
        EXPECT_EQ(different_bits(plain_bias.values(), bias.values()), 0) << norm.title;
    }
}

/// What a call that is refused says.
template <class Call>
std::string message_of(const Call& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

TEST(GradSumErrors, NothingIsWritten) {
    const Shape of = {4, 6};
    Tensor<float> x(of), dy(of), dx(of), grad_sum(of), grad_weight({6}), wrong({4, 5});
    Tensor<std::int8_t> bytes(of);
    for (Tensor<float>* array : {&x, &dy, &grad_sum}) array->fill([](std::int64_t i) { return i % 5; });
    for (Tensor<float>* array : {&dx, &grad_weight}) array->fill([](std::int64_t) { return 7; });
    const auto refused = [&](const TensorView& sum, const Gradients& gradients) {
        return message_of([&] { normalize_backward(dy.view(), x.view(), {{1}}, gradients, {.grad_sum = sum}); });
    };
    EXPECT_EQ(refused(wrong.view(), {dx.view()}), "normalize_backward: expected grad_sum of shape (4, 6), got (4, 5)");
    EXPECT_EQ(refused(bytes.view(), {dx.view()}),
              "normalize_backward: expected grad_sum of dtype float16, bfloat16, float32 or float64, got int8");
    EXPECT_EQ(refused(grad_sum.view(), {{}, grad_weight.view()}),
              "normalize_backward: expected grad_input with grad_sum, got none");
    EXPECT_EQ(refused(grad_sum.view(), {dx.view(), view(static_cast<float*>(grad_sum.view().data), {6})}),
              "normalize_backward: expected grad_weight apart from grad_sum, got arrays that share memory");
    auto* const memory = static_cast<float*>(dx.view().data);
    Tensor<float> narrow_x({4, 5}), narrow_dy({4, 5});
    EXPECT_EQ(message_of([&] {
                  normalize_backward(narrow_dy.view(), narrow_x.view(), {{1}}, {view(memory, {4, 5}, {6, 1})},
                                     {.grad_sum = view(memory + 1, {4, 5}, {6, 1})});
              }),
              "normalize_backward: expected grad_input apart from grad_sum, got arrays that share memory");
    EXPECT_EQ(message_of([&] {
                  group_norm_backward(dy.view(), x.view(), 2, {dx.view()}, {.fusion = {.grad_sum = wrong.view()}});
              }),
              "group_norm_backward: expected grad_sum of shape (4, 6), got (4, 5)");
    for (std::int64_t i = 0; i < dx.size(); ++i) EXPECT_EQ(dx[i], 7);
    for (std::int64_t i = 0; i < grad_weight.size(); ++i) EXPECT_EQ(grad_weight[i], 7);
}

}  // namespace
}  // namespace anynorm::test
