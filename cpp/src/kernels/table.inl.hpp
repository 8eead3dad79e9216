// SPDX-License-Identifier: Apache-2.0
// Fills the kernel table of one instruction set.
#pragma once

#include "activations.inl.hpp"
#include "affine.inl.hpp"
#include "beside.inl.hpp"
#include "columns.inl.hpp"
#include "elementwise.inl.hpp"
#include "gradient_beside.inl.hpp"
#include "gradient_input.inl.hpp"
#include "gradient_rows.inl.hpp"
#include "gradient_sums.inl.hpp"
#include "grouped_sums.inl.hpp"
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
        GroupedSums<X>,
        GroupedCells<X>,
        // In the order of affine_index(): statistics, weight, bias.
        {Affine<X, false, false, false>, Affine<X, false, false, true>, Affine<X, false, true, false>,
         Affine<X, false, true, true>, Affine<X, true, false, false>, Affine<X, true, false, true>,
         Affine<X, true, true, false>, Affine<X, true, true, true>},
        CloseLine<X>,
        // In the order of rows_index(): weight, bias.
        {NormalizeRows<X, false, false>, NormalizeRows<X, false, true>, NormalizeRows<X, true, false>,
         NormalizeRows<X, true, true>},
        MergeCells,
        Coefficients<Compute<X>>,
        // In the order of gradient_index(): statistics, weight.
        {GradientSumsRow<X, false, false>, GradientSumsRow<X, false, true>, GradientSumsRow<X, true, false>,
         GradientSumsRow<X, true, true>},
        {GradientSumsColumn<X, false, false>, GradientSumsColumn<X, false, true>, GradientSumsColumn<X, true, false>,
         GradientSumsColumn<X, true, true>},
        {GradientInput<X, false, false>, GradientInput<X, false, true>, GradientInput<X, true, false>,
         GradientInput<X, true, true>},
        GradientSumsBeside<X>,
        GradientInputLeft<X>,
        // In the order of gradient_rows_index(): weight, parameters.
        {GradientRows<X, false, false>, GradientRows<X, false, true>, GradientRows<X, true, false>,
         GradientRows<X, true, true>},
        Promote<X>,
        Demote<X>,
        Add<X>,
        Quantize<Compute<X>>,
    };
}

constexpr KernelTable MakeTable() {
    return {
        MakeKernels<float>(),
        MakeKernels<double>(),
        MakeKernels<F16>(),
        MakeKernels<BF16>(),
        {{Activate<Relu>, Activate<Silu>, Activate<Gelu>, Activate<GeluTanh>},
         {ActivationGradient<Relu>, ActivationGradient<Silu>, ActivationGradient<Gelu>, ActivationGradient<GeluTanh>}}};
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
