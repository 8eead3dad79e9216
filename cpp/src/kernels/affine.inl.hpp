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

/// Statistics, weight and bias each vary along the row or are constant on it.
template <class T, bool stat_varies, bool weight_varies, bool bias_varies>
void Affine(const AffineArgs<T>& args) noexcept {
    const std::int64_t whole = args.n - args.n % pack_size;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const T* x = args.x + row * args.x_row;
        T* y = args.y + row * args.y_row;
        const T* mean = args.mean + row * args.stat_row;
        const T* mean_lo = args.mean_lo + row * args.stat_row;
        const T* rstd = args.rstd + row * args.stat_row;
        const T* weight = args.weight + row * args.weight_row;
        const T* bias = args.bias + row * args.bias_row;

        const Pack<T> row_mean = PackSet(stat_varies ? T(0) : *mean);
        const Pack<T> row_mean_lo = PackSet(stat_varies ? T(0) : *mean_lo);
        const Pack<T> row_rstd = PackSet(stat_varies ? T(0) : *rstd);
        const Pack<T> row_weight = PackSet(weight_varies ? T(0) : *weight);
        const Pack<T> row_bias = PackSet(bias_varies ? T(0) : *bias);
        const Pack<T> row_scale = row_rstd * row_weight;

        for (std::int64_t i = 0; i < whole; i += pack_size) {
            const Pack<T> d = (PackLoad(x + i) - (stat_varies ? PackLoad(mean + i) : row_mean)) -
                              (stat_varies ? PackLoad(mean_lo + i) : row_mean_lo);
            const Pack<T> scale = !stat_varies && !weight_varies
                                      ? row_scale
                                      : (stat_varies ? PackLoad(rstd + i) : row_rstd) *
                                            (weight_varies ? PackLoad(weight + i) : row_weight);
            PackStore(y + i, PackMulAdd(d, scale, bias_varies ? PackLoad(bias + i) : row_bias));
        }
        if (whole < args.n) {
            const std::int64_t rest = args.n - whole;
            const auto load = [&](bool varies, const T* p, const Pack<T>& constant) {
                return varies ? PackLoadN(p + whole, rest, T(0)) : constant;
            };
            const Pack<T> d = (PackLoadN(x + whole, rest, T(0)) - load(stat_varies, mean, row_mean)) -
                              load(stat_varies, mean_lo, row_mean_lo);
            const Pack<T> scale = load(stat_varies, rstd, row_rstd) * load(weight_varies, weight, row_weight);
            PackStoreN(y + whole, rest, PackMulAdd(d, scale, load(bias_varies, bias, row_bias)));
        }
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
