// SPDX-License-Identifier: Apache-2.0
#include "weighted.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "elements.hpp"

namespace anynorm::detail {
namespace {

/// A column whose sums are not finite: the mean as a sum of products gives it, and what is left of the variance.
template <class X>
Cell not_finite(const X* x, const double* weight, std::int64_t rows, std::int64_t columns, double count) {
    double sum = 0;
    bool finite = true;
    for (std::int64_t row = 0; row < rows; ++row) {
        const double w = weight[row * columns] / count;
        if (w == 0) continue;
        const double value = static_cast<double>(promote(x[row * columns]));
        finite = finite && std::isfinite(value);
        sum += w * value;
    }
    return {count, sum, 0, finite ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN()};
}

}  // namespace

template <class X>
void weighted_columns(const X* x, const double* weight, std::int64_t rows, std::int64_t columns, bool center, Cell* out,
                      double* squares) noexcept {
    double c[max_weighted_columns], s0[max_weighted_columns], s1[max_weighted_columns], s2[max_weighted_columns],
        q[max_weighted_columns];
    for (std::int64_t j = 0; j < columns; ++j) {
        c[j] = s0[j] = s1[j] = s2[j] = q[j] = 0;
        for (std::int64_t row = 0; row < rows && center; ++row) {
            if (weight[row * columns + j] == 0) continue;
            c[j] = static_cast<double>(promote(x[row * columns + j]));
            break;
        }
        if (!std::isfinite(c[j])) c[j] = 0;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
        const X* const value = x + row * columns;
        const double* const w = weight + row * columns;
        for (std::int64_t j = 0; j < columns; ++j) {
            const double d = w[j] > 0 ? static_cast<double>(promote(value[j])) - c[j] : 0.0;
            const double wd = w[j] * d;
            s0[j] += w[j];
            s1[j] += wd;
            s2[j] += wd * d;
            q[j] += w[j] * w[j];
        }
    }
    for (std::int64_t j = 0; j < columns; ++j) {
        squares[j] = q[j];
        if (s0[j] == 0) {
            out[j] = empty_cell;
        } else if (!center) {
            out[j] = {s0[j], 0, 0, s2[j]};
        } else if (!std::isfinite(s1[j]) || !std::isfinite(s2[j])) {
            out[j] = not_finite(x + j, weight + j, rows, columns, s0[j]);
        } else {
            out[j] = cell_of_sums(s0[j], c[j], s1[j], s2[j]);
        }
    }
}

template <class X>
Cell weighted_row(const X* x, const double* weight, std::int64_t n, bool center, double& squares) noexcept {
    constexpr std::int64_t lanes = 16;
    Cell cells[lanes + 1];
    double parts[lanes + 1];
    const std::int64_t rows = n / lanes, rest = n % lanes;
    std::int64_t count = 0;
    if (rows > 0) {
        weighted_columns(x, weight, rows, lanes, center, cells, parts);
        count = lanes;
    }
    if (rest > 0) {
        weighted_columns(x + rows * lanes, weight + rows * lanes, rest, 1, center, cells + count, parts + count);
        ++count;
    }
    Cell all = empty_cell;
    squares = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        merge(all, cells[i]);
        squares += parts[i];
    }
    return all;
}

#define ANYNORM_INSTANTIATE(X)                                                                          \
    template void weighted_columns<X>(const X*, const double*, std::int64_t, std::int64_t, bool, Cell*, \
                                      double*) noexcept;                                                \
    template Cell weighted_row<X>(const X*, const double*, std::int64_t, bool, double&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
