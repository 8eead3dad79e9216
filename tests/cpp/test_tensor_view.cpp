// SPDX-License-Identifier: Apache-2.0
// view(): shapes, strides and what is refused.
#include "anynorm/tensor_view.hpp"

#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "anynorm/anynorm.hpp"

namespace anynorm {
namespace {

static_assert(std::is_trivially_copyable_v<TensorView>);
static_assert(std::is_trivially_copyable_v<Moments> && sizeof(Moments) == 32);
static_assert(dtype_of<const float>() == DType::f32 && dtype_of<double>() == DType::f64);

template <class Call>
std::string message_of(Call&& call) {
    try {
        call();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "no std::invalid_argument";
}

std::vector<std::int64_t> shape_of(const TensorView& view) { return {view.shape, view.shape + view.rank}; }
std::vector<std::int64_t> strides_of(const TensorView& view) { return {view.strides, view.strides + view.rank}; }

using Numbers = std::vector<std::int64_t>;

TEST(TensorView, DefaultIsNotGiven) {
    const TensorView none;
    EXPECT_FALSE(none.given());
    EXPECT_EQ(none.dtype, DType::none);
    EXPECT_EQ(none.data, nullptr);
}

TEST(TensorView, ContiguousStrides) {
    double data[24];
    const TensorView x = view(data, {2, 3, 4});
    EXPECT_TRUE(x.given());
    EXPECT_EQ(x.data, data);
    EXPECT_EQ(x.dtype, DType::f64);
    EXPECT_EQ(shape_of(x), (Numbers{2, 3, 4}));
    EXPECT_EQ(strides_of(x), (Numbers{12, 4, 1}));
    EXPECT_EQ(x.size(), 24);
}

TEST(TensorView, ExplicitStridesMayBeNegativeOrZero) {
    float data[6];
    const TensorView x = view(data + 5, {2, 3, 7}, {-3, -1, 0});
    EXPECT_EQ(x.data, data + 5);
    EXPECT_EQ(strides_of(x), (Numbers{-3, -1, 0}));
    EXPECT_EQ(x.size(), 42);
}

TEST(TensorView, RankZeroIsOneElement) {
    float data = 0;
    const TensorView x = view(&data, {});
    EXPECT_EQ(x.rank, 0);
    EXPECT_EQ(x.size(), 1);
}

TEST(TensorView, LengthZeroIsNoElement) {
    float data[1];
    EXPECT_EQ(view(data, {3, 0, 5}).size(), 0);
    EXPECT_EQ(strides_of(view(data, {3, 0, 5})), (Numbers{0, 5, 1}));
    EXPECT_TRUE(view(static_cast<float*>(nullptr), {0}).given());
}

TEST(TensorView, ConstElementsAreAccepted) {
    const std::vector<float> data(4, 1.0f);
    const TensorView x = view(data.data(), {4});
    EXPECT_EQ(x.data, data.data());
    EXPECT_EQ(x.dtype, DType::f32);
}

TEST(TensorView, SpansOfShapeAndStrides) {
    std::vector<double> data(12);
    const Numbers shape = {3, 4}, strides = {1, 3};
    EXPECT_EQ(strides_of(view(data.data(), shape, strides)), strides);
    EXPECT_EQ(strides_of(view(data.data(), shape)), (Numbers{4, 1}));
}

TEST(TensorView, RankSixteenIsTheMost) {
    float data = 0;
    const Numbers sixteen(16, 1), seventeen(17, 1);
    EXPECT_EQ(view(&data, sixteen).rank, 16);
    EXPECT_EQ(view(&data, sixteen).size(), 1);
    const std::string expected = "view: expected a rank of at most 16, got 17";
    EXPECT_EQ(message_of([&] { view(&data, seventeen, seventeen); }), expected);
    EXPECT_EQ(message_of([&] { view(&data, seventeen); }), expected);
}

TEST(TensorView, RefusesOtherNumberOfStrides) {
    float data[6];
    EXPECT_EQ(message_of([&] { view(data, {2, 3}, {1}); }), "view: expected 2 strides, got 1");
    EXPECT_EQ(message_of([&] { view(data, {2}, {1, 1}); }), "view: expected 1 strides, got 2");
}

TEST(TensorView, RefusesNegativeLengths) {
    float data[6];
    EXPECT_EQ(message_of([&] { view(data, {2, -3}); }), "view: expected lengths of at least 0, got -3");
}

TEST(DTypes, SizesAndNames) {
    EXPECT_EQ(size_of(DType::f32), 4u);
    EXPECT_EQ(size_of(DType::f64), 8u);
    EXPECT_EQ(size_of(DType::none), 0u);
    EXPECT_STREQ(name(DType::f32), "float32");
    EXPECT_STREQ(name(DType::f64), "float64");
    EXPECT_STREQ(name(DType::none), "none");
}

TEST(Axes, ListsAndRanges) {
    constexpr Axes axes{0, -1};
    static_assert(axes.size == 2 && axes.values[1] == -1);
    constexpr Axes range = Axes::range(1, 3);
    static_assert(range.size == 3 && range.values[0] == 1 && range.values[2] == 3);
    EXPECT_EQ(Axes{}.size, 0);
    EXPECT_EQ(Axes::range(0, 16).size, 16);
}

TEST(Axes, RefusesMoreThanSixteen) {
    std::array<int, 17> many{};
    std::iota(many.begin(), many.end(), 0);
    const std::string expected = "axes: expected at most 16 axes, got 17";
    EXPECT_EQ(message_of([&] { Axes axes(many); }), expected);
    EXPECT_EQ(message_of([&] { Axes::range(0, 17); }), expected);
}

TEST(Version, TextAndNumbersAgree) {
    EXPECT_EQ(version(), std::to_string(ANYNORM_VERSION_MAJOR) + "." + std::to_string(ANYNORM_VERSION_MINOR) + "." +
                             std::to_string(ANYNORM_VERSION_PATCH));
}

}  // namespace
}  // namespace anynorm
