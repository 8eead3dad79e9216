// SPDX-License-Identifier: Apache-2.0
// The statistics of a set, and how two of them become one (Chan, Golub, LeVeque 1983).
// Functions have internal linkage, so that no instruction set's copy serves another.
#pragma once

#include <cstdint>

namespace anynorm::kernels {

/// The moments of a set or of a part of one. The mean is an unevaluated sum mean + mean_lo: for float64 data at a mean
/// of 1e8 the low part is what keeps the normalized values right to the last digits.
struct Cell {
    double count;
    double mean;
    double mean_lo;
    double m2;
};

[[maybe_unused]] static inline double distance(const Cell& from, const Cell& to) noexcept {
    return (to.mean - from.mean) + (to.mean_lo - from.mean_lo);
}

/// a + b where neither is empty and their distance is finite.
[[maybe_unused]] static inline Cell merged_near(const Cell& a, const Cell& b, double delta) noexcept {
    const double total = a.count + b.count, share = b.count / total;
    const double shift = delta * share + a.mean_lo;
    const double mean = a.mean + shift;
    const double part = mean - shift;
    return {total, mean, (a.mean - part) + (shift - (mean - part)), (a.m2 + b.m2) + delta * delta * (a.count * share)};
}

/// into = into + from. The order of the operands is part of the result's bits.
[[maybe_unused]] static inline void merge(Cell& into, const Cell& from) noexcept {
    if (from.count == 0) return;
    if (into.count == 0) {
        into = from;
        return;
    }
    const double delta = distance(into, from);
    if (delta - delta == 0) {
        into = merged_near(into, from, delta);
        return;
    }
    // An infinite mean stays what NumPy gives; two finite means too far apart for their difference are averaged.
    const double total = into.count + from.count;
    into = {total, into.mean * (into.count / total) + from.mean * (from.count / total), 0,
            into.m2 + from.m2 + delta * delta};
}

}  // namespace anynorm::kernels
