// SPDX-License-Identifier: Apache-2.0
// 128 bits, NEON and the baseline in plain compiler vectors: F of float32, D of float64. LoadN and StoreN touch `count`
// elements only (0 or less: none; more than a vector: all of it). Stream writes past the caches, to an address aligned
// to the vector.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(ANYNORM_KERNELS_NEON)
#include <arm_neon.h>
#endif

#include "half.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

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
inline F LoadN(const float* p, std::int64_t count) {
    F v = Set(0.0F);
    for (int i = 0; i < 4 && i < count; ++i) v[i] = p[i];
    return v;
}
inline D LoadN(const double* p, std::int64_t count) {
    D v = Set(0.0);
    for (int i = 0; i < 2 && i < count; ++i) v[i] = p[i];
    return v;
}
inline D LoadPromote(const float* p) { return D{static_cast<double>(p[0]), static_cast<double>(p[1])}; }
inline D LoadPromoteN(const double* p, std::int64_t count, double fill) {
    return D{count > 0 ? p[0] : fill, count > 1 ? p[1] : fill};
}
inline D LoadPromoteN(const float* p, std::int64_t count, float fill) {
    return D{static_cast<double>(count > 0 ? p[0] : fill), static_cast<double>(count > 1 ? p[1] : fill)};
}
inline D PromoteLower(F v) { return D{static_cast<double>(v[0]), static_cast<double>(v[1])}; }
inline D PromoteUpper(F v) { return D{static_cast<double>(v[2]), static_cast<double>(v[3])}; }
inline void StoreU(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
inline void StoreU(double* p, D v) { __builtin_memcpy(p, &v, sizeof v); }
inline void StoreN(float* p, std::int64_t count, F v) {
    for (int i = 0; i < 4 && i < count; ++i) p[i] = v[i];
}
inline void StoreN(double* p, std::int64_t count, D v) {
    for (int i = 0; i < 2 && i < count; ++i) p[i] = v[i];
}
inline double ReduceSum(D v) { return v[0] + v[1]; }

/// sum + v.
inline D Accumulate(D sum, D v) { return sum + v; }

/// v where it is above 0, else 0.
inline D PositivePart(D v) { return D{v[0] > 0 ? v[0] : 0, v[1] > 0 ? v[1] : 0}; }
inline D Sqrt(D v) { return D{__builtin_sqrt(v[0]), __builtin_sqrt(v[1])}; }
inline void StoreDemoted(float* p, D v) {
    // In one step: GCC 12 at -O3 loses the rounding of two conversions that are read back as a vector.
    using Pair = float __attribute__((vector_size(8)));
    const Pair rounded = __builtin_convertvector(v, Pair);
    __builtin_memcpy(p, &rounded, sizeof rounded);
}
inline void StoreDemoted(double* p, D v) { StoreU(p, v); }

// Neither the baseline nor NEON has a store past the caches that compilers offer.
constexpr bool has_streams = false;
inline void Stream(float* p, F v) { StoreU(p, v); }
inline void Stream(double* p, D v) { StoreU(p, v); }
inline void StreamFence() {}

#if defined(ANYNORM_KERNELS_NEON)
inline F LoadHalf(const F16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
inline F LoadHalf(const BF16* p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16)); }
inline void StoreHalf(F16* p, F v) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
inline void StoreHalf(BF16* p, F v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(&p->bits, vshrn_n_u32(vbslq_u32(vceqq_f32(v, v), sum, quiet), 16));
}
#else
// Not inlined: thirty instructions an element would make this the largest part of the library.
template <class Half>
[[gnu::noinline]] F LoadHalf(const Half* p) {
    return F{ToFloat(p[0]), ToFloat(p[1]), ToFloat(p[2]), ToFloat(p[3])};
}
[[gnu::noinline, maybe_unused]] void StoreHalf(F16* p, F v) {
    for (int i = 0; i < 4; ++i) p[i] = ToF16(v[i]);
}
[[gnu::noinline, maybe_unused]] void StoreHalf(BF16* p, F v) {
    for (int i = 0; i < 4; ++i) p[i] = ToBF16(v[i]);
}
#endif
inline D LoadPromote(const F16* p) { return D{static_cast<double>(ToFloat(p[0])), static_cast<double>(ToFloat(p[1]))}; }
inline D LoadPromote(const BF16* p) {
    return D{static_cast<double>(ToFloat(p[0])), static_cast<double>(ToFloat(p[1]))};
}

// 16 halves at a time.
template <class Half>
inline void LoadHalves(const Half* p, F* to) {
    for (int i = 0; i < 4; ++i) to[i] = LoadHalf(p + 4 * i);
}
template <class Half>
inline void StoreHalves(Half* p, const F* from) {
    for (int i = 0; i < 4; ++i) StoreHalf(p + 4 * i, from[i]);
}
template <class Half>
inline void StreamHalves(Half* p, const F* from) {
    StoreHalves(p, from);
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
