// SPDX-License-Identifier: Apache-2.0
// CPU features -> kernel table. The file behind this header is the only one that knows CPUs.
#pragma once

#include "anynorm/runtime.hpp"
#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

/// The kernels in use; chosen at the first call.
const kernels::KernelTable& active_kernels();

/// The kernels of one instruction set, whether or not this CPU can run them; nullptr where they are not compiled.
const kernels::KernelTable* kernels_of(Isa isa) noexcept;

template <class T>
const kernels::Kernels<T>& kernels_for(const kernels::KernelTable& table) noexcept {
    if constexpr (sizeof(T) == sizeof(float)) {
        return table.f32;
    } else {
        return table.f64;
    }
}

}  // namespace anynorm::detail
