// SPDX-License-Identifier: Apache-2.0
#include "calls.hpp"

#include <algorithm>
#include <anynorm/anynorm.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

/// The lengths of the axes that are reduced, or of those that are kept.
std::vector<std::int64_t> lengths(const Case& each, bool wanted) {
    std::vector<bool> reduced(each.shape.size());
    for (const int axis : each.axes)
        reduced.at(static_cast<std::size_t>(axis) + (axis < 0 ? each.shape.size() : 0)) = true;
    std::vector<std::int64_t> result;
    for (std::size_t axis = 0; axis < reduced.size(); ++axis)
        if (reduced[axis] == wanted) result.push_back(each.shape[axis]);
    return result;
}

/// A label for each row, every one of them there.
std::vector<std::int64_t> draw_labels(const Case& each) {
    std::vector<std::int64_t> labels(static_cast<std::size_t>(each.shape.front()));
    std::mt19937_64 random(7);  // NOLINT(cert-msc51-cpp): the same data in every run
    std::uniform_int_distribution<std::int64_t> any(0, each.labels - 1);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto next = static_cast<std::int64_t>(i);
        labels[i] = next < each.labels ? next : any(random);
    }
    std::shuffle(labels.begin(), labels.end(), random);
    if (each.sorted) std::sort(labels.begin(), labels.end());
    return labels;
}

/// 1 where elements are used: samples from a quarter of their length on, or seven rows or elements of ten.
std::vector<std::uint8_t> draw_mask(const Case& each) {
    std::vector<std::uint8_t> mask(each.set_bytes());
    std::mt19937_64 random(7);  // NOLINT(cert-msc51-cpp): the same data in every run
    if (each.where == "padding") {
        const auto length = static_cast<std::size_t>(each.shape.at(1));
        std::uniform_int_distribution<std::size_t> used(std::max<std::size_t>(length / 4, 1), length);
        for (auto sample = mask.begin(); sample != mask.end(); sample += each.shape[1])
            std::fill_n(sample, used(random), std::uint8_t{1});
    } else {
        std::bernoulli_distribution used(0.7);
        for (std::uint8_t& value : mask) value = used(random);
        // One at least for each set.
        std::fill_n(mask.begin(), each.mask_shape().back(), std::uint8_t{1});
    }
    return mask;
}

/// What is in a set, as the case says it.
struct Sets {
    anynorm::Grouping grouping;
    std::vector<std::int64_t> shape;                  ///< of the moments
    std::shared_ptr<std::vector<std::int64_t>> own;   ///< labels or offsets
    std::shared_ptr<std::vector<std::uint8_t>> mask;  ///< the bytes of bools

    explicit Sets(const Case& each)
        : grouping{anynorm::Axes{std::span(each.axes)}},
          shape(lengths(each, false)),
          own(std::make_shared<std::vector<std::int64_t>>()),
          mask(std::make_shared<std::vector<std::uint8_t>>()) {
        const std::int64_t rows = each.shape.front();
        if (each.labels > 0) {
            shape.insert(shape.begin(), each.labels);
            *own = draw_labels(each);
            std::vector<std::int64_t> along(each.shape.size(), 1);
            along.front() = rows;
            grouping.selection.labels = anynorm::view(own->data(), along);
            grouping.selection.num_groups = each.labels;
        } else if (each.segments > 0) {
            shape.insert(shape.begin(), each.segments);
            for (std::int64_t i = 0; i <= each.segments; ++i) own->push_back(rows * i / each.segments);
            grouping.selection.segments = anynorm::view(own->data(), {each.segments + 1});
        } else if (!each.where.empty()) {
            *mask = draw_mask(each);
            grouping.selection.where = anynorm::view(mask->data(), each.mask_shape());
            grouping.selection.where.dtype = anynorm::DType::boolean;
        }
    }
};

Call moments_call(const Case& each, const Buffers& buffers, int threads) {
    const Sets sets(each);
    std::size_t count = 1;
    for (const std::int64_t length : sets.shape) count *= static_cast<std::size_t>(length);
    const auto results = std::make_shared<std::vector<double>>(3 * count);
    const auto column = [&](std::size_t i) { return anynorm::view(results->data() + i * count, sets.shape); };
    const anynorm::MomentsView out{.count = column(0), .mean = column(1), .m2 = column(2)};
    return [=, x = buffers.x.view(each), keep = results] {
        anynorm::moments(x, sets.grouping, out, {.num_threads = threads});
    };
}

Call normalize_call(const Case& each, const Buffers& buffers, int threads) {
    return [sets = Sets(each), x = buffers.x.view(each), y = buffers.y.view(each), threads] {
        anynorm::normalize(x, sets.grouping, y, {.num_threads = threads});
    };
}

/// What a case reads and writes.
struct Operands {
    anynorm::TensorView x, y, beside, sum;

    Operands(const Case& each, const Buffers& buffers)
        : x(buffers.x.view(each)), y(buffers.y.view(each)), beside(buffers.beside.view(each)), sum() {
        if (each.integers) y.dtype = anynorm::DType::i8;
        if (each.residual) sum = buffers.sum.view(each);
    }

    anynorm::Fusion fusion(const Case& each) const {
        anynorm::Fusion result{.activation = each.activation, .scale = each.integers ? 1.0 / 16 : 0};
        if (each.residual) result.residual = beside;
        result.sum = sum;
        return result;
    }
};

/// Room for the moments of a case, and for the gradients of its parameters.
struct Saved {
    std::vector<double> moments;
    std::vector<double> gradients;
};

/// The forward call, or the backward one with the moments that a forward call has saved before. `forward(x, y,
/// options)` and `backward(grad_output, x, gradients, options)` are the two functions of a norm.
template <class Options>
Call norm_call(const Case& each, const Buffers& buffers, Options options, const std::vector<std::int64_t>& sets,
               const auto& forward, const auto& backward) {
    const Operands operands(each, buffers);
    if (!each.backward()) {
        options.fusion = operands.fusion(each);
        return [=] { forward(operands.x, operands.y, options); };
    }
    std::size_t count = 1, length = 1;
    for (const std::int64_t axis : sets) count *= static_cast<std::size_t>(axis);
    const auto& weight = options.weight;
    for (int axis = 0; axis < weight.rank; ++axis) length *= static_cast<std::size_t>(weight.shape[axis]);
    const auto saved = std::make_shared<Saved>();
    saved->moments.resize(3 * count);
    saved->gradients.resize(2 * length);
    const auto column = [&](std::size_t i) { return anynorm::view(saved->moments.data() + i * count, sets); };
    options.moments = {.count = column(0), .mean = column(1), .m2 = column(2)};
    forward(operands.x, operands.y, options);
    options.given = std::exchange(options.moments, {});

    const std::vector<std::int64_t> shape(weight.shape, weight.shape + weight.rank);
    // Of the parameters' type, as a training step has them.
    const auto gradient = [&](std::size_t i) {
        anynorm::TensorView result = anynorm::view(saved->gradients.data() + i * length, shape);
        result.dtype = weight.dtype;
        return result;
    };
    anynorm::Gradients gradients{.grad_input = operands.y, .grad_weight = gradient(0)};
    if (each.norm() != "rms_norm") gradients.grad_bias = gradient(1);
    return [=, keep = saved] { backward(operands.beside, operands.x, gradients, options); };
}

Call row_call(const Case& each, const Buffers& buffers, int threads) {
    const anynorm::Axes axes{std::span(each.axes)};
    const std::vector<std::int64_t> sets = lengths(each, false);
    const anynorm::TensorView weight = buffers.parameters.view(lengths(each, true));
    using View = const anynorm::TensorView&;
    using Gradients = const anynorm::Gradients&;
    if (each.norm() == "rms_norm")
        return norm_call(
            each, buffers, anynorm::RmsNormOptions{.weight = weight, .num_threads = threads}, sets,
            [axes](View x, View y, const auto& options) { anynorm::rms_norm(x, y, axes, options); },
            [axes](View grad_output, View x, Gradients gradients, const auto& options) {
                anynorm::rms_norm_backward(grad_output, x, axes, gradients, options);
            });
    return norm_call(
        each, buffers, anynorm::LayerNormOptions{.weight = weight, .bias = weight, .num_threads = threads}, sets,
        [axes](View x, View y, const auto& options) { anynorm::layer_norm(x, y, axes, options); },
        [axes](View grad_output, View x, Gradients gradients, const auto& options) {
            anynorm::layer_norm_backward(grad_output, x, axes, gradients, options);
        });
}

Call channel_call(const Case& each, const Buffers& buffers, int threads) {
    const auto with_channels = [&](auto options) {
        options.weight = options.bias = buffers.parameters.view({each.channels()});
        options.channel_axis = each.channel_axis;
        options.num_threads = threads;
        return options;
    };
    using View = const anynorm::TensorView&;
    using Gradients = const anynorm::Gradients&;
    if (each.norm() == "batch_norm") {
        auto options = with_channels(anynorm::BatchNormOptions{.training = each.training});
        const auto variances = std::make_shared<std::vector<double>>(static_cast<std::size_t>(each.channels()), 2.0);
        if (!each.training)
            options.running = {.mean = options.weight, .var = anynorm::view(variances->data(), {each.channels()})};
        return norm_call(
            each, buffers, options, {each.channels()},
            [keep = variances](View x, View y, const auto& given) { anynorm::batch_norm(x, y, given); },
            [](View grad_output, View x, Gradients gradients, const auto& given) {
                anynorm::batch_norm_backward(grad_output, x, gradients, given);
            });
    }
    if (each.norm() == "group_norm")
        return norm_call(
            each, buffers, with_channels(anynorm::GroupNormOptions{}), {each.shape.at(0), each.groups},
            [groups = each.groups](View x, View y, const auto& given) { anynorm::group_norm(x, y, groups, given); },
            [groups = each.groups](View grad_output, View x, Gradients gradients, const auto& given) {
                anynorm::group_norm_backward(grad_output, x, groups, gradients, given);
            });
    return norm_call(
        each, buffers, with_channels(anynorm::InstanceNormOptions{}), {each.shape.at(0), each.channels()},
        [](View x, View y, const auto& given) { anynorm::instance_norm(x, y, given); },
        [](View grad_output, View x, Gradients gradients, const auto& given) {
            anynorm::instance_norm_backward(grad_output, x, gradients, given);
        });
}

}  // namespace

Call make_call(const Case& each, const Buffers& buffers, int threads) {
    if (each.kind == "moments") return moments_call(each, buffers, threads);
    if (each.kind == "normalize") return normalize_call(each, buffers, threads);
    const std::string norm = each.norm();
    if (norm == "layer_norm" || norm == "rms_norm") return row_call(each, buffers, threads);
    if (norm == "batch_norm" || norm == "group_norm" || norm == "instance_norm")
        return channel_call(each, buffers, threads);
    throw std::runtime_error("shapes: expected the name of a norm or moments, got " + each.kind);
}

}  // namespace bench
