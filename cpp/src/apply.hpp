// SPDX-License-Identifier: Apache-2.0
// The apply pass over one piece: y = (x - mean) * rstd * weight + bias.
#pragma once

#include <cstdint>
#include <functional>

#include "elements.hpp"
#include "epilogue.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// Mean (as a pair) and rstd of every cell in the compute type.
template <class C>
struct Coefficients {
    C *mean, *mean_lo, *rstd;
};

/// Those that elements of type A are normalized with.
template <class A>
using CoefficientsOf = Coefficients<kernels::Compute<A>>;

struct ApplyOperands {
    Elements x, y, weight, bias;  ///< weight and bias always given: a one and a zero of stride 0 stand in
    bool stream = false;          ///< write y past the caches
    Epilogue epilogue{};          ///< A is the compute type where there is one
};

/// Walks the piece with x, y, the cells (as numbered by its op_cell strides) and the parameters. A is the type of both
/// x and y, or else float or double to compute in.
template <class A>
void apply_piece(const kernels::Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece,
                 const CoefficientsOf<A>& coefficients) noexcept;

/// Whether apply_beside() takes the piece.
template <class A>
bool can_apply_beside(const kernels::Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece) noexcept;

/// apply_piece() while `work` sums other pieces: its kernels take the calls from a queue, and what they leave is done
/// afterwards.
template <class A>
void apply_beside(const kernels::Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece,
                  const CoefficientsOf<A>& coefficients,
                  const std::function<void(kernels::AffineQueue<A>&)>& work) noexcept;

}  // namespace anynorm::detail
