// SPDX-License-Identifier: Apache-2.0
// How fast the memory of this machine is: the passes that no norm can do without, and nothing else.
#pragma once

#include <cstddef>

namespace bench {

/// Whether this program can run a pass on several threads; it must have been compiled with OpenMP, as the library.
bool has_threads();

/// Copies with ordinary vector stores. Where the destination is not in cache, each stored line is read first.
void copy_regular(void* to, const void* from, std::size_t bytes, int threads);

/// Copies with non-temporal stores, which go past the caches; on a CPU without AVX2 the same as copy_regular.
void copy_streaming(void* to, const void* from, std::size_t bytes, int threads);

/// to[i] = from[i] + beside[i] / 2 of float32, with ordinary stores and with non-temporal ones: two arrays are read and
/// a third is written, as in STREAM (McCalpin 1995).
void triad(void* to, const void* from, const void* beside, std::size_t bytes, int threads);
void triad_streaming(void* to, const void* from, const void* beside, std::size_t bytes, int threads);

/// Reads everything and sums it, as 32-bit integers: no bit pattern of theirs is slow to add. All want 32-byte aligned
/// memory.
int read(const void* from, std::size_t bytes, int threads);

}  // namespace bench
