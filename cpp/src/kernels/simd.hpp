// SPDX-License-Identifier: Apache-2.0
// A pack of 16 elements, whatever the width of the machine's vectors: two AVX-512 registers of float64, four of AVX2,
// eight of NEON. Every instruction set therefore keeps the same 16 partial sums and gives the same bits.
//
// Everything is in an anonymous namespace: a function that the linker could share between instruction sets would be
// an illegal instruction on an older CPU. Operation names follow Highway. Packs are of the compute type: float64 for
// float64, float32 for all that is stored in fewer bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel_table.hpp"

#define ANYNORM_UNROLL _Pragma("GCC unroll 16")

#if defined(ANYNORM_KERNELS_AVX512)
#include "vectors_avx512.hpp"
#elif defined(ANYNORM_KERNELS_AVX2)
#include "vectors_avx2.hpp"
#else
#include "vectors_128.hpp"
#endif

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

constexpr int pack_size = 16;

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

template <class X>
constexpr bool is_half = sizeof(X) == 2;

// ---- Load and store ----------------------------------------------------------------------------------------------

template <class T>
inline Pack<T> PackSet(T value) {
    Pack<T> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<T>::pieces; ++i) result.piece[i] = Set(value);
    return result;
}

template <class X>
inline Pack<Compute<X>> PackLoad(const X* p) {
    using P = Pack<Compute<X>>;
    P result;
    if constexpr (is_half<X>) {
        LoadHalves(p, result.piece);
    } else {
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) result.piece[i] = LoadU(p + i * P::lanes);
    }
    return result;
}

template <class X>
inline void PackStore(X* p, const Pack<Compute<X>>& v) {
    using P = Pack<Compute<X>>;
    if constexpr (is_half<X>) {
        StoreHalves(p, v.piece);
    } else {
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) StoreU(p + i * P::lanes, v.piece[i]);
    }
}

/// PackStore past the caches; p is a multiple of the size of 16 elements.
template <class X>
inline void PackStream(X* p, const Pack<Compute<X>>& v) {
    using P = Pack<Compute<X>>;
    if constexpr (is_half<X>) {
        StreamHalves(p, v.piece);
    } else {
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) Stream(p + i * P::lanes, v.piece[i]);
    }
}

/// Copies up to 16 halves: all, or eight, four, two and one of them.
template <class Half>
inline void CopyHalves(Half* to, const Half* from, std::int64_t count) {
    std::int64_t i = 0;
    if (count == 16) __builtin_memcpy(to, from, 32);
    if ((count & 8) != 0) {
        __builtin_memcpy(to, from, 16);
        i = 8;
    }
    if ((count & 4) != 0) {
        __builtin_memcpy(to + i, from + i, 8);
        i += 4;
    }
    if ((count & 2) != 0) {
        __builtin_memcpy(to + i, from + i, 4);
        i += 2;
    }
    if ((count & 1) != 0) to[i] = from[i];
}

/// Promotes `count` elements into 16 lanes; the others hold `fill`.
template <class Half>
[[gnu::noinline]] void HalfLanes(const Half* p, std::int64_t count, float fill, float* lanes) {
    Half buffer[pack_size] = {};
    CopyHalves(static_cast<Half*>(buffer), p, count);
    PackStore(lanes, PackLoad(static_cast<const Half*>(buffer)));
    for (std::int64_t i = count; i < pack_size; ++i) lanes[i] = fill;
}

/// The first `count` elements; the other lanes hold 0.
template <class X>
inline Pack<Compute<X>> PackLoadN(const X* p, std::int64_t count) {
    using P = Pack<Compute<X>>;
    if constexpr (is_half<X>) {
        float lanes[pack_size];
        HalfLanes(p, count, 0.0F, lanes);
        return PackLoad(static_cast<const float*>(lanes));
    } else {
        P result;
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
            const int first = i * P::lanes;
            result.piece[i] = LoadN(p + first, count - first);
        }
        return result;
    }
}

template <class X>
inline void PackStoreN(X* p, std::int64_t count, const Pack<Compute<X>>& v) {
    using P = Pack<Compute<X>>;
    if constexpr (is_half<X>) {
        X buffer[pack_size];
        PackStore(static_cast<X*>(buffer), v);
        CopyHalves(p, static_cast<const X*>(buffer), count);
    } else {
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
            const int first = i * P::lanes;
            StoreN(p + first, count - first, v.piece[i]);
        }
    }
}

// ---- float64 packs -----------------------------------------------------------------------------------------------

inline D LoadPromote(const double* p) { return LoadU(p); }

/// How many vectors are promoted together: two of halves with AVX2, which takes those of bfloat16 from one load.
template <class X>
constexpr int together = is_half<X> && Pack<double>::lanes == 4 ? 2 : 1;

template <class Half>
inline void PromoteTwo(const Half* p, D* to) {
    to[0] = LoadPromote(p);
    to[1] = LoadPromote(p + Pack<double>::lanes);
}

/// `together<X>` vectors that follow each other.
template <class X>
inline void PromoteTogether(const X* p, D* to) {
    if constexpr (together<X> == 2) {
        PromoteTwo(p, to);
    } else {
        *to = LoadPromote(p);
    }
}

template <class X>
inline Pack<double> PackLoadPromote(const X* p) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; i += together<X>) {
        PromoteTogether(p + i * Pack<double>::lanes, result.piece + i);
    }
    return result;
}

/// The first `count` elements; the other lanes hold `fill`.
template <class X>
inline Pack<double> PackLoadPromoteN(const X* p, std::int64_t count, Compute<X> fill) {
    if constexpr (is_half<X>) {
        float lanes[pack_size];
        HalfLanes(p, count, fill, lanes);
        return PackLoadPromote(static_cast<const float*>(lanes));
    } else {
        Pack<double> result;
        ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
            const int first = i * Pack<double>::lanes;
            result.piece[i] =
                first < count ? LoadPromoteN(p + first, count - first, fill) : Set(static_cast<double>(fill));
        }
        return result;
    }
}

inline Pack<double> PackPromote(const Pack<double>& v) { return v; }
inline Pack<double> PackPromote(const Pack<float>& v) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<float>::pieces; ++i) {
        result.piece[2 * i] = PromoteLower(v.piece[i]);
        result.piece[2 * i + 1] = PromoteUpper(v.piece[i]);
    }
    return result;
}

/// sum + v.
inline Pack<double> PackAccumulate(const Pack<double>& sum, const Pack<double>& v) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
        result.piece[i] = Accumulate(sum.piece[i], v.piece[i]);
    }
    return result;
}

/// The sum of all lanes as the tree ((l[i] + l[i+8]) + (l[i+4] + l[i+12])) + ..., which any width can form, in place.
template <int pieces>
inline double ReduceSum(D (&piece)[pieces]) {
    ANYNORM_UNROLL for (int width = pieces / 2; width >= 1; width /= 2) {
        ANYNORM_UNROLL for (int i = 0; i < width; ++i) piece[i] = piece[i] + piece[i + width];
    }
    return ReduceSum(piece[0]);
}
inline double PackReduceSum(Pack<double> v) { return ReduceSum(v.piece); }

// ---- Arithmetic --------------------------------------------------------------------------------------------------

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

// ---- Scalars -----------------------------------------------------------------------------------------------------

template <class X>
inline Compute<X> Load(const X* p) {
    if constexpr (is_half<X>) {
        return ToFloat(*p);
    } else {
        return *p;
    }
}

/// v where it is above 0, else 0.
inline double PositivePart(double v) { return v > 0 ? v : 0; }

inline bool IsFinite(double value) { return value - value == 0; }

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
