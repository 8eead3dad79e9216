// SPDX-License-Identifier: Apache-2.0
#include "short_rows.hpp"

#include <cstdlib>

#include "dispatch.hpp"
#include "elements.hpp"
#include "plan.hpp"

namespace anynorm::detail {
namespace {

// Beyond 64 KB, some 4 us of work, a plan is no longer worth avoiding.
constexpr std::int64_t max_bytes = 64 * 1024;

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
            if (size * static_cast<std::int64_t>(size_of(x.dtype)) > max_bytes || row_size > row_block) return;
        }
        const Level& inner = row.level[0];
        fits = row.count > 0 && inner.y == 1 && (inner.weight == 0 || inner.weight == 1) &&
               (inner.bias == 0 || inner.bias == 1);
    }
};

/// Statistics and y of the sets near each other, each of which is a row.
template <class X>
void run_rows(const ShortRows& rows, kernels::RowsArgs<X> args, const kernels::Kernels<X>& kernels) {
    const Level &inner = rows.row.level[0], &near = rows.sets.level[0], &far = rows.sets.level[1];
    const auto kernel = kernels.normalize_rows[kernels::rows_index(inner.weight != 0, inner.bias != 0)];
    args.rows = near.n;
    args.x_row = near.x;
    args.y_row = near.y;
    args.weight_row = near.weight;
    args.bias_row = near.bias;
    for (std::int64_t i = 0; i < far.n; ++i) {
        kernel(args);
        args.x += far.x;
        args.y += far.y;
        args.weight += far.weight;
        args.bias += far.bias;
    }
}

/// The same for rows along which a parameter is constant in stretches: the channels of a group.
template <class X>
void run_stretches(const ShortRows& rows, const kernels::RowsArgs<X>& args, const kernels::Kernels<X>& kernels) {
    const Level &inner = rows.row.level[0], &outer = rows.row.level[1];
    const Level &near = rows.sets.level[0], &far = rows.sets.level[1];
    const auto affine = kernels.affine[kernels::affine_index(false, inner.weight != 0, inner.bias != 0)];
    for (std::int64_t i = 0; i < far.n; ++i) {
        for (std::int64_t set = 0; set < near.n; ++set) {
            const X* const x = args.x + i * far.x + set * near.x;
            kernels::Cell cell;
            kernels::Compute<X> mean, mean_lo, rstd;
            kernels.moments_row({x, 1, 0, 1, 0, args.n, 1, args.center, &cell});
            kernels.coefficients(&cell, 1, args.eps, &mean, &mean_lo, &rstd);
            affine({outer.n, inner.n, x, args.y + i * far.y + set * near.y, &mean, &mean_lo, &rstd,
                    args.weight + i * far.weight + set * near.weight, args.bias + i * far.bias + set * near.bias,
                    outer.x, outer.y, 0, outer.weight, outer.bias, false});
        }
    }
}

template <class X>
void run(const ShortRows& rows, const TensorView& x, const TensorView& y, const NormalizeOptions& options,
         const kernels::Kernels<X>& kernels) {
    using C = kernels::Compute<X>;
    static constexpr C one = 1, zero = 0;
    kernels::RowsArgs<X> args{};
    args.n = rows.row.level[0].n * rows.row.level[1].n;
    args.block = row_block;
    args.chunk_blocks = 1;
    args.x = static_cast<const X*>(x.data);
    args.y = static_cast<X*>(y.data);
    args.weight = options.weight.given() ? static_cast<const C*>(options.weight.data) : &one;
    args.bias = options.bias.given() ? static_cast<const C*>(options.bias.data) : &zero;
    args.eps = options.eps;
    args.center = options.center;
    if (rows.row.count == 1) {
        run_rows(rows, args, kernels);
    } else {
        run_stretches(rows, args, kernels);
    }
}

}  // namespace

bool normalize_short_rows(const TensorView& x, AxisSet reduced, const TensorView& y, const NormalizeOptions& options,
                          const kernels::KernelTable& table) noexcept {
    const DType compute = x.dtype == DType::f64 ? DType::f64 : DType::f32;
    const auto is_computed = [&](const TensorView& parameter) {
        return !parameter.given() || parameter.dtype == compute;
    };
    if (y.dtype != x.dtype || !is_computed(options.weight) || !is_computed(options.bias)) return false;
    if (options.given.given() || options.moments.given()) return false;
    const ShortRows rows(x, reduced, y, options);
    if (!rows.fits) return false;
    with_type(elements_of(x), [&]<class X>(X*) { run<X>(rows, x, y, options, kernels_for<X>(table)); });
    return true;
}

}  // namespace anynorm::detail
