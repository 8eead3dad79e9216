// SPDX-License-Identifier: Apache-2.0
// AVX2: F of float32, D of float64. LoadN and StoreN touch `count` elements only (0 or
// less: none; more than a vector: all of it). Stream writes past the caches, to an address aligned to the vector.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "half.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

using F = __m256;
using D = __m256d;

/// Masks are read, not computed: eight lanes from `16 - count` on, of which the first `count` are set. The counts of a
/// pack's pieces are -15 to 16.
alignas(64) constexpr std::int32_t mask_lanes[40] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
inline __m256i MaskF(std::int64_t count) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(mask_lanes + (16 - count)));
}
inline __m128i MaskHalfF(std::int64_t count) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(mask_lanes + (16 - count)));
}
inline __m256i MaskD(std::int64_t count) { return _mm256_cvtepi32_epi64(MaskHalfF(count)); }

inline F Set(float value) { return _mm256_set1_ps(value); }
inline D Set(double value) { return _mm256_set1_pd(value); }
inline F LoadU(const float* p) { return _mm256_loadu_ps(p); }
inline D LoadU(const double* p) { return _mm256_loadu_pd(p); }
inline F LoadN(const float* p, std::int64_t count) { return _mm256_maskload_ps(p, MaskF(count)); }
inline D LoadN(const double* p, std::int64_t count) { return _mm256_maskload_pd(p, MaskD(count)); }
inline D LoadPromote(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
inline D LoadPromoteN(const double* p, std::int64_t count, double fill) {
    const __m256i mask = MaskD(count);
    return _mm256_blendv_pd(Set(fill), _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
}
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    const __m128i mask = MaskHalfF(count);
    const __m128 loaded = _mm_blendv_ps(_mm_set1_ps(fill), _mm_maskload_ps(p, mask), _mm_castsi128_ps(mask));
    return _mm256_cvtps_pd(loaded);
}
inline D PromoteLower(F v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
inline D PromoteUpper(F v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
inline void StoreU(float* p, F v) { _mm256_storeu_ps(p, v); }
inline void StoreU(double* p, D v) { _mm256_storeu_pd(p, v); }
/// In parts of 4, 2 and 1: a store under a mask is 18 to 42 instructions of microcode on AMD's cores.
inline void StoreN(float* p, std::int64_t count, F v) {
    if (count >= 8) return StoreU(p, v);
    if (count <= 0) return;
    __m128 part = _mm256_castps256_ps128(v);
    if ((count & 4) != 0) {
        _mm_storeu_ps(p, part);
        p += 4;
        part = _mm256_extractf128_ps(v, 1);
    }
    if ((count & 2) != 0) {
        _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
        p += 2;
        part = _mm_movehl_ps(part, part);
    }
    if ((count & 1) != 0) _mm_store_ss(p, part);
}
inline void StoreN(double* p, std::int64_t count, D v) {
    if (count >= 4) return StoreU(p, v);
    if (count <= 0) return;
    __m128d part = _mm256_castpd256_pd128(v);
    if ((count & 2) != 0) {
        _mm_storeu_pd(p, part);
        p += 2;
        part = _mm256_extractf128_pd(v, 1);
    }
    if ((count & 1) != 0) _mm_store_sd(p, part);
}
inline F MulAdd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline D MulAdd(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }

inline double ReduceSum(D v) {
    const __m128d half = _mm256_castpd256_pd128(v) + _mm256_extractf128_pd(v, 1);
    return _mm_cvtsd_f64(half) + _mm_cvtsd_f64(_mm_unpackhi_pd(half, half));
}

/// v where it is above 0, else 0.
inline D PositivePart(D v) { return _mm256_max_pd(v, Set(0.0)); }
inline D Sqrt(D v) { return _mm256_sqrt_pd(v); }
inline void StoreDemoted(float* p, D v) { _mm_storeu_ps(p, _mm256_cvtpd_ps(v)); }
inline void StoreDemoted(double* p, D v) { StoreU(p, v); }

/// sum + v. As a multiply-add by one, which rounds the same: additions, subtractions and conversions share two ports on
/// AMD's cores, multiply-adds have two of their own, and the statistics of a row take 1.3 ns for 16 elements, not 1.9.
inline D Accumulate(D sum, D v) { return _mm256_fmadd_pd(v, Set(1.0), sum); }

/// Whether Stream is anything but a store.
constexpr bool has_streams = true;
inline void Stream(float* p, F v) { _mm256_stream_ps(p, v); }
inline void Stream(double* p, D v) { _mm256_stream_pd(p, v); }
inline void StreamFence() { _mm_sfence(); }

inline D LoadPromote(const F16* p) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline D LoadPromote(const BF16* p) {
    const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16)));
}

// 16 halves at a time.
inline __m128i LoadEight(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline F LoadHalf(const F16* p) { return _mm256_cvtph_ps(LoadEight(p)); }
inline F LoadHalf(const BF16* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(LoadEight(p)), 16));
}
template <class Half>
inline void LoadHalves(const Half* p, F* to) {
    to[0] = LoadHalf(p);
    to[1] = LoadHalf(p + 8);
}
/// Two vectors that follow each other, of one load.
inline void PromoteTwo(const BF16* p, D* to) {
    const __m128i zero = _mm_setzero_si128(), halves = LoadEight(p);
    to[0] = _mm256_cvtps_pd(_mm_castsi128_ps(_mm_unpacklo_epi16(zero, halves)));
    to[1] = _mm256_cvtps_pd(_mm_castsi128_ps(_mm_unpackhi_epi16(zero, halves)));
}
inline __m256i RoundHalves(const F16*, const F* from) {
    constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return _mm256_setr_m128i(_mm256_cvtps_ph(from[0], nearest), _mm256_cvtps_ph(from[1], nearest));
}
/// The nearest even in the upper 16 bits: the lower half of what is added carries into them.
inline __m256i RoundUpper(F v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
}
/// A NaN keeps its upper bits and becomes quiet.
inline __m256i QuietUpper(F v, __m256i rounded) {
    const __m256i quiet = _mm256_or_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x400000));
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
// Always inlined: called, it would read its arguments from memory.
[[gnu::always_inline]] inline __m256i RoundHalves(const BF16*, const F* from) {
    __m256i low = RoundUpper(from[0]), high = RoundUpper(from[1]);
    // One test for 16 elements, not a blend for eight: 10 cycles for a pack of y, where it was 13.
    if (__builtin_expect(_mm256_movemask_ps(_mm256_cmp_ps(from[0], from[1], _CMP_UNORD_Q)) != 0, 0)) {
        low = QuietUpper(from[0], low);
        high = QuietUpper(from[1], high);
    }
    // Packing works on the two halves of a vector apart, and leaves quarters 0, 2, 1, 3.
    const __m256i quarters = _mm256_packus_epi32(_mm256_srli_epi32(low, 16), _mm256_srli_epi32(high, 16));
    return _mm256_permute4x64_epi64(quarters, 0xd8);
}
template <class Half>
inline void StoreHalves(Half* p, const F* from) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), RoundHalves(p, from));
}
template <class Half>
inline void StreamHalves(Half* p, const F* from) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), RoundHalves(p, from));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
