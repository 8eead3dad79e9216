// SPDX-License-Identifier: Apache-2.0
// The loops of lp_normalize() over rows in L1 or in memory: sums and maxima of |x| in float64, and what is written from
// them. Portable: GCC and Clang vectorize them for the compiler's default target, with the same bits on all of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

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

/// One element, or a part of a set, added to another. Without a gradient nobody asks for ties. Selections of values
/// instead of branches are what compilers vectorize; and std::max would lose a NaN.
template <LpNorm p, bool with_gradient>
void add_norm(double& norm, double& ties, double other, double other_ties) {
    if constexpr (p != LpNorm::max) {
        norm += other;
    } else {
        const double larger = other <= norm ? norm : other;  // other, if it is NaN
        const double result = norm == norm ? larger : norm;
        if constexpr (with_gradient) {
            ties = (norm == result ? ties : 0.0) + (other == result ? other_ties : 0.0);
        }
        norm = result;
    }
}

template <LpNorm p>
double norm_term(double x) {
    return p == LpNorm::two ? x * x : std::fabs(x);
}

/// The sum of term(i) for 0 <= i < n: lane l of 16 has the elements l, l + 16, ...; fewer are added up as they come.
template <class Term>
double sum_in_lanes(std::int64_t n, const Term& term) {
    constexpr std::int64_t lanes = 16;
    if (n < lanes) {
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) sum += term(i);
        return sum;
    }
    double sum[lanes] = {};
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (std::int64_t lane = 0; lane < lanes; ++lane) sum[lane] += term(i + lane);
    }
    for (std::int64_t lane = 0; i < n; ++i, ++lane) sum[lane] += term(i);
    for (std::int64_t lane = 1; lane < lanes; ++lane) sum[0] += sum[lane];
    return sum[0];
}

/// |x| as an integer. The order of magnitudes is that of their bits, with NaN above infinity, and integers are what
/// compilers vectorize a maximum of: 0.3 ns an element, where numbers that may be NaN take 1.5.
template <class A>
auto magnitude_bits(A x) {
    using Bits = std::conditional_t<sizeof(A) == sizeof(std::int32_t), std::int32_t, std::int64_t>;
    return std::bit_cast<Bits>(x) & std::numeric_limits<Bits>::max();
}

/// So many elements of a row are summed on their own: they stay in L1, and the roundings are few.
inline constexpr std::int64_t sum_block = 512;

/// sums += those of a row of n neighbouring elements. Without a gradient only the norm is summed.
template <LpNorm p, bool with_gradient, class A>
void add_row(const A* x, const A* grad_output, std::int64_t n, const LpSums& sums) {
    for (std::int64_t first = 0; first < n; first += sum_block) {
        const std::int64_t count = std::min(sum_block, n - first);
        if constexpr (p == LpNorm::max) {
            auto largest = magnitude_bits(A(0));
            for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, magnitude_bits(x[i]));
            std::int32_t ties = 0;
            for (std::int64_t i = 0; with_gradient && i < count; ++i) ties += magnitude_bits(x[i]) == largest ? 1 : 0;
            const auto norm = static_cast<double>(std::bit_cast<A>(largest));
            add_norm<p, with_gradient>(*sums.norm, *sums.ties, norm, ties);
        } else {
            *sums.norm += sum_in_lanes(count, [x](std::int64_t i) { return norm_term<p>(static_cast<double>(x[i])); });
        }
        if constexpr (with_gradient) {
            *sums.dot += sum_in_lanes(count, [x, grad_output](std::int64_t i) {
                return static_cast<double>(grad_output[i]) * static_cast<double>(x[i]);
            });
            grad_output += count;
        }
        x += count;
    }
}

/// sums[i * step] += those of element i: step is 1 for a row of elements of neighbouring sets, and 0 for those of one
/// set in their order.
template <LpNorm p, bool with_gradient, std::int64_t step, class A>
void add_columns(const A* x, const A* grad_output, std::int64_t n, const LpSums& sums) {
    for (std::int64_t i = 0; i < n; ++i) {
        const auto value = static_cast<double>(x[i]);
        add_norm<p, with_gradient>(sums.norm[i * step], sums.ties[i * step], norm_term<p>(value), 1);
        if constexpr (with_gradient) sums.dot[i * step] += static_cast<double>(grad_output[i]) * value;
    }
}

/// into[i] += from[i] for parts of `count` sets.
template <LpNorm p, bool with_gradient>
void merge_sums(const LpSums& into, const LpSums& from, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
        add_norm<p, with_gradient>(into.norm[i], into.ties[i], from.norm[i], from.ties[i]);
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
        // The analyzer does not see that the sums have been cleared.
        // NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage,clang-analyzer-core.uninitialized.Assign)
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

template <LpNorm p, class A>
double lp_gradient(A grad_output, A x, double scale, double slope, double peak) {
    const auto sign = static_cast<double>((x > 0) - (x < 0));  // a NaN is in scale
    const auto value = static_cast<double>(x);
    double g = value;
    if constexpr (p == LpNorm::one) g = sign;
    if constexpr (p == LpNorm::max) g = sign * static_cast<double>(std::fabs(value) == peak);
    return scale * static_cast<double>(grad_output) - slope * g;
}

/// A row of n neighbouring elements; the factors are those of one set, or of neighbouring ones.
template <LpNorm p, bool with_gradient, bool factors_vary, class A>
void write_row(const A* x, const A* grad_output, A* result, std::int64_t n, const LpFactors& factors) {
    const auto write = [&](std::int64_t i, double scale, double slope, double peak) {
        if constexpr (with_gradient) {
            result[i] = static_cast<A>(lp_gradient<p>(grad_output[i], x[i], scale, slope, peak));
        } else {
            result[i] = static_cast<A>(static_cast<double>(x[i]) * scale);
        }
    };
    if constexpr (factors_vary) {
        for (std::int64_t i = 0; i < n; ++i) write(i, factors.scale[i], factors.slope[i], factors.peak[i]);
    } else {
        const double scale = *factors.scale, slope = *factors.slope, peak = *factors.peak;
        for (std::int64_t i = 0; i < n; ++i) write(i, scale, slope, peak);
    }
}

/// The loops of one norm, forward or backward. Everything around them is compiled once for all: as templates of p it
/// took half a minute.
template <class C>
struct LpLoops {
    using Add = void (*)(const C* x, const C* grad_output, std::int64_t n, const LpSums& sums);
    using Write = void (*)(const C* x, const C* grad_output, C* result, std::int64_t n, const LpFactors& factors);

    Add add_row, add_column, add_columns;  ///< elements of one set; those of one in their order; of neighbouring sets
    void (*merge)(const LpSums& into, const LpSums& from, std::int64_t count);
    LpFactors (*factors)(const LpSums& sums, std::int64_t count, double eps);
    Write write_row, write_columns;  ///< elements of one set; of neighbouring sets
};

template <LpNorm p, bool with_gradient, class C>
constexpr LpLoops<C> make_lp_loops() {
    return {add_row<p, with_gradient, C>,
            add_columns<p, with_gradient, 0, C>,
            add_columns<p, with_gradient, 1, C>,
            merge_sums<p, with_gradient>,
            make_factors<p>,
            write_row<p, with_gradient, false, C>,
            write_row<p, with_gradient, true, C>};
}

template <class C>
LpLoops<C> lp_loops(LpNorm p, bool with_gradient) {
    switch (p) {
        case LpNorm::one:
            return with_gradient ? make_lp_loops<LpNorm::one, true, C>() : make_lp_loops<LpNorm::one, false, C>();
        case LpNorm::two:
            return with_gradient ? make_lp_loops<LpNorm::two, true, C>() : make_lp_loops<LpNorm::two, false, C>();
        case LpNorm::max:
            break;
    }
    return with_gradient ? make_lp_loops<LpNorm::max, true, C>() : make_lp_loops<LpNorm::max, false, C>();
}

}  // namespace anynorm::detail
