// SPDX-License-Identifier: Apache-2.0
#include "parameters.hpp"

#include <algorithm>

namespace anynorm::detail {
namespace {

// 32 KB of float32 fit L1, and a parameter that x has more than 128 elements for is below 1 % of the memory.
constexpr std::int64_t always_small = 8192;
constexpr std::int64_t elements_for_each = 128;

}  // namespace

bool wants_gathering(const Nest& nest, Operand operand, const Elements& elements, DType compute) noexcept {
    if (!elements.given() || nest.depth == 0) return false;
    const std::int64_t inner = nest.loops[nest.depth - 1].stride[operand];
    if (elements.dtype == compute && (inner == 0 || inner == 1)) return false;
    return size_along(nest, operand) <= std::max(always_small, nest.size() / elements_for_each);
}

template <class C>
void gather_parameter(Nest& nest, Operand operand, const Elements& elements, C* to) noexcept {
    Nest own;
    own.offset[op_x] = nest.offset[operand];
    std::int64_t dense = size_along(nest, operand);
    for (int i = 0; i < nest.depth; ++i) {
        Loop& loop = nest.loops[i];
        if (loop.stride[operand] == 0) continue;
        Loop& copied = own.loops[own.depth++];
        copied = Loop{loop.n, false, {}};
        copied.stride[op_x] = loop.stride[operand];
        dense /= loop.n;
        loop.stride[operand] = dense;
    }
    nest.offset[operand] = 0;
    walk(own, own.depth, [&](const std::int64_t* offset) { load(to++, elements, offset[op_x], 1, 1); });
}

template void gather_parameter<float>(Nest&, Operand, const Elements&, float*) noexcept;
template void gather_parameter<double>(Nest&, Operand, const Elements&, double*) noexcept;

}  // namespace anynorm::detail
