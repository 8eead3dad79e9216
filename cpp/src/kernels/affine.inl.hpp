// SPDX-License-Identifier: Apache-2.0
// The big pass: y = ((x - mean) - mean_lo) * (rstd * weight) + bias.
//
// The mean is a pair, because one float32 mean of 1e4 is off by up to 5e-4 of a unit standard deviation, and because
// x * scale + shift would cancel. Subtracting the pair costs one instruction per vector and no memory traffic.
#pragma once

#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "looked_up_rows.inl.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Fewer than 16 results.
template <class In, class X, bool stat_varies, bool weight_varies, bool bias_varies>
[[gnu::noinline]] void StoreTail(const In* x, X* y, const Compute<X>* mean, const Compute<X>* mean_lo,
                                 const Compute<X>* rstd, const Compute<X>* weight, const Compute<X>* bias,
                                 std::int64_t count) {
    using C = Compute<X>;
    const auto load = [&](bool varies, const C* p) { return varies ? PackLoadN(p, count) : PackSet(*p); };
    const Pack<C> d = (PackLoadN(x, count) - load(stat_varies, mean)) - load(stat_varies, mean_lo);
    const Pack<C> scale = load(stat_varies, rstd) * load(weight_varies, weight);
    PackStoreN(y, count, PackMulAdd(d, scale, load(bias_varies, bias)));
}

/// Statistics, weight and bias each vary along the row or are constant on it. x is stored as y is, or promoted.
template <class In, class X, bool stat_varies, bool weight_varies, bool bias_varies>
struct AffineRow {
    using C = Compute<X>;
    const In* x;
    X* y;
    const C *mean, *mean_lo, *rstd, *weight, *bias;
    Pack<C> row_mean, row_mean_lo, row_rstd, row_weight, row_bias, row_scale;

    [[gnu::always_inline]] AffineRow(const In* from, X* to, const C* mean_at, const C* mean_lo_at, const C* rstd_at,
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

    /// The results of fewer than 16 elements from i on.
    [[gnu::always_inline]] Pack<C> ResultsN(std::int64_t i, std::int64_t count) const {
        const auto load = [&](bool varies, const C* p, const Pack<C>& constant)
                              __attribute__((always_inline)) { return varies ? PackLoadN(p + i, count) : constant; };
        const Pack<C> d =
            (PackLoadN(x + i, count) - load(stat_varies, mean, row_mean)) - load(stat_varies, mean_lo, row_mean_lo);
        const Pack<C> scale = !stat_varies && !weight_varies
                                  ? row_scale
                                  : load(stat_varies, rstd, row_rstd) * load(weight_varies, weight, row_weight);
        return PackMulAdd(d, scale, load(bias_varies, bias, row_bias));
    }

    /// Writes fewer than 16 elements.
    [[gnu::always_inline]] void StoreN(std::int64_t i, std::int64_t count) const {
        // Not a method: the address of *this must not escape, or all of it lives in memory instead of registers.
        StoreTail<In, X, stat_varies, weight_varies, bias_varies>(
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

    /// Writes the elements from i on, of a row of at least 16.
    [[gnu::always_inline]] void StoreFrom(std::int64_t i, std::int64_t n) const {
        for (; i + pack_size <= n; i += pack_size) Store<false>(i);
        if (i == n) return;
        // The last 16 elements once more cost a tenth of a masked tail, unless x is overwritten.
        if (static_cast<const void*>(x) != y) {
            Store<false>(n - pack_size);
        } else {
            StoreN(i, n - i);
        }
    }

    /// Writes all elements. The last 16 cost a tenth of a masked tail, though some are written twice; they are computed
    /// before x is overwritten if y is x.
    [[gnu::always_inline]] void StoreAll(std::int64_t n) const {
        if (n < pack_size) return StoreN(0, n);
        const Pack<C> last = Results(n - pack_size);
        for (std::int64_t i = 0; i + pack_size < n; i += pack_size) Store<false>(i);
        PackStore(y + n - pack_size, last);
    }
};

/// Row `row`, whose elements are read from x.
template <bool stat_varies, bool weight_varies, bool bias_varies, class In, class X>
[[gnu::always_inline]] inline auto RowOf(const AffineArgs<X>& args, const In* x, std::int64_t row) {
    const std::int64_t stat = (args.stat_of == nullptr ? row : args.stat_of[row]) * args.stat_row;
    return AffineRow<In, X, stat_varies, weight_varies, bias_varies>(
        x, args.y + row * args.y_row, args.mean + stat, args.mean_lo + stat, args.rstd + stat,
        args.weight + row * args.weight_row, args.bias + row * args.bias_row);
}

/// Rows of args that lie at x. Not inlined: short rows need every register.
template <bool stream, bool stat_varies, bool weight_varies, bool bias_varies, class In, class X>
[[gnu::noinline]] void AffineRows(const AffineArgs<X>& operands, const In* x, std::int64_t x_row, OpenLine& open) {
    // Copies, which no store can change.
    const AffineArgs<X> args = operands;
    LineWriter<X> lines(open);
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const auto affine = RowOf<stat_varies, weight_varies, bias_varies>(args, x + row * x_row, row);
        if constexpr (stream) {
            lines.End(affine, lines.Begin(affine, args.n), args.n);
        } else {
            affine.StoreAll(args.n);
        }
    }
    if constexpr (stream) lines.Leave(open);
}

template <class X, bool stat_varies, bool weight_varies, bool bias_varies>
void Affine(const AffineArgs<X>& args) noexcept {
    OpenLine own;
    begin_line(own);
    OpenLine& open = args.open == nullptr ? own : *args.open;
    if (stat_varies && args.stat_of != nullptr && args.n == pack_size) {
        LookedUpRows<X, weight_varies, bias_varies>(args);
    } else if (has_streams && StreamedRows(args.stream, args.y, args.y_row, args.n)) {
        AffineRows<has_streams, stat_varies, weight_varies, bias_varies>(args, args.x, args.x_row, open);
        if (args.open == nullptr) LineWriter<X>(own).Close();
    } else {
        AffineRows<false, stat_varies, weight_varies, bias_varies>(args, args.x, args.x_row, open);
    }
    if (args.stream && args.open == nullptr) StreamFence();
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
    if (i < n) PackStoreN(to + i, n - i, PackLoadN(from + i, n - i));
}

template <class X>
void Demote(X* to, const Compute<X>* from, std::int64_t n) noexcept {
    std::int64_t i = 0;
    for (; i + pack_size <= n; i += pack_size) PackStore(to + i, PackLoad(from + i));
    if (i < n) PackStoreN(to + i, n - i, PackLoadN(from + i, n - i));
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
