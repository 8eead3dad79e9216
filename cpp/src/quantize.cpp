// SPDX-License-Identifier: Apache-2.0
// The rounding to 8 bits as a call of its own: what a fused call must equal.
#include <algorithm>
#include <string>

#include "anynorm/fusion.hpp"
#include "dispatch.hpp"
#include "epilogue.hpp"
#include "inner_loop.hpp"
#include "layout.hpp"
#include "parallel.hpp"
#include "plan.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

// Below it the fork and join cost more than a second thread gains; pieces of so many elements are shared out.
constexpr std::int64_t serial_elements = 32 * 1024, piece_elements = 64 * 1024;

/// The operands of one call. The nest has y as op_x and q as op_y.
struct Operands {
    Elements y, q;
    Epilogue epilogue;
};

template <class C>
void quantize_piece(const Operands& operands, const Nest& piece) {
    const Nest nest = coalesce(piece, operand_set(op_x, op_y, op_scale, op_zero_point));
    Loop inner{1, false, {}};
    if (nest.depth > 0) inner = nest.loops[nest.depth - 1];
    const Epilogue& all = operands.epilogue;
    alignas(64) C values[tile], scale[tile], zero_point[tile];
    std::fill_n(scale, tile, static_cast<C>(all.scale));
    std::fill_n(zero_point, tile, static_cast<C>(all.zero_point));
    walk(nest, std::max(0, nest.depth - 1), [&](const std::int64_t* offset) {
        StepsPlace place{offset[op_scale], inner.stride[op_scale], offset[op_zero_point], inner.stride[op_zero_point]};
        const Epilogue of_row = all.at(place);
        for (std::int64_t first = 0; first < inner.n; first += tile) {
            const std::int64_t n = std::min(tile, inner.n - first);
            const auto at = [&](Operand operand) { return offset[operand] + first * inner.stride[operand]; };
            load(*all.table, values, operands.y, at(op_x), inner.stride[op_x], n);
            if (!place.varies()) {
                of_row.finish(values, n, operands.q, at(op_y), inner.stride[op_y]);
                continue;
            }
            place.scale = at(op_scale);
            place.zero_point = at(op_zero_point);
            load_steps(all.steps, place, scale, zero_point, n);
            all.finish_each(values, scale, zero_point, n, operands.q, at(op_y), inner.stride[op_y]);
        }
    });
}

constexpr const char* caller = "quantize";

void check_operands(const TensorView& y, const TensorView& q, int num_threads) {
    check_view(caller, "y", y);
    check_result(caller, "output", q);
    if (!is_quantized(q.dtype)) fail(caller, "output of dtype int8 or uint8", name(q.dtype));
    check_shape(caller, "output", q, y.shape, y.rank);
    check_output(caller, "output", q);
    check_apart(caller, "output", q, "y", y);
    check_threads(caller, num_threads);
}

void run(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point,
         const Epilogue& all, int num_threads) {
    if (y.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(y));
    strides.set(op_y, own_strides(q));
    if (scale.given()) strides.set(op_scale, broadcast_strides(scale, y));
    if (zero_point.given()) strides.set(op_zero_point, broadcast_strides(zero_point, y));
    const Nest nest = make_nest(y, 0, strides);
    Operands operands{elements_of(y), elements_of(q), all};
    operands.epilogue.steps = {elements_of(scale), elements_of(zero_point)};
    const Cut cut = cut_kept(nest, piece_elements);
    ThreadShare threads(num_threads);
    threads.keep(y.size() < serial_elements ? 1 : threads.count());
    for_each_piece(cut.pieces, threads.count(), [&](int, std::int64_t index) {
        const Nest piece = piece_of(nest, cut, index);
        if (y.dtype == DType::f64) {
            quantize_piece<double>(operands, piece);
        } else {
            quantize_piece<float>(operands, piece);
        }
    });
}

}  // namespace

void quantize(const TensorView& y, const TensorView& q, double scale, int zero_point, int num_threads) {
    check_operands(y, q, num_threads);
    check_quantization(caller, scale, zero_point, q.dtype);
    run(y, q, {}, {}, {&active_kernels(), Activation::none, scale, zero_point, {}}, num_threads);
}

void quantize(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point,
              int num_threads) {
    check_operands(y, q, num_threads);
    check_view(caller, "scale", scale);
    check_steps(caller, scale, zero_point, q);
    run(y, q, scale, zero_point, {&active_kernels(), Activation::none, 1, 0, {}}, num_threads);
}

}  // namespace anynorm::inline ANYNORM_ABI
