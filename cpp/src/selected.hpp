// SPDX-License-Identifier: Apache-2.0
// Calls with a selection, validated: members, statistics of all sets, then y in the order of memory.
#pragma once

#include "anynorm/grouping.hpp"
#include "dispatch.hpp"
#include "epilogue.hpp"
#include "layout.hpp"
#include "members.hpp"
#include "merge.hpp"
#include "schedule.hpp"
#include "selected_moments.hpp"
#include "selection.hpp"

namespace anynorm::detail {

/// A nest that holds the views of a selection.
Nest make_selected_nest(const TensorView& x, AxisSet reduced, const Selection& selection,
                        OperandStrides& strides) noexcept;

/// A nest that holds the views of moments, of weight2 in the place of op_grad_output. Its cells are those of
/// make_selected_nest() for the same y, which is optional.
Nest make_moments_nest(const TensorView& x, const TensorView& y, AxisSet reduced, const Selection& selection,
                       const MomentsView& moments) noexcept;

/// Its loops as the statistics see them: those that Members are found along.
Nest statistics_loops(const Nest& nest) noexcept;

/// As selected_moments(), by the way that suits the selection; `loops` are those of statistics_loops().
void selected_statistics(const kernels::KernelTable& table, const SelectedOperands& operands,
                         const Selection& selection, const Nest& loops, int threads, const CellSink& sink);

/// Fills the cells of all groups from moments that the caller has; `nest` is theirs.
void load_selected(const MomentsView& given, const Selection& selection, bool center, const Nest& nest, Cell* cells);

/// Writes the cells of `count` groups from `first` on to where the caller wants them; `nest` is that of the moments.
/// `weight2` is nullptr where weights were not summed.
void store_selected(const MomentsView& out, const Selection& selection, const Nest& nest, std::int64_t first,
                    std::int64_t count, const Cell* cells, const double* weight2) noexcept;

struct SelectedCall {
    const Selection& selection;
    TensorView x{}, y{};  ///< y is optional; x the sum, where there is one
    AxisSet reduced = 0;
    TensorView weight{}, bias{}, scales{}, zero_points{};
    MomentsView given{}, moments{};
    ResidualSum sum{};
    TensorView input{}, residual{};  ///< the terms of the sum
    Epilogue epilogue{};
    double eps = 0;
    bool center = true;
    Excluded excluded = Excluded::zero;
    int num_threads = 0;
};

void run_selected(const SelectedCall& call, const kernels::KernelTable& table);

}  // namespace anynorm::detail
