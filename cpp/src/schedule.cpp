// SPDX-License-Identifier: Apache-2.0
#include "schedule.hpp"

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "apply.hpp"
#include "parallel.hpp"
#include "parameters.hpp"
#include "reduce.hpp"
#include "rows.hpp"
#include "scratch.hpp"

namespace anynorm::detail {
namespace {

void store_at(const Elements& elements, std::int64_t offset, double value) {
    if (elements.given()) static_cast<double*>(elements.data)[offset] = value;
}

/// Writes the cells of a piece, in its order, to the caller's views.
void store_moments(const Call& call, const Nest& piece, const Cell* cells) {
    if (!call.out.given()) return;
    const Nest kept = kept_loops(piece);
    walk(kept, kept.depth, [&](const std::int64_t* offset) {
        store_at(call.out.count, offset[op_count], cells->count);
        store_at(call.out.mean, offset[op_mean], cells->mean);
        store_at(call.out.m2, offset[op_m2], cells->m2);
        store_at(call.out.mean_low, offset[op_mean_low], cells->mean_lo);
        ++cells;
    });
}

/// One call with its types bound: X is x's; A that of both x and y, or else the type to compute in.
template <class X, class A>
class Run {
  public:
    using C = kernels::Compute<A>;

    Run(Plan& plan, const Call& call, const kernels::KernelTable& table)
        : plan_(plan),
          call_(call),
          reduce_kernels_(kernels_for<X>(table)),
          apply_kernels_(kernels_for<A>(table)),
          operands_{call.x, call.y, {&one_, stored_as<C>()}, {&zero_, stored_as<C>()}, streams(), call.epilogue},
          table_(table) {
        if (call.weight.given()) operands_.weight = call.weight;
        if (call.bias.given()) operands_.bias = call.bias;
        gathers_weight_ = wants_gathering(plan.nest, op_weight, call.weight, stored_as<C>());
        gathers_bias_ = wants_gathering(plan.nest, op_bias, call.bias, stored_as<C>());
    }

    void run() {
        overlaps_ = plan_.mode == Plan::Mode::whole_sets && !is_rows() && is_overlapping();
        Carver sizes(nullptr);
        take_shared(sizes);
        const std::size_t worker_bytes = Worker(*this, nullptr).carver.used();
        Scratch scratch(sizes.used() + worker_bytes * static_cast<std::size_t>(plan_.threads));
        Carver carver(scratch.data());
        take_shared(carver);
        workers_ = scratch.data() + carver.used();
        worker_bytes_ = worker_bytes;

        if (gathers_weight_) gather(op_weight, operands_.weight, weight_);
        if (gathers_bias_) gather(op_bias, operands_.bias, bias_);
        if (plan_.mode == Plan::Mode::split_sets) {
            split_sets();
        } else if (is_rows()) {
            rows();
        } else if (overlaps_) {
            overlapping_sets();
        } else {
            whole_sets();
        }
    }

  private:
    /// The arrays of one worker.
    struct Worker {
        Worker(const Run& run, std::byte* base) : carver(base) {
            const Plan& plan = run.plan_;
            const bool split = plan.mode == Plan::Mode::split_sets;
            cells = carver.take<Cell>(plan.piece_columns);
            reduce.chunk = carver.take<Cell>(!split && plan.reduction.chunks > 1 ? plan.piece_columns : 0);
            reduce.block = carver.take<Cell>(plan.needs_block() ? plan.piece_columns : 0);
            reduce.pack = carver.take<X>(plan.pack_elements);
            coefficients = take_coefficients(carver, split ? 0 : plan.piece_columns);
            const bool spread = run.overlaps_ && plan.reduction.kernel == Reduction::Kernel::column;
            columns = take_coefficients(carver, spread ? plan.piece_columns : 0);
            column_bias = carver.take<C>(spread ? plan.piece_columns : 0);
        }

        Carver carver;
        Cell* cells;
        ReduceScratch reduce;
        Coefficients<C> coefficients;
        /// Those of the columns of a piece that is written beside another's sums; rstd times weight.
        Coefficients<C> columns;
        C* column_bias;
    };

    static Coefficients<C> take_coefficients(Carver& carver, std::int64_t count) {
        Coefficients<C> result;
        result.mean = carver.template take<C>(count);
        result.mean_lo = carver.template take<C>(count);
        result.rstd = carver.template take<C>(count);
        return result;
    }

    /// The arrays that all workers share.
    void take_shared(Carver& carver) {
        written_ = carver.take<std::int64_t>(overlaps_ ? plan_.threads : 0);
        weight_ = carver.take<C>(gathers_weight_ ? size_along(plan_.nest, op_weight) : 0);
        bias_ = carver.take<C>(gathers_bias_ ? size_along(plan_.nest, op_bias) : 0);
        if (plan_.mode != Plan::Mode::split_sets) return;
        const std::int64_t sets = plan_.nest.cells();
        cells_ = carver.take<Cell>(sets * chunks());
        coefficients_ = take_coefficients(carver, call_.has_apply() ? sets : 0);
    }

    void gather(Operand operand, Elements& elements, C* to) {
        gather_parameter(plan_.nest, operand, elements, to);
        elements = {to, stored_as<C>()};
    }

    Worker worker(int index) const { return Worker(*this, workers_ + worker_bytes_ * static_cast<std::size_t>(index)); }
    std::int64_t chunks() const { return call_.has_statistics() ? plan_.reduction.chunks : 1; }

    // In place the line is there already.
    bool streams() const {
        const Elements& read = call_.sum.given() ? call_.sum.input : call_.x;
        return call_.has_apply() && read.data != call_.y.data && passes_caches(plan_.nest.size(), call_.y.dtype);
    }

    /// Whether every set is a row of x and of y that the kernel can take as it lies.
    bool is_rows() const {
        if (!std::is_same_v<X, A> || !plan_.rows || !call_.has_statistics() || !call_.has_apply()) return false;
        if (call_.y.dtype != stored_as<A>() || call_.epilogue.given()) return false;
        const Loop& inner = plan_.nest.loops[plan_.nest.depth - 1];
        const auto fits = [&](const Elements& elements, Operand operand) {
            const std::int64_t stride = inner.stride[operand];
            return elements.dtype == stored_as<C>() && (stride == 0 || stride == 1);
        };
        return inner.stride[op_y] == 1 && fits(operands_.weight, op_weight) && fits(operands_.bias, op_bias);
    }

    void rows() {
        if constexpr (std::is_same_v<X, A>) {
            for_each_piece(plan_.sets.pieces, plan_.threads, [&](int index_of_worker, std::int64_t index) {
                Cell* const cells = call_.out.given() ? worker(index_of_worker).cells : nullptr;
                const Nest piece = piece_of(plan_.nest, plan_.sets, index);
                add_residual(piece);
                normalize_rows(reduce_kernels_, operands_, plan_.reduction, piece, call_.eps, call_.center, cells);
                store_moments(call_, piece, cells);
            });
        }
    }

    void whole_sets() {
        for_each_piece(plan_.sets.pieces, plan_.threads, [&](int index_of_worker, std::int64_t index) {
            Worker memory = worker(index_of_worker);
            Nest piece = piece_of(plan_.nest, plan_.sets, index);
            add_residual(piece);
            if (call_.has_statistics()) {
                reduce_sets(reduce_kernels_, x(), plan_, piece, call_.center, memory.cells, memory.reduce);
            } else {
                load_given(call_.given, call_.center, piece, memory.cells);
            }
            store_moments(call_, piece, memory.cells);
            if (!call_.has_apply()) return;
            number_cells(piece);
            make_coefficients(memory.cells, piece.cells(), memory.coefficients);
            apply_piece(apply_kernels_, operands_, piece, memory.coefficients);
        });
    }

    /// Whether a piece can be written while the next is read.
    bool is_overlapping() const {
        const Reduction& reduction = plan_.reduction;
        if (call_.epilogue.given()) return false;
        // Halves take so long to convert that memory keeps up with a pass after the other.
        if (!std::is_same_v<X, A> || sizeof(A) == 2 || call_.y.dtype != stored_as<A>()) return false;
        if (!operands_.stream || !call_.has_statistics() || reduction.packed || reduction.one_column) return false;
        if (reduction.kernel == Reduction::Kernel::column) return writes_columns();
        return can_apply_beside(apply_kernels_, operands_, numbered_piece(0));
    }

    /// Whether the column kernel can write the results of other sets: y lies like x, weight and bias belong to columns,
    /// and all packs of columns are whole lines of y.
    bool writes_columns() const {
        // Eight rows are read and eight written at a time: of longer rows these are so many pages that a pass after the
        // other takes 0.6 of the time (2 KB) or 0.4 (4 KB).
        constexpr std::int64_t longest_row = 1024;
        const Reduction& reduction = plan_.reduction;
        const Nest& nest = plan_.nest;
        if (reduction.interleave > 1) return false;
        if (reduction.fold > 1 && nest.loops[nest.depth - 1].n != reduction.fold) return false;
        const auto whole_lines = [](std::int64_t elements) { return elements % 16 == 0; };
        for (int i = 0; i < nest.depth; ++i) {
            const Loop& loop = nest.loops[i];
            if (loop.stride[op_x] != loop.stride[op_y]) return false;
            if (reduction.fold > 1 && i == nest.depth - 1) continue;
            if (i == reduction.cells_loop) {
                // Strips of rows: so many pages at a time that a pass after the other takes a third of the time.
                if (i == plan_.sets.loop && plan_.sets.length < loop.n) return false;
                const std::int64_t row = loop.n * reduction.fold;
                if (row * static_cast<std::int64_t>(sizeof(A)) > longest_row || !whole_lines(row)) return false;
            } else if (!whole_lines(loop.stride[op_x])) {
                return false;
            }
            if (loop.reduced && (loop.stride[op_weight] != 0 || loop.stride[op_bias] != 0)) return false;
        }
        return reinterpret_cast<std::uintptr_t>(static_cast<const A*>(call_.y.data) + nest.offset[op_y]) % 64 == 0;
    }

    Nest numbered_piece(std::int64_t index) const {
        Nest piece = piece_of(plan_.nest, plan_.sets, index);
        number_cells(piece);
        return piece;
    }

    /// A worker writes the piece before while it sums the next: a core that reads, then writes past the caches, takes
    /// 1.5 times as long as one that copies.
    void overlapping_sets() {
        if constexpr (std::is_same_v<X, A>) {
            std::fill_n(written_, plan_.threads, -1);
            for_each_piece(plan_.sets.pieces, plan_.threads, [&](int index_of_worker, std::int64_t index) {
                const Worker memory = worker(index_of_worker);
                const Nest piece = piece_of(plan_.nest, plan_.sets, index);
                const std::int64_t before = std::exchange(written_[index_of_worker], index);
                add_residual(piece);
                sum_beside(memory, piece, before);
                store_moments(call_, piece, memory.cells);
                make_coefficients(memory.cells, piece.cells(), memory.coefficients);
            });
            for_each_piece(plan_.threads, plan_.threads, [&](int, std::int64_t index_of_worker) {
                if (written_[index_of_worker] < 0) return;
                const Worker memory = worker(static_cast<int>(index_of_worker));
                apply_piece(apply_kernels_, operands_, numbered_piece(written_[index_of_worker]), memory.coefficients);
            });
        }
    }

    /// Sums a piece and writes the one before.
    void sum_beside(const Worker& memory, const Nest& piece, std::int64_t before) {
        Beside<A> beside;
        const auto sum = [&] {
            reduce_sets(reduce_kernels_, x(), plan_, piece, call_.center, memory.cells, memory.reduce, beside);
        };
        if (before < 0) return sum();
        const Nest last = numbered_piece(before);
        if (plan_.reduction.kernel == Reduction::Kernel::row) {
            apply_beside<A>(apply_kernels_, operands_, last, memory.coefficients, [&](kernels::AffineQueue<A>& queue) {
                beside.rows = &queue;
                sum();
            });
        } else if (same_lengths(last, piece)) {
            spread_coefficients(last, memory);
            const std::int64_t shift = last.offset[op_x] - piece.offset[op_x];
            beside.columns.x = x() + shift;
            beside.columns.y = static_cast<A*>(call_.y.data) + shift + (piece.offset[op_y] - piece.offset[op_x]);
            beside.columns.mean = memory.columns.mean;
            beside.columns.mean_lo = memory.columns.mean_lo;
            beside.columns.scale = memory.columns.rstd;
            beside.columns.bias = memory.column_bias;
            sum();
        } else {
            apply_piece(apply_kernels_, operands_, last, memory.coefficients);
            sum();
        }
    }

    static bool same_lengths(const Nest& a, const Nest& b) {
        return std::equal(a.loops, a.loops + a.depth, b.loops, [](const Loop& x, const Loop& y) { return x.n == y.n; });
    }

    /// The coefficients of a piece, one of each for every column that the kernel sums.
    void spread_coefficients(const Nest& piece, const Worker& memory) const {
        const std::int64_t fold = plan_.reduction.fold;
        const Loop& inner = piece.loops[piece.depth - 1];
        const Coefficients<C>&cell = memory.coefficients, &column = memory.columns;
        const Nest kept = kept_loops(piece);
        std::int64_t at = 0;
        walk(kept, kept.depth, [&](const std::int64_t* offset) {
            load(column.rstd + at, operands_.weight, offset[op_weight], fold > 1 ? inner.stride[op_weight] : 0, fold);
            load(memory.column_bias + at, operands_.bias, offset[op_bias], fold > 1 ? inner.stride[op_bias] : 0, fold);
            const std::int64_t index = at / fold;
            for (const std::int64_t end = at + fold; at < end; ++at) {
                column.mean[at] = cell.mean[index];
                column.mean_lo[at] = cell.mean_lo[index];
                column.rstd[at] *= cell.rstd[index];
            }
        });
    }

    void split_sets() {
        const std::int64_t sets = plan_.nest.cells();
        if (call_.sum.given() && call_.has_statistics()) {
            // Chunks are cut along x, whose sum's terms may lie in any other way: a pass of its own.
            for_each_piece(plan_.elements.pieces, plan_.threads,
                           [&](int, std::int64_t index) { add_residual(piece_of(plan_.nest, plan_.elements, index)); });
        }
        if (call_.has_statistics()) {
            const std::int64_t pieces = plan_.sets.pieces;
            for_each_piece(pieces * chunks(), plan_.threads, [&](int index_of_worker, std::int64_t index) {
                Worker memory = worker(index_of_worker);
                const std::int64_t chunk = index / pieces;
                const Nest piece = piece_of(plan_.nest, plan_.sets, index % pieces);
                reduce_chunk(reduce_kernels_, x(), plan_, piece, call_.center, chunk, memory.cells, memory.reduce);
                const Nest kept = kept_loops(piece);
                const Cell* cell = memory.cells;
                walk(kept, kept.depth,
                     [&](const std::int64_t* offset) { cells_[chunk * sets + offset[op_cell]] = *cell++; });
            });
            merge_chunks(sets);
        } else {
            load_given(call_.given, call_.center, plan_.nest, cells_);
        }
        store_moments(call_, plan_.nest, cells_);
        if (!call_.has_apply()) return;
        make_coefficients(cells_, sets, coefficients_);
        for_each_piece(plan_.elements.pieces, plan_.threads, [&](int, std::int64_t index) {
            // Backwards: what the statistics read last is still in a cache.
            const std::int64_t piece = plan_.elements.pieces - 1 - index;
            const Nest elements = piece_of(plan_.nest, plan_.elements, piece);
            if (!call_.has_statistics()) add_residual(elements);
            apply_piece(apply_kernels_, operands_, elements, coefficients_);
        });
    }

    void merge_chunks(std::int64_t sets) {
        constexpr std::int64_t length = 1024;
        const std::int64_t parts = (sets + length - 1) / length;
        for_each_piece(parts, sets * chunks() < 16 * length ? 1 : plan_.threads, [&](int, std::int64_t part) {
            Cell* const into = cells_ + part * length;
            const std::int64_t count = std::min(length, sets - part * length);
            for (std::int64_t i = 1; i < chunks(); ++i) reduce_kernels_.merge_cells(into, into + i * sets, count);
        });
    }

    void make_coefficients(const Cell* cells, std::int64_t count, const Coefficients<C>& out) const {
        apply_kernels_.coefficients(cells, count, call_.eps, out.mean, out.mean_lo, out.rstd);
    }

    void add_residual(const Nest& piece) const {
        if (call_.sum.given()) add_piece(table_, call_.sum, piece);
    }

    const X* x() const { return static_cast<const X*>(call_.x.data); }

    Plan& plan_;
    const Call& call_;
    const kernels::Kernels<X>& reduce_kernels_;
    const kernels::Kernels<A>& apply_kernels_;
    C one_ = 1, zero_ = 0;
    ApplyOperands operands_;
    const kernels::KernelTable& table_;
    bool gathers_weight_, gathers_bias_;
    bool overlaps_ = false;
    C *weight_ = nullptr, *bias_ = nullptr;
    Cell* cells_ = nullptr;
    Coefficients<C> coefficients_{};
    std::int64_t* written_ = nullptr;  ///< the piece that each worker has summed but not written
    std::byte* workers_ = nullptr;
    std::size_t worker_bytes_ = 0;
};

template <class X>
void run(Plan& plan, const Call& call, const kernels::KernelTable& table) {
    if constexpr (!std::is_same_v<X, double>) {
        if (call.y.dtype == DType::f64) return Run<X, double>(plan, call, table).run();
    }
    if constexpr (!std::is_same_v<X, kernels::Compute<X>>) {
        const bool mixed = call.has_apply() && (call.x.dtype != call.y.dtype || call.epilogue.given());
        if (mixed) return Run<X, kernels::Compute<X>>(plan, call, table).run();
    }
    Run<X, X>(plan, call, table).run();
}

}  // namespace

void load_given(const MomentsElements& given, bool center, const Nest& piece, Cell* cells) noexcept {
    // A stretch at a time, with each array's type looked up once for it: one by one they took 16 ns a set, an eighth
    // of the gradients of rows of 64.
    constexpr std::int64_t stretch = 64;
    const Nest kept = kept_loops(piece);
    const int outside = std::max(kept.depth - 1, 0);
    const Loop inner = kept.depth > 0 ? kept.loops[outside] : Loop{1, false, {}};
    walk(kept, outside, [&](const std::int64_t* offset) {
        for (std::int64_t first = 0; first < inner.n; first += stretch) {
            const std::int64_t n = std::min(stretch, inner.n - first);
            double count[stretch], mean[stretch], mean_lo[stretch], m2[stretch];
            const auto read = [&](double* to, const Elements& from, Operand operand) {
                if (!from.given()) return void(std::fill_n(to, n, 0.0));
                const std::int64_t stride = inner.stride[operand];
                load(to, from, offset[operand] + first * stride, stride, n);
            };
            read(count, given.count, op_count);
            read(mean, center ? given.mean : Elements{}, op_mean);
            read(mean_lo, center ? given.mean_low : Elements{}, op_mean_low);
            read(m2, given.m2, op_m2);
            for (std::int64_t i = 0; i < n; ++i) *cells++ = {count[i], mean[i], mean_lo[i], m2[i]};
        }
    });
}

void run_plan(Plan& plan, const Call& call, const kernels::KernelTable& table) {
    with_type(call.x, [&]<class X>(X*) { run<X>(plan, call, table); });
}

}  // namespace anynorm::detail
