// SPDX-License-Identifier: Apache-2.0
// One call of lp_normalize() or its gradient: sums of every set, factors of them, the result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "anynorm/grouping.hpp"
#include "dispatch.hpp"
#include "elements.hpp"
#include "lp_sums.hpp"
#include "parallel.hpp"
#include "pick.hpp"
#include "plan.hpp"
#include "scratch.hpp"
#include "tiles.hpp"

namespace anynorm::detail {

/// The operands of one call, validated. The nest has x as op_x, the result as op_y, grad_output as op_grad_output, a
/// mask as op_where.
struct LpCall {
    Elements x, grad_output, result, where;
    LpNorm p;
    Excluded excluded;
    double eps;

    bool with_gradient() const { return grad_output.given(); }
};

/// The elements of one set in chunks of about 8 K: work enough for a task, short enough for columns that are added up
/// one by one, and with partial sums of 24 bytes below 0.2 % of x. A set is summed chunk by chunk however it is shared
/// out, so that its bits depend neither on the threads nor on the other sets.
class Chunks {
  public:
    explicit Chunks(const Nest& nest) : cut_(cut_one_set(flipped(nest))) {}

    std::int64_t count() const { return cut_.pieces; }
    /// The elements of chunk `index` of every set of a piece.
    Nest of(const Nest& piece, std::int64_t index) const { return flipped(piece_of(flipped(piece), cut_, index)); }

  private:
    static Cut cut_one_set(Nest nest) {
        for (int i = 0; i < nest.depth; ++i) {
            if (nest.loops[i].reduced) nest.loops[i].n = 1;
        }
        return cut_kept(nest, 8 * 1024);
    }

    /// Kept loops for reduced ones and the reverse: pieces of a nest are cut from its kept loops.
    static Nest flipped(Nest nest) {
        for (int i = 0; i < nest.depth; ++i) nest.loops[i].reduced = !nest.loops[i].reduced;
        return nest;
    }

    Cut cut_;
};

/// A is the type of all operands, or that in which others pass through L1: float, or double if one of them is. Halves
/// are promoted by the kernels, whose bits are those of the conversion one by one. With a mask everything passes
/// through L1, where 0 takes the place of what it excludes.
template <class A>
class LpRun {
  public:
    using C = kernels::Compute<A>;

    LpRun(const Plan& plan, const LpCall& call, const kernels::KernelTable& table)
        : plan_(plan),
          call_(call),
          table_(table),
          kernels_(kernels_for<A>(table)),
          loops_(lp_loops<C>(call.p, call.with_gradient())),
          summed_(operand_set(op_x, op_cell, call.with_gradient() ? op_grad_output : op_x,
                              call.where.given() ? op_where : op_x)),
          sums_nest_(coalesce(plan.nest, summed_)),
          chunks_(sums_nest_),
          columns_(sums_nest_.depth > 0 && !sums_nest_.loops[sums_nest_.depth - 1].reduced) {}

    void run() {
        // Where the layout of the result divides loops of x, chunks cannot be cut from the same nest as its pieces.
        const bool one_nest = sums_nest_.depth == plan_.nest.depth || chunks_.count() == 1;
        if (plan_.mode == Plan::Mode::split_sets || !one_nest) {
            split_sets();
        } else {
            whole_sets();
        }
    }

  private:
    void whole_sets() const {
        const std::int64_t cells = plan_.piece_columns;
        Carver sizes(nullptr);
        take_worker(sizes, cells);
        Scratch scratch(sizes.used() * static_cast<std::size_t>(plan_.threads));
        for_each_piece(plan_.sets.pieces, plan_.threads, [&](int worker, std::int64_t index) {
            Carver carver(scratch.data() + sizes.used() * static_cast<std::size_t>(worker));
            const auto [sums, chunk_sums] = take_worker(carver, cells);
            Nest piece = piece_of(plan_.nest, plan_.sets, index);
            number_cells(piece);
            const std::int64_t count = piece.cells();
            sums.clear(count);
            add_sums(chunks_.of(piece, 0), sums);
            for (std::int64_t chunk = 1; chunk < chunks_.count(); ++chunk) {
                chunk_sums.clear(count);
                add_sums(chunks_.of(piece, chunk), chunk_sums);
                loops_.merge(sums, chunk_sums, count);
            }
            write(piece, loops_.factors(sums, count, call_.eps));
        });
    }

    struct WorkerSums {
        LpSums sums, chunk;
    };
    WorkerSums take_worker(Carver& carver, std::int64_t cells) const {
        const LpSums sums(carver, cells);
        return {sums, LpSums(carver, chunks_.count() > 1 ? cells : 0)};
    }

    void split_sets() const {
        const std::int64_t sets = plan_.nest.cells();
        const Cut cut = cut_kept(sums_nest_, 64 * 1024);
        Carver sizes(nullptr);
        (void)LpSums(sizes, sets * chunks_.count());
        Scratch scratch(sizes.used());
        Carver carver(scratch.data());
        const LpSums sums(carver, sets * chunks_.count());
        sums.clear(sets);
        for (std::int64_t chunk = 1; chunk < chunks_.count(); ++chunk) sums.at(chunk * sets).clear(sets);
        for_each_piece(cut.pieces * chunks_.count(), plan_.threads, [&](int, std::int64_t index) {
            const std::int64_t chunk = index / cut.pieces;
            add_sums(chunks_.of(piece_of(sums_nest_, cut, index % cut.pieces), chunk), sums.at(chunk * sets));
        });
        for (std::int64_t chunk = 1; chunk < chunks_.count(); ++chunk) {
            loops_.merge(sums, sums.at(chunk * sets), sets);
        }
        const LpFactors factors = loops_.factors(sums, sets, call_.eps);
        for_each_piece(plan_.elements.pieces, plan_.threads,
                       [&](int, std::int64_t index) { write(piece_of(plan_.nest, plan_.elements, index), factors); });
    }

    /// Adds those of the elements of a piece to its cells, as numbered there. Whether a set is a row or a column is
    /// said by x and not by the piece: the last strip of some columns may be a single one.
    void add_sums(const Nest& piece, const LpSums& sums) const {
        const auto add = [&](bool neighbours) {
            const auto kernel = neighbours ? loops_.add_columns : columns_ ? loops_.add_column : loops_.add_row;
            return [kernel, &sums](const C* x, const C* grad_output, C*, std::int64_t n, std::int64_t set) {
                kernel(x, grad_output, n, sums.at(set));
            };
        };
        if (call_.where.given()) {
            const MaskedRows rows(coalesce(piece, summed_));
            return for_each_masked_row(rows, false, add(rows.varies(op_cell)));
        }
        Tiles<A> tiles(piece, summed_);
        tiles.add_input(call_.x, op_x);
        if (call_.with_gradient()) tiles.add_input(call_.grad_output, op_grad_output);
        tiles.set_target(op_cell);
        for_each_row(tiles, add(tiles.varies(op_cell)));
    }

    void write(const Nest& piece, const LpFactors& factors) const {
        const auto write = [&](bool neighbours) {
            const auto kernel = neighbours ? loops_.write_columns : loops_.write_row;
            return [kernel, factors](const C* x, const C* grad_output, C* result, std::int64_t n, std::int64_t set) {
                kernel(x, grad_output, result, n, {factors.scale + set, factors.slope + set, factors.peak + set});
            };
        };
        if (call_.where.given()) {
            const MaskedRows rows(coalesce(piece, summed_ | operand_set(op_y)));
            return for_each_masked_row(rows, true, write(rows.varies(op_cell)));
        }
        Tiles<A> tiles(piece, summed_ | operand_set(op_y));
        tiles.add_input(call_.x, op_x);
        if (call_.with_gradient()) tiles.add_input(call_.grad_output, op_grad_output);
        tiles.set_output(call_.result, op_y);
        tiles.set_target(op_cell);
        for_each_row(tiles, write(tiles.varies(op_cell)));
    }

    /// The innermost loop of a nest, and how often it runs.
    struct MaskedRows {
        explicit MaskedRows(const Nest& of) : nest(of), outside(std::max(0, of.depth - 1)) {
            if (of.depth > 0) inner = of.loops[of.depth - 1];
        }
        bool varies(Operand operand) const { return inner.n > 1 && inner.stride[operand] != 0; }

        Nest nest;
        int outside;
        Loop inner{1, false, {}};
    };

    /// The same as for_each_row() with a mask. The results of a `body` that writes are stored.
    template <class Body>
    void for_each_masked_row(const MaskedRows& rows, bool writes, const Body& body) const {
        const Loop& inner = rows.inner;
        const auto* const mask = static_cast<const unsigned char*>(call_.where.data);
        const bool with_gradient = call_.with_gradient();
        const Elements& input = with_gradient ? call_.grad_output : call_.x;
        const Operand op_of_input = with_gradient ? op_grad_output : op_x;
        alignas(64) C x[sum_block], grad_output[sum_block], result[sum_block];
        bool used[sum_block];
        walk(rows.nest, rows.outside, [&](const std::int64_t* offset) {
            for (std::int64_t first = 0; first < inner.n; first += sum_block) {
                const std::int64_t n = std::min(sum_block, inner.n - first);
                const auto at = [&](Operand operand) { return offset[operand] + first * inner.stride[operand]; };
                const auto read = [&](C* to, const Elements& from, Operand operand) {
                    load(table_, to, from, at(operand), inner.stride[operand], n);
                };
                read(x, call_.x, op_x);
                if (with_gradient) read(grad_output, call_.grad_output, op_grad_output);
                for (std::int64_t i = 0; i < n; ++i) {
                    used[i] = mask[at(op_where) + i * inner.stride[op_where]] != 0;
                    x[i] = pick(used[i], x[i], C(0));
                }
                for (std::int64_t i = 0; with_gradient && i < n; ++i)
                    grad_output[i] = pick(used[i], grad_output[i], C(0));
                body(x, grad_output, result, n, at(op_cell));
                if (!writes) continue;
                if (call_.excluded == Excluded::input) read(x, input, op_of_input);
                const bool keeps_input = call_.excluded == Excluded::input;
                for (std::int64_t i = 0; i < n; ++i) {
                    result[i] = pick(used[i], result[i], keeps_input ? x[i] : C(0));
                }
                store_used(at(op_y), inner.stride[op_y], result, used, n);
            }
        });
    }

    /// Stores n results, but those that are to be kept as they are.
    void store_used(std::int64_t start, std::int64_t step, const C* result, const bool* used, std::int64_t n) const {
        if (call_.excluded != Excluded::keep) return store(table_, call_.result, start, step, result, n);
        for (std::int64_t first = 0, last = 0; first < n; first = last) {
            while (last < n && used[last] == used[first]) ++last;
            if (used[first]) store(table_, call_.result, start + first * step, step, result + first, last - first);
        }
    }

    /// body(x, grad_output, result, n, first set) for rows of tiles in the compute type.
    template <class Body>
    void for_each_row(Tiles<A>& tiles, const Body& body) const {
        const std::int64_t step = tiles.varies(op_cell) ? 1 : 0;
        tiles.for_each([&](const Tile<A>& tile) {
            for (std::int64_t row = 0; row < tile.rows; ++row) {
                const A* const x = tile.input[0] + row * tile.input_row[0];
                const A* const grad_output = call_.with_gradient() ? tile.input[1] + row * tile.input_row[1] : nullptr;
                A* const result = tile.output == nullptr ? nullptr : tile.output + row * tile.output_row;
                const std::int64_t set = tile.target + row * tile.target_row + step * tile.first;
                if constexpr (std::is_same_v<A, C>) {
                    body(x, grad_output, result, tile.n, set);
                } else {
                    promote_row(x, grad_output, result, tile.n, set, step, body);
                }
            }
        });
    }

    /// The same for a row of halves, in blocks as long as those that are summed.
    template <class Body>
    void promote_row(const A* x, const A* grad_output, A* result, std::int64_t n, std::int64_t set, std::int64_t step,
                     const Body& body) const {
        alignas(64) C wide_x[sum_block], wide_grad_output[sum_block], wide_result[sum_block];
        for (std::int64_t first = 0; first < n; first += sum_block) {
            const std::int64_t count = std::min(sum_block, n - first);
            kernels_.promote(wide_x, x + first, count);
            if (grad_output != nullptr) kernels_.promote(wide_grad_output, grad_output + first, count);
            body(wide_x, wide_grad_output, wide_result, count, set + step * first);
            if (result != nullptr) kernels_.demote(result + first, wide_result, count);
        }
    }

    const Plan& plan_;
    const LpCall& call_;
    const kernels::KernelTable& table_;
    const kernels::Kernels<A>& kernels_;
    const LpLoops<C> loops_;
    OperandSet summed_;
    Nest sums_nest_;  ///< of what is summed alone: the layout of the result does not show in the bits of norms
    Chunks chunks_;
    bool columns_;
};

}  // namespace anynorm::detail
