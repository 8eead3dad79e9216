// SPDX-License-Identifier: Apache-2.0
#include "selected_gradient_pieces.hpp"

#include <algorithm>
#include <cmath>

#include "activations.hpp"
#include "pick.hpp"

namespace anynorm::detail {
namespace {

template <class T>
void prefetch(const T* from, std::int64_t count) {
    constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
    for (std::int64_t i = 0; i < count; i += line) __builtin_prefetch(from + i);
}

}  // namespace

// ---- What the kernels read ------------------------------------------------------------------------------------------

template <class C>
bool SelectedGradientPieces<C>::is_direct(const Elements& elements, const Loop& inner, Operand operand) const {
    return elements.dtype == stored_as<C>() && (inner.stride[operand] == 1 || inner.n == 1);
}

template <class C>
bool SelectedGradientPieces<C>::needs_buffers(const Loop& inner) const {
    const bool weight_direct = inner.stride[op_weight] == 0 || is_direct(weight_, inner, op_weight);
    return call_.of.activation != Activation::none || !weight_direct || !is_direct(call_.of.x, inner, op_x) ||
           !is_direct(call_.of.grad_output, inner, op_grad_output);
}

/// Whether the kernel can write grad_input, and read what is added to it, where they are.
template <class C>
bool SelectedGradientPieces<C>::writes_in_place(const Loop& inner) const {
    return is_direct(call_.of.grad_input, inner, op_y) &&
           (!call_.of.grad_sum.given() || is_direct(call_.of.grad_sum, inner, op_grad_sum));
}

/// The rows in sets, copied to the buffer unless the kernels can read them in place.
template <class C>
auto SelectedGradientPieces<C>::rows_of(const SelectedTile& of, const Elements& elements, Operand operand,
                                        C* buffer) const -> Rows {
    if (is_direct(elements, of.inner, operand)) {
        return {static_cast<const C*>(elements.data) + of.at(operand, 0), of.row.stride[operand]};
    }
    const std::int64_t step = of.step(operand);
    of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
        if (group < 0) return;
        const std::int64_t at_once = of.row.stride[operand] == of.n * step ? rows : 1;
        for (std::int64_t row = first; row < first + rows; row += at_once) {
            load(*call_.of.table, buffer + row * of.n, elements, of.at(operand, row), step, at_once * of.n);
        }
    });
    return {buffer, of.n};
}

template <class C>
auto SelectedGradientPieces<C>::parameter(const SelectedTile& of, const Elements& elements, Operand operand,
                                          C* buffer) const -> Coefficient {
    const std::int64_t step = of.step(operand);
    if (elements.dtype == stored_as<C>() && (step == 0 || step == 1)) {
        return {{static_cast<const C*>(elements.data) + of.at(operand, 0), of.row.stride[operand]}, step != 0};
    }
    if (step == 0) {
        load(buffer, elements, of.at(operand, 0), of.row.stride[operand], of.rows);
        return {{buffer, 1}, false};
    }
    return {rows_of(of, elements, operand, buffer), true};
}

/// One value of each set for every element of a tile, 0 where there is no set.
template <class C>
void SelectedGradientPieces<C>::gather(const SelectedTile& of, const C* array, C* buffer) const {
    const std::int64_t n = of.n, step = of.step(op_cell);
    for (std::int64_t row = 0; row < of.rows; ++row) {
        C* const to = buffer + row * n;
        if (of.group[row] < 0) {
            std::fill_n(to, n, C(0));
            continue;
        }
        const C* const from = array + of.at(op_cell, row);
        if (of.group_of != nullptr) {
            const std::int64_t* const group = of.group_of + row * n;
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int64_t at = std::max<std::int64_t>(0, group[i]) * sets_.cells_per_group;
                to[i] = pick(group[i] >= 0, from[at], C(0));
            }
            continue;
        }
        const C* const of_row = from + of.group[row] * sets_.cells_per_group;
        if (of.used == nullptr) {
            for (std::int64_t i = 0; i < n; ++i) to[i] = of_row[i * step];
        } else {
            const bool* const used = of.used + row * n;
            for (std::int64_t i = 0; i < n; ++i) to[i] = pick(used[i], of_row[i * step], C(0));
        }
    }
}

/// Whether 0 times what the statistics of all rows give is 0.
template <class C>
bool SelectedGradientPieces<C>::constant_and_finite(const SelectedTile& of) const {
    if (of.step(op_cell) != 0) return false;
    for (std::int64_t row = 0; row < of.rows; ++row) {
        if (of.group[row] < 0) continue;
        const std::int64_t set = of.group[row] * sets_.cells_per_group + of.at(op_cell, row);
        if (!std::isfinite(sets_.mean[set]) || !std::isfinite(sets_.mean_lo[set]) || !std::isfinite(sets_.rstd[set]))
            return false;
    }
    return true;
}

/// Sets of neighbouring rows lie anywhere, and of many rows a range of groups takes a few: the rows of the next tile,
/// and what their sets have, are fetched while this one is summed or written.
template <class C>
void SelectedGradientPieces<C>::fetch_ahead(const SelectedTile& of, const Inputs& inputs, const Sums& sums) const {
    constexpr std::int64_t few = 64;
    const std::int64_t n = std::min(of.n, few), count = of.step(op_cell) == 0 ? 1 : n;
    for (std::int64_t row = 0; row < of.rows_ahead; ++row) {
        if (of.group_ahead[row] < 0) continue;
        const std::int64_t next = of.rows + row;
        const std::int64_t set = of.group_ahead[row] * sets_.cells_per_group + of.at(op_cell, next);
        prefetch(sets_.mean + set, count);
        prefetch(sets_.rstd + set, count);
        if (sums.s1 != nullptr) {
            prefetch(sets_.mean_lo + set, count);
            prefetch(sums.s1 + set, count);
            prefetch(sums.s2 + set, count);
            if (inputs.x.at != x_) prefetch(inputs.x.of(next), n);
            if (inputs.grad_output.at != grad_output_) prefetch(inputs.grad_output.of(next), n);
        } else {
            prefetch(sets_.slope + set, count);
            prefetch(sets_.offset + set, count);
        }
    }
}

template <class C>
auto SelectedGradientPieces<C>::of_sets(const SelectedTile& of, const Run& run, const C* array, const C* buffer) const
    -> Coefficient {
    if (gathered_) return {{buffer + run.first * of.n, of.n}, true};
    const C* const at = array + run.group * sets_.cells_per_group + of.at(op_cell, run.first);
    return {{at, of.row.stride[op_cell]}, of.step(op_cell) != 0};
}

template <class C>
auto SelectedGradientPieces<C>::load_inputs(const SelectedTile& of) -> Inputs {
    Inputs inputs;
    inputs.x = rows_of(of, call_.of.x, op_x, x_);
    inputs.grad_output = inputs.gradient = rows_of(of, call_.of.grad_output, op_grad_output, grad_output_);
    inputs.weight = parameter(of, weight_, op_weight, weights_);
    if (gathered_) {
        gather(of, sets_.mean, mean_);
        gather(of, sets_.rstd, rstd_);
    }
    if (call_.of.activation == Activation::none) return inputs;
    if (gathered_) gather(of, sets_.mean_lo, mean_lo_);
    const Coefficient bias = parameter(of, bias_, op_bias, biases_);
    of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
        if (group >= 0) activate(of, {first, rows, group}, inputs, bias);
    });
    inputs.gradient = {gradient_, of.n};
    return inputs;
}

/// The gradient of the activation's argument.
template <class C>
void SelectedGradientPieces<C>::activate(const SelectedTile& of, const Run& run, const Inputs& inputs,
                                         const Coefficient& bias) {
    const Coefficient mean = of_sets(of, run, sets_.mean, mean_), mean_lo = of_sets(of, run, sets_.mean_lo, mean_lo_),
                      rstd = of_sets(of, run, sets_.rstd, rstd_), weight = inputs.weight.from(run.first);
    C* const results = result_ + run.first * of.n;
    kernels_.affine[kernels::affine_index(mean.varies, weight.varies, bias.varies)](
        {run.rows, of.n, inputs.x.of(run.first), results, mean.at, mean_lo.at, rstd.at, weight.at, bias.of(run.first),
         inputs.x.row, of.n, mean.row, weight.row, bias.row, false});
    for (std::int64_t row = 0; row < run.rows; ++row) {
        activation_gradient(*call_.of.table, call_.of.activation, gradient_ + (run.first + row) * of.n,
                            inputs.grad_output.of(run.first + row), results + row * of.n, of.n);
    }
}

// ---- Sums -----------------------------------------------------------------------------------------------------------

template <class C>
void SelectedGradientPieces<C>::add_sums(const Nest& piece, GroupRange range, const SelectedSums& to) noexcept {
    SelectedTiles tiles(piece, call_.selection, range);
    const Coefficient one{{&one_, 0}, false};
    forget_repeated();
    const bool fills = fills_rows(tiles.inner());
    tiles.for_each(fills || needs_buffers(tiles.inner()), !sets_.fits_cache, [&](const SelectedTile& of) {
        if (!of.any()) return;
        gathered_ = of.used != nullptr && !(of.group_of == nullptr && constant_and_finite(of));
        Inputs inputs = load_inputs(of);
        fetch_ahead(of, inputs, to.sets);
        if (gathered_) gather(of, sets_.mean_lo, mean_lo_);
        if (of.used != nullptr) select(of, inputs);
        const bool filled = fills && !gathered_ && of.used == nullptr && fill_rows(of, inputs);
        const auto each_run = [&](const auto& body) {
            if (filled) return body(0, of.rows, std::int64_t{0});
            of.for_each_run(body);
        };
        each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
            if (group < 0) return;
            const Run run{first, rows, group};
            if (to.sets.s1 != nullptr) {
                const Coefficient weight = to.weighted ? inputs.weight.from(first) : one;
                if (of.group_of != nullptr) {
                    add_by_label(of, run, inputs, weight, to.sets);
                } else {
                    const std::int64_t base = group * sets_.cells_per_group + of.at(op_cell, first);
                    add(of, run, inputs, weight, op_cell, base, to.sets);
                }
            }
            for (int i = 0; i < 2; ++i) {
                if (to.parameters[i].s1 == nullptr) continue;
                add(of, run, inputs, one, to.operand[i], of.at(to.operand[i], first), to.parameters[i]);
            }
        });
    });
}

/// 0 wherever an element is in no set, so that it adds nothing whatever it holds.
template <class C>
void SelectedGradientPieces<C>::select(const SelectedTile& of, Inputs& inputs) {
    for (std::int64_t row = 0; row < of.rows; ++row) {
        if (of.group[row] < 0) continue;
        const bool* const used = of.used + row * of.n;
        const C *const x = inputs.x.of(row), *const gradient = inputs.gradient.of(row);
        C *const to_x = x_ + row * of.n, *const to_gradient = gradient_ + row * of.n;
        for (std::int64_t i = 0; i < of.n; ++i) to_x[i] = pick(used[i], x[i], C(0));
        for (std::int64_t i = 0; i < of.n; ++i) to_gradient[i] = pick(used[i], gradient[i], C(0));
    }
    inputs.x = {x_, of.n};
    inputs.gradient = {gradient_, of.n};
}

/// Adds the sums of a run to those of a target, whose first is number `base`.
template <class C>
void SelectedGradientPieces<C>::add(const SelectedTile& of, const Run& run, const Inputs& inputs,
                                    const Coefficient& weight, Operand target, std::int64_t base, const Sums& sums) {
    const Coefficient mean = of_sets(of, run, sets_.mean, mean_), mean_lo = of_sets(of, run, sets_.mean_lo, mean_lo_),
                      rstd = of_sets(of, run, sets_.rstd, rstd_);
    const int index = kernels::gradient_index(mean.varies, weight.varies);
    const std::int64_t target_row = of.row.stride[target];
    kernels::GradientSumsArgs<C> args{.rows = run.rows,
                                      .n = of.n,
                                      .x = inputs.x.of(run.first),
                                      .grad_output = inputs.gradient.of(run.first),
                                      .mean = mean.at,
                                      .mean_lo = mean_lo.at,
                                      .rstd = rstd.at,
                                      .weight = weight.at,
                                      .x_row = inputs.x.row,
                                      .grad_output_row = inputs.gradient.row,
                                      .stat_row = mean.row,
                                      .weight_row = weight.row,
                                      .s1 = sums.s1 + base,
                                      .s2 = sums.s2 + base,
                                      .sum_row = target_row};
    if (of.step(target) == 0) return kernels_.gradient_sums_row[index](args);
    if (target_row == 0 && joins(of, run, inputs, mean, weight)) return add_joined(args, index, weight.varies);
    if (mean.varies && of.n < JoinedRows::short_of) return add_short_rows(args, target_row, weight.varies);
    // Down columns the kernel takes statistics that are constant on each row, or the same on all of them.
    const bool down = target_row == 0 && (!mean.varies || mean.row == 0);
    if (down) return kernels_.gradient_sums_column[index](args);
    args.rows = 1;
    for (std::int64_t row = 0; row < run.rows; ++row) {
        kernels_.gradient_sums_column[index](args);
        args.x += args.x_row;
        args.grad_output += args.grad_output_row;
        args.mean += args.stat_row;
        args.mean_lo += args.stat_row;
        args.rstd += args.stat_row;
        args.weight += args.weight_row;
        args.s1 += target_row;
        args.s2 += target_row;
    }
}

/// The sums of the sets where labels vary along the rows.
template <class C>
void SelectedGradientPieces<C>::add_by_label(const SelectedTile& of, const Run& run, const Inputs& inputs,
                                             const Coefficient& weight, const Sums& sums) const {
    // Below this a kernel costs more than the elements one by one.
    constexpr std::int64_t stretch = 16;
    const std::int64_t n = of.n;
    const int index = kernels::gradient_index(true, weight.varies);
    for (std::int64_t row = run.first; row < run.first + run.rows; ++row) {
        const std::int64_t* const group = of.group_of + row * n;
        const C *const x = inputs.x.of(row), *const gradient = inputs.gradient.of(row);
        const C *const mean = mean_ + row * n, *const mean_lo = mean_lo_ + row * n, *const rstd = rstd_ + row * n;
        const C* const factor = weight.of(row - run.first);
        for (std::int64_t first = 0, last = 0; first < n; first = last) {
            while (last < n && group[last] == group[first]) ++last;
            if (group[first] < 0) continue;
            const std::int64_t at = group[first] * sets_.cells_per_group + of.at(op_cell, row);
            if (last - first >= stretch) {
                kernels_.gradient_sums_row[index]({1, last - first, x + first, gradient + first, mean + first,
                                                   mean_lo + first, rstd + first, factor + (weight.varies ? first : 0),
                                                   0, 0, 0, 0, sums.s1 + at, sums.s2 + at, 0});
                continue;
            }
            double s1 = 0, s2 = 0;
            for (std::int64_t i = first; i < last; ++i) {
                const double g = static_cast<double>(gradient[i]) * static_cast<double>(factor[weight.varies ? i : 0]);
                const double d =
                    (static_cast<double>(x[i]) - static_cast<double>(mean[i])) - static_cast<double>(mean_lo[i]);
                s1 += g;
                s2 += g * (d * static_cast<double>(rstd[i]));
            }
            sums.s1[at] += s1;
            sums.s2[at] += s2;
        }
    }
}

// ---- grad_input -----------------------------------------------------------------------------------------------------

template <class C>
void SelectedGradientPieces<C>::write_grad_input(const Nest& piece) noexcept {
    SelectedTiles tiles(piece, call_.selection, {0, sets_.groups});
    const bool scales = call_.selection.sample_weight.given() && !call_.of.frozen;
    forget_repeated();
    const bool in_place = !needs_buffers(tiles.inner()) && writes_in_place(tiles.inner());
    const bool buffered = scales || !in_place || has_short_rows(tiles.inner());
    tiles.for_each(buffered, !sets_.fits_cache, [&](const SelectedTile& of) {
        if (of.any()) {
            const bool together = has_short_runs(of);
            gathered_ = scales || of.group_of != nullptr || (together && !share_sets(of));
            const Inputs inputs = load_inputs(of);
            fetch_ahead(of, inputs, {});
            if (gathered_) {
                gather(of, sets_.slope, slope_);
                gather(of, sets_.offset, offset_);
            }
            if (scales) scale_by_sample_weight(of);
            if (together) {
                write_together(of, inputs);
            } else {
                write_rows(of, inputs);
            }
        }
        if (call_.excluded == Excluded::keep) return;
        of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
            if (group < 0) write_excluded(of, {first, rows, group});
        });
    });
}

/// Statistics are sums of weighted elements: their gradient reaches each by its weight.
template <class C>
void SelectedGradientPieces<C>::scale_by_sample_weight(const SelectedTile& of) {
    const Coefficient weight =
        parameter(of, elements_of(call_.selection.sample_weight), op_sample_weight, sample_weights_);
    for (std::int64_t row = 0; row < of.rows; ++row) {
        if (of.group[row] < 0) continue;
        const C* const factor = weight.of(row);
        C *const slope = slope_ + row * of.n, *const offset = offset_ + row * of.n;
        for (std::int64_t i = 0; i < of.n; ++i) {
            slope[i] *= factor[weight.varies ? i : 0];
            offset[i] *= factor[weight.varies ? i : 0];
        }
    }
}

/// The kernel's operands for a run, without what is added to the results.
template <class C>
kernels::GradientInputArgs<C> SelectedGradientPieces<C>::input_args(const SelectedTile& of, const Run& run,
                                                                    const Inputs& inputs, C* results,
                                                                    std::int64_t results_row) const {
    const Coefficient mean = of_sets(of, run, sets_.mean, mean_), slope = of_sets(of, run, sets_.slope, slope_),
                      offset = of_sets(of, run, sets_.offset, offset_), rstd = of_sets(of, run, sets_.rstd, rstd_),
                      weight = inputs.weight.from(run.first);
    return {.rows = run.rows,
            .n = of.n,
            .x = inputs.x.of(run.first),
            .grad_output = inputs.gradient.of(run.first),
            .grad_input = results,
            .mean = mean.at,
            .slope = slope.at,
            .offset = offset.at,
            .rstd = rstd.at,
            .weight = weight.at,
            .x_row = inputs.x.row,
            .grad_output_row = inputs.gradient.row,
            .grad_input_row = results_row,
            .stat_row = mean.row,
            .weight_row = weight.row,
            .stream = false};
}

template <class C>
void SelectedGradientPieces<C>::write_rows(const SelectedTile& of, const Inputs& inputs) {
    const Elements& to = call_.of.grad_input;
    const bool direct = of.used == nullptr && writes_in_place(of.inner), adds = direct && call_.of.grad_sum.given();
    of.for_each_run([&](std::int64_t first, std::int64_t rows, std::int64_t group) {
        if (group < 0) return;
        const Run run{first, rows, group};
        const Coefficient mean = of_sets(of, run, sets_.mean, mean_), weight = inputs.weight.from(first);
        C* const results = direct ? static_cast<C*>(to.data) + of.at(op_y, first) : result_ + first * of.n;
        const int index = kernels::gradient_index(mean.varies, weight.varies);
        kernels::GradientInputArgs<C> args = input_args(of, run, inputs, results, direct ? of.row.stride[op_y] : of.n);
        if (adds) {
            args.grad_sum = static_cast<const C*>(call_.of.grad_sum.data) + of.at(op_grad_sum, first);
            args.grad_sum_row = of.row.stride[op_grad_sum];
        }
        const bool end_to_end = args.grad_input_row == of.n && (!adds || args.grad_sum_row == of.n);
        if (end_to_end && joins(of, run, inputs, mean, weight)) {
            write_joined(args, index, weight.varies);
        } else {
            kernels_.gradient_input[index](args);
        }
        if (direct) return;
        for (std::int64_t row = first; row < first + rows; ++row) {
            store_selected(of, row, inputs.grad_output.of(row));
        }
    });
}

/// Writes a row of results, or what stands for them where an element is in no set.
template <class C>
void SelectedGradientPieces<C>::store_selected(const SelectedTile& of, std::int64_t row, const C* grad_output) {
    const Elements& to = call_.of.grad_input;
    C* const result = result_ + row * of.n;
    const std::int64_t at = of.at(op_y, row), step = of.step(op_y);
    const bool* const used = of.used == nullptr ? nullptr : of.used + row * of.n;
    const bool everywhere = used == nullptr || call_.excluded != Excluded::keep;
    if (used != nullptr && everywhere) {
        const bool zero = call_.excluded == Excluded::zero;
        for (std::int64_t i = 0; zero && i < of.n; ++i) result[i] = pick(used[i], result[i], C(0));
        for (std::int64_t i = 0; !zero && i < of.n; ++i) result[i] = pick(used[i], result[i], grad_output[i]);
    }
    add_grad_sum(of, row, 0, result, of.n);
    if (everywhere) return store(*call_.of.table, to, at, step, result, of.n);
    for (std::int64_t first = 0, last = 0; first < of.n; first = last) {
        while (last < of.n && used[last] == used[first]) ++last;
        if (used[first]) store(*call_.of.table, to, at + first * step, step, result + first, last - first);
    }
}

/// What comes to n elements of a row of results from elsewhere.
template <class C>
void SelectedGradientPieces<C>::add_grad_sum(const SelectedTile& of, std::int64_t row, std::int64_t first, C* result,
                                             std::int64_t n) {
    const Elements& from = call_.of.grad_sum;
    if (!from.given()) return;
    const std::int64_t step = of.step(op_grad_sum);
    load(*call_.of.table, grad_sum_, from, of.at(op_grad_sum, row) + first * step, step, n);
    kernels_.add(result, result, grad_sum_, n);
}

/// Rows without any element in a set.
template <class C>
void SelectedGradientPieces<C>::write_excluded(const SelectedTile& of, const Run& run) {
    const bool zero = call_.excluded == Excluded::zero;
    for (std::int64_t row = run.first; row < run.first + run.rows; ++row) {
        for (std::int64_t first = 0; first < of.n; first += tile) {
            const std::int64_t n = std::min(tile, of.n - first);
            if (zero) {
                std::fill_n(result_, n, C(0));
            } else {
                const std::int64_t step = of.step(op_grad_output);
                load(*call_.of.table, result_, call_.of.grad_output, of.at(op_grad_output, row) + first * step, step,
                     n);
            }
            add_grad_sum(of, row, first, result_, n);
            const std::int64_t step = of.step(op_y);
            store(*call_.of.table, call_.of.grad_input, of.at(op_y, row) + first * step, step, result_, n);
        }
    }
}

template class SelectedGradientPieces<float>;
template class SelectedGradientPieces<double>;

}  // namespace anynorm::detail
