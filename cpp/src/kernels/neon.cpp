// SPDX-License-Identifier: Apache-2.0
// Kernels for AArch64.
#define ANYNORM_KERNELS_NEON
#define ANYNORM_ISA_NAMESPACE neon
#include "table.inl.hpp"

namespace anynorm::kernels {
const KernelTable neon_table = neon::MakeTable();
}
