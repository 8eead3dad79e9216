// SPDX-License-Identifier: Apache-2.0
// Fills the kernel table of one instruction set.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "moments.inl.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

template <class T>
constexpr Kernels<T> MakeKernels() {
    return {
        MomentsRow<T>,
        MomentsColumn<T>,
        // In the order of affine_index(): statistics, weight, bias.
        {Affine<T, false, false, false>, Affine<T, false, false, true>, Affine<T, false, true, false>,
         Affine<T, false, true, true>, Affine<T, true, false, false>, Affine<T, true, false, true>,
         Affine<T, true, true, false>, Affine<T, true, true, true>},
    };
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
