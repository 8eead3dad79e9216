// SPDX-License-Identifier: Apache-2.0
#include "selected_gradients.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "apply.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"
#include "parameters.hpp"
#include "plan.hpp"
#include "scratch.hpp"
#include "selected.hpp"
#include "selected_moments.hpp"
#include "selected_partition.hpp"

namespace anynorm::detail {
namespace {

using kernels::Cell;

// Below it the fork and join cost more than a second thread gains.
constexpr std::int64_t serial_elements = 16 * 1024;
// The coefficients and sums of so many sets stay in an L2.
constexpr std::int64_t sets_of_cache = 16 * 1024;
// Sets whose coefficients one task computes.
constexpr std::int64_t cells_of_task = 4096;

/// One call; C is the type to compute in.
template <class C>
class Run {
  public:
    Run(const Nest& nest, const SelectedGradientCall& call, int threads)
        : nest_(nest),
          caller_(nest),
          call_(call),
          kernels_(kernels_for<C>(*call.of.table)),
          threads_(nest.size() < serial_elements ? 1 : threads),
          weight_(call.of.weight.given() ? call.of.weight : Elements{&one_, stored_as<C>()}),
          bias_(call.of.bias.given() ? call.of.bias : Elements{&zero_, stored_as<C>()}),
          weight_in_sets_(within_sets(nest, op_weight)) {
        sets_.groups = group_count(call.selection);
        sets_.cells_per_group = nest.cells();
        count_ = sets_.groups * sets_.cells_per_group;
        sets_.fits_cache = count_ <= sets_of_cache;
        gathers_weight_ = wants_gathering(nest_, op_weight, call.of.weight, stored_as<C>());
        gathers_bias_ = wants_gathering(nest_, op_bias, call.of.bias, stored_as<C>());
        if (gathers_weight_) number_elements(nest_, op_weight);
        if (gathers_bias_) number_elements(nest_, op_bias);
        add_parameter(call.of.grad_weight, op_grad_weight, 0);
        add_parameter(call.of.grad_bias, op_grad_bias, 1);
        sums_sets_ = (call.of.grad_input.given() && !call.of.frozen) || from_sets_[0] || from_sets_[1];
        partition_ = make_partition({nest_,
                                     call.selection,
                                     sets_.groups,
                                     sums_sets_ ? count_ : 0,
                                     {sums_alone(0) ? size_[0] : 0, sums_alone(1) ? size_[1] : 0}});
    }

    void run() {
        Carver sizes(nullptr);
        take(sizes);
        Scratch scratch(sizes.used());
        Carver carver(scratch.data());
        take(carver);
        if (gathers_weight_) gather(op_weight, weight_, gathered_weight_);
        if (gathers_bias_) gather(op_bias, bias_, gathered_bias_);
        find_statistics();
        sum();
        if (call_.of.grad_input.given() && !partition_.whole_sets) {
            for_each_task(count_, [&](std::int64_t first, std::int64_t last) { make_slopes(first, last); });
            write();
        }
        store_parameter(call_.of.grad_weight, op_grad_weight, 0, &Sums::s2);
        store_parameter(call_.of.grad_bias, op_grad_bias, 1, &Sums::s1);
    }

  private:
    void add_parameter(const Elements& gradient, Operand operand, int index) {
        if (!gradient.given()) return;
        number_elements(nest_, operand);
        size_[index] = size_along(nest_, operand);
        from_sets_[index] = !weight_in_sets_ && !within_sets(nest_, operand);
    }
    bool sums_alone(int parameter) const { return size_[parameter] > 0 && !from_sets_[parameter]; }

    void take(Carver& carver) {
        gathered_weight_ = carver.take<C>(gathers_weight_ ? size_along(nest_, op_weight) : 0);
        gathered_bias_ = carver.take<C>(gathers_bias_ ? size_along(nest_, op_bias) : 0);
        cells_ = carver.take<Cell>(count_);
        for (C** array : {&sets_.mean, &sets_.mean_lo, &sets_.rstd, &sets_.slope, &sets_.offset}) {
            *array = carver.take<C>(count_);
        }
        set_weight_ = carver.take<double>(call_.of.weight.given() && !weight_in_sets_ ? sets_.cells_per_group : 0);
        if (sums_sets_) set_sums_ = take_sums(carver, count_ * partition_.partials[0]);
        for (int i = 0; i < 2; ++i) {
            if (size_[i] > 0) sums_[i] = take_sums(carver, size_[i] * (sums_alone(i) ? partition_.partials[i + 1] : 1));
        }
    }

    void gather(Operand operand, Elements& parameter, C* to) const {
        Nest own = caller_;
        gather_parameter(own, operand, parameter, to);
        parameter = {to, stored_as<C>()};
    }

    /// Calls body(first, last) for ranges of `count` numbers.
    template <class Body>
    void for_each_task(std::int64_t count, Body&& body) const {
        const std::int64_t tasks = (count + cells_of_task - 1) / cells_of_task;
        for_each_piece(tasks, threads_, [&](int, std::int64_t task) {
            body(task * cells_of_task, std::min(count, (task + 1) * cells_of_task));
        });
    }

    // ---- Statistics ------------------------------------------------------------------------------------------------

    void find_statistics() {
        if (call_.given.given()) {
            load_selected(call_.given, call_.selection, call_.of.center, call_.moments, cells_);
        } else {
            const Nest loops = statistics_loops(caller_);
            const SelectedOperands operands{call_.of.x, elements_of(call_.selection.sample_weight), call_.of.center};
            const std::int64_t group_cells = caller_.cells();
            selected_statistics(*call_.of.table, operands, call_.selection, loops, threads_,
                                [&](std::int64_t first, std::int64_t count, const Cell* cells, const double*) {
                                    std::copy_n(cells, count * group_cells, cells_ + first * group_cells);
                                });
        }
        for_each_task(count_, [&](std::int64_t first, std::int64_t last) {
            kernels_.coefficients(cells_ + first, last - first, call_.of.eps, sets_.mean + first, sets_.mean_lo + first,
                                  sets_.rstd + first);
        });
        if (set_weight_ == nullptr || !call_.of.weight.given() || weight_in_sets_) return;
        const Nest kept = kept_loops(nest_);
        walk(kept, kept.depth, [&](const std::int64_t* offset) {
            set_weight_[offset[op_cell]] = element_at(weight_, offset[op_weight]);
        });
    }

    /// The coefficients of the sets from `first` to `last` in the formula of grad_input, from their sums.
    void make_slopes(std::int64_t first, std::int64_t last) const {
        const bool weighted = call_.of.weight.given() && !weight_in_sets_;
        for (std::int64_t set = first; set < last; ++set) {
            double slope = 0, shift = 0;
            if (!call_.of.frozen) {
                const Cell& cell = cells_[set];
                const double rstd = 1 / std::sqrt(cell.m2 / cell.count + call_.of.eps);
                const double scale = rstd * (weighted ? set_weight_[set % sets_.cells_per_group] : 1.0) / cell.count;
                slope = -rstd * scale * set_sums_.s2[set];
                if (call_.of.center) shift = -scale * set_sums_.s1[set];
            }
            sets_.slope[set] = static_cast<C>(slope);
            sets_.offset[set] = static_cast<C>(shift - slope * static_cast<double>(sets_.mean_lo[set]));
        }
    }

    // ---- Sums ------------------------------------------------------------------------------------------------------

    SelectedGradientPieces<C> pieces() const { return {kernels_, call_, sets_, weight_, bias_}; }

    void sum() {
        if (sums_sets_) clear(set_sums_, count_ * partition_.partials[0]);
        for (int i = 0; i < 2; ++i) {
            if (size_[i] > 0) clear(sums_[i], size_[i] * (sums_alone(i) ? partition_.partials[i + 1] : 1));
        }
        for (int i = 0; i < partition_.pass_count; ++i) run_pass(partition_.passes[i]);
        if (sums_sets_) merge(set_sums_, count_, partition_.partials[0]);
        for (int i = 0; i < 2; ++i) {
            if (sums_alone(i)) {
                merge(sums_[i], size_[i], partition_.partials[i + 1]);
            } else if (size_[i] > 0) {
                add_set_sums(i == 0 ? op_grad_weight : op_grad_bias, sums_[i]);
            }
        }
    }

    void run_pass(const SelectedPass& pass) {
        const std::int64_t parts = std::min(pass.parts, pass.pieces);
        for_each_piece(parts, threads_, [&](int, std::int64_t part) {
            SelectedSums to;
            const auto own = [&](const Sums& sums, std::int64_t size, int target) {
                return sums.at(partition_.partials[target] > 1 ? part * size : 0);
            };
            if (pass.sums[0]) to.sets = own(set_sums_, count_, 0);
            to.weighted = weight_in_sets_;
            for (int i = 0; i < 2; ++i) {
                if (pass.sums[i + 1]) to.parameters[i] = own(sums_[i], size_[i], i + 1);
            }
            SelectedGradientPieces<C> work = pieces();
            for (std::int64_t i = pass.pieces * part / parts; i < pass.pieces * (part + 1) / parts; ++i) {
                const SelectedPiece piece = pass.piece(nest_, call_.selection, sets_.groups, i);
                if (piece.nest.size() == 0) continue;
                work.add_sums(piece.nest, piece.range, to);
                if (pass.sums[0] && partition_.whole_sets && call_.of.grad_input.given()) finish(work, piece.nest);
            }
        });
    }

    /// The rest for a piece that has all elements of its sets, while it is in cache.
    void finish(SelectedGradientPieces<C>& work, const Nest& piece) const {
        const Nest kept = kept_loops(piece);
        walk(kept, kept.depth, [&](const std::int64_t* offset) {
            for (std::int64_t group = 0; group < sets_.groups; ++group) {
                const std::int64_t set = group * sets_.cells_per_group + offset[op_cell];
                make_slopes(set, set + 1);
            }
        });
        work.write_grad_input(piece);
    }

    void clear(const Sums& sums, std::int64_t count) const {
        for_each_task(count, [&](std::int64_t first, std::int64_t last) { sums.at(first).clear(last - first); });
    }
    void merge(const Sums& sums, std::int64_t count, std::int64_t partials) const {
        for_each_task(count, [&](std::int64_t first, std::int64_t last) {
            for (std::int64_t i = 1; i < partials; ++i) sums.at(first).add(sums.at(i * count + first), last - first);
        });
    }

    /// Adds the sums of all sets to a parameter that is constant in each.
    void add_set_sums(Operand operand, const Sums& to) const {
        const Nest kept = kept_loops(nest_);
        for (std::int64_t group = 0; group < sets_.groups; ++group) {
            const Sums from = set_sums_.at(group * sets_.cells_per_group);
            walk(kept, kept.depth, [&](const std::int64_t* offset) {
                to.s1[offset[operand]] += from.s1[offset[op_cell]];
                to.s2[offset[operand]] += from.s2[offset[op_cell]];
            });
        }
    }

    // ---- Results ---------------------------------------------------------------------------------------------------

    void write() const {
        const SelectedPass elements = pass_of_elements(nest_);
        for_each_piece(elements.pieces, threads_, [&](int, std::int64_t index) {
            const SelectedPiece piece = elements.piece(nest_, call_.selection, sets_.groups, index);
            pieces().write_grad_input(piece.nest);
        });
    }

    /// Writes a gradient where the caller wants it.
    void store_parameter(const Elements& to, Operand operand, int index, double* Sums::* sum) const {
        if (!to.given()) return;
        const Nest own = kept_loops(grouped_by(caller_, operand));
        const double* from = sums_[index].*sum;
        walk(own, own.depth, [&](const std::int64_t* offset) { store(to, offset[operand], 1, from++, 1); });
    }

    Nest nest_;
    const Nest caller_;  // as the caller's arrays lie
    const SelectedGradientCall& call_;
    const kernels::Kernels<C>& kernels_;
    const int threads_;
    C one_ = 1, zero_ = 0;
    Elements weight_, bias_;
    const bool weight_in_sets_;  ///< it varies within the sets
    bool gathers_weight_ = false, gathers_bias_ = false, sums_sets_ = false;
    bool from_sets_[2] = {};  ///< the gradient of weight, of bias: sums of sets added up
    std::int64_t size_[2] = {};
    std::int64_t count_ = 0;  ///< of all sets
    SelectedSets<C> sets_{};
    SelectedPartition partition_;
    Cell* cells_ = nullptr;
    double* set_weight_ = nullptr;
    C *gathered_weight_ = nullptr, *gathered_bias_ = nullptr;
    Sums set_sums_, sums_[2];
};

}  // namespace

void run_selected_gradients(const Nest& nest, const SelectedGradientCall& call, int threads) {
    const auto wide = [](const Elements& elements) { return elements.dtype == DType::f64; };
    if (wide(call.of.x) || wide(call.of.grad_output) || wide(call.of.grad_input) || wide(call.of.grad_sum)) {
        Run<double>(nest, call, threads).run();
    } else {
        Run<float>(nest, call, threads).run();
    }
}

}  // namespace anynorm::detail
