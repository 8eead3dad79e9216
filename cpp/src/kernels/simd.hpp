// SPDX-License-Identifier: Apache-2.0
// A pack of 16 elements, whatever the width of the machine's vectors: two AVX-512 registers of float64, four of AVX2,
// eight of NEON. Every instruction set therefore keeps the same 16 partial sums and gives the same bits.
//
// Everything is in an anonymous namespace: a function that the linker could share between instruction sets would be
// an illegal instruction on an older CPU. Operation names follow Highway.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(ANYNORM_KERNELS_AVX512) || defined(ANYNORM_KERNELS_AVX2)
#include <immintrin.h>
#elif defined(ANYNORM_KERNELS_NEON)
#include <arm_neon.h>
#endif

#define ANYNORM_UNROLL _Pragma("GCC unroll 16")

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

constexpr int pack_size = 16;

// ---- Native vectors: F of float32, D of float64 ------------------------------------------------------------------
// LoadN and StoreN touch `count` elements only (0 or less: none; more than a vector: all of it).

#if defined(ANYNORM_KERNELS_AVX512)

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
inline F LoadN(const float* p, std::int64_t count, float fill) {
    return _mm512_mask_loadu_ps(Set(fill), MaskF(count), p);
}
inline D LoadN(const double* p, std::int64_t count, double fill) {
    return _mm512_mask_loadu_pd(Set(fill), MaskD(count), p);
}
// The maskz forms with all lanes on are the plain instructions; GCC 12 warns that its plain forms read an
// uninitialized variable.
inline D LoadPromote(const float* p) { return _mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p)); }
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    return _mm512_maskz_cvtps_pd(0xff, _mm256_mask_loadu_ps(_mm256_set1_ps(fill), MaskD(count), p));
}
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

#elif defined(ANYNORM_KERNELS_AVX2)

using F = __m256;
using D = __m256d;

inline int Clamp(std::int64_t count) { return static_cast<int>(count < 0 ? 0 : count > pack_size ? pack_size : count); }
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

#else  // NEON, and the baseline in plain compiler vectors: both 128 bits wide

#if defined(ANYNORM_KERNELS_NEON)
using F = float32x4_t;
using D = float64x2_t;
inline F MulAdd(F a, F b, F c) { return vfmaq_f32(c, a, b); }
inline D MulAdd(D a, D b, D c) { return vfmaq_f64(c, a, b); }
#else
using F = float __attribute__((vector_size(16)));
using D = double __attribute__((vector_size(16)));
inline F MulAdd(F a, F b, F c) { return a * b + c; }
inline D MulAdd(D a, D b, D c) { return a * b + c; }
#endif

inline F Set(float value) { return F{value, value, value, value}; }
inline D Set(double value) { return D{value, value}; }
inline F LoadU(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline D LoadU(const double* p) {
    D v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline F LoadN(const float* p, std::int64_t count, float fill) {
    F v = Set(fill);
    for (int i = 0; i < 4 && i < count; ++i) v[i] = p[i];
    return v;
}
inline D LoadN(const double* p, std::int64_t count, double fill) {
    D v = Set(fill);
    for (int i = 0; i < 2 && i < count; ++i) v[i] = p[i];
    return v;
}
inline D LoadPromote(const float* p) { return D{static_cast<double>(p[0]), static_cast<double>(p[1])}; }
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    return D{static_cast<double>(count > 0 ? p[0] : fill), static_cast<double>(count > 1 ? p[1] : fill)};
}
inline void StoreU(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
inline void StoreU(double* p, D v) { __builtin_memcpy(p, &v, sizeof v); }
inline void StoreN(float* p, std::int64_t count, F v) {
    for (int i = 0; i < 4 && i < count; ++i) p[i] = v[i];
}
inline void StoreN(double* p, std::int64_t count, D v) {
    for (int i = 0; i < 2 && i < count; ++i) p[i] = v[i];
}
inline double ReduceSum(D v) { return v[0] + v[1]; }

#endif

inline D LoadPromote(const double* p) { return LoadU(p); }
inline D LoadPromoteN(const double* p, std::int64_t count, double fill) { return LoadN(p, count, fill); }

// ---- Packs of 16 -------------------------------------------------------------------------------------------------

template <class T>
struct NativeOf;
template <>
struct NativeOf<float> {
    using type = F;
};
template <>
struct NativeOf<double> {
    using type = D;
};

template <class T>
struct Pack {
    using Native = typename NativeOf<T>::type;
    static constexpr int lanes = sizeof(Native) / sizeof(T);
    static constexpr int pieces = pack_size / lanes;
    Native piece[pieces];
};

template <class T>
inline Pack<T> PackSet(T value) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = Set(value);
    return result;
}

template <class T>
inline Pack<T> PackLoad(const T* p) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = LoadU(p + i * Pack<T>::lanes);
    return result;
}

template <class T>
inline Pack<T> PackLoadN(const T* p, std::int64_t count, T fill) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) {
        const int first = i * Pack<T>::lanes;
        result.piece[i] = LoadN(p + first, count - first, fill);
    }
    return result;
}

template <class T>
inline Pack<double> PackLoadPromote(const T* p) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
        result.piece[i] = LoadPromote(p + i * Pack<double>::lanes);
    }
    return result;
}

template <class T>
inline Pack<double> PackLoadPromoteN(const T* p, std::int64_t count, T fill) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
        const int first = i * Pack<double>::lanes;
        result.piece[i] = LoadPromoteN(p + first, count - first, fill);
    }
    return result;
}

template <class T>
inline void PackStore(T* p, const Pack<T>& v) {
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) StoreU(p + i * Pack<T>::lanes, v.piece[i]);
}

template <class T>
inline void PackStoreN(T* p, std::int64_t count, const Pack<T>& v) {
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) {
        const int first = i * Pack<T>::lanes;
        StoreN(p + first, count - first, v.piece[i]);
    }
}

template <class T>
inline Pack<T> operator+(const Pack<T>& a, const Pack<T>& b) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = a.piece[i] + b.piece[i];
    return result;
}

template <class T>
inline Pack<T> operator-(const Pack<T>& a, const Pack<T>& b) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = a.piece[i] - b.piece[i];
    return result;
}

template <class T>
inline Pack<T> operator*(const Pack<T>& a, const Pack<T>& b) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = a.piece[i] * b.piece[i];
    return result;
}

template <class T>
inline Pack<T> PackMulAdd(const Pack<T>& a, const Pack<T>& b, const Pack<T>& c) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) {
        result.piece[i] = MulAdd(a.piece[i], b.piece[i], c.piece[i]);
    }
    return result;
}

/// The sum of the 16 lanes as the tree ((l[i] + l[i+8]) + (l[i+4] + l[i+12])) + ..., which any width can form.
inline double PackReduceSum(Pack<double> v) {
    ANYNORM_UNROLL for (int width = Pack<double>::pieces / 2; width >= 1; width /= 2) {
        ANYNORM_UNROLL for (int i = 0; i < width; ++i) v.piece[i] = v.piece[i] + v.piece[i + width];
    }
    return ReduceSum(v.piece[0]);
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
