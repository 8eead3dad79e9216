// SPDX-License-Identifier: Apache-2.0
// AVX-512: F of float32, D of float64. LoadN and StoreN touch `count` elements only (0 or
// less: none; more than a vector: all of it). Stream writes past the caches, to an address aligned to the vector.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "half.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

using F = __m512;
using D = __m512d;

inline __mmask16 MaskF(std::int64_t count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1u);
}
inline __mmask8 MaskD(std::int64_t count) {
    return static_cast<__mmask8>(count >= 8 ? 0xffu : count <= 0 ? 0u : (1u << count) - 1u);
}

inline F Set(float value) { return _mm512_set1_ps(value); }
inline D Set(double value) { return _mm512_set1_pd(value); }
inline F LoadU(const float* p) { return _mm512_loadu_ps(p); }
inline D LoadU(const double* p) { return _mm512_loadu_pd(p); }
inline F LoadN(const float* p, std::int64_t count) { return _mm512_maskz_loadu_ps(MaskF(count), p); }
inline D LoadN(const double* p, std::int64_t count) { return _mm512_maskz_loadu_pd(MaskD(count), p); }
// The maskz forms with all lanes on are the plain instructions; GCC 12 warns that its plain forms read an
// uninitialized variable.
inline D LoadPromote(const float* p) { return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p)); }
inline D LoadPromoteN(const double* p, std::int64_t count, double fill) {
    return _mm512_mask_loadu_pd(Set(fill), MaskD(count), p);
}
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    return _mm512_maskz_cvtps_pd(0xff, _mm256_mask_loadu_ps(_mm256_set1_ps(fill), MaskD(count), p));
}
inline D PromoteLower(F v) { return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, v, 0)); }
inline D PromoteUpper(F v) { return _mm512_maskz_cvtps_pd(0xff, _mm512_maskz_extractf32x8_ps(0xff, v, 1)); }
inline void StoreU(float* p, F v) { _mm512_storeu_ps(p, v); }
inline void StoreU(double* p, D v) { _mm512_storeu_pd(p, v); }
inline void StoreN(float* p, std::int64_t count, F v) { _mm512_mask_storeu_ps(p, MaskF(count), v); }
inline void StoreN(double* p, std::int64_t count, D v) { _mm512_mask_storeu_pd(p, MaskD(count), v); }
inline F MulAdd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline D MulAdd(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }

/// Lanes i and i + half, then i and i + quarter, ...: the order in which every instruction set sums.
inline double ReduceSum(D v) {
    const __m256d half = _mm512_maskz_extractf64x4_pd(0xf, v, 0) + _mm512_maskz_extractf64x4_pd(0xf, v, 1);
    const __m128d quarter = _mm256_castpd256_pd128(half) + _mm256_extractf128_pd(half, 1);
    return _mm_cvtsd_f64(quarter) + _mm_cvtsd_f64(_mm_unpackhi_pd(quarter, quarter));
}

/// v where it is above 0, else 0.
inline D PositivePart(D v) { return _mm512_maskz_max_pd(0xff, v, Set(0.0)); }
inline D Sqrt(D v) { return _mm512_maskz_sqrt_pd(0xff, v); }
inline void StoreDemoted(float* p, D v) { _mm256_storeu_ps(p, _mm512_maskz_cvtpd_ps(0xff, v)); }
inline void StoreDemoted(double* p, D v) { StoreU(p, v); }

/// sum + v. As a multiply-add by one, which rounds the same: additions, subtractions and conversions share two ports on
/// AMD's cores, multiply-adds have two of their own. To Intel's it is the same.
inline D Accumulate(D sum, D v) { return _mm512_fmadd_pd(v, Set(1.0), sum); }

/// Whether Stream is anything but a store.
constexpr bool has_streams = true;
inline void Stream(float* p, F v) { _mm512_stream_ps(p, v); }
inline void Stream(double* p, D v) { _mm512_stream_pd(p, v); }
inline void StreamFence() { _mm_sfence(); }

inline F LoadHalf(const F16* p) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// A shuffle that leaves zeros below moves a bfloat16 into the upper half of a float32 in one instruction, and back; the
// conversions with a shift are two and three.
inline F LoadHalf(const BF16* p) {
    const __m512i upper = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0,  //
                                           7, 0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, upper, _mm512_castsi256_si512(bits)));
}
inline D LoadPromote(const F16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_maskz_cvtps_pd(0xff, _mm256_cvtph_ps(bits));
}
inline D LoadPromote(const BF16* p) {
    const __m256i upper = _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7,  //
                                           -1, -1, 8, 9, -1, -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_maskz_cvtps_pd(0xff, _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, upper)));
}
/// A vector of rounded elements.
inline __m256i RoundTo(const F16*, F v) {
    return _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline __m256i RoundTo(const BF16*, F v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, 16), _mm512_set1_epi32(1));
    __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    sum = _mm512_mask_or_epi32(sum, nan, bits, _mm512_set1_epi32(0x400000));
    const __m512i odds = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                          31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_maskz_extracti64x4_epi64(0xf, _mm512_maskz_permutexvar_epi16(0xffffffff, odds, sum), 0);
}

// 16 halves at a time.
template <class Half>
inline void LoadHalves(const Half* p, F* to) {
    *to = LoadHalf(p);
}
template <class Half>
inline void StoreHalves(Half* p, const F* from) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), RoundTo(p, *from));
}
template <class Half>
inline void StreamHalves(Half* p, const F* from) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), RoundTo(p, *from));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
