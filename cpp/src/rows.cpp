// SPDX-License-Identifier: Apache-2.0
#include "rows.hpp"

namespace anynorm::detail {

template <class X>
void normalize_rows(const kernels::Kernels<X>& kernels, const ApplyOperands& operands, const Reduction& reduction,
                    const Nest& piece, double eps, bool center, Cell* cells) noexcept {
    using C = kernels::Compute<X>;
    const Nest nest = coalesce(piece, operand_set(op_x, op_y, op_weight, op_bias));
    const Loop& inner = nest.loops[nest.depth - 1];
    kernels::RowsArgs<X> args{};
    args.rows = 1;
    args.n = inner.n;
    args.block = reduction.block_n;
    args.chunk_blocks = reduction.chunk_blocks;
    args.eps = eps;
    args.center = center;
    args.stream = operands.stream;
    int outside = nest.depth - 1;
    if (outside > 0) {
        const Loop& rows = nest.loops[--outside];
        args.rows = rows.n;
        args.x_row = rows.stride[op_x];
        args.y_row = rows.stride[op_y];
        args.weight_row = rows.stride[op_weight];
        args.bias_row = rows.stride[op_bias];
    }
    const auto kernel =
        kernels.normalize_rows[kernels::rows_index(inner.stride[op_weight] != 0, inner.stride[op_bias] != 0)];
    args.out = cells;
    walk(nest, outside, [&](const std::int64_t* offset) {
        args.x = static_cast<const X*>(operands.x.data) + offset[op_x];
        args.y = static_cast<X*>(operands.y.data) + offset[op_y];
        args.weight = static_cast<const C*>(operands.weight.data) + offset[op_weight];
        args.bias = static_cast<const C*>(operands.bias.data) + offset[op_bias];
        kernel(args);
        if (cells != nullptr) args.out += args.rows;
    });
}

#define ANYNORM_INSTANTIATE(X)                                                                                       \
    template void normalize_rows<X>(const kernels::Kernels<X>&, const ApplyOperands&, const Reduction&, const Nest&, \
                                    double, bool, Cell*) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
