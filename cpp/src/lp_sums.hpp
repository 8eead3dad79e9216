// SPDX-License-Identifier: Apache-2.0
// The loops of lp_normalize() over rows in L1 or in memory: sums and maxima of |x| in float64, and what is written from
// them. Portable: GCC and Clang vectorize them for the compiler's default target, with the same bits on all of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "scratch.hpp"

namespace anynorm::detail {

enum class LpNorm : std::uint8_t { one, two, max };

/// What is known of some sets, an array for each.
struct LpSums {
    double* norm = nullptr;  ///< sum(|x|), sum(x^2) or max(|x|)
    double* dot = nullptr;   ///< sum(grad_output * x)
    double* ties = nullptr;  ///< the elements with |x| = max(|x|)

    LpSums() = default;
    LpSums(Carver& carver, std::int64_t count)
        : norm(carver.take<double>(count)), dot(carver.take<double>(count)), ties(carver.take<double>(count)) {}

    LpSums at(std::int64_t offset) const { return LpSums(norm + offset, dot + offset, ties + offset); }
    void clear(std::int64_t count) const {
        for (double* array : {norm, dot, ties}) std::fill_n(array, count, 0.0);
    }

  private:
    LpSums(double* norm_at, double* dot_at, double* ties_at) : norm(norm_at), dot(dot_at), ties(ties_at) {}
};

/// One element, or a part of a set, added to another. NaN is larger than all: std::max would lose it.
template <LpNorm p>
void add_norm(double& norm, double& ties, double other, double other_ties) {
    if constexpr (p == LpNorm::max) {
        const bool keeps = norm != norm || other < norm, takes = !keeps && !(other == norm);
        ties = takes ? other_ties : ties + (keeps ? 0.0 : other_ties);
        norm = takes ? other : norm;
    } else {
        norm += other;
    }
}

template <LpNorm p>
double norm_term(double x) {
    return p == LpNorm::two ? x * x : std::fabs(x);
}

/// sums += those of a row of n neighbouring elements: lane l of 16 has the elements l, l + 16, ... of a block of 512,
/// and blocks follow each other, which keeps the roundings few. Without a gradient only the norm is summed.
template <LpNorm p, bool with_gradient, class A>
void add_row(const A* x, const A* grad_output, std::int64_t n, const LpSums& sums) {
    constexpr std::int64_t lanes = 16, block = 512;
    for (std::int64_t first = 0; first < n; first += block) {
        const std::int64_t count = std::min(block, n - first);
        double norm[lanes] = {}, dot[lanes] = {}, ties[lanes] = {};
        const auto add = [&](std::int64_t lane, std::int64_t i) {
            const auto value = static_cast<double>(x[first + i]);
            add_norm<p>(norm[lane], ties[lane], norm_term<p>(value), 1);
            if constexpr (with_gradient) dot[lane] += static_cast<double>(grad_output[first + i]) * value;
        };
        std::int64_t i = 0;
        for (; i + lanes <= count; i += lanes) {
            for (std::int64_t lane = 0; lane < lanes; ++lane) add(lane, i + lane);
        }
        const std::int64_t used = i > 0 ? lanes : count;
        for (std::int64_t lane = 0; i < count; ++i, ++lane) add(lane, i);
        for (std::int64_t lane = 1; lane < used; ++lane) {
            add_norm<p>(norm[0], ties[0], norm[lane], ties[lane]);
            dot[0] += dot[lane];
        }
        add_norm<p>(*sums.norm, *sums.ties, norm[0], ties[0]);
        *sums.dot += dot[0];
    }
}

/// sums[i] += those of element i of a row, each of another set.
template <LpNorm p, bool with_gradient, class A>
void add_columns(const A* x, const A* grad_output, std::int64_t n, const LpSums& sums) {
    for (std::int64_t i = 0; i < n; ++i) {
        const auto value = static_cast<double>(x[i]);
        add_norm<p>(sums.norm[i], sums.ties[i], norm_term<p>(value), 1);
        if constexpr (with_gradient) sums.dot[i] += static_cast<double>(grad_output[i]) * value;
    }
}

/// into[i] += from[i] for parts of `count` sets.
template <LpNorm p>
void merge_sums(const LpSums& into, const LpSums& from, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        add_norm<p>(into.norm[i], into.ties[i], from.norm[i], from.ties[i]);
        into.dot[i] += from.dot[i];
    }
}

/// What a set is written from, in the memory of its sums: result = scale * input - slope * g(x), the input being
/// grad_output, or x of a forward call, which has no slope. g is x, sign(x), or sign(x) where |x| = peak.
struct LpFactors {
    double *scale, *slope, *peak;
};

template <LpNorm p>
LpFactors make_factors(const LpSums& sums, std::int64_t count, double eps) {
    for (std::int64_t i = 0; i < count; ++i) {
        const double norm = p == LpNorm::two ? std::sqrt(sums.norm[i]) : sums.norm[i];
        const bool clamped = norm < eps;
        const double scale = 1 / (clamped ? eps : norm);
        double slope = clamped ? 0 : sums.dot[i] * scale * scale;
        if (p == LpNorm::two) slope *= scale;
        if (p == LpNorm::max && !clamped) slope /= sums.ties[i];
        sums.ties[i] = norm;
        sums.norm[i] = scale;
        sums.dot[i] = slope;
    }
    return {sums.norm, sums.dot, sums.ties};
}

template <LpNorm p>
double lp_gradient(double grad_output, double x, double scale, double slope, double peak) {
    const double sign = x > 0 ? 1.0 : x < 0 ? -1.0 : x;  // NaN stays one
    const double g = p == LpNorm::two ? x : p == LpNorm::one || std::fabs(x) == peak ? sign : 0.0;
    return scale * grad_output - slope * g;
}

/// A row of n neighbouring elements; the factors are those of one set, or of neighbouring ones.
template <LpNorm p, bool with_gradient, bool factors_vary, class A>
void write_row(const A* x, const A* grad_output, A* result, std::int64_t n, const LpFactors& factors) {
    const auto write = [&](std::int64_t i, double scale, double slope, double peak) {
        const auto value = static_cast<double>(x[i]);
        if constexpr (with_gradient) {
            result[i] = static_cast<A>(lp_gradient<p>(static_cast<double>(grad_output[i]), value, scale, slope, peak));
        } else {
            result[i] = static_cast<A>(value * scale);
        }
    };
    if constexpr (factors_vary) {
        for (std::int64_t i = 0; i < n; ++i) write(i, factors.scale[i], factors.slope[i], factors.peak[i]);
    } else {
        const double scale = *factors.scale, slope = *factors.slope, peak = *factors.peak;
        for (std::int64_t i = 0; i < n; ++i) write(i, scale, slope, peak);
    }
}

}  // namespace anynorm::detail
