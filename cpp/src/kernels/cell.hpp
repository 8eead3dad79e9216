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

/// into = into + from. The order of the operands is part of the result's bits.
[[maybe_unused]] static inline void merge(Cell& into, const Cell& from) noexcept {
    if (from.count == 0) return;
    if (into.count == 0) {
        into = from;
        return;
    }
    const double total = into.count + from.count;
    const double share = from.count / total;
    const double delta = (from.mean - into.mean) + (from.mean_lo - into.mean_lo);
    if (!(delta - delta == 0)) {
        // An infinite mean stays what NumPy gives; two finite means too far apart for their difference are averaged.
        into.mean = into.mean * (into.count / total) + from.mean * share;
        into.mean_lo = 0;
        into.m2 = into.m2 + from.m2 + delta * delta;
    } else {
        const double shift = delta * share + into.mean_lo;
        const double mean = into.mean + shift;
        const double part = mean - shift;
        into.mean_lo = (into.mean - part) + (shift - (mean - part));
        into.mean = mean;
        into.m2 = (into.m2 + from.m2) + delta * delta * (into.count * share);
    }
    into.count = total;
}

}  // namespace anynorm::kernels
