// SPDX-License-Identifier: Apache-2.0
#include "anynorm/fold.hpp"

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "elements.hpp"
#include "layout.hpp"
#include "norm_axes.hpp"
#include "overlap.hpp"
#include "tiles.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

constexpr const char* caller = "fold_batch_norm";

/// Where the output channels are: `groups` blocks of axis `outer` (which is the channel axis itself where all of them
/// lie there), times the axis `channel`.
struct Channels {
    int channel = 0;
    std::int64_t count = 0, groups = 1;

    Channels(const TensorView& weight, const FoldBatchNormOptions& options) {
        const int least = options.transpose ? 2 : 1, most = options.transpose ? max_rank - 1 : max_rank;
        if (weight.rank < least || weight.rank > most) {
            fail(caller, "weight of rank " + std::to_string(least) + " to " + std::to_string(most),
                 std::to_string(weight.rank));
        }
        if (options.transpose) {
            if (options.channel_axis != 0) {
                fail(caller, "channel_axis or a transposed convolution, whose channels are on axis 1", "both");
            }
            channel = 1;
            groups = options.groups;
            check(weight.shape[0], "input channels");
            count = groups * weight.shape[1];
        } else {
            channel = check_axis(caller, "channel_axis", options.channel_axis, weight.rank);
            count = weight.shape[channel];
            check(count, "output channels", options.groups);
        }
    }

  private:
    void check(std::int64_t divided, const char* what, std::int64_t by) const {
        if (by >= 1 && divided % by == 0) return;
        fail(caller, std::string("groups of at least 1 that divides the number of ") + what,
             std::to_string(divided) + " " + what + " and groups=" + std::to_string(by));
    }
    void check(std::int64_t divided, const char* what) const { check(divided, what, groups); }
};

void check_operands(const TensorView& weight, const TensorView& mean, const TensorView& var,
                    const TensorView& folded_weight, const TensorView& folded_bias, const FoldBatchNormOptions& options,
                    std::int64_t channels) {
    check_parameter(caller, "bias", options.bias, &channels, 1);
    for (const Named& statistic : {Named{"running_mean", mean}, Named{"running_var", var}}) {
        check_statistic(caller, statistic.what, statistic.view);
        check_shape(caller, statistic.what, statistic.view, &channels, 1);
    }
    check_parameter(caller, "bn_weight", options.bn_weight, &channels, 1);
    check_parameter(caller, "bn_bias", options.bn_bias, &channels, 1);
    check_eps(caller, options.eps);
    check_view(caller, "folded weight", folded_weight);
    check_shape(caller, "folded weight", folded_weight, weight.shape, weight.rank);
    check_view(caller, "folded bias", folded_bias);
    check_shape(caller, "folded bias", folded_bias, &channels, 1);

    const Named inputs[] = {{"weight", weight},   {"bias", options.bias},           {"running_mean", mean},
                            {"running_var", var}, {"bn_weight", options.bn_weight}, {"bn_bias", options.bn_bias}};
    const Named outputs[] = {{"folded weight", folded_weight}, {"folded bias", folded_bias}};
    for (int i = 0; i < 2; ++i) {
        check_output(caller, outputs[i].what, outputs[i].view);
        for (int j = 0; j < 6; ++j) {
            if (!inputs[j].view.given() || (i == j && same_view(outputs[i].view, inputs[j].view))) continue;
            check_apart(caller, outputs[i].what, outputs[i].view, inputs[j].what, inputs[j].view);
        }
    }
    check_apart(caller, "folded bias", folded_bias, "folded weight", folded_weight);
}

/// Element `i` of a parameter with one axis.
double value(const TensorView& parameter, std::int64_t i, double otherwise) {
    return parameter.given() ? element_at(elements_of(parameter), i * parameter.strides[0]) : otherwise;
}

/// to = from * scale, where scale broadcasts.
void multiply(const TensorView& from, const TensorView& scale, const TensorView& to) {
    if (from.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(from));
    strides.set(op_y, own_strides(to));
    strides.set(op_weight, own_strides(scale));
    Tiles<double> tiles(make_nest(from, 0, strides), operand_set(op_x, op_y, op_weight));
    tiles.add_input(elements_of(from), op_x);
    tiles.set_output(elements_of(to), op_y);
    tiles.add_coefficient(elements_of(scale), op_weight);
    const bool varies = tiles.varies(op_weight);
    tiles.for_each([&](const Tile<double>& tile) {
        for (std::int64_t row = 0; row < tile.rows; ++row) {
            const double* const x = tile.input[0] + row * tile.input_row[0];
            const double* const factor = tile.coefficient[0] + row * tile.coefficient_row[0];
            double* const y = tile.output + row * tile.output_row;
            for (std::int64_t i = 0; i < tile.n; ++i) y[i] = x[i] * factor[varies ? i : 0];
        }
    });
}

}  // namespace

void fold_batch_norm(const TensorView& weight, const TensorView& mean, const TensorView& var,
                     const TensorView& folded_weight, const TensorView& folded_bias,
                     const FoldBatchNormOptions& options) {
    check_view(caller, "weight", weight);
    const Channels channels(weight, options);
    check_operands(weight, mean, var, folded_weight, folded_bias, options, channels.count);

    std::vector<double> scale(static_cast<std::size_t>(channels.count));
    for (std::int64_t i = 0; i < channels.count; ++i) {
        const double factor = value(options.bn_weight, i, 1) / std::sqrt(value(var, i, 1) + options.eps);
        const double bias = (value(options.bias, i, 0) - value(mean, i, 0)) * factor + value(options.bn_bias, i, 0);
        store(elements_of(folded_bias), i * folded_bias.strides[0], 1, &bias, 1);
        scale[static_cast<std::size_t>(i)] = factor;
    }
    // (inputs, C / groups, ...) seen as (groups, inputs / groups, C / groups, ...): scale lies along axes 0 and 2.
    TensorView from = weight, to = folded_weight, along;
    if (options.transpose) {
        split(from, 0, channels.groups);
        split(to, 0, channels.groups);
        place(view(scale.data(), {channels.groups, weight.shape[1]}), {0, 2}, from.rank, along);
    } else {
        place(view(scale.data(), {channels.count}), {channels.channel}, from.rank, along);
    }
    multiply(from, along, to);
}

}  // namespace anynorm::inline ANYNORM_ABI
