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

inline int Clamp(std::int64_t count) { return static_cast<int>(count < 0 ? 0 : count > 8 ? 8 : count); }
inline __m256i MaskF(std::int64_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(Clamp(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i MaskD(std::int64_t count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(Clamp(count)), _mm256_setr_epi64x(0, 1, 2, 3));
}

inline F Set(float value) { return _mm256_set1_ps(value); }
inline D Set(double value) { return _mm256_set1_pd(value); }
inline F LoadU(const float* p) { return _mm256_loadu_ps(p); }
inline D LoadU(const double* p) { return _mm256_loadu_pd(p); }
inline F LoadN(const float* p, std::int64_t count, float fill) {
    const __m256i mask = MaskF(count);
    return _mm256_blendv_ps(Set(fill), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}
inline D LoadN(const double* p, std::int64_t count, double fill) {
    const __m256i mask = MaskD(count);
    return _mm256_blendv_pd(Set(fill), _mm256_maskload_pd(p, mask), _mm256_castsi256_pd(mask));
}
inline D LoadPromote(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    const __m128i mask = _mm_cmpgt_epi32(_mm_set1_epi32(Clamp(count)), _mm_setr_epi32(0, 1, 2, 3));
    const __m128 loaded = _mm_blendv_ps(_mm_set1_ps(fill), _mm_maskload_ps(p, mask), _mm_castsi128_ps(mask));
    return _mm256_cvtps_pd(loaded);
}
inline D PromoteLower(F v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
inline D PromoteUpper(F v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
inline void StoreU(float* p, F v) { _mm256_storeu_ps(p, v); }
inline void StoreU(double* p, D v) { _mm256_storeu_pd(p, v); }
inline void StoreN(float* p, std::int64_t count, F v) { _mm256_maskstore_ps(p, MaskF(count), v); }
inline void StoreN(double* p, std::int64_t count, D v) { _mm256_maskstore_pd(p, MaskD(count), v); }
inline F MulAdd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
inline D MulAdd(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }

inline double ReduceSum(D v) {
    const __m128d half = _mm256_castpd256_pd128(v) + _mm256_extractf128_pd(v, 1);
    return _mm_cvtsd_f64(half) + _mm_cvtsd_f64(_mm_unpackhi_pd(half, half));
}

/// sum + v. As a multiply-add by one, which rounds the same: additions, subtractions and conversions share two ports on
/// AMD's cores, multiply-adds have two of their own, and the statistics of a row take 1.3 ns for 16 elements, not 1.9.
inline D Accumulate(D sum, D v) { return _mm256_fmadd_pd(v, Set(1.0), sum); }

inline void Stream(float* p, F v) { _mm256_stream_ps(p, v); }
inline void Stream(double* p, D v) { _mm256_stream_pd(p, v); }
inline void StreamFence() { _mm_sfence(); }

inline F LoadHalf(const F16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline F LoadHalf(const BF16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
inline D LoadPromote(const F16* p) {
    return _mm256_cvtps_pd(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline D LoadPromote(const BF16* p) {
    const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(bits), 16)));
}
/// A vector of rounded elements.
inline __m128i RoundTo(const F16*, F v) { return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline __m128i RoundTo(const BF16*, F v) {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i result = _mm256_srli_epi32(_mm256_blendv_epi8(sum, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1));
}
template <class Half>
inline void StoreHalf(Half* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), RoundTo(p, v));
}
template <class Half>
inline void StreamHalf(Half* p, F v) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(p), RoundTo(p, v));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
