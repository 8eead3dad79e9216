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

/// The operands of one call. The nest has y as op_x, q as op_y, scales as op_weight and zero points as op_bias; without
/// arrays of these they are in the epilogue.
struct Steps {
    Elements y, q, scale, zero_point;
    Epilogue all;

    /// Those of a row on which they do not vary.
    Epilogue of(const std::int64_t* offset) const {
        Epilogue result = all;
        if (scale.given()) result.scale = element_at(scale, offset[op_weight]);
        if (zero_point.given()) result.zero_point = zero_point_at(offset[op_bias]);
        return result;
    }
    int zero_point_at(std::int64_t offset) const {
        return q.dtype == DType::i8 ? static_cast<const std::int8_t*>(zero_point.data)[offset]
                                    : static_cast<const std::uint8_t*>(zero_point.data)[offset];
    }
};

/// Adding this to a small number rounds it to an integer, ties to even.
template <class C>
constexpr C integer = sizeof(C) == sizeof(float) ? C(0x1.8p23) : C(0x1.8p52);

/// The arithmetic of the kernel where scale and zero point vary from element to element.
template <class C>
void quantize_each(std::uint8_t* q, const C* y, const C* scale, const C* zero_point, std::int64_t n, int least) {
    for (std::int64_t i = 0; i < n; ++i) {
        const C low = static_cast<C>(least) - zero_point[i], high = low + 255;
        C value = y[i] / scale[i];
        value = value == value ? value : C(0);
        value = value > low ? value : low;
        value = value < high ? value : high;
        const C rounded = (value + integer<C>)-integer<C>;
        q[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(rounded + zero_point[i]));
    }
}

template <class C>
void quantize_piece(const Steps& steps, const Nest& piece) {
    const Nest nest = coalesce(piece, operand_set(op_x, op_y, op_weight, op_bias));
    Loop inner{1, false, {}};
    if (nest.depth > 0) inner = nest.loops[nest.depth - 1];
    const bool each = inner.stride[op_weight] != 0 || inner.stride[op_bias] != 0;
    alignas(64) C values[tile], scale[tile], zero_point[tile];
    std::uint8_t results[tile];
    walk(nest, std::max(0, nest.depth - 1), [&](const std::int64_t* offset) {
        const Epilogue epilogue = steps.of(offset);
        for (std::int64_t first = 0; first < inner.n; first += tile) {
            const std::int64_t n = std::min(tile, inner.n - first);
            const auto at = [&](Operand operand) { return offset[operand] + first * inner.stride[operand]; };
            load(*epilogue.table, values, steps.y, at(op_x), inner.stride[op_x], n);
            if (!each) {
                epilogue.finish(values, n, steps.q, at(op_y), inner.stride[op_y]);
                continue;
            }
            std::fill_n(scale, n, static_cast<C>(epilogue.scale));
            std::fill_n(zero_point, n, static_cast<C>(epilogue.zero_point));
            if (steps.scale.given()) load(scale, steps.scale, at(op_weight), inner.stride[op_weight], n);
            for (std::int64_t i = 0; steps.zero_point.given() && i < n; ++i) {
                zero_point[i] = static_cast<C>(steps.zero_point_at(at(op_bias) + i * inner.stride[op_bias]));
            }
            quantize_each(results, values, scale, zero_point, n, steps.q.dtype == DType::i8 ? -128 : 0);
            copy_strided(static_cast<std::uint8_t*>(steps.q.data) + at(op_y), inner.stride[op_y],
                         static_cast<const std::uint8_t*>(results), 1, n);
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

void check_arrays(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point) {
    check_view(caller, "scale", scale);
    check_broadcasts(caller, "scale", scale, y);
    check_apart(caller, "output", q, "scale", scale);
    if (zero_point.given()) {
        check_geometry(caller, "zero_point", zero_point);
        if (zero_point.dtype != q.dtype)
            fail(caller, std::string("zero_point of dtype ") + name(q.dtype) + " as output", name(zero_point.dtype));
        check_broadcasts(caller, "zero_point", zero_point, y);
        check_apart(caller, "output", q, "zero_point", zero_point);
    }
    if (scale.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(scale));
    const Nest nest = make_nest(scale, 0, strides);
    walk(nest, nest.depth, [&](const std::int64_t* offset) {
        check_quantization(caller, element_at(elements_of(scale), offset[op_x]), 0, q.dtype);
    });
}

void run(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point,
         const Epilogue& all, int num_threads) {
    if (y.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(y));
    strides.set(op_y, own_strides(q));
    if (scale.given()) strides.set(op_weight, broadcast_strides(scale, y));
    if (zero_point.given()) strides.set(op_bias, broadcast_strides(zero_point, y));
    const Nest nest = make_nest(y, 0, strides);
    const Steps steps{elements_of(y), elements_of(q), elements_of(scale), elements_of(zero_point), all};
    const Cut cut = cut_kept(nest, piece_elements);
    ThreadShare threads(num_threads);
    threads.keep(y.size() < serial_elements ? 1 : threads.count());
    for_each_piece(cut.pieces, threads.count(), [&](int, std::int64_t index) {
        const Nest piece = piece_of(nest, cut, index);
        if (y.dtype == DType::f64) {
            quantize_piece<double>(steps, piece);
        } else {
            quantize_piece<float>(steps, piece);
        }
    });
}

}  // namespace

void quantize(const TensorView& y, const TensorView& q, double scale, int zero_point, int num_threads) {
    check_operands(y, q, num_threads);
    check_quantization(caller, scale, zero_point, q.dtype);
    run(y, q, {}, {}, {&active_kernels(), Activation::none, scale, zero_point}, num_threads);
}

void quantize(const TensorView& y, const TensorView& q, const TensorView& scale, const TensorView& zero_point,
              int num_threads) {
    check_operands(y, q, num_threads);
    check_arrays(y, q, scale, zero_point);
    run(y, q, scale, zero_point, {&active_kernels(), Activation::none, 1, 0}, num_threads);
}

}  // namespace anynorm::inline ANYNORM_ABI
