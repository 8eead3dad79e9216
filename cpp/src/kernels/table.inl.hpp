// SPDX-License-Identifier: Apache-2.0
// Fills the kernel table of one instruction set.
#pragma once

#include "affine.inl.hpp"
#include "beside.inl.hpp"
#include "columns.inl.hpp"
#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "rows.inl.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

template <class X>
constexpr Kernels<X> MakeKernels() {
    return {
        MomentsRow<X>,
        MomentsColumn<X>,
        MomentsRowBeside<X>,
        MomentsColumnBeside<X>,
        // In the order of affine_index(): statistics, weight, bias.
        {Affine<X, false, false, false>, Affine<X, false, false, true>, Affine<X, false, true, false>,
         Affine<X, false, true, true>, Affine<X, true, false, false>, Affine<X, true, false, true>,
         Affine<X, true, true, false>, Affine<X, true, true, true>},
        // In the order of rows_index(): weight, bias.
        {NormalizeRows<X, false, false>, NormalizeRows<X, false, true>, NormalizeRows<X, true, false>,
         NormalizeRows<X, true, true>},
        MergeCells,
        Coefficients<Compute<X>>,
        Promote<X>,
        Demote<X>,
    };
}

constexpr KernelTable MakeTable() {
    return {MakeKernels<float>(), MakeKernels<double>(), MakeKernels<F16>(), MakeKernels<BF16>()};
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
