// SPDX-License-Identifier: Apache-2.0
#include "schedule.hpp"

#include <algorithm>

#include "apply.hpp"
#include "parallel.hpp"
#include "reduce.hpp"
#include "scratch.hpp"

namespace anynorm::detail {
namespace {

double element_at(const Elements& elements, std::int64_t offset) {
    return elements.dtype == DType::f32 ? static_cast<double>(static_cast<const float*>(elements.data)[offset])
                                        : static_cast<const double*>(elements.data)[offset];
}

void store_at(const Elements& elements, std::int64_t offset, double value) {
    if (elements.given()) static_cast<double*>(elements.data)[offset] = value;
}

/// Fills the cells of a piece, in its order, from the caller's statistics.
void load_given(const Call& call, const Nest& piece, Cell* cells) {
    const Nest kept = kept_loops(piece);
    walk(kept, kept.depth, [&](const std::int64_t* offset) {
        const double mean = call.center ? element_at(call.given.mean, offset[op_mean]) : 0.0;
        *cells++ = {element_at(call.given.count, offset[op_count]), mean, 0, element_at(call.given.m2, offset[op_m2])};
    });
}

/// Writes the cells of a piece, in its order, to the caller's views.
void store_moments(const Call& call, const Nest& piece, const Cell* cells) {
    if (!call.out.given()) return;
    const Nest kept = kept_loops(piece);
    walk(kept, kept.depth, [&](const std::int64_t* offset) {
        store_at(call.out.count, offset[op_count], cells->count);
        store_at(call.out.mean, offset[op_mean], cells->mean);
        store_at(call.out.m2, offset[op_m2], cells->m2);
        ++cells;
    });
}

/// One call with its types bound: T is x's, C the compute type.
template <class T, class C>
class Run {
  public:
    Run(const Plan& plan, const Call& call, const kernels::KernelTable& table)
        : plan_(plan),
          call_(call),
          reduce_kernels_(kernels_for<T>(table)),
          apply_kernels_(kernels_for<C>(table)),
          operands_{
              {call.x.data, call.x.dtype}, {call.y.data, call.y.dtype}, {&one_, DType::f64}, {&zero_, DType::f64}} {
        if constexpr (sizeof(C) == sizeof(float)) {
            operands_.weight = {&one_f32_, DType::f32};
            operands_.bias = {&zero_f32_, DType::f32};
        }
        if (call.weight.given()) operands_.weight = {call.weight.data, call.weight.dtype};
        if (call.bias.given()) operands_.bias = {call.bias.data, call.bias.dtype};
    }

    void whole_sets() {
        const std::size_t bytes = worker_bytes();
        Scratch scratch(bytes * static_cast<std::size_t>(plan_.threads));
        for_each_piece(plan_.sets.pieces, plan_.threads, [&](int worker, std::int64_t index) {
            Worker memory(plan_, scratch.data() + bytes * static_cast<std::size_t>(worker));
            Nest piece = piece_of(plan_.nest, plan_.sets, index);
            if (call_.has_statistics()) {
                reduce_sets(reduce_kernels_, x(), plan_, piece, call_.center, memory.cells, memory.reduce);
            } else {
                load_given(call_, piece, memory.cells);
            }
            store_moments(call_, piece, memory.cells);
            if (!call_.has_apply()) return;
            number_cells(piece);
            make_coefficients(memory.cells, piece.cells(), call_.eps, memory.coefficients);
            apply_piece(apply_kernels_, operands_, piece, memory.coefficients);
        });
    }

    void split_sets() {
        const std::int64_t sets = plan_.nest.cells();
        const std::int64_t chunks = call_.has_statistics() ? plan_.reduction.chunks : 1;
        const std::size_t bytes = worker_bytes();
        Carver sizes(nullptr);
        sizes.take<Cell>(sets * chunks);
        take_coefficients(sizes, sets);
        Scratch scratch(sizes.used() + bytes * static_cast<std::size_t>(plan_.threads));
        Carver carver(scratch.data());
        Cell* const cells = carver.take<Cell>(sets * chunks);
        const Coefficients<C> coefficients = take_coefficients(carver, sets);
        std::byte* const worker_memory = scratch.data() + carver.used();

        if (call_.has_statistics()) {
            const std::int64_t pieces = plan_.sets.pieces;
            for_each_piece(pieces * chunks, plan_.threads, [&](int worker, std::int64_t index) {
                Worker memory(plan_, worker_memory + bytes * static_cast<std::size_t>(worker));
                const std::int64_t chunk = index / pieces;
                const Nest piece = piece_of(plan_.nest, plan_.sets, index % pieces);
                reduce_chunk(reduce_kernels_, x(), plan_, piece, call_.center, chunk, memory.cells, memory.reduce);
                const Nest kept = kept_loops(piece);
                const Cell* cell = memory.cells;
                walk(kept, kept.depth,
                     [&](const std::int64_t* offset) { cells[chunk * sets + offset[op_cell]] = *cell++; });
            });
            for (std::int64_t chunk = 1; chunk < chunks; ++chunk) merge(cells, cells + chunk * sets, sets);
        } else {
            load_given(call_, plan_.nest, cells);
        }
        store_moments(call_, plan_.nest, cells);
        if (!call_.has_apply()) return;
        make_coefficients(cells, sets, call_.eps, coefficients);
        for_each_piece(plan_.elements.pieces, plan_.threads, [&](int, std::int64_t index) {
            apply_piece(apply_kernels_, operands_, piece_of(plan_.nest, plan_.elements, index), coefficients);
        });
    }

  private:
    /// The arrays of one worker.
    struct Worker {
        Worker(const Plan& plan, std::byte* base) : carver(base) {
            cells = carver.take<Cell>(plan.piece_columns);
            reduce.chunk = carver.take<Cell>(plan.reduction.chunks > 1 ? plan.piece_columns : 0);
            reduce.block =
                carver.take<Cell>(plan.reduction.blocks > 1 || plan.reduction.tail_n > 0 ? plan.piece_columns : 0);
            reduce.pack = carver.take<T>(plan.pack_elements);
            coefficients = take_coefficients(carver, plan.piece_columns);
        }

        Carver carver;
        Cell* cells;
        ReduceScratch reduce;
        Coefficients<C> coefficients;
    };

    static Coefficients<C> take_coefficients(Carver& carver, std::int64_t count) {
        Coefficients<C> result;
        result.mean = carver.template take<C>(count);
        result.mean_lo = carver.template take<C>(count);
        result.rstd = carver.template take<C>(count);
        return result;
    }

    std::size_t worker_bytes() const { return Worker(plan_, nullptr).carver.used(); }
    const T* x() const { return static_cast<const T*>(call_.x.data); }

    const Plan& plan_;
    const Call& call_;
    const kernels::Kernels<T>& reduce_kernels_;
    const kernels::Kernels<C>& apply_kernels_;
    double one_ = 1, zero_ = 0;
    float one_f32_ = 1, zero_f32_ = 0;
    ApplyOperands operands_;
};

template <class T, class C>
void run(const Plan& plan, const Call& call, const kernels::KernelTable& table) {
    Run<T, C> run(plan, call, table);
    if (plan.mode == Plan::Mode::whole_sets) {
        run.whole_sets();
    } else {
        run.split_sets();
    }
}

}  // namespace

void run_plan(const Plan& plan, const Call& call, const kernels::KernelTable& table) {
    const bool wide = call.x.dtype == DType::f64 || call.y.dtype == DType::f64;
    if (call.x.dtype == DType::f64) {
        run<double, double>(plan, call, table);
    } else if (wide) {
        run<float, double>(plan, call, table);
    } else {
        run<float, float>(plan, call, table);
    }
}

}  // namespace anynorm::detail
