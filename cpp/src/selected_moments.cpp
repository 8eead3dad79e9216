// SPDX-License-Identifier: Apache-2.0
#include "selected_moments.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "group_sums.hpp"
#include "parallel.hpp"

namespace anynorm::detail {
namespace {

/// Small groups are joined to jobs of so many elements; the sets of a large one are divided into ranges of as many.
constexpr std::int64_t job_elements = 32 * 1024;
/// Fewer sets of a range would spend their time on finding where the members are.
constexpr std::int64_t sets_of_range = 16;

/// The groups `first` to `last` of a family, or some sets of a chunk of a large one.
struct Job {
    std::int64_t family, first, last;
    std::int64_t chunk = -1;    ///< -1: all of each group
    std::int64_t partial = -1;  ///< where the cells of a chunk go
    SetRange sets{};
};

/// A group that is summed by several jobs.
struct Split {
    std::int64_t family, group, chunks, partial;
};

template <class X>
class Statistics {
  public:
    Statistics(const kernels::KernelTable& table, const SelectedOperands& operands, const Nest& nest,
               const Members& members)
        : kernels_(kernels_for<X>(table)),
          operands_(operands),
          nest_(coalesce(nest, operand_set(op_x, op_cell, op_labels, op_where, op_sample_weight))),
          members_(members),
          geometry_(nest_, members, operands.sample_weight.given()),
          sets_(geometry_.sets()),
          group_cells_(nest_.cells()) {
        cut_jobs();
        if (members.families() > 1) collect_families();
    }

    void run(int threads, const CellSink& sink) {
        const auto count = static_cast<std::int64_t>(jobs_.size());
        const std::int64_t most = std::min<std::int64_t>(threads, count);
        std::vector<Worker> workers;
        workers.reserve(static_cast<std::size_t>(most));
        for (std::int64_t i = 0; i < most; ++i) workers.emplace_back(*this);
        for_each_piece(count, threads, [&](int worker, std::int64_t index) {
            run_job(workers[static_cast<std::size_t>(worker)], jobs_[static_cast<std::size_t>(index)], sink);
        });
        for_each_piece(std::ssize(splits_), threads,
                       [&](int, std::int64_t index) { merge_chunks(splits_[static_cast<std::size_t>(index)], sink); });
        if (!cells_.empty()) sink(0, members_.groups(), cells_.data(), weighted() ? squares_.data() : nullptr);
    }

  private:
    struct Worker {
        explicit Worker(const Statistics& all)
            : sums(std::make_unique<GroupSums<X>>(all.kernels_, all.geometry_, all.members_, all.largest_,
                                                  all.operands_.sample_weight, all.operands_.center)),
              cells(static_cast<std::size_t>(all.job_groups_ * all.sets_)),
              squares(all.weighted() ? cells.size() : 0) {}

        std::unique_ptr<GroupSums<X>> sums;
        std::vector<Cell> cells;
        std::vector<double> squares;
    };

    bool weighted() const noexcept { return operands_.sample_weight.given(); }

    /// The groups of several families come together when all of them are summed.
    void collect_families() {
        Nest kept;
        for (int i = 0; i < nest_.depth; ++i) {
            const Loop& loop = nest_.loops[i];
            if (!loop.reduced && !is_family(loop)) kept.loops[kept.depth++] = loop;
        }
        numbers_.reserve(static_cast<std::size_t>(sets_));
        walk(kept, kept.depth, [&](const std::int64_t* offset) { numbers_.push_back(offset[op_cell]); });
        cells_.resize(static_cast<std::size_t>(members_.groups() * group_cells_));
        if (weighted()) squares_.resize(cells_.size());
    }

    /// Cuts the work by what is in the groups, never by threads.
    void cut_jobs() {
        GroupShape shape;
        std::int64_t partial = 0, largest = 0;
        const auto join = [&](std::int64_t family, std::int64_t first, std::int64_t last) {
            if (last == first) return;
            jobs_.push_back({family, first, last});
            job_groups_ = std::max(job_groups_, last - first);
        };
        for (std::int64_t family = 0; family < members_.families(); ++family) {
            std::int64_t first = 0, elements = 0;
            for (std::int64_t group = 0; group < members_.groups(); ++group) {
                const std::int64_t count = members_.count(family, group), of_set = count * geometry_.others();
                largest = std::max(largest, count);
                elements += (of_set + 1) * sets_;
                const bool one_chunk = geometry_.is_one_chunk(of_set);
                if (elements < job_elements && one_chunk) continue;
                Parts parts{1, 1};
                if (!one_chunk) parts = parts_of(family, group, count, shape);
                const bool split = parts.chunks * parts.ranges > 1;
                if (!split && elements < job_elements) continue;
                join(family, first, split ? group : group + 1);
                first = group + 1;
                elements = 0;
                if (!split) continue;
                splits_.push_back({family, group, parts.chunks, partial});
                for (std::int64_t chunk = 0; chunk < parts.chunks; ++chunk, partial += sets_) {
                    for (std::int64_t i = 0; i < parts.ranges; ++i) {
                        const SetRange sets{sets_ * i / parts.ranges, sets_ * (i + 1) / parts.ranges};
                        jobs_.push_back({family, group, group + 1, chunk, partial, sets});
                    }
                }
            }
            join(family, first, members_.groups());
        }
        partial_.resize(static_cast<std::size_t>(partial));
        if (weighted()) partial_squares_.resize(static_cast<std::size_t>(partial));
        geometry_.shape(std::max<std::int64_t>(1, largest), largest_);
    }

    struct Parts {
        std::int64_t chunks, ranges;
    };

    /// The chunks of a group, and the ranges of its sets.
    Parts parts_of(std::int64_t family, std::int64_t group, std::int64_t count, GroupShape& shape) const {
        if (shape.members != count) geometry_.shape(count, shape);
        const bool in_place = shape.in_place && members_.first_of_range(family, group) >= 0;
        if (in_place) return {shape.in_place->reduction.chunks, 1};
        const std::int64_t chunks = shape.reduction.chunks;
        if (weighted() || !shape.sums_rows(false)) return {chunks, 1};
        const std::int64_t elements = count * geometry_.others() * sets_ / chunks;
        return {chunks,
                std::clamp<std::int64_t>(elements / job_elements, 1, std::max<std::int64_t>(1, sets_ / sets_of_range))};
    }

    /// Offset of a family in an operand, with that of the nest.
    std::int64_t family_offset(std::int64_t family, Operand operand) const {
        return nest_.offset[operand] + offset_at(members_.family_loops(), family, operand);
    }

    void run_job(Worker& worker, const Job& job, const CellSink& sink) {
        const X* const x = static_cast<const X*>(operands_.x.data) + family_offset(job.family, op_x);
        const std::int64_t weight = family_offset(job.family, op_sample_weight);
        if (job.chunk >= 0) {
            worker.sums->sum(x, weight, job.family, job.first, job.chunk, job.sets, partial_.data() + job.partial,
                             weighted() ? partial_squares_.data() + job.partial : nullptr);
            return;
        }
        Cell* cells = worker.cells.data();
        double* squares = weighted() ? worker.squares.data() : nullptr;
        for (std::int64_t group = job.first; group < job.last; ++group, cells += sets_) {
            if (members_.count(job.family, group) == 0) {
                std::fill_n(cells, sets_, empty_cell);
                if (squares != nullptr) std::fill_n(squares, sets_, 0.0);
            } else {
                worker.sums->sum(x, weight, job.family, group, 0, {0, sets_}, cells, squares);
            }
            if (squares != nullptr) squares += sets_;
        }
        deliver(job.family, job.first, job.last, worker.cells.data(), worker.squares.data(), sink);
    }

    void merge_chunks(const Split& split, const CellSink& sink) {
        Cell* const into = partial_.data() + split.partial;
        double* const squares = weighted() ? partial_squares_.data() + split.partial : nullptr;
        for (std::int64_t chunk = 1; chunk < split.chunks; ++chunk) {
            kernels_.merge_cells(into, into + chunk * sets_, sets_);
            for (std::int64_t i = 0; squares != nullptr && i < sets_; ++i) squares[i] += squares[chunk * sets_ + i];
        }
        deliver(split.family, split.group, split.group + 1, into, squares, sink);
    }

    /// The cells of some groups of a family.
    void deliver(std::int64_t family, std::int64_t first, std::int64_t last, Cell* cells, const double* squares,
                 const CellSink& sink) {
        // No weight at all is an empty set as well.
        for (std::int64_t i = 0; weighted() && i < (last - first) * sets_; ++i) {
            if (cells[i].count == 0) cells[i] = empty_cell;
        }
        if (cells_.empty()) return sink(first, last - first, cells, weighted() ? squares : nullptr);
        for (std::int64_t group = first; group < last; ++group) {
            const std::int64_t base = group * group_cells_ + family_offset(family, op_cell);
            for (std::int64_t i = 0; i < sets_; ++i) {
                const auto to = static_cast<std::size_t>(base + numbers_[static_cast<std::size_t>(i)]);
                cells_[to] = *cells++;
                if (weighted()) squares_[to] = *squares++;
            }
        }
    }

    const kernels::Kernels<X>& kernels_;
    const SelectedOperands& operands_;
    Nest nest_;
    const Members& members_;
    GroupGeometry geometry_;
    std::int64_t sets_, group_cells_, job_groups_ = 1;
    GroupShape largest_;
    std::vector<Job> jobs_;
    std::vector<Split> splits_;
    std::vector<Cell> partial_;
    std::vector<double> partial_squares_;
    // Of several families:
    std::vector<std::int64_t> numbers_;  ///< the cell of each set of a group, within its family
    std::vector<Cell> cells_;
    std::vector<double> squares_;
};

}  // namespace

void selected_moments(const kernels::KernelTable& table, const SelectedOperands& operands, const Nest& nest,
                      const Members& members, int threads, const CellSink& sink) {
    with_type(operands.x, [&]<class X>(X*) { Statistics<X>(table, operands, nest, members).run(threads, sink); });
}

}  // namespace anynorm::detail
