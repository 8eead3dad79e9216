// SPDX-License-Identifier: Apache-2.0
// The definition of normalization over sets that are named by data, in long double: a number of a set and a weight for
// every element, and loops over all of them. Arrays are in C order.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "oracle.hpp"

namespace anynorm::test {

/// The set of every element, -1 for none, and its weight.
struct ExactSets {
    std::vector<std::int64_t> of;
    std::vector<double> weight;
    std::int64_t count = 0;
};

/// Sets are numbered group * kept.count + place along the kept axes. `group` and `weight` of every element; -1 is none.
inline ExactSets exact_sets(const Numbering& kept, const std::vector<std::int64_t>& group, std::int64_t groups,
                            const std::vector<double>& weight) {
    ExactSets sets{{}, weight, groups * kept.count};
    for (std::size_t i = 0; i < group.size(); ++i) {
        sets.of.push_back(group[i] < 0 ? -1 : group[i] * kept.count + kept.of[i]);
    }
    return sets;
}

/// Elements of weight 0 count for nothing, whatever they hold.
inline std::vector<ExactMoments> exact_moments(const std::vector<double>& x, const ExactSets& sets, bool center) {
    std::vector<ExactMoments> result(static_cast<std::size_t>(sets.count));
    const auto for_each = [&](auto&& body) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (sets.of[i] >= 0 && sets.weight[i] > 0) body(at(result, sets.of[i]), x[i], sets.weight[i]);
        }
    };
    for_each([&](ExactMoments& set, long double value, long double weight) {
        set.count += weight;
        if (center) set.mean += weight * value;
    });
    for (ExactMoments& set : result) set.mean /= set.count;  // NaN where there is nothing
    for_each([&](ExactMoments& set, long double value, long double weight) {
        set.m2 += weight * (value - set.mean) * (value - set.mean);
    });
    return result;
}

/// A gradient, and the sum of the magnitudes of what it is made of: the unit that errors are counted in.
struct ExactGradient {
    std::vector<long double> value, unit;

    explicit ExactGradient(std::size_t size) : value(size), unit(size) {}
};

/// Those of elements in no set are 0.
struct ExactGradients {
    ExactGradient input, weight, bias;
};

/// The sums s1 and s2 of g = grad_output * weight and g * xhat over each set, then
///     grad_input = rstd * (g - w / W * (s1 + xhat * s2))
/// for an element of weight w in a set of weight W.
inline ExactGradients exact_backward(const std::vector<double>& grad_output, const std::vector<double>& x,
                                     const ExactSets& sets, const std::vector<ExactMoments>& moments,
                                     const ExactParameter& weight, const Numbering& parameters, double eps, bool center,
                                     bool frozen) {
    const auto n = x.size(), set_count = static_cast<std::size_t>(sets.count),
               size = static_cast<std::size_t>(parameters.count);
    std::vector<long double> s1(set_count), s2(set_count), abs1(set_count), abs2(set_count), g(n), xhat(n), rstd(n);
    ExactGradients exact{ExactGradient(n), ExactGradient(size), ExactGradient(size)};
    for (std::size_t i = 0; i < n; ++i) {
        if (sets.of[i] < 0) continue;
        const std::int64_t set = sets.of[i], place = parameters.of[i];
        const auto dy = static_cast<long double>(grad_output[i]);
        rstd[i] = 1 / std::sqrt(at(moments, set).m2 / at(moments, set).count + static_cast<long double>(eps));
        xhat[i] = (static_cast<long double>(x[i]) - at(moments, set).mean) * rstd[i];
        g[i] = dy * weight(i, 1);
        at(s1, set) += g[i];
        at(s2, set) += g[i] * xhat[i];
        at(abs1, set) += std::fabs(g[i]);
        at(abs2, set) += std::fabs(g[i] * xhat[i]);
        at(exact.weight.value, place) += dy * xhat[i];
        at(exact.weight.unit, place) += std::fabs(dy) * std::max(1.0L, std::fabs(xhat[i]));
        at(exact.bias.value, place) += dy;
        at(exact.bias.unit, place) += std::fabs(dy);
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (sets.of[i] < 0) continue;
        const std::int64_t set = sets.of[i];
        const long double share = frozen ? 0 : static_cast<long double>(sets.weight[i]) / at(moments, set).count;
        const long double through = frozen ? 0 : share * ((center ? at(s1, set) : 0) + xhat[i] * at(s2, set));
        const long double unit = share * (at(abs1, set) + std::max(1.0L, std::fabs(xhat[i])) * at(abs2, set));
        exact.input.value[i] = rstd[i] * (g[i] - through);
        exact.input.unit[i] = rstd[i] * (std::fabs(g[i]) + unit);
    }
    return exact;
}

}  // namespace anynorm::test
