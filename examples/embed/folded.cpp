// SPDX-License-Identifier: Apache-2.0
// Inference without its batch norms: a linear layer and a transposed convolution with the norm after each folded in.
#include <algorithm>
#include <anynorm/anynorm.hpp>
#include <cmath>
#include <cstdio>
#include <vector>

using Floats = std::vector<float>;

// Some numbers that are not round.
Floats waves(std::size_t n, float step, float shift = 0) {
    Floats result(n);
    for (std::size_t i = 0; i < n; ++i) result[i] = shift + std::sin(step * static_cast<float>(i + 1));
    return result;
}

// The learned and the running arrays of a batch norm of C channels.
struct BatchNorm {
    Floats mean, var, weight, bias;

    explicit BatchNorm(std::size_t c)
        : mean(waves(c, 0.7f)), var(waves(c, 1.1f, 1.5f)), weight(waves(c, 1.7f, 2)), bias(waves(c, 2.3f)) {}

    // In place: x has shape (N, C, length).
    void apply(Floats& x, std::int64_t n, std::int64_t length) {
        const auto c = static_cast<std::int64_t>(mean.size());
        const anynorm::TensorView view = anynorm::view(x.data(), {n, c, length});
        anynorm::batch_norm(view, view,
                            {.weight = anynorm::view(weight.data(), {c}),
                             .bias = anynorm::view(bias.data(), {c}),
                             .running = {anynorm::view(mean.data(), {c}), anynorm::view(var.data(), {c})}});
    }

    // The weight and bias of the layer before, in place; the norm is not needed any more.
    void fold(const anynorm::TensorView& layer, Floats& layer_bias, bool transpose, std::int64_t groups) {
        const auto c = static_cast<std::int64_t>(mean.size());
        const anynorm::TensorView bias_view = anynorm::view(layer_bias.data(), {c});
        anynorm::fold_batch_norm(layer, anynorm::view(mean.data(), {c}), anynorm::view(var.data(), {c}), layer,
                                 bias_view,
                                 {.bias = bias_view,
                                  .bn_weight = anynorm::view(weight.data(), {c}),
                                  .bn_bias = anynorm::view(bias.data(), {c}),
                                  .transpose = transpose,
                                  .groups = groups});
    }
};

// y[c] = bias[c] + sum over i of weight[c][i] * x[i], weight of shape (C, inputs).
Floats linear(const Floats& x, const Floats& weight, const Floats& bias) {
    Floats y = bias;
    for (std::size_t c = 0; c < y.size(); ++c) {
        for (std::size_t i = 0; i < x.size(); ++i) y[c] += weight[c * x.size() + i] * x[i];
    }
    return y;
}

// x of shape (inputs, length); weight of shape (inputs, C / groups, window); every element spreads a window.
Floats transposed(const Floats& x, std::size_t inputs, const Floats& weight, const Floats& bias, std::size_t groups) {
    const std::size_t length = x.size() / inputs, c = bias.size(), window = weight.size() * groups / inputs / c;
    const std::size_t longer = length + window - 1;
    Floats y(c * longer);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = bias[i / longer];
    for (std::size_t i = 0; i < inputs; ++i) {
        const std::size_t first = i / (inputs / groups) * (c / groups);
        for (std::size_t of = 0; of < c / groups; ++of) {
            for (std::size_t at = 0; at < length; ++at) {
                for (std::size_t k = 0; k < window; ++k)
                    y[(first + of) * longer + at + k] +=
                        weight[(i * (c / groups) + of) * window + k] * x[i * length + at];
            }
        }
    }
    return y;
}

void compare(const char* what, const Floats& a, const Floats& b) {
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::abs(a[i]));
        difference = std::max(difference, std::abs(a[i] - b[i]));
    }
    std::printf("%s: %zu values, folded %s\n", what, a.size(), difference <= 1e-6f * largest ? "equal" : "different");
}

int main() {
    {
        const Floats x = waves(8, 0.3f);
        Floats weight = waves(6 * 8, 0.9f), bias = waves(6, 1.3f);
        BatchNorm norm(6);
        Floats y = linear(x, weight, bias);
        norm.apply(y, 1, 1);
        norm.fold(anynorm::view(weight.data(), {6, 8}), bias, false, 1);
        compare("linear", y, linear(x, weight, bias));
    }
    {
        const std::size_t inputs = 4, groups = 2;
        const Floats x = waves(inputs * 10, 0.3f);
        Floats weight = waves(inputs * 3 * 5, 0.9f), bias(6);  // without a bias of its own
        BatchNorm norm(6);
        Floats y = transposed(x, inputs, weight, bias, groups);
        norm.apply(y, 1, 14);
        norm.fold(anynorm::view(weight.data(), {4, 3, 5}), bias, true, 2);
        compare("transposed convolution", y, transposed(x, inputs, weight, bias, groups));
    }
}
