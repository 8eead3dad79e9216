// SPDX-License-Identifier: Apache-2.0
// The kernels around a norm, of every instruction set that this machine has: activations and their derivatives against
// the definition in long double for the value and the same steps in scalar code for the bits; sums and roundings to 8
// bits against the formula. Operands end at a page that faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include "activations.hpp"
#include "guarded.hpp"
#include "kernel_target.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

constexpr Activation activations[] = {Activation::relu, Activation::silu, Activation::gelu, Activation::gelu_tanh};

// ---- The definitions ------------------------------------------------------------------------------------------------

using Wide = long double;

Wide logistic(Wide v) {
    const Wide e = std::exp(-std::fabs(v));
    return (v < 0 ? e : 1) / (1 + e);
}

struct Exact {
    Wide value, slope;
};

Exact exact(Activation activation, Wide x) {
    const Wide pi = std::acos(-1.0L), c = 2 * std::sqrt(2 / pi), v = c * (x + 0.044715L * x * x * x);
    const Wide below = std::erfc(-x / std::sqrt(2.0L)) / 2, density = std::exp(-x * x / 2) / std::sqrt(2 * pi);
    switch (activation) {
        case Activation::relu:
            return {x > 0 ? x : 0, x > 0 ? 1.0L : 0.0L};
        case Activation::silu:
            return {x * logistic(x), logistic(x) * (1 + x * logistic(-x))};
        case Activation::gelu:
            return {x * below, below + x * density};
        default:
            return {x * logistic(v), logistic(v) * (1 + x * c * (1 + 3 * 0.044715L * x * x) * logistic(-v))};
    }
}

// ---- The same steps in scalar code ----------------------------------------------------------------------------------

/// What the kernel does to one lane. Products that are added to something go through product() or mul_add(), so that
/// the compiler of this file fuses nothing.
struct Model {
    bool fused;

    float fma(float a, float b, float c) const { return mul_add(fused, a, b, c); }

    template <class... Rest>
    float horner(float x, float highest, Rest... rest) const {
        float sum = highest;
        ((sum = fma(sum, x, rest)), ...);
        return sum;
    }

    float exp_negative(float x, float low = 0) const {
        const float magic = 12582912.0F + 127.0F, shifted = fma(x, 1.44269504F, magic), n = shifted - magic;
        const float r = fma(n, 2.12194440e-4F, fma(n, -0.693359375F, x)) + low;
        const float q = horner(r, 0.0013814467F, 0.008368781F, 0.041668393F, 0.1666652F, 0.49999994F);
        const float power = std::bit_cast<float>(std::bit_cast<std::uint32_t>(shifted) << 23);
        return x < -87 ? 0 : product(fma(q, product(r, r), r) + 1, power);
    }

    float times_logistic(float v, float of) const {
        const float e = exp_negative(-std::fabs(of));
        return product(v, (of < 0 ? e : 1) / (1 + e));
    }

    float value(Activation activation, float x) const {
        const float positive = x <= 0 ? 0 : x;
        if (activation == Activation::relu) return positive;
        if (activation == Activation::silu) return times_logistic(std::max(x, -128.0F), x);
        if (activation == Activation::gelu) {
            const float t = std::min(std::fabs(x), 16.0F), square = product(t, t), low = fma(t, t, -square);
            const float e = exp_negative(product(-0.5F, square), product(-0.5F, low));
            const float above = horner(t, 0.0041530607F, 0.040880296F, 0.18396714F, 0.43928146F, 0.5F);
            const float below = horner(t, 0.010410068F, 0.10247782F, 0.4714033F, 1.2055411F, 1.6764479F, 1.0F);
            return fma(-product(t, e), above / below, positive);
        }
        const float near = std::clamp(x, -12.0F, 12.0F);
        const float v = product(near, fma(0.071354814F, product(near, near), 1.5957691F));
        return times_logistic(std::max(x, -12.0F), v);
    }
};

// ---- Activations ----------------------------------------------------------------------------------------------------

class KernelActivation : public testing::TestWithParam<Isa> {
  protected:
    const kernels::KernelTable& table() const { return *detail::kernels_of(GetParam()); }
    bool fused() const { return GetParam() != Isa::baseline; }
};
INSTANTIATE_TEST_SUITE_P(, KernelActivation, testing::ValuesIn(isas_of_this_machine()),
                         [](const auto& info) { return std::string(name(info.param)); });

std::vector<float> arguments() {
    std::vector<float> result;
    for (int i = -3000; i <= 3000; ++i) result.push_back(static_cast<float>(i) * 0.004F);
    Random random(6);
    for (int i = 0; i < 4000; ++i) result.push_back(static_cast<float>(random.uniform(-90, 90)));
    for (float x = 1e-30F; x < 1; x *= 7) result.insert(result.end(), {x, -x});
    return result;
}

TEST_P(KernelActivation, Values) {
    const std::vector<float> x = arguments();
    std::vector<float> y(x.size());
    for (Activation activation : activations) {
        detail::activate(table(), activation, y.data(), x.data(), length(x));
        // Without a fused multiply-add nothing carries the rounding of a square.
        const bool tails = fused() && activation != Activation::gelu_tanh;
        double largest = 0;
        std::int64_t wrong = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const Wide expected = exact(activation, static_cast<Wide>(x[i])).value;
            const Wide size = std::max(std::fabs(expected), tails ? 1e-29L : 0.25L);
            largest = std::max(largest, static_cast<double>(std::fabs(static_cast<Wide>(y[i]) - expected) / size));
            wrong += bits(y[i]) != bits(Model{fused()}.value(activation, x[i])) ? 1 : 0;
        }
        EXPECT_LE(largest, 4e-7) << name(activation);
        EXPECT_EQ(wrong, 0) << name(activation);
    }
}

TEST_P(KernelActivation, Derivatives) {
    const std::vector<float> x = arguments();
    std::vector<float> dx(x.size()), dy(x.size());
    Random random(7);
    for (float& each : dy) each = static_cast<float>(random.uniform(-2, 2));
    for (Activation activation : activations) {
        detail::activation_gradient(table(), activation, dx.data(), dy.data(), x.data(), length(x));
        double largest = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const Wide expected = exact(activation, static_cast<Wide>(x[i])).slope * static_cast<Wide>(dy[i]);
            const Wide size = std::max(std::fabs(expected), std::fabs(static_cast<Wide>(dy[i])));
            largest = std::max(largest, static_cast<double>(std::fabs(static_cast<Wide>(dx[i]) - expected) / size));
        }
        EXPECT_LE(largest, 4e-7) << name(activation);
    }
}

TEST_P(KernelActivation, Float64) {
    std::vector<double> x, y(1), dx(1);
    for (int i = -4000; i <= 4000; ++i) x.push_back(i * 0.01);
    y.resize(x.size());
    dx.resize(x.size());
    const std::vector<double> dy(x.size(), 1.5);
    for (Activation activation : activations) {
        detail::activate(table(), activation, y.data(), x.data(), length(x));
        detail::activation_gradient(table(), activation, dx.data(), dy.data(), x.data(), length(x));
        for (std::size_t i = 0; i < x.size(); ++i) {
            const Exact expected = exact(activation, static_cast<Wide>(x[i]));
            EXPECT_NEAR(y[i], static_cast<double>(expected.value), 4e-15 * std::max(1.0, std::fabs(x[i])));
            EXPECT_NEAR(dx[i], 1.5 * static_cast<double>(expected.slope), 4e-15);
        }
    }
}

TEST_P(KernelActivation, Limits) {
    const float largest = std::numeric_limits<float>::max();
    const std::vector<double> x = {-infinity, infinity, nan, 0, largest, -largest};
    const std::vector<float> narrow(x.begin(), x.end()), ones(x.size(), 1);
    const std::vector<double> wide_ones(x.size(), 1);
    for (Activation activation : activations) {
        std::vector<float> y(x.size()), dx(x.size());
        std::vector<double> wide(x.size()), wide_dx(x.size());
        detail::activate(table(), activation, y.data(), narrow.data(), length(x));
        detail::activate(table(), activation, wide.data(), x.data(), length(x));
        detail::activation_gradient(table(), activation, dx.data(), ones.data(), narrow.data(), length(x));
        detail::activation_gradient(table(), activation, wide_dx.data(), wide_ones.data(), x.data(), length(x));
        for (std::size_t i : {0U, 1U, 3U, 4U, 5U}) {
            EXPECT_EQ(y[i], std::max(narrow[i], 0.0F)) << name(activation);
            EXPECT_EQ(wide[i], std::max(x[i], 0.0)) << name(activation);
        }
        for (std::size_t i : {0U, 1U, 4U, 5U}) {
            EXPECT_EQ(dx[i], x[i] > 0 ? 1 : 0) << name(activation);
            EXPECT_EQ(wide_dx[i], x[i] > 0 ? 1 : 0) << name(activation);
        }
        EXPECT_TRUE(std::isnan(y[2]) && std::isnan(wide[2]) && std::isnan(dx[2]) && std::isnan(wide_dx[2]));
    }
}

TEST_P(KernelActivation, EveryTailInPlace) {
    Guarded<float> x_memory(256), y_memory(256), dy_memory(256);
    Random random(3);
    for (Activation activation : activations) {
        for (std::int64_t n = 1; n <= 40; ++n) {
            float *x = x_memory.last(n), *y = y_memory.last(n), *dy = dy_memory.last(n);
            std::vector<float> value, slope;
            for (std::int64_t i = 0; i < n; ++i) {
                x[i] = static_cast<float>(random.uniform(-5, 5));
                dy[i] = 2;
                float one = x[i];
                const float two = 2;
                detail::activation_gradient(table(), activation, &one, &two, x + i, 1);
                slope.push_back(one);
                detail::activate(table(), activation, &one, x + i, 1);
                value.push_back(one);
            }
            detail::activate(table(), activation, y, x, n);
            detail::activation_gradient(table(), activation, dy, dy, x, n);
            detail::activate(table(), activation, x, x, n);
            EXPECT_EQ(different_bits(value, std::vector<float>(y, y + n)), 0) << name(activation) << " " << n;
            EXPECT_EQ(different_bits(value, std::vector<float>(x, x + n)), 0) << name(activation) << " " << n;
            EXPECT_EQ(different_bits(slope, std::vector<float>(dy, dy + n)), 0) << name(activation) << " " << n;
        }
    }
}

TEST(KernelActivations, EqualBitsOfInstructionSets) {
    const std::vector<float> x = arguments(), ones(x.size(), 1);
    expect_equal_bits_of_isas([&](Isa isa) {
        std::vector<std::uint64_t> result;
        std::vector<float> y(x.size());
        for (Activation activation : activations) {
            detail::activate(*detail::kernels_of(isa), activation, y.data(), x.data(), length(x));
            for (float each : y) result.push_back(bits(each));
            detail::activation_gradient(*detail::kernels_of(isa), activation, y.data(), ones.data(), x.data(),
                                        length(x));
            for (float each : y) result.push_back(bits(each));
        }
        return result;
    });
}

// ---- Sums and roundings ---------------------------------------------------------------------------------------------

class KernelElementwise : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelElementwise, all_targets(), target_name);

TEST_P(KernelElementwise, AddsInPlace) {
    with_type([&](auto type) {
        using T = decltype(type);
        Guarded<T> x_memory(128), residual_memory(128), sum_memory(128);
        Random random(2);
        for (std::int64_t n = 1; n <= 70; ++n) {
            T *x = x_memory.last(n), *residual = residual_memory.last(n), *sum = sum_memory.last(n);
            std::vector<T> expected;
            for (std::int64_t i = 0; i < n; ++i) {
                x[i] = static_cast<T>(random.uniform(-5, 5));
                residual[i] = static_cast<T>(random.uniform(-5, 5));
                expected.push_back(x[i] + residual[i]);
            }
            table<T>().add(sum, x, residual, n);
            EXPECT_EQ(different_bits(expected, std::vector<T>(sum, sum + n)), 0) << n;
            table<T>().add(residual, x, residual, n);
            EXPECT_EQ(different_bits(expected, std::vector<T>(residual, residual + n)), 0) << n;
        }
    });
}

TEST_P(KernelElementwise, RoundsTo8Bits) {
    with_type([&](auto type) {
        using T = decltype(type);
        std::vector<T> y;
        for (int i = -1200; i <= 1200; ++i) {
            const T tie = static_cast<T>(i) / 4;
            y.insert(y.end(), {tie, std::nextafter(tie, T(1e9)), std::nextafter(tie, T(-1e9))});
        }
        y.insert(y.end(), {T(nan), T(infinity), -T(infinity), T(1e30), T(-1e30), -T(0)});
        for (const auto& [scale, zero_point, least] :
             {std::tuple{1.0, 0, -128}, {0.5, -128, -128}, {1.25, 127, -128}, {0.3, 200, 0}, {2.0, 0, 0}}) {
            const T step = static_cast<T>(scale);
            Guarded<std::uint8_t> memory(length(y));
            std::uint8_t* q = memory.last(length(y));
            table<T>().quantize(
                q, y.data(), length(y),
                {step, static_cast<T>(least - zero_point), static_cast<T>(least + 255 - zero_point), zero_point});
            std::int64_t wrong = 0;
            for (std::size_t i = 0; i < y.size(); ++i) {
                const double rounded = std::isnan(y[i]) ? 0 : std::nearbyint(static_cast<double>(y[i] / step));
                const double expected = std::clamp<double>(rounded + zero_point, least, least + 255);
                const int got = least < 0 ? static_cast<std::int8_t>(q[i]) : q[i];
                wrong += got != static_cast<int>(expected) ? 1 : 0;
            }
            EXPECT_EQ(wrong, 0) << scale << " " << zero_point;
        }
    });
}

}  // namespace
}  // namespace anynorm::test
