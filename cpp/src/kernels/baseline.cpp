// SPDX-License-Identifier: Apache-2.0
// Kernels for any CPU of the architecture: compiler vectors of 128 bits, no fused multiply-add.
#define ANYNORM_KERNELS_BASELINE
#define ANYNORM_ISA_NAMESPACE baseline
#include "table.inl.hpp"

namespace anynorm::kernels {
const KernelTable baseline_table = baseline::MakeTable();
}
