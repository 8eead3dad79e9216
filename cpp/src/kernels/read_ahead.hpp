// SPDX-License-Identifier: Apache-2.0
// Reading ahead: what the sums need soon is on its way into L2 while others are added.
//
// Into L2, not L1, where few misses can be under way (24 on Zen 4) and each keeps its place until memory has answered;
// L2 has more such places, and from it the machine's own prefetcher brings the next lines. No multiple of 4 KB ahead:
// that is the same set of L1 as what is read now. Rows of 4096 from memory take 0.66 to 0.75 of the time of 8 KB ahead
// into L1, and planes, columns and gradients 0.6 to 0.9.
#pragma once

#include <cstdint>

#include "kernel_table.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Elements from what is read to what is fetched: 7.5 KB, which cover 250 ns at the speed of a core's memory.
template <class X>
constexpr std::int64_t read_ahead = 7680 / static_cast<std::int64_t>(sizeof(X));

/// Fetches the line of *p.
template <class X>
inline void Fetch(const X* p) {
    __builtin_prefetch(p, 0, 2);
}

/// Fetches 16 elements that are stored as X.
template <class X>
inline void FetchPack(const X* p) {
    Fetch(p);
    if constexpr (sizeof(X) == 8) Fetch(p + 8);  // a pack is two lines
}

/// The same into L1, from L2 where the pack was fetched before: what comes from the last cache is not slower then than
/// fetched into L1 at once (100 columns would take 1.8 of the time from L2 alone).
template <class X>
inline void FetchPackNear(const X* p) {
    __builtin_prefetch(p);
    if constexpr (sizeof(X) == 8) __builtin_prefetch(p + 8);
}

/// Elements from what is read to what is fetched into L1.
template <class X>
constexpr std::int64_t read_near = 512 / static_cast<std::int64_t>(sizeof(X));

/// Rows of fewer elements are fetched into L1 at once: rows of 256 from memory take 0.8 of that time through L2, but
/// those of 49 and 100 from the last cache 1.2, and gradients of planes of 7x7 1.3.
constexpr std::int64_t least_through_l2 = 128;

/// Elements from gradients of such rows to what is fetched: their stretches are short, and 7.5 KB are beyond the end.
template <class X>
constexpr std::int64_t read_ahead_short = 4096 / static_cast<std::int64_t>(sizeof(X));

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
