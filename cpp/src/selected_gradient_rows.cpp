// SPDX-License-Identifier: Apache-2.0
// Short rows of a tile, taken together: joined to rows of whole packs, or with zeros where a mask excludes them.
#include <algorithm>
#include <cmath>
#include <utility>

#include "selected_gradient_pieces.hpp"

namespace anynorm::detail {

/// Whether rows are too short for the kernels, each of them of neighbouring sets.
template <class C>
bool SelectedGradientPieces<C>::has_short_rows(const Loop& inner) const {
    return inner.stride[op_labels] == 0 && inner.stride[op_where] == 0 && inner.stride[op_cell] == 1 &&
           JoinedRows::worthwhile(tile / inner.n, inner.n);
}

/// Whether a mask is to fill those that it excludes with zeros: the rows that are left follow each other then.
template <class C>
bool SelectedGradientPieces<C>::fills_rows(const Loop& inner) const {
    return !call_.selection.splits() && has_short_rows(inner);
}

/// Whether short rows that lie end to end in memory are of many groups, or of none between those of one: what their
/// sets have is gathered for each element, and one call of the kernel computes them all.
template <class C>
bool SelectedGradientPieces<C>::has_short_runs(const SelectedTile& of) const {
    if (!has_short_rows(of.inner) || of.rows * of.n > tile || needs_buffers(of.inner)) return false;
    for (const Operand operand : {op_x, op_grad_output}) {
        if (of.row.stride[operand] != of.n) return false;
    }
    if (of.row.stride[op_weight] != 0) return false;
    constexpr std::int64_t short_run = 16;
    std::int64_t runs = 0;
    of.for_each_run([&](std::int64_t, std::int64_t, std::int64_t) { ++runs; });
    return runs * short_run > of.rows && runs > 1;
}

/// Fills them in a tile of which only some rows are in sets, and whose statistics times 0 are 0.
template <class C>
bool SelectedGradientPieces<C>::fill_rows(const SelectedTile& of, Inputs& inputs) {
    if (of.row.stride[op_cell] != 0 || !of.some_excluded()) return false;
    const std::int64_t set = of.at(op_cell, 0);
    for (const C* array : {sets_.mean, sets_.mean_lo, sets_.rstd}) {
        if (!std::all_of(array + set, array + set + of.n, [](C value) { return std::isfinite(value); })) return false;
    }
    of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
        for (const auto& [from, to] : {std::pair{&inputs.x, x_}, {&inputs.gradient, gradient_}}) {
            if (group < 0) {
                std::fill_n(to + first * of.n, rows * of.n, C(0));
            } else if (from->at != to) {
                const std::int64_t at_once = from->row == of.n ? rows : 1;
                for (std::int64_t row = first; row < first + rows; row += at_once)
                    std::copy_n(from->of(row), at_once * of.n, to + row * of.n);
            }
        }
    });
    inputs.x = {x_, of.n};
    inputs.gradient = {gradient_, of.n};
    return true;
}

/// Whether the rows of a run lie end to end and are too short for the kernels, with coefficients that all of them
/// share.
template <class C>
bool SelectedGradientPieces<C>::joins(const SelectedTile& of, const Run& run, const Inputs& inputs,
                                      const Coefficient& mean, const Coefficient& weight) {
    return mean.varies && mean.row == 0 && weight.row == 0 && inputs.x.row == of.n && inputs.gradient.row == of.n &&
           JoinedRows::worthwhile(run.rows, of.n);
}

/// A few short rows, for which a kernel takes longer to begin.
template <class C>
void SelectedGradientPieces<C>::add_short_rows(const kernels::GradientSumsArgs<C>& args, std::int64_t target_row,
                                               bool weight_varies) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
        const C *const x = args.x + row * args.x_row, *const grad_output =
                                                          args.grad_output + row * args.grad_output_row;
        const std::int64_t stat = row * args.stat_row;
        const C* const weight = args.weight + row * args.weight_row;
        double *const s1 = args.s1 + row * target_row, *const s2 = args.s2 + row * target_row;
        for (std::int64_t i = 0; i < args.n; ++i) {
            const double g = static_cast<double>(grad_output[i]) * static_cast<double>(weight[weight_varies ? i : 0]);
            const double d = (static_cast<double>(x[i]) - static_cast<double>(args.mean[stat + i])) -
                             static_cast<double>(args.mean_lo[stat + i]);
            s1[i] += g;
            s2[i] += g * (d * static_cast<double>(args.rstd[stat + i]));
        }
    }
}

/// Whether all rows of a tile that are in sets are in the same ones.
template <class C>
bool SelectedGradientPieces<C>::share_sets(const SelectedTile& of) const {
    return !call_.selection.splits() && of.row.stride[op_cell] == 0;
}

/// The results of a tile that has_short_runs(), from coefficients that are gathered or that all rows share.
template <class C>
void SelectedGradientPieces<C>::write_together(const SelectedTile& of, const Inputs& inputs) {
    const std::int64_t n = of.n, elements = of.rows * n;
    const Elements& to = call_.of.grad_input;
    const bool end_to_end = !call_.of.grad_sum.given() && is_direct(to, of.inner, op_y) && of.row.stride[op_y] == n;
    const bool direct = end_to_end && !of.some_excluded();
    C* const results = direct ? static_cast<C*>(to.data) + of.at(op_y, 0) : result_;
    kernels::GradientInputArgs<C> args = input_args(of, {0, of.rows, 0}, inputs, results, n);
    const int index = kernels::gradient_index(true, inputs.weight.varies);
    if (gathered_) {
        if (inputs.weight.varies) {
            std::copy_n(args.weight, n, weights_);
            for (std::int64_t i = n; i < elements; ++i) weights_[i] = weights_[i - n];
            args.weight = weights_;
        }
        args.rows = 1;
        args.n = elements;
        kernels_.gradient_input[index](args);
    } else {
        write_joined(args, index, inputs.weight.varies);
    }
    if (direct) return;
    of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
        if (group < 0) return;
        if (end_to_end) {
            std::copy_n(result_ + first * n, rows * n, static_cast<C*>(to.data) + of.at(op_y, first));
            return;
        }
        for (std::int64_t row = first; row < first + rows; ++row) store_selected(of, row, inputs.grad_output.of(row));
    });
}

template <class C>
void SelectedGradientPieces<C>::add_joined(kernels::GradientSumsArgs<C> args, int index, bool weight_varies) {
    const JoinedRows joined(args.rows, args.n);
    const std::int64_t n = args.n;
    double s1[JoinedRows::most] = {}, s2[JoinedRows::most] = {};
    double *const to_s1 = args.s1, *const to_s2 = args.s2;
    args.mean = repeated_mean_.of(args.mean, n, joined.width);
    args.mean_lo = repeated_mean_lo_.of(args.mean_lo, n, joined.width);
    args.rstd = repeated_rstd_.of(args.rstd, n, joined.width);
    if (weight_varies) args.weight = repeated_weight_.of(args.weight, n, joined.width);
    args.s1 = s1;
    args.s2 = s2;
    args.rows = joined.rows;
    args.n = args.x_row = args.grad_output_row = joined.width;
    if (joined.rows > 0) kernels_.gradient_sums_column[index](args);
    args.x += joined.rows * joined.width;
    args.grad_output += joined.rows * joined.width;
    args.rows = 1;
    args.n = joined.rest;
    if (joined.rest > 0) kernels_.gradient_sums_column[index](args);
    for (std::int64_t first = 0; first < joined.width; first += n) {
        for (std::int64_t i = 0; i < n; ++i) to_s1[i] += s1[first + i];
        for (std::int64_t i = 0; i < n; ++i) to_s2[i] += s2[first + i];
    }
}

template <class C>
void SelectedGradientPieces<C>::write_joined(kernels::GradientInputArgs<C> args, int index, bool weight_varies) {
    const JoinedRows joined(args.rows, args.n);
    const std::int64_t n = args.n, elements = joined.rows * joined.width;
    args.mean = repeated_mean_.of(args.mean, n, joined.width);
    args.slope = repeated_slope_.of(args.slope, n, joined.width);
    args.offset = repeated_offset_.of(args.offset, n, joined.width);
    args.rstd = repeated_rstd_.of(args.rstd, n, joined.width);
    if (weight_varies) args.weight = repeated_weight_.of(args.weight, n, joined.width);
    args.rows = joined.rows;
    args.n = args.x_row = args.grad_output_row = args.grad_input_row = args.grad_sum_row = joined.width;
    if (joined.rows > 0) kernels_.gradient_input[index](args);
    args.x += elements;
    args.grad_output += elements;
    args.grad_input += elements;
    if (args.grad_sum != nullptr) args.grad_sum += elements;
    args.rows = 1;
    args.n = joined.rest;
    if (joined.rest > 0) kernels_.gradient_input[index](args);
}

template <class C>
void SelectedGradientPieces<C>::forget_repeated() {
    for (RepeatedRow<C>* row :
         {&repeated_mean_, &repeated_mean_lo_, &repeated_rstd_, &repeated_weight_, &repeated_slope_, &repeated_offset_})
        row->forget();
}

#define ANYNORM_INSTANTIATE(C)                                                                                         \
    template bool SelectedGradientPieces<C>::has_short_rows(const Loop&) const;                                        \
    template bool SelectedGradientPieces<C>::has_short_runs(const SelectedTile&) const;                                \
    template void SelectedGradientPieces<C>::add_short_rows(const kernels::GradientSumsArgs<C>&, std::int64_t, bool);  \
    template void SelectedGradientPieces<C>::write_together(const SelectedTile&, const Inputs&);                       \
    template bool SelectedGradientPieces<C>::share_sets(const SelectedTile&) const;                                    \
    template bool SelectedGradientPieces<C>::fills_rows(const Loop&) const;                                            \
    template bool SelectedGradientPieces<C>::fill_rows(const SelectedTile&, Inputs&);                                  \
    template bool SelectedGradientPieces<C>::joins(const SelectedTile&, const Run&, const Inputs&, const Coefficient&, \
                                                   const Coefficient&);                                                \
    template void SelectedGradientPieces<C>::add_joined(kernels::GradientSumsArgs<C>, int, bool);                      \
    template void SelectedGradientPieces<C>::write_joined(kernels::GradientInputArgs<C>, int, bool);                   \
    template void SelectedGradientPieces<C>::forget_repeated();
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
