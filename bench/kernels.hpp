// SPDX-License-Identifier: Apache-2.0
// The kernels below all norms, each by itself, on data that L1 or L2 holds.
#pragma once

namespace bench {

/// Hands every kernel, with every element type and instruction set of this machine, to google-benchmark, under names
/// like kernel/moments_row/f32/avx2/8x2048.
void add_kernels();

}  // namespace bench
