// SPDX-License-Identifier: Apache-2.0
// lp_normalize() and its gradient by their definition, in long double. Arrays are in C order.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "oracle.hpp"

namespace anynorm::test {

/// The norm of every set.
template <class T>
std::vector<long double> exact_norms(const std::vector<T>& x, const Numbering& sets, double p) {
    std::vector<long double> norms(static_cast<std::size_t>(sets.count), 0);
    for (std::size_t i = 0; i < x.size(); ++i) {
        const long double a = std::fabs(static_cast<long double>(x[i]));
        long double& norm = at(norms, sets.of[i]);
        norm = p == 1 ? norm + a : p == 2 ? norm + a * a : std::max(norm, a);
    }
    if (p == 2) std::transform(norms.begin(), norms.end(), norms.begin(), [](long double n) { return std::sqrt(n); });
    return norms;
}

template <class T>
std::vector<long double> exact_lp(const std::vector<T>& x, const Numbering& sets, double p, double eps) {
    const std::vector<long double> norms = exact_norms(x, sets, p);
    std::vector<long double> y;
    for (std::size_t i = 0; i < x.size(); ++i) {
        y.push_back(static_cast<long double>(x[i]) / std::max(at(norms, sets.of[i]), static_cast<long double>(eps)));
    }
    return y;
}

template <class T>
std::vector<long double> exact_lp_backward(const std::vector<T>& dy, const std::vector<T>& x, const Numbering& sets,
                                           double p, double eps) {
    const std::vector<long double> norms = exact_norms(x, sets, p);
    std::vector<long double> dots(norms.size(), 0), ties(norms.size(), 0), result;
    for (std::size_t i = 0; i < x.size(); ++i) {
        at(dots, sets.of[i]) += static_cast<long double>(dy[i]) * static_cast<long double>(x[i]);
        at(ties, sets.of[i]) += std::fabs(static_cast<long double>(x[i])) == at(norms, sets.of[i]) ? 1 : 0;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        const long double n = at(norms, sets.of[i]), value = static_cast<long double>(x[i]);
        const long double sign = value > 0 ? 1 : value < 0 ? -1 : 0;
        const long double g = p == 2   ? value / n
                              : p == 1 ? sign
                                       : (std::fabs(value) == n ? sign / at(ties, sets.of[i]) : 0);
        const long double gradient = static_cast<long double>(dy[i]);
        result.push_back(n < static_cast<long double>(eps) ? gradient / static_cast<long double>(eps)
                                                           : (gradient - g * at(dots, sets.of[i]) / n) / n);
    }
    return result;
}

}  // namespace anynorm::test
