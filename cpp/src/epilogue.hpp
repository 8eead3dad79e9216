// SPDX-License-Identifier: Apache-2.0
// What follows the affine map while its results are in L1: the activation, and the rounding to y's dtype.
#pragma once

#include <cstdint>

#include "anynorm/fusion.hpp"
#include "elements.hpp"
#include "kernels/kernel_table.hpp"
#include "steps.hpp"

namespace anynorm::detail {

inline bool is_quantized(DType dtype) noexcept { return dtype == DType::i8 || dtype == DType::u8; }

struct Epilogue {
    const kernels::KernelTable* table = nullptr;  ///< null where nothing follows
    Activation activation = Activation::none;
    double scale = 0;
    int zero_point = 0;
    Steps steps{};  ///< arrays in the places of the two numbers

    bool given() const noexcept { return table != nullptr; }

    /// That of results which all have the first scale and zero point of a place.
    Epilogue at(const StepsPlace& place) const noexcept;

    /// Takes n results in the compute type C, which are overwritten, to n elements of y that are `stride` apart.
    template <class C>
    void finish(C* results, std::int64_t n, const Elements& y, std::int64_t offset, std::int64_t stride) const noexcept;

    /// The same with a scale and a zero point for each, to results of 8 bits.
    template <class C>
    void finish_each(C* results, const C* scale, const C* zero_point, std::int64_t n, const Elements& y,
                     std::int64_t offset, std::int64_t stride) const noexcept;
};

}  // namespace anynorm::detail
