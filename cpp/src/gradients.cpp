// SPDX-License-Identifier: Apache-2.0
#include "gradients.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "apply.hpp"
#include "gradient_pieces.hpp"
#include "gradient_sums.hpp"
#include "parallel.hpp"
#include "parameters.hpp"
#include "reduce.hpp"
#include "scratch.hpp"

namespace anynorm::detail {
namespace {

constexpr std::int64_t strip_elements = 64 * 1024;

/// One call with its types bound: X is x's; A that of x, grad_output and grad_input, or else the type to compute in.
template <class X, class A>
class GradientRun {
  public:
    using C = kernels::Compute<A>;

    GradientRun(Plan& plan, const GradientCall& call, const kernels::KernelTable& table)
        : plan_(plan),
          call_(call),
          reduce_kernels_(kernels_for<X>(table)),
          kernels_(kernels_for<A>(table)),
          weight_(call.weight.given() ? call.weight : Elements{&one_, stored_as<C>()}),
          weight_in_cells_(!within_sets(plan.nest, op_weight)),
          caller_(plan.nest) {
        Nest& nest = plan.nest;
        elements_of_set_ = static_cast<double>(nest.size()) / static_cast<double>(nest.cells());
        streams_ = call.grad_input.given() && call.grad_input.data != call.x.data &&
                   call.grad_input.data != call.grad_output.data && call.grad_input.data != call.grad_sum.data &&
                   passes_caches(nest.size(), call.grad_input.dtype);
        gathers_weight_ = !weight_in_cells_ && wants_gathering(nest, op_weight, call.weight, stored_as<C>());
        if (call.grad_weight.given()) weight_sums_ = add_parameter(op_grad_weight);
        if (call.grad_bias.given()) bias_sums_ = add_parameter(op_grad_bias);
        choose_joint();
        overlaps_ = is_overlapping();
    }

    void run() {
        Carver sizes(nullptr);
        take_shared(sizes);
        const std::size_t worker_bytes = Worker(*this, nullptr).carver.used();
        Scratch scratch(sizes.used() + worker_bytes * static_cast<std::size_t>(plan_.threads));
        Carver carver(scratch.data());
        take_shared(carver);
        workers_ = scratch.data() + carver.used();
        worker_bytes_ = worker_bytes;
        if (gathers_weight_) {
            gather_parameter(plan_.nest, op_weight, weight_, gathered_weight_);
            weight_ = {gathered_weight_, stored_as<C>()};
        }
        if (split()) {
            split_sets();
        } else {
            whole_sets();
        }
        store_parameter(call_.grad_weight, op_grad_weight, weight_sums_, &Sums::s2);
        store_parameter(call_.grad_bias, op_grad_bias, bias_sums_, &Sums::s1);
    }

  private:
    /// The arrays of some sets: their statistics, their sums, and what the kernels make of them.
    struct Sets {
        Cell* cells;
        Coefficients<C> statistics;
        Sums sums;
        C *slope, *offset, *scale;

        Sets(Carver& carver, std::int64_t cell_count, std::int64_t count)
            : cells(carver.take<Cell>(cell_count)),
              statistics{carver.take<C>(count), carver.take<C>(count), carver.take<C>(count)},
              sums(take_sums(carver, count)),
              slope(carver.take<C>(count)),
              offset(carver.take<C>(count)),
              scale(carver.take<C>(count)) {}
        Sets() = default;
    };

    struct Worker {
        Worker(const GradientRun& run, std::byte* base)
            : carver(base), sets(carver, run.plan_.piece_columns, run.split() ? 0 : run.plan_.piece_columns) {
            if (run.overlaps_) others = Sets(carver, run.plan_.piece_columns, run.plan_.piece_columns);
            const Plan& plan = run.plan_;
            reduce.chunk = carver.take<Cell>(!run.split() && plan.reduction.chunks > 1 ? plan.piece_columns : 0);
            reduce.block = carver.take<Cell>(plan.needs_block() ? plan.piece_columns : 0);
            reduce.pack = carver.take<X>(plan.pack_elements);
            joint = take_sums(carver, run.split() ? 0 : run.joint_size_);
        }

        Carver carver;
        Sets sets, others{};
        ReduceScratch reduce;
        Sums joint;
    };

    /// What a worker has summed but not written, and which of its arrays that needs.
    struct Unwritten {
        kernels::GradientInputQueue<A> queue;
        bool of_others;
    };

    /// The index of the sums for a parameter.
    int add_parameter(Operand operand) {
        Nest& nest = plan_.nest;
        number_elements(nest, operand);
        if (parameter_count_ > 0 && along_the_same(nest, parameters_[0].operand, operand)) return 0;
        ParameterSums& parameter = parameters_[parameter_count_];
        parameter.operand = operand;
        parameter.size = size_along(nest, operand);
        parameter.from_sets = weight_in_cells_ && !within_sets(nest, operand);
        parameter.exclusive = parameter.from_sets && along_all_sets(nest, operand);
        const std::int64_t room =
            split() ? groups_for(parameter.size, x_bytes()) : groups_of_whole_sets(parameter.size, x_bytes());
        parameter.groups = parameter.exclusive ? 1 : std::min(room, worthwhile_groups(parameter.size, nest.size()));
        // Pieces of whole sets need partial sums of their own; where there is no room for several, sets are split.
        if (!parameter.exclusive && room < std::min(enough_groups, plan_.sets.pieces)) {
            plan_.mode = Plan::Mode::split_sets;
        }
        return parameter_count_++;
    }

    std::int64_t x_bytes() const { return plan_.nest.size() * static_cast<std::int64_t>(sizeof(X)); }
    bool split() const { return plan_.mode == Plan::Mode::split_sets; }
    const X* x() const { return static_cast<const X*>(call_.x.data); }
    Worker worker(int index) const { return Worker(*this, workers_ + worker_bytes_ * static_cast<std::size_t>(index)); }
    std::int64_t chunks() const { return call_.given.given() ? 1 : plan_.reduction.chunks; }
    bool needs_set_sums() const { return call_.grad_input.given() && !call_.frozen; }

    /// The arrays that all workers share.
    void take_shared(Carver& carver) {
        gathered_weight_ = carver.take<C>(gathers_weight_ ? size_along(plan_.nest, op_weight) : 0);
        for (int i = 0; i < parameter_count_; ++i) {
            parameters_[i].sums = take_sums(carver, parameters_[i].size * parameters_[i].groups);
        }
        unwritten_ = carver.take<Unwritten>(overlaps_ ? plan_.threads : 0);
        if (!split()) return;
        const std::int64_t sets = plan_.nest.cells();
        sets_ = Sets(carver, sets * chunks(), sets);
        const std::int64_t size = joint_size_ > 0 ? joint_size_ : sets;
        partial_groups_ = std::min(groups_for(size, x_bytes()), plan_.elements.pieces);
        partials_ = take_sums(carver, joint_size_ > 0 || partial_groups_ > 1 ? size * partial_groups_ : 0);
    }

    // ---- One piece -------------------------------------------------------------------------------------------------

    void make_statistics(const Sets& sets, std::int64_t count) const {
        const Coefficients<C>& out = sets.statistics;
        kernels_.coefficients(sets.cells, count, call_.eps, out.mean, out.mean_lo, out.rstd);
    }

    void make_slopes(const Nest& piece, const Sets& sets) const {
        const Slopes<C> slopes{sets.statistics.mean, sets.slope, sets.offset, sets.scale};
        detail::make_slopes(call_, weight_in_cells_ ? weight_ : Elements{}, piece, sets.cells, elements_of_set_,
                            sets.sums, sets.statistics.mean_lo, slopes);
    }

    /// Adds the sums of a piece to those of a target, weighted or not.
    void add_sums(const Nest& piece, Operand target, bool weighted, const Sets& sets, const Sums& sums,
                  kernels::GradientInputQueue<A>* beside = nullptr) const {
        const Activated<A> activated(kernels_, call_, weight_, sets.statistics);
        add_gradient_sums(kernels_, call_, weighted ? weight_ : Elements{}, piece, target, sets.statistics, activated,
                          sums, beside);
    }

    void write_input(const Nest& piece, const Sets& sets) const {
        const Slopes<C> slopes{sets.statistics.mean, sets.slope, sets.offset, sets.scale};
        const Activated<A> activated(kernels_, call_, weight_, sets.statistics);
        write_grad_input(kernels_, call_, weight_in_cells_ ? Elements{} : weight_, piece, slopes, activated, streams_);
    }

    /// Leaves that to a queue, if it can be.
    bool leave_input(const Nest& piece, const Sets& sets, kernels::GradientInputQueue<A>& queue) const {
        const Slopes<C> slopes{sets.statistics.mean, sets.slope, sets.offset, sets.scale};
        return queue_grad_input(call_, weight_in_cells_ ? Elements{} : weight_, piece, slopes, queue);
    }

    /// Gives the nest an operand that varies along whatever sets, weight or parameters do, and returns its size.
    std::int64_t number_joint(Nest& nest) const {
        for (int i = 0; i < nest.depth; ++i) {
            Loop& loop = nest.loops[i];
            bool varies = !loop.reduced || loop.stride[op_weight] != 0;
            for (int k = 0; k < parameter_count_; ++k) varies = varies || loop.stride[parameters_[k].operand] != 0;
            loop.stride[op_joint] = varies ? 1 : 0;
        }
        number_elements(nest, op_joint);
        return size_along(nest, op_joint);
    }

    /// Where a weight is shared by many elements of each set, the elements that share both set and parameters are
    /// summed once for all of them.
    void choose_joint() {
        constexpr std::int64_t many = 16;
        if (weight_in_cells_ || !(needs_set_sums() || parameter_count_ > 0)) return;
        Nest piece = split() ? plan_.nest : piece_of(plan_.nest, plan_.sets, 0);
        const std::int64_t size = number_joint(piece);
        if (size * many <= piece.size()) joint_size_ = size;
    }

    void sum_jointly(Nest& piece, const Sets& sets, const Sums& joint, std::int64_t group,
                     kernels::GradientInputQueue<A>* beside) const {
        joint.clear(number_joint(piece));
        add_sums(piece, op_joint, false, sets, joint, beside);
        add_joint_sums(piece, sets, joint, group);
    }

    /// Adds joint sums to those of the sets and of the parameters.
    void add_joint_sums(const Nest& piece, const Sets& sets, const Sums& joint, std::int64_t group) const {
        const Nest own = kept_loops(grouped_by(piece, op_joint));
        walk(own, own.depth, [&](const std::int64_t* offset) {
            const double s1 = joint.s1[offset[op_joint]], s2 = joint.s2[offset[op_joint]];
            const double weight = element_at(weight_, offset[op_weight]);
            sets.sums.s1[offset[op_cell]] += weight * s1;
            sets.sums.s2[offset[op_cell]] += weight * s2;
            for (int i = 0; i < parameter_count_; ++i) {
                const Sums to = parameters_[i].of_group(group);
                to.s1[offset[parameters_[i].operand]] += s1;
                to.s2[offset[parameters_[i].operand]] += s2;
            }
        });
    }

    // ---- All pieces ------------------------------------------------------------------------------------------------

    /// Runs body(worker, group, piece index) for all pieces; those of a group one after the other.
    template <class Body>
    void for_each_group(std::int64_t groups, std::int64_t pieces, Body&& body) const {
        for_each_piece(std::min(groups, pieces), plan_.threads, [&](int worker_index, std::int64_t group) {
            const std::int64_t count = std::min(groups, pieces);
            for (std::int64_t i = pieces * group / count; i < pieces * (group + 1) / count; ++i) {
                body(worker_index, group, i);
            }
        });
    }

    void whole_sets() {
        std::int64_t groups = plan_.sets.pieces;
        for (int i = 0; i < parameter_count_; ++i) {
            if (!parameters_[i].exclusive) groups = std::min(groups, parameters_[i].groups);
        }
        for (int i = 0; i < parameter_count_; ++i) {
            parameters_[i].groups = parameters_[i].exclusive ? 1 : groups;
            parameters_[i].sums.clear(parameters_[i].size * parameters_[i].groups);
        }
        const bool sums_sets = needs_set_sums() || sums_from_sets(), rows = is_rows();
        if (overlaps_) std::fill_n(unwritten_, plan_.threads, Unwritten{});
        for_each_group(groups, plan_.sets.pieces, [&](int worker_index, std::int64_t group, std::int64_t index) {
            Worker memory = worker(worker_index);
            Unwritten* const before = overlaps_ ? unwritten_ + worker_index : nullptr;
            const Sets& sets = before != nullptr && !before->of_others ? memory.others : memory.sets;
            kernels::GradientInputQueue<A>* const queue = before != nullptr ? &before->queue : nullptr;
            Nest piece = piece_of(plan_.nest, plan_.sets, index);
            if (call_.given.given()) {
                load_given(call_.given, call_.center, piece, sets.cells);
            } else {
                reduce_sets(reduce_kernels_, x(), plan_, piece, call_.center, sets.cells, memory.reduce);
            }
            number_cells(piece);
            const std::int64_t count = piece.cells();
            if (rows) {
                gradient_of_rows(piece, sets, group);
                return;
            }
            make_statistics(sets, count);
            if (sums_sets) sets.sums.clear(count);
            if (joint_size_ > 0) {
                sum_jointly(piece, sets, memory.joint, group, queue);
            } else if (sums_sets) {
                add_sums(piece, op_cell, !weight_in_cells_, sets, sets.sums, queue);
            }
            for (int i = 0; joint_size_ == 0 && i < parameter_count_; ++i) {
                const ParameterSums& parameter = parameters_[i];
                const Sums to = parameter.of_group(group);
                if (parameter.from_sets) {
                    add_set_sums(piece, parameter.operand, sets.sums, to);
                } else {
                    add_sums(piece, parameter.operand, false, sets, to);
                }
            }
            if (!call_.grad_input.given()) return;
            make_slopes(piece, sets);
            if (before == nullptr) return write_input(piece, sets);
            kernels_.gradient_input_left(*queue);
            before->of_others = !before->of_others;
            if (!leave_input(piece, sets, *queue)) write_input(piece, sets);
        });
        for_each_piece(overlaps_ ? plan_.threads : 0, plan_.threads,
                       [&](int, std::int64_t index) { kernels_.gradient_input_left(unwritten_[index].queue); });
        for (int i = 0; i < parameter_count_; ++i) parameters_[i].merge();
    }

    /// Whether a worker writes the piece before while it sums the next. Halves take so long to convert that memory
    /// keeps up with one after the other.
    bool is_overlapping() const {
        if (!std::is_same_v<X, A> || sizeof(A) == 2 || !streams_ || split() || is_rows()) return false;
        if (joint_size_ == 0 && !needs_set_sums() && !sums_from_sets()) return false;
        Nest piece = piece_of(plan_.nest, plan_.sets, 0);
        number_cells(piece);
        kernels::GradientInputQueue<A> queue;
        return leave_input(piece, {}, queue);
    }

    /// Whether every set is a row that the kernel can take as it lies, with parameters that belong to the elements of
    /// a row or to whole sets.
    bool is_rows() const {
        if (!std::is_same_v<X, A> || !plan_.rows || call_.activation != Activation::none) return false;
        const Loop& inner = plan_.nest.loops[plan_.nest.depth - 1];
        const auto fits = [&](const Elements& elements, Operand operand) {
            return elements.dtype == stored_as<A>() && inner.stride[operand] == 1;
        };
        if (!fits(call_.grad_output, op_grad_output)) return false;
        if (call_.grad_input.given() && !fits(call_.grad_input, op_y)) return false;
        if (call_.grad_sum.given() && !fits(call_.grad_sum, op_grad_sum)) return false;
        if (weight_.dtype != stored_as<C>() || inner.stride[op_weight] > 1 || inner.stride[op_weight] < 0) return false;
        for (int i = 0; i < parameter_count_; ++i) {
            const ParameterSums& parameter = parameters_[i];
            const bool along_row = inner.stride[parameter.operand] == 1 && parameter.size == inner.n;
            if (!parameter.from_sets && !along_row) return false;
        }
        return true;
    }

    void gradient_of_rows(const Nest& piece, const Sets& sets, std::int64_t group) const {
        if constexpr (std::is_same_v<X, A>) {
            Sums along_row;
            for (int i = 0; i < parameter_count_; ++i) {
                if (!parameters_[i].from_sets) along_row = parameters_[i].of_group(group);
            }
            gradient_rows(kernels_, call_, weight_, piece, sets.cells, streams_, sums_from_sets() ? sets.sums : Sums{},
                          along_row);
            for (int i = 0; i < parameter_count_; ++i) {
                if (parameters_[i].from_sets)
                    add_set_sums(piece, parameters_[i].operand, sets.sums, parameters_[i].of_group(group));
            }
        }
    }

    bool sums_from_sets() const {
        return std::any_of(parameters_, parameters_ + parameter_count_,
                           [](const ParameterSums& parameter) { return parameter.from_sets; });
    }

    void split_sets() {
        const Nest& nest = plan_.nest;
        const std::int64_t count = nest.cells();
        make_split_statistics(count);
        make_statistics(sets_, count);
        if (joint_size_ > 0) {
            sum_all_jointly(count);
        } else {
            sum_all_apart(count);
        }
        if (!call_.grad_input.given()) return;
        make_slopes(nest, sets_);
        for_each_piece(plan_.elements.pieces, plan_.threads,
                       [&](int, std::int64_t index) { write_input(piece_of(nest, plan_.elements, index), sets_); });
    }

    void sum_all_jointly(std::int64_t count) {
        Nest& nest = plan_.nest;
        number_joint(nest);
        add_all_sums(op_joint, false, joint_size_, partial_groups_, partials_);
        for (std::int64_t i = 1; i < partial_groups_; ++i) partials_.add(partials_.at(i * joint_size_), joint_size_);
        sets_.sums.clear(count);
        for (int i = 0; i < parameter_count_; ++i) {
            parameters_[i].groups = 1;
            parameters_[i].sums.clear(parameters_[i].size);
        }
        add_joint_sums(nest, sets_, partials_, 0);
    }

    void sum_all_apart(std::int64_t count) {
        const Nest& nest = plan_.nest;
        if (needs_set_sums() || sums_from_sets()) {
            const Sums& partials = partial_groups_ > 1 ? partials_ : sets_.sums;
            add_all_sums(op_cell, !weight_in_cells_, count, partial_groups_, partials);
            if (partial_groups_ > 1) {
                sets_.sums.clear(count);
                for (std::int64_t i = 0; i < partial_groups_; ++i) sets_.sums.add(partials_.at(i * count), count);
            }
        }
        for (int i = 0; i < parameter_count_; ++i) {
            ParameterSums& parameter = parameters_[i];
            if (parameter.from_sets) {
                parameter.sums.clear(parameter.size);
                add_set_sums(nest, parameter.operand, sets_.sums, parameter.sums);
            } else {
                parameter.groups = std::min(parameter.groups, plan_.elements.pieces);
                add_all_sums(parameter.operand, false, parameter.size, parameter.groups, parameter.sums);
                parameter.merge();
            }
        }
    }

    void make_split_statistics(std::int64_t count) {
        const Nest& nest = plan_.nest;
        if (call_.given.given()) {
            load_given(call_.given, call_.center, nest, sets_.cells);
            return;
        }
        const std::int64_t pieces = plan_.sets.pieces;
        for_each_piece(pieces * chunks(), plan_.threads, [&](int worker_index, std::int64_t index) {
            Worker memory = worker(worker_index);
            const std::int64_t chunk = index / pieces;
            const Nest piece = piece_of(nest, plan_.sets, index % pieces);
            reduce_chunk(reduce_kernels_, x(), plan_, piece, call_.center, chunk, memory.sets.cells, memory.reduce);
            const Nest kept = kept_loops(piece);
            const Cell* cell = memory.sets.cells;
            walk(kept, kept.depth,
                 [&](const std::int64_t* offset) { sets_.cells[chunk * count + offset[op_cell]] = *cell++; });
        });
        for (std::int64_t i = 1; i < chunks(); ++i)
            reduce_kernels_.merge_cells(sets_.cells, sets_.cells + i * count, count);
    }

    /// Sums all of x for a target of `size` elements: partial sums of groups of pieces, or strips of the target where
    /// there is no room for enough of them.
    void add_all_sums(Operand target, bool weighted, std::int64_t size, std::int64_t groups, const Sums& partials) {
        partials.clear(size * groups);
        const Nest grouped = grouped_by(plan_.nest, target);
        const Cut strips = cut_kept(grouped, strip_elements);
        if (groups < enough_groups && strips.pieces > groups) {
            for_each_piece(strips.pieces, plan_.threads, [&](int, std::int64_t index) {
                add_sums(piece_of(grouped, strips, index), target, weighted, sets_, partials);
            });
            return;
        }
        for_each_group(groups, plan_.elements.pieces, [&](int, std::int64_t group, std::int64_t index) {
            add_sums(piece_of(plan_.nest, plan_.elements, index), target, weighted, sets_, partials.at(group * size));
        });
    }

    /// Writes a gradient where the caller wants it.
    void store_parameter(const Elements& to, Operand operand, int index, double* Sums::* sum) const {
        if (!to.given()) return;
        const Nest own = kept_loops(grouped_by(caller_, operand));
        const double* from = parameters_[index].sums.*sum;
        walk(own, own.depth, [&](const std::int64_t* offset) { store(to, offset[operand], 1, from++, 1); });
    }

    Plan& plan_;
    const GradientCall& call_;
    const kernels::Kernels<X>& reduce_kernels_;
    const kernels::Kernels<A>& kernels_;
    C one_ = 1;
    Elements weight_;
    bool weight_in_cells_, gathers_weight_ = false, streams_ = false, overlaps_ = false;
    Nest caller_;  // as the caller's arrays lie
    double elements_of_set_ = 1;
    int parameter_count_ = 0, weight_sums_ = 0, bias_sums_ = 0;
    ParameterSums parameters_[2];
    C* gathered_weight_ = nullptr;
    Sets sets_{};
    std::int64_t joint_size_ = 0;      ///< of a piece; 0 where sets and parameters are summed apart
    std::int64_t partial_groups_ = 1;  ///< of split sets
    Sums partials_{};
    Unwritten* unwritten_ = nullptr;  ///< of each worker
    std::byte* workers_ = nullptr;
    std::size_t worker_bytes_ = 0;
};

template <class X>
void run(Plan& plan, const GradientCall& call, const kernels::KernelTable& table) {
    const auto all = [&](auto&& has) {
        return has(call.grad_output) && (!call.grad_input.given() || has(call.grad_input)) &&
               (!call.grad_sum.given() || has(call.grad_sum));
    };
    if constexpr (!std::is_same_v<X, double>) {
        const bool wide = !all([](const Elements& elements) { return elements.dtype != DType::f64; });
        if (wide) return GradientRun<X, double>(plan, call, table).run();
    }
    if constexpr (!std::is_same_v<X, kernels::Compute<X>>) {
        const bool mixed = !all([&](const Elements& elements) { return elements.dtype == call.x.dtype; });
        if (mixed || call.activation != Activation::none)
            return GradientRun<X, kernels::Compute<X>>(plan, call, table).run();
    }
    GradientRun<X, X>(plan, call, table).run();
}

}  // namespace

void run_gradient_plan(Plan& plan, const GradientCall& call, const kernels::KernelTable& table) {
    with_type(call.x, [&]<class X>(X*) { run<X>(plan, call, table); });
}

}  // namespace anynorm::detail
