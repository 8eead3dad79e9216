// SPDX-License-Identifier: Apache-2.0
#include "activations.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace anynorm::detail {
namespace {

// In float64 the exponentials of the C library are 20 to 50 times slower than the kernels of float32, and as accurate
// as anybody asks for. Nothing here needs the speed: it takes float64 activations for that.

/// v within [-bound, bound], where f is its limit beyond; NaN stays NaN.
double clamp(double v, double bound) { return std::clamp(v, -bound, bound); }

/// 1 / (1 + exp(-v)), with all its digits for v below 0 as well.
double logistic(double v) {
    const double e = std::exp(-std::abs(v));
    return (v < 0 ? e : 1) / (1 + e);
}

double upper_tail(double v) { return 0.5 * std::erfc(v * (std::numbers::sqrt2 / 2)); }
double density(double v) { return std::exp(-0.5 * v * v) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2); }

// gelu_tanh(x) = x * logistic(argument(x)).
constexpr double linear = 2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi, cubic = 0.044715 * linear;
double argument(double x) { return x * (linear + cubic * x * x); }

// Beyond these the exponentials are 0 in float64, and infinity times 0 is kept away.
constexpr double logistic_end = 800, normal_end = 40, tanh_end = 25;

double value(Activation activation, double x) {
    switch (activation) {
        case Activation::relu:
            return x <= 0 ? 0 : x;
        case Activation::silu:
            return std::max(x, -logistic_end) * logistic(x);
        case Activation::gelu:
            return (x <= 0 ? 0 : x) - std::abs(clamp(x, normal_end)) * upper_tail(std::abs(x));
        case Activation::gelu_tanh:
            return std::max(x, -tanh_end) * logistic(argument(clamp(x, tanh_end)));
        case Activation::none:
            break;
    }
    return x;
}

double slope(Activation activation, double x) {
    switch (activation) {
        case Activation::relu:
            return x > 0 ? 1 : x <= 0 ? 0 : x;
        case Activation::silu:
            return logistic(x) * (1 + clamp(x, logistic_end) * logistic(-x));
        case Activation::gelu: {
            const double near = clamp(x, normal_end);
            return upper_tail(-near) + near * density(near);
        }
        case Activation::gelu_tanh: {
            const double near = clamp(x, tanh_end), v = argument(near);
            return logistic(v) * (1 + near * (linear + 3 * cubic * near * near) * logistic(-v));
        }
        case Activation::none:
            break;
    }
    return 1;
}

int index_of(Activation activation) { return static_cast<int>(activation) - static_cast<int>(Activation::relu); }
static_assert(static_cast<int>(Activation::gelu_tanh) - static_cast<int>(Activation::relu) == kernels::gelu_tanh_index);

}  // namespace

void activate(const kernels::KernelTable& table, Activation activation, float* y, const float* x,
              std::int64_t n) noexcept {
    if (activation != Activation::none) return table.activations.activate[index_of(activation)](y, x, n);
    if (y != x) std::copy_n(x, n, y);
}

void activate(const kernels::KernelTable&, Activation activation, double* y, const double* x, std::int64_t n) noexcept {
    for (std::int64_t i = 0; i < n; ++i) y[i] = value(activation, x[i]);
}

void activation_gradient(const kernels::KernelTable& table, Activation activation, float* grad_input,
                         const float* grad_output, const float* x, std::int64_t n) noexcept {
    if (activation != Activation::none) {
        return table.activations.activation_gradient[index_of(activation)](grad_input, grad_output, x, n);
    }
    if (grad_input != grad_output) std::copy_n(grad_output, n, grad_input);
}

void activation_gradient(const kernels::KernelTable&, Activation activation, double* grad_input,
                         const double* grad_output, const double* x, std::int64_t n) noexcept {
    for (std::int64_t i = 0; i < n; ++i) grad_input[i] = grad_output[i] * slope(activation, x[i]);
}

}  // namespace anynorm::detail
