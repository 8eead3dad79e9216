// SPDX-License-Identifier: Apache-2.0
#include "short_rows.hpp"

#include <algorithm>
#include <cstdlib>

#include "apply.hpp"
#include "dispatch.hpp"

namespace anynorm::detail {
namespace {

// Beyond 64 KB, some 4 us of work, a plan is no longer worth avoiding.
constexpr std::int64_t max_bytes = 64 * 1024;
// One block of the row kernel, as plan.cpp cuts rows: a longer row is merged from several.
constexpr std::int64_t max_row = 4096;
// Rows whose statistics are on the stack at a time, 1 KB of cells.
constexpr std::int64_t strip = 32;

/// A loop over x, y, weight and bias.
struct Level {
    std::int64_t n = 1, x = 0, y = 0, weight = 0, bias = 0;

    /// Whether this loop, outside of `inner`, continues it for all operands.
    bool continues(const Level& inner) const {
        return x == inner.n * inner.x && y == inner.n * inner.y && weight == inner.n * inner.weight &&
               bias == inner.n * inner.bias;
    }
};

/// Two loops at most, the inner one first.
struct Levels {
    Level level[2];
    int count = 0;

    bool add(const Level& outer) {
        if (count > 0 && outer.continues(level[count - 1])) {
            level[count - 1].n *= outer.n;
            return true;
        }
        if (count == 2) return false;
        level[count++] = outer;
        return true;
    }
};

/// The stride along an axis of x, 0 where the parameter is left out or broadcasts.
std::int64_t parameter_stride(const TensorView& parameter, const TensorView& x, int axis) {
    const int own = axis - (x.rank - parameter.rank);
    return parameter.given() && own >= 0 && parameter.shape[own] != 1 ? parameter.strides[own] : 0;
}

/// The loops of a call that can go the short way.
struct ShortRows {
    Levels row;   ///< of the elements of a set; two where a parameter varies along the outer one only
    Levels sets;  ///< of the sets
    bool fits = false;

    ShortRows(const TensorView& x, AxisSet reduced, const TensorView& y, const NormalizeOptions& options) {
        std::int64_t size = 1, row_size = 1;
        for (int axis = x.rank - 1; axis >= 0; --axis) {
            const std::int64_t n = x.shape[axis];
            if (n == 1) continue;
            const Level level{.n = n,
                              .x = x.strides[axis],
                              .y = y.strides[axis],
                              .weight = parameter_stride(options.weight, x, axis),
                              .bias = parameter_stride(options.bias, x, axis)};
            const bool is_reduced = (reduced >> axis & 1) != 0;
            if (is_reduced && (sets.count > 0 || level.x != row_size)) return;
            // Sets that lie inside of each other are other loops to the plan.
            if (!is_reduced && level.x != 0 && std::abs(level.x) < row_size) return;
            if (!(is_reduced ? row : sets).add(level)) return;
            size *= n;
            if (is_reduced) row_size *= n;
            if (size * static_cast<std::int64_t>(size_of(x.dtype)) > max_bytes || row_size > max_row) return;
        }
        const Level& inner = row.level[0];
        fits = row.count > 0 && inner.y == 1 && (inner.weight == 0 || inner.weight == 1) &&
               (inner.bias == 0 || inner.bias == 1);
    }
};

template <class T>
void run(const ShortRows& rows, const T* x, T* y, const NormalizeOptions& options, const kernels::Kernels<T>& kernels) {
    constexpr T one = 1, zero = 0;
    const T* const weight = options.weight.given() ? static_cast<const T*>(options.weight.data) : &one;
    const T* const bias = options.bias.given() ? static_cast<const T*>(options.bias.data) : &zero;
    const Level &inner = rows.row.level[0], &outer = rows.row.level[1];
    const Level &near = rows.sets.level[0], &far = rows.sets.level[1];
    const auto affine = kernels.affine[kernels::affine_index(false, inner.weight != 0, inner.bias != 0)];

    kernels::Cell cells[strip];
    T mean[strip], mean_lo[strip], rstd[strip];
    const auto apply = [&](std::int64_t set, std::int64_t stat_row, const Level& rows_of, std::int64_t count,
                           const T* from, T* to, const T* w, const T* b) {
        kernels::AffineArgs<T> args{};
        args.rows = count;
        args.n = inner.n;
        args.x = from;
        args.y = to;
        args.mean = mean + set;
        args.mean_lo = mean_lo + set;
        args.rstd = rstd + set;
        args.weight = w;
        args.bias = b;
        args.x_row = rows_of.x;
        args.y_row = rows_of.y;
        args.stat_row = stat_row;
        args.weight_row = rows_of.weight;
        args.bias_row = rows_of.bias;
        affine(args);
    };
    for (std::int64_t i = 0; i < far.n; ++i) {
        for (std::int64_t first = 0; first < near.n; first += strip) {
            const std::int64_t count = std::min(strip, near.n - first);
            const T* const from = x + i * far.x + first * near.x;
            T* const to = y + i * far.y + first * near.y;
            const T* const w = weight + i * far.weight + first * near.weight;
            const T* const b = bias + i * far.bias + first * near.bias;
            kernels.moments_row({from, count, near.x, 1, 0, inner.n * outer.n, 1, options.center, cells});
            make_coefficients(cells, count, options.eps, Coefficients<T>{mean, mean_lo, rstd});
            if (rows.row.count == 1) {
                apply(0, 1, near, count, from, to, w, b);
                continue;
            }
            for (std::int64_t set = 0; set < count; ++set) {
                apply(set, 0, outer, outer.n, from + set * near.x, to + set * near.y, w + set * near.weight,
                      b + set * near.bias);
            }
        }
    }
}

}  // namespace

bool normalize_short_rows(const TensorView& x, AxisSet reduced, const TensorView& y, const NormalizeOptions& options,
                          const kernels::KernelTable& table) noexcept {
    const auto same_dtype = [&](const TensorView& parameter) {
        return !parameter.given() || parameter.dtype == x.dtype;
    };
    if (y.dtype != x.dtype || !same_dtype(options.weight) || !same_dtype(options.bias)) return false;
    if (options.given.given() || options.moments.given()) return false;
    const ShortRows rows(x, reduced, y, options);
    if (!rows.fits) return false;
    if (x.dtype == DType::f32) {
        run(rows, static_cast<const float*>(x.data), static_cast<float*>(y.data), options, table.f32);
    } else if (x.dtype == DType::f64) {
        run(rows, static_cast<const double*>(x.data), static_cast<double*>(y.data), options, table.f64);
    } else {
        return false;
    }
    return true;
}

}  // namespace anynorm::detail
