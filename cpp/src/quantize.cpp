// SPDX-License-Identifier: Apache-2.0
// The rounding to 8 bits as a call of its own: what a fused call must equal.
#include <algorithm>

#include "anynorm/fusion.hpp"
#include "dispatch.hpp"
#include "epilogue.hpp"
#include "inner_loop.hpp"
#include "layout.hpp"
#include "validate.hpp"

namespace anynorm::inline ANYNORM_ABI {
namespace {

using namespace detail;

template <class C>
void quantize_as(const Elements& from, const Elements& to, const Nest& nest, const Epilogue& epilogue) {
    C values[tile];
    Loop inner{1, false, {}};
    if (nest.depth > 0) inner = nest.loops[nest.depth - 1];
    walk(nest, std::max(0, nest.depth - 1), [&](const std::int64_t* offset) {
        for (std::int64_t first = 0; first < inner.n; first += tile) {
            const std::int64_t n = std::min(tile, inner.n - first);
            load(*epilogue.table, values, from, offset[op_x] + first * inner.stride[op_x], inner.stride[op_x], n);
            epilogue.finish(values, n, to, offset[op_y] + first * inner.stride[op_y], inner.stride[op_y]);
        }
    });
}

}  // namespace

void quantize(const TensorView& y, const TensorView& q, double scale, int zero_point) {
    constexpr const char* caller = "quantize";
    check_view(caller, "y", y);
    check_result(caller, "output", q);
    if (!is_quantized(q.dtype)) fail(caller, "output of dtype int8 or uint8", name(q.dtype));
    check_shape(caller, "output", q, y.shape, y.rank);
    check_quantization(caller, scale, zero_point, q.dtype);
    check_output(caller, "output", q);
    check_apart(caller, "output", q, "y", y);
    if (y.size() == 0) return;
    OperandStrides strides;
    strides.set(op_x, own_strides(y));
    strides.set(op_y, own_strides(q));
    const Nest nest = make_nest(y, 0, strides);
    const Epilogue epilogue{&active_kernels(), Activation::none, scale, zero_point};
    if (y.dtype == DType::f64) {
        quantize_as<double>(elements_of(y), elements_of(q), nest, epilogue);
    } else {
        quantize_as<float>(elements_of(y), elements_of(q), nest, epilogue);
    }
}

}  // namespace anynorm::inline ANYNORM_ABI
