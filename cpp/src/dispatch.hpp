// SPDX-License-Identifier: Apache-2.0
// CPU features -> kernel table. The file behind this header is the only one that knows CPUs.
#pragma once

#include <type_traits>

#include "anynorm/runtime.hpp"
#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

/// The kernels in use; chosen at the first call.
const kernels::KernelTable& active_kernels();

/// The kernels of one instruction set, whether or not this CPU can run them; nullptr where they are not compiled.
const kernels::KernelTable* kernels_of(Isa isa) noexcept;

template <class X>
const kernels::Kernels<X>& kernels_for(const kernels::KernelTable& table) noexcept {
    if constexpr (std::is_same_v<X, float>) {
        return table.f32;
    } else if constexpr (std::is_same_v<X, double>) {
        return table.f64;
    } else if constexpr (std::is_same_v<X, kernels::F16>) {
        return table.f16;
    } else {
        static_assert(std::is_same_v<X, kernels::BF16>);
        return table.bf16;
    }
}

}  // namespace anynorm::detail
