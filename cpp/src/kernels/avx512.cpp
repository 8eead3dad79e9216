// SPDX-License-Identifier: Apache-2.0
// Kernels for x86-64-v4: AVX-512 F, BW, DQ, VL.
#define ANYNORM_KERNELS_AVX512
#define ANYNORM_ISA_NAMESPACE avx512
#include "table.inl.hpp"

namespace anynorm::kernels {
const KernelTable avx512_table = avx512::MakeTable();
}
