// SPDX-License-Identifier: Apache-2.0
// The sums of a backward call: two for every set, and two for every element of a parameter, as partial sums that are
// added up in their order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "layout.hpp"
#include "scratch.hpp"

namespace anynorm::detail {

/// Whether an operand varies along whatever tells one set from another.
inline bool along_all_sets(const Nest& nest, Operand operand) {
    for (int i = 0; i < nest.depth; ++i) {
        if (!nest.loops[i].reduced && nest.loops[i].stride[operand] == 0) return false;
    }
    return true;
}

/// Whether an operand varies within sets.
inline bool within_sets(const Nest& nest, Operand operand) {
    return std::any_of(nest.loops, nest.loops + nest.depth,
                       [&](const Loop& loop) { return loop.reduced && loop.stride[operand] != 0; });
}

/// Whether two operands vary along the same loops.
inline bool along_the_same(const Nest& nest, Operand a, Operand b) {
    for (int i = 0; i < nest.depth; ++i) {
        if ((nest.loops[i].stride[a] == 0) != (nest.loops[i].stride[b] == 0)) return false;
    }
    return true;
}

/// Two sums for every element of a target.
struct Sums {
    double *s1 = nullptr, *s2 = nullptr;

    void clear(std::int64_t count) const {
        std::fill_n(s1, count, 0.0);
        std::fill_n(s2, count, 0.0);
    }
    void add(const Sums& other, std::int64_t count) const {
        for (std::int64_t i = 0; i < count; ++i) s1[i] += other.s1[i];
        for (std::int64_t i = 0; i < count; ++i) s2[i] += other.s2[i];
    }
    Sums at(std::int64_t offset) const { return {s1 + offset, s2 + offset}; }
};

inline Sums take_sums(Carver& carver, std::int64_t count) {
    return {carver.take<double>(count), carver.take<double>(count)};
}

/// The gradients of a parameter, or of a pair of parameters of one shape: s1 is bias's, s2 weight's.
struct ParameterSums {
    Operand operand = op_x;  ///< numbered densely in the nest
    std::int64_t size = 0;
    bool from_sets = false;  ///< sums of sets added up: the parameter is constant in each
    bool exclusive = false;  ///< no two sets share an element
    std::int64_t groups = 1;
    Sums sums;  ///< of group 0; those of the others follow

    Sums of_group(std::int64_t group) const { return sums.at(exclusive ? 0 : group * size); }
    void merge() const {
        for (std::int64_t group = 1; group < groups; ++group) sums.add(of_group(group), size);
    }
};

/// Adds the sums of the sets of a piece to the parameters that are constant in each.
inline void add_set_sums(const Nest& piece, Operand parameter, const Sums& of_sets, const Sums& to) {
    Sums from = of_sets;
    walk_rows(kept_loops(piece), [&](const std::int64_t* offset, const Loop& inner) {
        const Sums at = to.at(offset[parameter]);
        const std::int64_t step = inner.stride[parameter];
        for (std::int64_t i = 0; i < inner.n; ++i) {
            at.s1[i * step] += from.s1[i];
            at.s2[i * step] += from.s2[i];
        }
        from = from.at(inner.n);
    });
}

// Partial sums of parameters: 64 of them keep as many threads busy; together they stay below 1 % of x, or 512 KB.
inline constexpr std::int64_t max_groups = 64;
inline constexpr std::int64_t min_partial_bytes = 512 * 1024;

/// How many partial sums of `size` elements there is room for.
inline std::int64_t groups_for(std::int64_t size, std::int64_t x_bytes) {
    const std::int64_t bytes = size * 2 * static_cast<std::int64_t>(sizeof(double));
    return std::clamp<std::int64_t>(std::max(min_partial_bytes, x_bytes / 100) / bytes, 1, max_groups);
}

/// With fewer partial sums than this the threads get strips of the parameters instead.
inline constexpr std::int64_t enough_groups = 8;

/// As groups_for(), where fewer than enough would keep sets from being whole, and x from being read once: 512 rows of
/// 8192 take 0.5 of the time with eight partial sums, a sixteenth of x.
inline std::int64_t groups_of_whole_sets(std::int64_t size, std::int64_t x_bytes) {
    const std::int64_t bytes = size * 2 * static_cast<std::int64_t>(sizeof(double));
    return std::max(groups_for(size, x_bytes), std::min(enough_groups, x_bytes / 8 / bytes));
}

/// How many are worth it for so many elements of x: clearing a partial sum and adding it to the others takes as long as
/// two elements do.
inline std::int64_t worthwhile_groups(std::int64_t size, std::int64_t elements) {
    constexpr std::int64_t elements_for_each = 32;
    return std::max<std::int64_t>(1, elements / (size * elements_for_each));
}

}  // namespace anynorm::detail
