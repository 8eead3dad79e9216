// SPDX-License-Identifier: Apache-2.0
#include "calls.hpp"

#include <anynorm/anynorm.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
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

Call moments_call(const Case& each, const Buffers& buffers, int threads) {
    const std::vector<std::int64_t> kept = lengths(each, false);
    std::size_t sets = 1;
    for (const std::int64_t length : kept) sets *= static_cast<std::size_t>(length);
    const auto results = std::make_shared<std::vector<double>>(3 * sets);
    const auto column = [&](std::size_t i) { return anynorm::view(results->data() + i * sets, kept); };
    const anynorm::MomentsView out{.count = column(0), .mean = column(1), .m2 = column(2)};
    return [=, x = buffers.x.view(each), axes = anynorm::Axes{std::span(each.axes)}, keep = results] {
        anynorm::moments(x, {axes}, out, {.num_threads = threads});
    };
}

Call row_call(const Case& each, const Buffers& buffers, int threads) {
    const anynorm::TensorView x = buffers.x.view(each), y = buffers.y.view(each);
    const anynorm::Axes axes{std::span(each.axes)};
    const anynorm::TensorView weight = buffers.parameters.view(lengths(each, true));
    if (each.kind == "rms_norm")
        return [=, options = anynorm::RmsNormOptions{.weight = weight, .num_threads = threads}] {
            anynorm::rms_norm(x, y, axes, options);
        };
    return [=, options = anynorm::LayerNormOptions{.weight = weight, .bias = weight, .num_threads = threads}] {
        anynorm::layer_norm(x, y, axes, options);
    };
}

Call channel_call(const Case& each, const Buffers& buffers, int threads) {
    const anynorm::TensorView x = buffers.x.view(each), y = buffers.y.view(each);
    const auto with_channels = [&](auto options) {
        options.weight = options.bias = buffers.parameters.view({each.channels()});
        options.channel_axis = each.channel_axis;
        options.num_threads = threads;
        return options;
    };
    if (each.kind == "batch_norm") {
        auto options = with_channels(anynorm::BatchNormOptions{.training = each.training});
        const auto variances = std::make_shared<std::vector<double>>(static_cast<std::size_t>(each.channels()), 2.0);
        if (!each.training)
            options.running = {.mean = options.weight, .var = anynorm::view(variances->data(), {each.channels()})};
        return [=, keep = variances] { anynorm::batch_norm(x, y, options); };
    }
    if (each.kind == "group_norm")
        return [=, groups = each.groups, options = with_channels(anynorm::GroupNormOptions{})] {
            anynorm::group_norm(x, y, groups, options);
        };
    return [=, options = with_channels(anynorm::InstanceNormOptions{})] { anynorm::instance_norm(x, y, options); };
}

}  // namespace

Call make_call(const Case& each, const Buffers& buffers, int threads) {
    if (each.kind == "moments") return moments_call(each, buffers, threads);
    if (each.kind == "layer_norm" || each.kind == "rms_norm") return row_call(each, buffers, threads);
    if (each.kind == "batch_norm" || each.kind == "group_norm" || each.kind == "instance_norm")
        return channel_call(each, buffers, threads);
    throw std::runtime_error("shapes: expected the name of a norm or moments, got " + each.kind);
}

}  // namespace bench
