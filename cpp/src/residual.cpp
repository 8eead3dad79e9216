// SPDX-License-Identifier: Apache-2.0
#include "residual.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "inner_loop.hpp"

namespace anynorm::detail {
namespace {

/// Terms of other types, or strided: through L1, in the compute type C.
template <class C>
void add_converted(const kernels::KernelTable& table, const ResidualSum& operands, const Loop& inner,
                   const std::int64_t* offset) {
    C terms[2][tile];
    for (std::int64_t first = 0; first < inner.n; first += tile) {
        const std::int64_t n = std::min(tile, inner.n - first);
        const auto start = [&](Operand operand) { return offset[operand] + first * inner.stride[operand]; };
        load(table, terms[0], operands.input, start(op_input), inner.stride[op_input], n);
        load(table, terms[1], operands.residual, start(op_residual), inner.stride[op_residual], n);
        kernels_for<C>(table).add(terms[0], terms[0], terms[1], n);
        store(table, operands.sum, start(op_x), inner.stride[op_x], static_cast<const C*>(terms[0]), n);
    }
}

}  // namespace

void add_piece(const kernels::KernelTable& table, const ResidualSum& operands, const Nest& piece) noexcept {
    const Elements &input = operands.input, &residual = operands.residual, &sum = operands.sum;
    Nest nest = coalesce(piece, operand_set(op_x, op_input, op_residual));
    Loop inner{1, false, {}};
    if (nest.depth > 0) inner = nest.loops[nest.depth - 1];
    const int outside = std::max(0, nest.depth - 1);
    const bool neighbours =
        inner.n == 1 || (inner.stride[op_x] == 1 && inner.stride[op_input] == 1 && inner.stride[op_residual] == 1);
    if (neighbours && input.dtype == sum.dtype && residual.dtype == sum.dtype) {
        with_type(sum, [&]<class X>(X* to) {
            const auto add = kernels_for<X>(table).add;
            walk(nest, outside, [&](const std::int64_t* offset) {
                add(to + offset[op_x], static_cast<const X*>(input.data) + offset[op_input],
                    static_cast<const X*>(residual.data) + offset[op_residual], inner.n);
            });
        });
        return;
    }
    const bool wide = input.dtype == DType::f64 || residual.dtype == DType::f64 || sum.dtype == DType::f64;
    walk(nest, outside, [&](const std::int64_t* offset) {
        if (wide) {
            add_converted<double>(table, operands, inner, offset);
        } else {
            add_converted<float>(table, operands, inner, offset);
        }
    });
}

}  // namespace anynorm::detail
