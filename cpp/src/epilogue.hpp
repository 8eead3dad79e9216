// SPDX-License-Identifier: Apache-2.0
// What follows the affine map while its results are in L1: the activation, and the rounding to y's dtype.
#pragma once

#include <cstdint>

#include "anynorm/fusion.hpp"
#include "elements.hpp"
#include "kernels/kernel_table.hpp"

namespace anynorm::detail {

inline bool is_quantized(DType dtype) noexcept { return dtype == DType::i8 || dtype == DType::u8; }

struct Epilogue {
    const kernels::KernelTable* table = nullptr;  ///< null where nothing follows
    Activation activation = Activation::none;
    double scale = 0;
    int zero_point = 0;

    bool given() const noexcept { return table != nullptr; }

    /// Takes n results in the compute type C, which are overwritten, to n elements of y that are `stride` apart.
    template <class C>
    void finish(C* results, std::int64_t n, const Elements& y, std::int64_t offset, std::int64_t stride) const noexcept;
};

}  // namespace anynorm::detail
