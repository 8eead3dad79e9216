// SPDX-License-Identifier: Apache-2.0
#include "selected_moments.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "group_sums.hpp"
#include "parallel.hpp"

namespace anynorm::detail {
namespace {

/// Small groups are joined to jobs of so many elements.
constexpr std::int64_t job_elements = 32 * 1024;

/// The groups `first` to `last` of a family, or a chunk of a large one.
struct Job {
    std::int64_t family, first, last;
    std::int64_t chunk;    ///< -1: all of each group
    std::int64_t partial;  ///< where the cells of a chunk go
};

/// A group that is summed in chunks.
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
        number_sets();
        cut_jobs();
    }

    void run(int threads, Cell* cells, double* weight2) {
        const auto count = static_cast<std::int64_t>(jobs_.size());
        const std::int64_t most = std::min<std::int64_t>(threads, count);
        std::vector<Worker> workers;
        workers.reserve(static_cast<std::size_t>(most));
        for (std::int64_t i = 0; i < most; ++i) workers.emplace_back(*this);
        for_each_piece(count, threads, [&](int worker, std::int64_t index) {
            run_job(workers[static_cast<std::size_t>(worker)], jobs_[static_cast<std::size_t>(index)], cells, weight2);
        });
        for (const Split& split : splits_) merge_chunks(split, cells, weight2);
    }

  private:
    struct Worker {
        explicit Worker(const Statistics& all)
            : sums(std::make_unique<GroupSums<X>>(all.kernels_, all.geometry_, all.members_, all.largest_,
                                                  all.operands_.sample_weight, all.operands_.center)),
              cells(static_cast<std::size_t>(all.sets_)),
              squares(static_cast<std::size_t>(all.operands_.sample_weight.given() ? all.sets_ : 0)) {}

        std::unique_ptr<GroupSums<X>> sums;
        std::vector<Cell> cells;
        std::vector<double> squares;
    };

    /// The cell of each set of a group, within its family.
    void number_sets() {
        Nest kept;
        for (int i = 0; i < nest_.depth; ++i) {
            const Loop& loop = nest_.loops[i];
            if (!loop.reduced && !is_family(loop)) kept.loops[kept.depth++] = loop;
        }
        numbers_.reserve(static_cast<std::size_t>(sets_));
        walk(kept, kept.depth, [&](const std::int64_t* offset) { numbers_.push_back(offset[op_cell]); });
    }

    /// Cuts the work by what is in the groups, never by threads.
    void cut_jobs() {
        GroupShape shape;
        std::int64_t partial = 0, largest = 0;
        for (std::int64_t family = 0; family < members_.families(); ++family) {
            std::int64_t first = 0, elements = 0;
            for (std::int64_t group = 0; group < members_.groups(); ++group) {
                const std::int64_t count = members_.count(family, group), others = geometry_.others();
                largest = std::max(largest, count);
                // No group with less has more than one: 1024 rows of columns, 64 K elements of a row.
                const std::int64_t chunks = count * others > 1024 ? chunks_of(family, group, count, shape) : 1;
                elements += count * others * sets_ + 1;
                if (chunks == 1 && elements < job_elements) continue;
                const std::int64_t last = group + (chunks == 1 ? 1 : 0);
                if (last > first) jobs_.push_back({family, first, last, -1, 0});
                first = group + 1;
                elements = 0;
                if (chunks == 1) continue;
                splits_.push_back({family, group, chunks, partial});
                for (std::int64_t chunk = 0; chunk < chunks; ++chunk, partial += sets_) {
                    jobs_.push_back({family, group, group + 1, chunk, partial});
                }
            }
            if (first < members_.groups()) jobs_.push_back({family, first, members_.groups(), -1, 0});
        }
        partial_.resize(static_cast<std::size_t>(partial));
        if (operands_.sample_weight.given()) partial_squares_.resize(static_cast<std::size_t>(partial));
        geometry_.shape(std::max<std::int64_t>(1, largest), largest_);
    }

    std::int64_t chunks_of(std::int64_t family, std::int64_t group, std::int64_t count, GroupShape& shape) const {
        if (shape.members != count) geometry_.shape(count, shape);
        const bool in_place = shape.in_place && members_.first_of_range(family, group) >= 0;
        return in_place ? shape.in_place->reduction.chunks : shape.reduction.chunks;
    }

    /// Offset of a family in an operand, with that of the nest.
    std::int64_t family_offset(std::int64_t family, Operand operand) const {
        return nest_.offset[operand] + offset_at(members_.family_loops(), family, operand);
    }

    void run_job(Worker& worker, const Job& job, Cell* cells, double* weight2) {
        const X* const x = static_cast<const X*>(operands_.x.data) + family_offset(job.family, op_x);
        const std::int64_t weight = family_offset(job.family, op_sample_weight);
        double* const squares = operands_.sample_weight.given() ? worker.squares.data() : nullptr;
        for (std::int64_t group = job.first; group < job.last; ++group) {
            if (members_.count(job.family, group) == 0) {
                std::fill(worker.cells.begin(), worker.cells.end(), empty_cell);
                std::fill(worker.squares.begin(), worker.squares.end(), 0.0);
            } else {
                worker.sums->sum(x, weight, job.family, group, std::max<std::int64_t>(0, job.chunk),
                                 worker.cells.data(), squares);
            }
            if (job.chunk >= 0) {
                std::copy_n(worker.cells.data(), sets_, partial_.data() + job.partial);
                if (squares != nullptr) std::copy_n(squares, sets_, partial_squares_.data() + job.partial);
            } else {
                store(job.family, group, worker.cells.data(), squares, cells, weight2);
            }
        }
    }

    void merge_chunks(const Split& split, Cell* cells, double* weight2) {
        Cell* const into = partial_.data() + split.partial;
        double* const squares = operands_.sample_weight.given() ? partial_squares_.data() + split.partial : nullptr;
        for (std::int64_t chunk = 1; chunk < split.chunks; ++chunk) {
            kernels_.merge_cells(into, into + chunk * sets_, sets_);
            for (std::int64_t i = 0; squares != nullptr && i < sets_; ++i) squares[i] += squares[chunk * sets_ + i];
        }
        store(split.family, split.group, into, squares, cells, weight2);
    }

    void store(std::int64_t family, std::int64_t group, const Cell* from, const double* squares, Cell* cells,
               double* weight2) const {
        const std::int64_t base = group * group_cells_ + family_offset(family, op_cell);
        for (std::int64_t i = 0; i < sets_; ++i) {
            const std::int64_t at = base + numbers_[static_cast<std::size_t>(i)];
            cells[at] = from[i].count == 0 ? empty_cell : from[i];  // no weight at all is an empty set as well
            if (weight2 != nullptr) weight2[at] = squares != nullptr ? squares[i] : from[i].count;
        }
    }

    const kernels::Kernels<X>& kernels_;
    const SelectedOperands& operands_;
    Nest nest_;
    const Members& members_;
    GroupGeometry geometry_;
    std::int64_t sets_, group_cells_;
    GroupShape largest_;
    std::vector<std::int64_t> numbers_;
    std::vector<Job> jobs_;
    std::vector<Split> splits_;
    std::vector<Cell> partial_;
    std::vector<double> partial_squares_;
};

}  // namespace

void selected_moments(const kernels::KernelTable& table, const SelectedOperands& operands, const Nest& nest,
                      const Members& members, int threads, Cell* cells, double* weight2) {
    with_type(operands.x,
              [&]<class X>(X*) { Statistics<X>(table, operands, nest, members).run(threads, cells, weight2); });
}

}  // namespace anynorm::detail
