// SPDX-License-Identifier: Apache-2.0
// The short way through normalize(): contiguous rows of few elements in all, whose time would go into the plan. The
// same kernels on the same arguments, hence the same bits.
#pragma once

#include "anynorm/normalize.hpp"
#include "kernels/kernel_table.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// Runs a call, validated and with elements, if its sets are such rows; otherwise returns false and has done nothing.
///
/// The sets must be contiguous runs of at most one block of the row kernel, along the last axes of x; all operands have
/// one dtype; x has at most 64 KB, far below the size from which threads are used; the statistics are those of x and
/// nobody wants to see them. That is layer and RMS norm of a batch of tokens, group norm of (N, C), and instance and
/// group norm of small images.
bool normalize_short_rows(const TensorView& x, AxisSet reduced, const TensorView& y, const NormalizeOptions& options,
                          const kernels::KernelTable& table) noexcept;

}  // namespace anynorm::detail
