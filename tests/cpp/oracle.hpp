// SPDX-License-Identifier: Apache-2.0
// The definition, in long double and two passes: slow, short, and obviously right. Arrays are in C order.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {

/// Numbers, for every element in C order, of what is the same wherever only the other axes differ.
struct Numbering {
    std::vector<std::int64_t> of;
    std::int64_t count = 1;
};

/// The elements numbered by their place along `axes`, in C order.
inline Numbering number_along(const Shape& shape, const std::vector<int>& axes) {
    Numbering result;
    std::vector<std::int64_t> step(shape.size(), 0);
    for (std::size_t i = axes.size(); i-- > 0;) {
        step[static_cast<std::size_t>(axes[i])] = result.count;
        result.count *= at(shape, axes[i]);
    }
    for (std::int64_t place = 0; place < size_of(shape); ++place) {
        std::int64_t rest = place, number = 0;
        for (std::size_t axis = shape.size(); axis-- > 0;) {
            number += rest % shape[axis] * step[axis];
            rest /= shape[axis];
        }
        result.of.push_back(number);
    }
    return result;
}

/// The sets of a grouping, numbered in C order over the axes that are kept.
inline Numbering sets_of(const Shape& shape, const std::vector<int>& reduce) {
    std::vector<int> kept;
    for (int axis = 0; axis < static_cast<int>(shape.size()); ++axis) {
        if (std::find(reduce.begin(), reduce.end(), axis) == reduce.end()) kept.push_back(axis);
    }
    return number_along(shape, kept);
}

struct ExactMoments {
    long double count = 0, mean = 0, m2 = 0;
};

template <class T>
std::vector<ExactMoments> exact_moments(const std::vector<T>& x, const Numbering& sets, bool center = true) {
    std::vector<ExactMoments> result(static_cast<std::size_t>(sets.count));
    for (std::size_t i = 0; i < x.size(); ++i) {
        at(result, sets.of[i]).count += 1;
        if (center) at(result, sets.of[i]).mean += static_cast<long double>(x[i]);
    }
    for (ExactMoments& set : result) set.mean /= set.count;
    for (std::size_t i = 0; i < x.size(); ++i) {
        ExactMoments& set = at(result, sets.of[i]);
        const long double d = static_cast<long double>(x[i]) - set.mean;
        set.m2 += d * d;
    }
    return result;
}

/// A weight or bias: values along some axes. Without values it is `otherwise` everywhere.
struct ExactParameter {
    Numbering places;
    std::vector<double> values;

    long double operator()(std::size_t element, double otherwise) const {
        return values.empty() ? otherwise : at(values, places.of[element]);
    }
};

template <class T>
std::vector<long double> exact_normalize(const std::vector<T>& x, const Numbering& sets,
                                         const std::vector<ExactMoments>& moments, double eps,
                                         const ExactParameter& weight = {}, const ExactParameter& bias = {}) {
    std::vector<long double> y;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const ExactMoments& set = at(moments, sets.of[i]);
        const long double rstd = 1 / std::sqrt(set.m2 / set.count + static_cast<long double>(eps));
        y.push_back((static_cast<long double>(x[i]) - set.mean) * rstd * weight(i, 1) + bias(i, 0));
    }
    return y;
}

/// The largest distance, relative where the exact value is above 1; infinity where one is NaN.
template <class T>
double largest_error(const std::vector<T>& values, const std::vector<long double>& exact) {
    if (values.size() != exact.size()) return infinity;
    double largest = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const long double scale = std::max(1.0L, std::fabs(exact[i]));
        const double error = static_cast<double>(std::fabs(static_cast<long double>(values[i]) - exact[i]) / scale);
        largest = std::isnan(error) ? infinity : std::max(largest, error);
    }
    return largest;
}

}  // namespace anynorm::test
