// SPDX-License-Identifier: Apache-2.0
// The last pass of a backward call: grad_input = rstd * weight * grad_output + slope * (x - mean) + offset.
#pragma once

#include "kernel_table.hpp"
#include "lines.inl.hpp"
#include "read_ahead.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

// ---- grad_input --------------------------------------------------------------------------------------------------

/// Fewer than 16 results. `sum` is read where it `adds`.
template <class X, bool stat_varies, bool weight_varies, bool adds>
[[gnu::noinline]] void GradientInputTail(const X* x, const X* dy, const X* sum, X* dx, const Compute<X>* mean,
                                         const Compute<X>* slope, const Compute<X>* offset, const Compute<X>* rstd,
                                         const Compute<X>* weight, std::int64_t count) {
    using C = Compute<X>;
    const auto load = [&](bool varies, const C* p) { return varies ? PackLoadN(p, count) : PackSet(*p); };
    const Pack<C> d = PackLoadN(x, count) - load(stat_varies, mean);
    const Pack<C> along = PackMulAdd(load(stat_varies, slope), d, load(stat_varies, offset));
    const Pack<C> scale = load(stat_varies, rstd) * load(weight_varies, weight);
    const Pack<C> result = PackMulAdd(scale, PackLoadN(dy, count), along);
    PackStoreN(dx, count, adds ? result + PackLoadN(sum, count) : result);
}

/// Statistics and weight each vary along the row or are constant on it; what is in `sum` is added if it `adds`.
/// Operands are fetched so many elements ahead, through L2 or into L1 at once.
template <class X, bool stat_varies, bool weight_varies, bool adds, bool through_l2>
struct GradientInputRow {
    using C = Compute<X>;
    const X *x, *dy, *sum;
    X* y;  ///< grad_input
    const C *mean, *slope, *offset, *rstd, *weight;
    std::int64_t ahead;
    Pack<C> row_mean, row_slope, row_offset, row_rstd, row_weight, row_scale;

    [[gnu::always_inline]] GradientInputRow(const X* x_at, const X* dy_at, const X* sum_at, X* to, const C* mean_at,
                                            const C* slope_at, const C* offset_at, const C* rstd_at, const C* weight_at,
                                            std::int64_t distance)
        : x(x_at),
          dy(dy_at),
          sum(sum_at),
          y(to),
          mean(mean_at),
          slope(slope_at),
          offset(offset_at),
          rstd(rstd_at),
          weight(weight_at),
          ahead(distance),
          row_mean(PackSet(stat_varies ? C(0) : *mean_at)),
          row_slope(PackSet(stat_varies ? C(0) : *slope_at)),
          row_offset(PackSet(stat_varies ? C(0) : *offset_at)),
          row_rstd(PackSet(stat_varies ? C(0) : *rstd_at)),
          row_weight(PackSet(weight_varies ? C(0) : *weight_at)),
          row_scale(row_rstd * row_weight) {}

    /// The 16 results from element i on.
    [[gnu::always_inline]] Pack<C> Results(std::int64_t i) const {
        const Pack<C> d = PackLoad(x + i) - (stat_varies ? PackLoad(mean + i) : row_mean);
        const Pack<C> along = PackMulAdd(stat_varies ? PackLoad(slope + i) : row_slope, d,
                                         stat_varies ? PackLoad(offset + i) : row_offset);
        const Pack<C> scale = !stat_varies && !weight_varies ? row_scale
                                                             : (stat_varies ? PackLoad(rstd + i) : row_rstd) *
                                                                   (weight_varies ? PackLoad(weight + i) : row_weight);
        const Pack<C> result = PackMulAdd(scale, PackLoad(dy + i), along);
        return adds ? result + PackLoad(sum + i) : result;
    }

    /// The results of fewer than 16 elements from i on.
    [[gnu::always_inline]] Pack<C> ResultsN(std::int64_t i, std::int64_t count) const {
        const auto load = [&](bool varies, const C* p, const Pack<C>& constant)
                              __attribute__((always_inline)) { return varies ? PackLoadN(p + i, count) : constant; };
        const Pack<C> d = PackLoadN(x + i, count) - load(stat_varies, mean, row_mean);
        const Pack<C> along = PackMulAdd(load(stat_varies, slope, row_slope), d, load(stat_varies, offset, row_offset));
        const Pack<C> scale = !stat_varies && !weight_varies
                                  ? row_scale
                                  : load(stat_varies, rstd, row_rstd) * load(weight_varies, weight, row_weight);
        const Pack<C> result = PackMulAdd(scale, PackLoadN(dy + i, count), along);
        return adds ? result + PackLoadN(sum + i, count) : result;
    }

    /// Writes 16 elements, where streaming past the caches.
    template <bool stream>
    [[gnu::always_inline]] void Store(std::int64_t i) const {
        if constexpr (through_l2) {
            FetchPack(dy + i + ahead);
            FetchPack(x + i + ahead);
            if constexpr (adds) FetchPack(sum + i + ahead);
        }
        const std::int64_t near = through_l2 ? read_near<X> : ahead;
        FetchPackNear(dy + i + near);
        FetchPackNear(x + i + near);
        if constexpr (adds) FetchPackNear(sum + i + near);
        if constexpr (stream) {
            PackStream(y + i, Results(i));
        } else {
            PackStore(y + i, Results(i));
        }
    }

    [[gnu::always_inline]] void StoreAll(std::int64_t n) const {
        std::int64_t i = 0;
        for (; i + pack_size <= n; i += pack_size) Store<false>(i);
        if (i == n) return;
        const std::int64_t s = stat_varies ? i : 0;
        // Not a method: the address of *this must not escape, or all of it lives in memory instead of registers.
        GradientInputTail<X, stat_varies, weight_varies, adds>(x + i, dy + i, sum + (adds ? i : 0), y + i, mean + s,
                                                               slope + s, offset + s, rstd + s,
                                                               weight + (weight_varies ? i : 0), n - i);
    }
};

/// grad_input of rows, of one block.
template <bool stream, class X, bool stat_varies, bool weight_varies, bool adds, bool through_l2>
[[gnu::noinline]] void GradientInputRows(const GradientInputArgs<X>& operands, OpenLine& open) {
    constexpr std::int64_t ahead = through_l2 ? read_ahead<X> : read_ahead_short<X>;
    // Copies, which no store can change.
    const GradientInputArgs<X> args = operands;
    LineWriter<X> lines(open);
    for (std::int64_t r = 0; r < args.rows; ++r) {
        const std::int64_t stat = r * args.stat_row;
        const GradientInputRow<X, stat_varies, weight_varies, adds, through_l2> row(
            args.x + r * args.x_row, args.grad_output + r * args.grad_output_row, args.grad_sum + r * args.grad_sum_row,
            args.grad_input + r * args.grad_input_row, args.mean + stat, args.slope + stat, args.offset + stat,
            args.rstd + stat, args.weight + r * args.weight_row, ahead);
        if constexpr (stream) {
            lines.End(row, lines.Begin(row, args.n), args.n);
        } else {
            row.StoreAll(args.n);
        }
    }
    if constexpr (stream) lines.Leave(open);
}

/// grad_input of every row of every block.
template <bool stream, class X, bool stat_varies, bool weight_varies, bool adds>
void GradientInputBlocks(GradientInputArgs<X> args) {
    OpenLine own;
    begin_line(own);
    OpenLine& open = args.open == nullptr ? own : *args.open;
    for (std::int64_t block = 0; block < args.blocks; ++block) {
        if (args.n < least_through_l2) {
            GradientInputRows<stream, X, stat_varies, weight_varies, adds, false>(args, open);
        } else {
            GradientInputRows<stream, X, stat_varies, weight_varies, adds, true>(args, open);
        }
        args.x += args.x_block;
        args.grad_output += args.grad_output_block;
        args.grad_input += args.grad_input_block;
        args.mean += args.stat_block;
        args.slope += args.stat_block;
        args.offset += args.stat_block;
        args.rstd += args.stat_block;
        args.weight += args.weight_block;
        args.grad_sum += args.grad_sum_block;
    }
    if constexpr (stream) {
        if (args.open == nullptr) CloseLine<X>(own);
    }
}

template <class X, bool stat_varies, bool weight_varies, bool adds>
void GradientInputOf(const GradientInputArgs<X>& args) {
    if constexpr (has_streams) {
        if (StreamedRows(args.stream, args.grad_input, args.grad_input_row, args.n)) {
            return GradientInputBlocks<true, X, stat_varies, weight_varies, adds>(args);
        }
    }
    GradientInputBlocks<false, X, stat_varies, weight_varies, adds>(args);
}

template <class X, bool stat_varies, bool weight_varies>
void GradientInput(const GradientInputArgs<X>& args) noexcept {
    if (args.grad_sum == nullptr) return GradientInputOf<X, stat_varies, weight_varies, false>(args);
    GradientInputOf<X, stat_varies, weight_varies, true>(args);
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
