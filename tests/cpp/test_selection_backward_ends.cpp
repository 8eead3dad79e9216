// SPDX-License-Identifier: Apache-2.0
// normalize_backward() over sets that are named by data, beside the same call on the compacted data; sets without
// elements; the norms; what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/norms.hpp"
#include "selection_gradients.hpp"

namespace anynorm::test {
namespace {

using namespace selection_gradients;

// ---- The same call on the compacted data ---------------------------------------------------------------------------

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

// ---- The ends ------------------------------------------------------------------------------------------------------

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

// ---- The norms -----------------------------------------------------------------------------------------------------

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

// ---- What is refused -----------------------------------------------------------------------------------------------

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
