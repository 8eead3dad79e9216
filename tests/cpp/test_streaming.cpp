// SPDX-License-Identifier: Apache-2.0
// Large results that pass the caches by.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "anynorm/normalize.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

/// From 4 MB on, y is written past the caches; in place it never is. Whole lines, shared lines, short rows put
/// together.
struct Streamed {
    const char* name;
    Shape shape;
    std::vector<int> reduce;
    Shape parameters;

    friend void PrintTo(const Streamed& self, std::ostream* out) { *out << self.name; }
};

const Streamed streamed[] = {
    {"rows", {1100, 1000}, {1}, {1000}},
    {"odd_rows", {1100, 1001}, {1}, {1001}},
    {"long_rows", {5, 220001}, {1}, {220001}},
    {"short_rows", {22000, 49}, {1}, {49}},
    {"tiny_rows", {220000, 5}, {1}, {5}},
    {"columns", {34000, 33}, {0}, {33}},
    {"wide_columns", {800, 1500}, {0}, {1500}},
    {"planes_of_channels", {40, 30, 31, 31}, {0, 2, 3}, {30, 1, 1}},
    {"planes_of_whole_lines", {40, 30, 32, 32}, {0, 2, 3}, {30, 1, 1}},
    {"planes_that_are_rows", {5, 60, 64, 64}, {2, 3}, {60, 1, 1}},
    {"small_planes_of_channels", {80, 300, 7, 7}, {0, 2, 3}, {300, 1, 1}},
    {"small_groups_of_channels", {700, 16, 2, 7, 7}, {2, 3, 4}, {16, 2, 1, 1}},
    {"groups_channels_last", {4, 4400, 8, 8}, {1, 3}, {8, 8}},
    {"groups_of_channels", {4, 8, 16, 47, 47}, {2, 3, 4}, {8, 16, 1, 1}},
    {"groups_of_whole_lines", {4, 149, 2, 32, 32}, {2, 3, 4}, {149, 2, 1, 1}},
    {"groups_of_long_channels", {4, 8, 8, 68, 68}, {2, 3, 4}, {8, 8, 1, 1}},
    {"groups_of_odd_channels", {4, 9, 13, 50, 50}, {2, 3, 4}, {9, 13, 1, 1}},
    {"samples_channels_last", {6, 3001, 64}, {1}, {64}},
    {"small_samples_channels_last", {301, 60, 64}, {1}, {64}},
    {"groups_channels_last_with_weights_of_their_own", {3, 3001, 16, 4, 2}, {1, 3, 4}, {16, 4, 1}},
    {"strips_of_channels_last", {3, 300, 1264}, {1}, {1264}},
};

class SlowStreamed : public testing::TestWithParam<Streamed> {};

TEST_P(SlowStreamed, ResultsHaveTheBitsOfThoseInPlace) {
    const auto& [name, shape, reduce, parameters] = GetParam();
    Axes axes;
    for (int axis : reduce) axes.values[axes.size++] = axis;
    const std::size_t size = static_cast<std::size_t>(size_of(shape));
    std::vector<float> x(size), in_place, y(size + 32);
    Random random(17);
    for (float& value : x) value = static_cast<float>(3 + random.unit());
    Tensor<float> weight(parameters), bias(parameters);
    weight.fill([&](std::int64_t) { return random.uniform(0.5, 2); });
    bias.fill([&](std::int64_t) { return random.unit(); });
    NormalizeOptions options;
    options.weight = weight.view();
    options.bias = bias.view();

    in_place = x;
    const std::span<const std::int64_t> lengths(shape);
    normalize(view(in_place.data(), lengths), {axes}, view(in_place.data(), lengths), options);
    const std::size_t to_line = (64 - reinterpret_cast<std::uintptr_t>(y.data()) % 64) % 64 / sizeof(float);
    for (std::size_t offset : {to_line, std::size_t{0}, std::size_t{1}, std::size_t{4}, std::size_t{13}}) {
        for (int threads : {1, 2}) {
            options.num_threads = threads;
            std::fill(y.begin(), y.end(), -1.0F);
            normalize(view(x.data(), lengths), {axes}, view(y.data() + offset, lengths), options);
            std::int64_t wrong = 0;
            for (std::size_t i = 0; i < size; ++i) wrong += bits(y[offset + i]) != bits(in_place[i]) ? 1 : 0;
            EXPECT_EQ(wrong, 0) << "at offset " << offset << " on " << threads << " threads";
            for (std::size_t i = 0; i < offset; ++i) EXPECT_EQ(y[i], -1.0F);
            for (std::size_t i = offset + size; i < y.size(); ++i) EXPECT_EQ(y[i], -1.0F);
        }
    }
}

/// Those of every kind: grad_input past the caches, and over grad_output, where it is not.
TEST_P(SlowStreamed, GradientsHaveTheBitsOfThoseInPlace) {
    const auto& [name, shape, reduce, parameters] = GetParam();
    Axes axes;
    for (int axis : reduce) axes.values[axes.size++] = axis;
    const std::size_t size = static_cast<std::size_t>(size_of(shape));
    std::vector<float> x(size), grad_output(size), grad_input(size + 32);
    Random random(18);
    for (float& value : x) value = static_cast<float>(3 + random.unit());
    for (float& value : grad_output) value = static_cast<float>(random.unit());
    Tensor<float> weight(parameters), grad_weight(parameters), grad_bias(parameters);
    weight.fill([&](std::int64_t) { return random.uniform(0.5, 2); });
    const std::span<const std::int64_t> lengths(shape);
    NormalizeBackwardOptions options{.weight = weight.view()};

    std::vector<float> in_place = grad_output;
    normalize_backward(view(in_place.data(), lengths), view(x.data(), lengths), {axes},
                       {view(in_place.data(), lengths), grad_weight.view(), grad_bias.view()}, options);
    const std::vector<float> of_weight = grad_weight.values(), of_bias = grad_bias.values();
    const std::size_t to_line = (64 - reinterpret_cast<std::uintptr_t>(grad_input.data()) % 64) % 64 / sizeof(float);
    for (std::size_t offset : {to_line, std::size_t{0}, std::size_t{1}, std::size_t{13}}) {
        options.num_threads = offset == 1 ? 2 : 1;
        std::fill(grad_input.begin(), grad_input.end(), -1.0F);
        normalize_backward(view(grad_output.data(), lengths), view(x.data(), lengths), {axes},
                           {view(grad_input.data() + offset, lengths), grad_weight.view(), grad_bias.view()}, options);
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < size; ++i) wrong += bits(grad_input[offset + i]) != bits(in_place[i]) ? 1 : 0;
        EXPECT_EQ(wrong, 0) << "at offset " << offset;
        for (std::size_t i = 0; i < offset; ++i) EXPECT_EQ(grad_input[i], -1.0F);
        for (std::size_t i = offset + size; i < grad_input.size(); ++i) EXPECT_EQ(grad_input[i], -1.0F);
        EXPECT_EQ(different_bits(grad_weight.values(), of_weight), 0);
        EXPECT_EQ(different_bits(grad_bias.values(), of_bias), 0);
    }
}

INSTANTIATE_TEST_SUITE_P(, SlowStreamed, testing::ValuesIn(streamed),
                         [](const auto& info) { return std::string(info.param.name); });

/// Rows of y that are apart: what lies between them stays as it was, wherever in a line they begin.
class SlowStreamedGaps : public testing::TestWithParam<Streamed> {};

TEST_P(SlowStreamedGaps, StayAsTheyWere) {
    const auto& [name, shape, reduce, parameters] = GetParam();
    Axes axes;
    for (int axis : reduce) axes.values[axes.size++] = axis;
    const std::int64_t n = shape.back(), rows = size_of(shape) / n;
    std::vector<float> x(static_cast<std::size_t>(rows * n)), apart, together(x.size());
    Random random(19);
    for (float& value : x) value = static_cast<float>(3 + random.unit());
    const std::span<const std::int64_t> lengths(shape);
    NormalizeOptions options{.num_threads = 1};
    normalize(view(x.data(), lengths), {axes}, view(together.data(), lengths), options);
    for (const std::int64_t gap : {1, 16, 37}) {
        const std::int64_t row = n + gap;
        std::vector<std::int64_t> strides(shape.size(), 1);
        for (std::size_t i = shape.size() - 1; i-- > 0;) {
            strides[i] = i + 2 == shape.size() ? row : strides[i + 1] * shape[i + 1];
        }
        for (int threads : {1, 2}) {
            options.num_threads = threads;
            apart.assign(static_cast<std::size_t>(rows * row), -1.0F);
            normalize(view(x.data(), lengths), {axes}, view(apart.data(), lengths, strides), options);
            std::int64_t wrong = 0;
            for (std::int64_t i = 0; i < rows * row; ++i) {
                const float expected = i % row < n ? together[static_cast<std::size_t>(i / row * n + i % row)] : -1.0F;
                wrong += bits(apart[static_cast<std::size_t>(i)]) != bits(expected) ? 1 : 0;
            }
            EXPECT_EQ(wrong, 0) << "gap " << gap << " on " << threads << " threads";
        }
    }
}

const Streamed streamed_apart[] = {
    {"rows", {1100, 1000}, {1}, {}},
    {"long_rows", {130, 9001}, {1}, {}},
    {"groups_of_rows", {60, 8, 4096}, {1, 2}, {}},
    {"groups_of_odd_rows", {60, 8, 2500}, {1, 2}, {}},
};

INSTANTIATE_TEST_SUITE_P(, SlowStreamedGaps, testing::ValuesIn(streamed_apart),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace anynorm::test
