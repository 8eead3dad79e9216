// SPDX-License-Identifier: Apache-2.0
// float16 and bfloat16: conversions against their definition, and results that are exactly those of the same numbers in
// float32, rounded once.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "anynorm/normalize.hpp"
#include "dispatch.hpp"
#include "kernels/half.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

using kernels::BF16;
using kernels::F16;

F16 round_half(F16, float value) { return kernels::ToF16(value); }
BF16 round_half(BF16, float value) { return kernels::ToBF16(value); }

template <class Half>
Half half_of(std::uint32_t pattern) {
    return {static_cast<std::uint16_t>(pattern)};
}

/// The public type of the same bits.
Float16 storage(F16) { return {}; }
BFloat16 storage(BF16) { return {}; }

/// Floats at which rounding decides: every half, the middle between two, and the floats next to each.
template <class Half>
std::vector<float> rounding_cases() {
    std::vector<float> result;
    for (std::uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
        const float value = kernels::ToFloat(half_of<Half>(pattern));
        const float next = kernels::ToFloat(half_of<Half>(pattern + 1));
        const float middle = static_cast<float>((static_cast<double>(value) + static_cast<double>(next)) / 2);
        for (float x : {value, middle, std::nextafter(middle, value), std::nextafter(middle, next)}) {
            result.push_back(x);
        }
    }
    Random random(5);
    for (int i = 0; i < 20000; ++i) result.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(random.next())));
    return result;
}

/// Whether `half` is the nearest to x, the even one of two equally near.
template <class Half>
bool is_nearest(Half half, float x) {
    if (std::isnan(x)) return std::isnan(kernels::ToFloat(half));
    const double exact = x;
    // Infinity stands one step beyond the largest number.
    const auto place = [](std::uint32_t pattern) {
        const double value = kernels::ToFloat(half_of<Half>(pattern));
        if (!std::isinf(value)) return value;
        const double last = kernels::ToFloat(half_of<Half>(pattern - 1));
        return last + (last - static_cast<double>(kernels::ToFloat(half_of<Half>(pattern - 2))));
    };
    if (std::isinf(x)) return kernels::ToFloat(half) == x;
    const double distance = std::fabs(place(half.bits) - exact);
    if (std::signbit(x) != ((half.bits & 0x8000) != 0)) return false;
    for (int step : {-1, 1}) {
        const std::uint32_t neighbour = half.bits + static_cast<std::uint32_t>(step);
        if ((neighbour & 0x8000) != (half.bits & 0x8000u)) continue;  // beyond zero
        if (std::isnan(kernels::ToFloat(half_of<Half>(neighbour)))) continue;
        const double other = std::fabs(place(neighbour & 0xffff) - exact);
        if (other < distance || (other == distance && (half.bits & 1) != 0)) return false;
    }
    return true;
}

template <class Half>
void expect_rounding_to_nearest_even() {
    std::int64_t wrong = 0;
    for (float x : rounding_cases<Half>()) wrong += is_nearest(round_half(Half{}, x), x) ? 0 : 1;
    EXPECT_EQ(wrong, 0);
}

TEST(HalfRounding, Float16IsTheNearestEven) { expect_rounding_to_nearest_even<F16>(); }
TEST(HalfRounding, BFloat16IsTheNearestEven) { expect_rounding_to_nearest_even<BF16>(); }

TEST(HalfRounding, KnownValues) {
    EXPECT_EQ(kernels::ToF16(1.0F).bits, 0x3c00);
    EXPECT_EQ(kernels::ToF16(65504.0F).bits, 0x7bff);
    EXPECT_EQ(kernels::ToF16(65519.996F).bits, 0x7bff);
    EXPECT_EQ(kernels::ToF16(65520.0F).bits, 0x7c00);
    EXPECT_EQ(kernels::ToF16(-0x1p-24F).bits, 0x8001);
    EXPECT_EQ(kernels::ToF16(0x1p-25F).bits, 0);
    EXPECT_EQ(kernels::ToBF16(1.0F).bits, 0x3f80);
    EXPECT_EQ(kernels::ToBF16(1.00390625F).bits, 0x3f80);  // a tie
    EXPECT_EQ(kernels::ToBF16(1.01171875F).bits, 0x3f82);  // a tie
    EXPECT_EQ(kernels::ToFloat(F16{0x3555}), 0.333251953125F);
    EXPECT_EQ(kernels::ToFloat(BF16{0x3eab}), 0.333984375F);
}

class HalfKernels : public testing::TestWithParam<Isa> {
  protected:
    template <class Half>
    void expect_conversions() {
        const auto& kernels = detail::kernels_for<Half>(*detail::kernels_of(GetParam()));
        std::vector<Half> halves;
        for (std::uint32_t pattern = 0; pattern < 0x10000; ++pattern) halves.push_back(half_of<Half>(pattern));
        std::vector<float> floats(halves.size());
        kernels.promote(floats.data(), halves.data(), length(halves));
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < halves.size(); ++i) {
            wrong += bits(floats[i]) != bits(kernels::ToFloat(halves[i])) ? 1 : 0;
        }
        EXPECT_EQ(wrong, 0) << "promoted";
        floats = rounding_cases<Half>();
        halves.resize(floats.size());
        kernels.demote(halves.data(), floats.data(), length(floats));
        for (std::size_t i = 0; i < halves.size(); ++i) {
            const Half expected = round_half(Half{}, floats[i]);
            const bool both_nan = std::isnan(floats[i]) && std::isnan(kernels::ToFloat(halves[i]));
            wrong += halves[i].bits != expected.bits && !both_nan ? 1 : 0;
        }
        EXPECT_EQ(wrong, 0) << "demoted";
    }
};

TEST_P(HalfKernels, ConvertEveryFloat16) { expect_conversions<F16>(); }
TEST_P(HalfKernels, ConvertEveryBFloat16) { expect_conversions<BF16>(); }
INSTANTIATE_TEST_SUITE_P(, HalfKernels, testing::ValuesIn(isas_of_this_machine()),
                         [](const auto& info) { return std::string(name(info.param)); });

/// An array of halves in any layout.
template <class Half>
class HalfArray {
  public:
    HalfArray(const Shape& shape, const Layout& layout)
        : shape_(shape), placement_(place(shape, layout)), memory_(static_cast<std::size_t>(placement_.extent)) {}

    TensorView view() {
        using Storage = decltype(storage(Half{}));
        static_assert(sizeof(Storage) == sizeof(Half));
        return anynorm::view(reinterpret_cast<Storage*>(memory_.data() + placement_.first),
                             std::span<const std::int64_t>(shape_), placement_.strides);
    }
    Half& operator[](std::int64_t index) {
        std::int64_t offset = placement_.first;
        for (std::size_t axis = shape_.size(); axis-- > 0;) {
            offset += index % shape_[axis] * placement_.strides[axis];
            index /= shape_[axis];
        }
        return memory_[static_cast<std::size_t>(offset)];
    }

  private:
    Shape shape_;
    Placement placement_;
    std::vector<Half> memory_;
};

struct Sets {
    const char* name;
    Shape shape;
    std::vector<int> reduce;
    Shape moments, parameters;

    friend void PrintTo(const Sets& self, std::ostream* out) { *out << self.name; }
};

const Sets all_sets[] = {
    {"rows", {37, 131}, {1}, {37}, {131}},
    {"short_rows", {300, 17}, {1}, {300}, {17}},
    {"long_rows", {3, 9001}, {1}, {3}, {9001}},
    {"columns", {1500, 19}, {0}, {19}, {19}},
    {"planes", {5, 6, 13, 11}, {0, 2, 3}, {6}, {6, 1, 1}},
    {"samples", {5, 6, 13, 11}, {2, 3}, {5, 6}, {6, 1, 1}},
    {"groups", {4, 3, 2, 9, 7}, {2, 3, 4}, {4, 3}, {3, 2, 1, 1}},
};

class Halves : public testing::TestWithParam<std::tuple<Sets, Layout>> {
  protected:
    /// Results for x and y stored as they are, with the moments, as float32 and float64.
    struct Result {
        std::vector<float> y;
        std::vector<double> mean, m2;
    };

    template <class Array>
    static float value(Array& array, std::int64_t i) {
        if constexpr (std::is_same_v<Array, Tensor<float>>) {
            return array[i];
        } else {
            return kernels::ToFloat(array[i]);
        }
    }

    template <class X, class Y>
    Result run(X& x, Y& y, const TensorView& weight, const TensorView& bias, int threads) {
        const Sets& sets = std::get<0>(GetParam());
        Axes axes;
        for (int axis : sets.reduce) axes.values[axes.size++] = axis;
        Tensor<double> mean(sets.moments), m2(sets.moments);
        NormalizeOptions options;
        options.weight = weight;
        options.bias = bias;
        options.moments.mean = mean.view();
        options.moments.m2 = m2.view();
        options.num_threads = threads;
        normalize(x.view(), {axes}, y.view(), options);
        Result result{{}, mean.values(), m2.values()};
        for (std::int64_t i = 0; i < size_of(sets.shape); ++i) result.y.push_back(value(y, i));
        return result;
    }

    template <class Half>
    void expect_results_of_float32() {
        const auto& [sets, layout] = GetParam();
        HalfArray<Half> x(sets.shape, layout), y(sets.shape, layout), weight(sets.parameters, Layout{});
        Tensor<float> wide_x(sets.shape, layout), wide_y(sets.shape, layout);
        Tensor<float> wide_weight(sets.parameters), bias(sets.parameters);
        Random random(3);
        for (std::int64_t i = 0; i < wide_x.size(); ++i) {
            x[i] = round_half(Half{}, static_cast<float>(3 + 2 * random.unit()));
            wide_x[i] = kernels::ToFloat(x[i]);
        }
        for (std::int64_t i = 0; i < bias.size(); ++i) {
            weight[i] = round_half(Half{}, static_cast<float>(random.uniform(0.5, 2)));
            wide_weight[i] = kernels::ToFloat(weight[i]);
            bias[i] = static_cast<float>(random.unit());
        }
        const Result expected = run(wide_x, wide_y, wide_weight.view(), bias.view(), 1);
        std::vector<float> rounded;
        for (float value : expected.y) rounded.push_back(kernels::ToFloat(round_half(Half{}, value)));

        for (int threads : {1, 3}) {
            const Result same = run(x, y, weight.view(), bias.view(), threads);
            EXPECT_EQ(different_bits(same.y, rounded), 0) << "half to half";
            EXPECT_EQ(different_bits(same.mean, expected.mean) + different_bits(same.m2, expected.m2), 0);
            const Result widened = run(x, wide_y, wide_weight.view(), bias.view(), threads);
            EXPECT_EQ(different_bits(widened.y, expected.y), 0) << "half to float32";
            const Result narrowed = run(wide_x, y, weight.view(), bias.view(), threads);
            EXPECT_EQ(different_bits(narrowed.y, rounded), 0) << "float32 to half";
            const Result in_place = run(x, x, weight.view(), bias.view(), threads);
            EXPECT_EQ(different_bits(in_place.y, rounded), 0) << "in place";
            for (std::int64_t i = 0; i < wide_x.size(); ++i) x[i] = round_half(Half{}, wide_x[i]);
        }
    }
};

TEST_P(Halves, Float16AsFloat32Rounded) { expect_results_of_float32<F16>(); }
TEST_P(Halves, BFloat16AsFloat32Rounded) { expect_results_of_float32<BF16>(); }
INSTANTIATE_TEST_SUITE_P(, Halves, testing::Combine(testing::ValuesIn(all_sets), testing::ValuesIn(layouts())),
                         [](const auto& info) {
                             return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param).name;
                         });

/// The largest float16 numbers: their squares are far beyond what float16 or a sum in it could hold.
TEST(HalfRange, LargestNumbersDoNotOverflow) {
    HalfArray<F16> x({4, 1000}, Layout{}), y({4, 1000}, Layout{});
    for (std::int64_t i = 0; i < 4000; ++i) x[i] = kernels::ToF16(i % 2 == 0 ? 65504.0F : -65504.0F);
    normalize(x.view(), {Axes{1}}, y.view(), {.eps = 0});
    for (std::int64_t i = 0; i < 4000; ++i) EXPECT_EQ(kernels::ToFloat(y[i]), i % 2 == 0 ? 1.0F : -1.0F);
}

/// Above 4 MB results pass the caches by; they are the same.
TEST(HalfRange, SlowStreamedResultsAreTheSame) {
    const Shape shape = {3001, 1000};
    HalfArray<BF16> x(shape, Layout{}), y(shape, Layout{}), part({1, 1000}, Layout{});
    Random random(8);
    for (std::int64_t i = 0; i < size_of(shape); ++i) x[i] = kernels::ToBF16(static_cast<float>(random.unit()));
    normalize(x.view(), {Axes{1}}, y.view());
    for (std::int64_t row : {0, 1, 1499, 3000}) {
        TensorView one = x.view();
        one.shape[0] = 1;
        one.data = static_cast<BFloat16*>(one.data) + row * 1000;
        normalize(one, {Axes{1}}, part.view());
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < 1000; ++i) wrong += part[i].bits != y[row * 1000 + i].bits ? 1 : 0;
        EXPECT_EQ(wrong, 0) << "row " << row;
    }
}

}  // namespace
}  // namespace anynorm::test
