// SPDX-License-Identifier: Apache-2.0
// The big pass: y = ((x - mean) - mean_lo) * (rstd * weight) + bias.
//
// The mean is a pair, because one float32 mean of 1e4 is off by up to 5e-4 of a unit standard deviation, and because
// x * scale + shift would cancel. Subtracting the pair costs one instruction per vector and no memory traffic.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Fewer than 16 results.
template <class X, bool stat_varies, bool weight_varies, bool bias_varies>
[[gnu::noinline]] void StoreTail(const X* x, X* y, const Compute<X>* mean, const Compute<X>* mean_lo,
                                 const Compute<X>* rstd, const Compute<X>* weight, const Compute<X>* bias,
                                 std::int64_t count) {
    using C = Compute<X>;
    const auto load = [&](bool varies, const C* p) { return varies ? PackLoadN(p, count, C(0)) : PackSet(*p); };
    const Pack<C> d = (PackLoadN(x, count, C(0)) - load(stat_varies, mean)) - load(stat_varies, mean_lo);
    const Pack<C> scale = load(stat_varies, rstd) * load(weight_varies, weight);
    PackStoreN(y, count, PackMulAdd(d, scale, load(bias_varies, bias)));
}

/// Statistics, weight and bias each vary along the row or are constant on it.
template <class X, bool stat_varies, bool weight_varies, bool bias_varies>
struct AffineRow {
    using C = Compute<X>;
    const X* x;
    X* y;
    const C *mean, *mean_lo, *rstd, *weight, *bias;
    Pack<C> row_mean, row_mean_lo, row_rstd, row_weight, row_bias, row_scale;

    [[gnu::always_inline]] AffineRow(const X* from, X* to, const C* mean_at, const C* mean_lo_at, const C* rstd_at,
                                     const C* weight_at, const C* bias_at)
        : x(from),
          y(to),
          mean(mean_at),
          mean_lo(mean_lo_at),
          rstd(rstd_at),
          weight(weight_at),
          bias(bias_at),
          row_mean(PackSet(stat_varies ? C(0) : *mean_at)),
          row_mean_lo(PackSet(stat_varies ? C(0) : *mean_lo_at)),
          row_rstd(PackSet(stat_varies ? C(0) : *rstd_at)),
          row_weight(PackSet(weight_varies ? C(0) : *weight_at)),
          row_bias(PackSet(bias_varies ? C(0) : *bias_at)),
          row_scale(row_rstd * row_weight) {}

    /// The 16 results from element i on.
    [[gnu::always_inline]] Pack<C> Results(std::int64_t i) const {
        const Pack<C> d = (PackLoad(x + i) - (stat_varies ? PackLoad(mean + i) : row_mean)) -
                          (stat_varies ? PackLoad(mean_lo + i) : row_mean_lo);
        const Pack<C> scale = !stat_varies && !weight_varies ? row_scale
                                                             : (stat_varies ? PackLoad(rstd + i) : row_rstd) *
                                                                   (weight_varies ? PackLoad(weight + i) : row_weight);
        return PackMulAdd(d, scale, bias_varies ? PackLoad(bias + i) : row_bias);
    }

    /// Writes fewer than 16 elements.
    [[gnu::always_inline]] void StoreN(std::int64_t i, std::int64_t count) const {
        // Not a method: the address of *this must not escape, or all of it lives in memory instead of registers.
        StoreTail<X, stat_varies, weight_varies, bias_varies>(
            x + i, y + i, mean + (stat_varies ? i : 0), mean_lo + (stat_varies ? i : 0), rstd + (stat_varies ? i : 0),
            weight + (weight_varies ? i : 0), bias + (bias_varies ? i : 0), count);
    }

    /// Writes 16 elements, where streaming past the caches.
    template <bool stream>
    [[gnu::always_inline]] void Store(std::int64_t i) const {
        if constexpr (stream) {
            PackStream(y + i, Results(i));
        } else {
            PackStore(y + i, Results(i));
        }
    }

    /// Writes what comes before the first address that can be streamed to, and returns how many elements those are.
    template <bool stream>
    [[gnu::always_inline]] std::int64_t StoreHead(std::int64_t n) const {
        if constexpr (!stream) return 0;
        // Halves are streamed 16 bytes at a time, and NumPy's memory is a multiple of that.
        constexpr std::uintptr_t line = sizeof(X) == 2 ? 16 : 64;
        const std::uintptr_t beyond = reinterpret_cast<std::uintptr_t>(y) % line;
        if (beyond == 0) return 0;
        // The line that the row ends in is written with ordinary stores, and all later ones would wait for it.
        __builtin_prefetch(y + n, 1);
        std::int64_t head = static_cast<std::int64_t>((line - beyond) / sizeof(X));
        if (head > n) head = n;
        StoreN(0, head);
        return head;
    }

    /// Writes the elements from i on.
    template <bool stream>
    [[gnu::always_inline]] void StoreFrom(std::int64_t i, std::int64_t n) const {
        for (; i + pack_size <= n; i += pack_size) Store<stream>(i);
        if (i == n) return;
        // The last 16 elements once more cost a tenth of a masked tail, unless x is overwritten or lines are on their
        // way past the caches.
        if (!stream && n >= pack_size && x != y) {
            Store<stream>(n - pack_size);
        } else {
            StoreN(i, n - i);
        }
    }
};

template <bool stream, class X, bool stat_varies, bool weight_varies, bool bias_varies>
void AffineRows(const AffineArgs<X>& args) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const std::int64_t stat = row * args.stat_row;
        const AffineRow<X, stat_varies, weight_varies, bias_varies> affine(
            args.x + row * args.x_row, args.y + row * args.y_row, args.mean + stat, args.mean_lo + stat,
            args.rstd + stat, args.weight + row * args.weight_row, args.bias + row * args.bias_row);
        affine.template StoreFrom<stream>(affine.template StoreHead<stream>(args.n), args.n);
    }
}

/// Copies n elements past the caches.
template <class X>
void StreamOut(X* to, const X* from, std::int64_t n) {
    constexpr std::int64_t line = 64 / sizeof(X);
    std::int64_t i = 0;
    for (; i < n && reinterpret_cast<std::uintptr_t>(to + i) % 64 != 0; ++i) to[i] = from[i];
    for (; i + line <= n; i += line) {
        const Pack<float> whole = PackLoad(reinterpret_cast<const float*>(from + i));
        PackStream(reinterpret_cast<float*>(to + i), whole);
    }
    for (; i < n; ++i) to[i] = from[i];
}

/// Whether all rows begin and end with a line of the cache.
template <class X>
bool FillsLines(const AffineArgs<X>& args) {
    const std::uintptr_t row = static_cast<std::uintptr_t>(args.y_row) * sizeof(X);
    return (reinterpret_cast<std::uintptr_t>(args.y) | row) % 64 == 0;
}

template <class X, bool stat_varies, bool weight_varies, bool bias_varies>
void Affine(const AffineArgs<X>& args) noexcept {
    // Lines that two rows share are read and written twice; in rows this short that costs more than it saves, unless
    // several rows are put together first.
    constexpr std::int64_t few_lines = 256, staged = 2048;
    if (!args.stream || (args.n < few_lines && !FillsLines(args) && args.y_row != args.n)) {
        AffineRows<false, X, stat_varies, weight_varies, bias_varies>(args);
    } else if (args.n >= few_lines || FillsLines(args)) {
        AffineRows<true, X, stat_varies, weight_varies, bias_varies>(args);
        StreamFence();
    } else {
        alignas(64) X buffer[staged];
        AffineArgs<X> part = args;
        part.y = buffer;
        for (std::int64_t row = 0; row < args.rows; row += part.rows) {
            part.rows = staged / args.n < args.rows - row ? staged / args.n : args.rows - row;
            part.x = args.x + row * args.x_row;
            part.mean = args.mean + row * args.stat_row;
            part.mean_lo = args.mean_lo + row * args.stat_row;
            part.rstd = args.rstd + row * args.stat_row;
            part.weight = args.weight + row * args.weight_row;
            part.bias = args.bias + row * args.bias_row;
            X* y = args.y + row * args.y_row;
            // The line that the part ends in is written with ordinary stores, and all later ones would wait for it.
            __builtin_prefetch(y + part.rows * args.n, 1);
            AffineRows<false, X, stat_varies, weight_varies, bias_varies>(part);
            StreamOut(y, static_cast<const X*>(buffer), part.rows * args.n);
        }
        StreamFence();
    }
}

/// Mean (as a pair) and rstd of every cell in the compute type.
template <class C>
void Coefficients(const Cell* cells, std::int64_t count, double eps, C* mean, C* mean_lo, C* rstd) noexcept {
    for (std::int64_t i = 0; i < count; ++i) {
        const Cell& cell = cells[i];
        mean[i] = static_cast<C>(cell.mean);
        mean_lo[i] = static_cast<C>((cell.mean - static_cast<double>(mean[i])) + cell.mean_lo);
        rstd[i] = static_cast<C>(1 / __builtin_sqrt(cell.m2 / cell.count + eps));
    }
}

template <class X>
void Promote(Compute<X>* to, const X* from, std::int64_t n) noexcept {
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) PackStore(to + i, PackLoad(from + i));
    if (i < n) PackStoreN(to + i, n - i, PackLoadN(from + i, n - i, Compute<X>(0)));
}

template <class X>
void Demote(X* to, const Compute<X>* from, std::int64_t n) noexcept {
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) PackStore(to + i, PackLoad(from + i));
    if (i < n) PackStoreN(to + i, n - i, PackLoadN(from + i, n - i, Compute<X>(0)));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
