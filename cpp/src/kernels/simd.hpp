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
    ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
        if constexpr (is_half<X>) {
            result.piece[i] = LoadHalf(p + i * P::lanes);
        } else {
            result.piece[i] = LoadU(p + i * P::lanes);
        }
    }
    return result;
}

template <class X>
inline void PackStore(X* p, const Pack<Compute<X>>& v) {
    using P = Pack<Compute<X>>;
    ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
        if constexpr (is_half<X>) {
            StoreHalf(p + i * P::lanes, v.piece[i]);
        } else {
            StoreU(p + i * P::lanes, v.piece[i]);
        }
    }
}

/// PackStore past the caches; p is a multiple of 64 bytes, or of 16 for halves.
template <class X>
inline void PackStream(X* p, const Pack<Compute<X>>& v) {
    using P = Pack<Compute<X>>;
    ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
        if constexpr (is_half<X>) {
            StreamHalf(p + i * P::lanes, v.piece[i]);
        } else {
            Stream(p + i * P::lanes, v.piece[i]);
        }
    }
}

/// Promotes `count` elements into 16 lanes; the others hold `fill`.
template <class Half>
[[gnu::noinline]] void HalfLanes(const Half* p, std::int64_t count, float fill, float* lanes) {
    Half buffer[pack_size] = {};
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = p[i];
    PackStore(lanes, PackLoad(static_cast<const Half*>(buffer)));
    for (std::int64_t i = count; i < pack_size; ++i) lanes[i] = fill;
}

/// The first `count` elements; the other lanes hold `fill`.
template <class X>
inline Pack<Compute<X>> PackLoadN(const X* p, std::int64_t count, Compute<X> fill) {
    using P = Pack<Compute<X>>;
    if constexpr (is_half<X>) {
        float lanes[pack_size];
        HalfLanes(p, count, fill, lanes);
        return PackLoad(static_cast<const float*>(lanes));
    } else {
        P result;
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
            const int first = i * P::lanes;
            result.piece[i] = LoadN(p + first, count - first, fill);
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
        for (std::int64_t i = 0; i < count; ++i) p[i] = buffer[i];
    } else {
        ANYNORM_UNROLL for (int i = 0; i < P::pieces; ++i) {
            const int first = i * P::lanes;
            StoreN(p + first, count - first, v.piece[i]);
        }
    }
}

// ---- float64 packs -----------------------------------------------------------------------------------------------

inline D LoadPromote(const double* p) { return LoadU(p); }
inline D LoadPromoteN(const double* p, std::int64_t count, double fill) { return LoadN(p, count, fill); }

template <class X>
inline Pack<double> PackLoadPromote(const X* p) {
    Pack<double> result;
    ANYNORM_UNROLL for (int i = 0; i < Pack<double>::pieces; ++i) {
        result.piece[i] = LoadPromote(p + i * Pack<double>::lanes);
    }
    return result;
}

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
            result.piece[i] = LoadPromoteN(p + first, count - first, fill);
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

/// The first half of PackReduceSum: 16 lanes become 4, which are written to `lanes`.
inline void PackReduceToQuarter(Pack<double> v, double* lanes) {
    if constexpr (Pack<double>::pieces == 2) {
        double both[8];
        StoreU(both, v.piece[0] + v.piece[1]);
        ANYNORM_UNROLL for (int i = 0; i < 4; ++i) lanes[i] = both[i] + both[i + 4];
    } else {
        ANYNORM_UNROLL for (int width = Pack<double>::pieces / 2; width >= 4 / Pack<double>::lanes; width /= 2) {
            ANYNORM_UNROLL for (int i = 0; i < width; ++i) v.piece[i] = v.piece[i] + v.piece[i + width];
        }
        ANYNORM_UNROLL for (int i = 0; i < 4 / Pack<double>::lanes; ++i) {
            StoreU(lanes + i * Pack<double>::lanes, v.piece[i]);
        }
    }
}

/// The sum of the 16 lanes as the tree ((l[i] + l[i+8]) + (l[i+4] + l[i+12])) + ..., which any width can form.
inline double PackReduceSum(Pack<double> v) {
    ANYNORM_UNROLL for (int width = Pack<double>::pieces / 2; width >= 1; width /= 2) {
        ANYNORM_UNROLL for (int i = 0; i < width; ++i) v.piece[i] = v.piece[i] + v.piece[i + width];
    }
    return ReduceSum(v.piece[0]);
}

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

inline bool IsFinite(double value) { return value - value == 0; }

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
