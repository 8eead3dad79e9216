// SPDX-License-Identifier: Apache-2.0
// Kernels for x86-64-v3: AVX2 and FMA.
#define ANYNORM_KERNELS_AVX2
#define ANYNORM_ISA_NAMESPACE avx2
#include "table.inl.hpp"

namespace anynorm::kernels {
const KernelTable avx2_table = avx2::MakeTable();
}
