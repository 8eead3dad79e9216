// SPDX-License-Identifier: Apache-2.0
// Walks a piece as the kernels of a backward call take it: rows of neighbouring elements. What a kernel cannot read in
// place, because it is of another type or strided or repeats along the rows, passes through a buffer in L1. A few
// neighbours that repeat (channels in the last place) make rows of many of their periods.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "elements.hpp"
#include "inner_loop.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// `blocks` blocks of `rows` rows of `n` elements. A coefficient is constant along a row, or neighbouring, as
/// Tiles::varies says.
template <class A>
struct Tile {
    using C = kernels::Compute<A>;
    static constexpr int max_inputs = 3, max_coefficients = 10;

    std::int64_t blocks, rows, n;
    const A* input[max_inputs];
    std::int64_t input_row[max_inputs], input_block[max_inputs];
    A* output;
    std::int64_t output_row, output_block;
    const C* coefficient[max_coefficients];
    std::int64_t coefficient_row[max_coefficients], coefficient_block[max_coefficients];
    /// Of an operand that the kernel adds up in memory of the engine: where the rows are, and how far apart; the first
    /// element is number `first` of them.
    std::int64_t target, target_row, target_block, first;
};

/// A is the type of the inputs and the output that the kernels take; others are converted.
template <class A>
class Tiles {
  public:
    using C = kernels::Compute<A>;

    /// `elementwise`: the inputs and the output, along which short inner loops are joined. `others`: the coefficients
    /// and the target.
    Tiles(const Nest& piece, OperandSet elementwise, OperandSet others)
        : Tiles(piece, elementwise | others, join_below, elementwise) {}

    /// Rows are those of the nest, however short: for kernels that know a target of one set or of neighbouring ones.
    Tiles(const Nest& piece, OperandSet operands) : Tiles(piece, operands, 0, operands) {}

    void add_input(const Elements& elements, Operand operand) {
        inputs_[input_count_++] = {elements, operand, neighbours(elements, operand)};
    }
    void set_output(const Elements& elements, Operand operand) {
        output_ = {elements, operand, neighbours(elements, operand)};
    }
    void add_coefficient(const Elements& elements, Operand operand) {
        const Along steps = along(operand);
        const bool direct = elements.dtype == stored_as<C>() && (steps.constant(inner_) || steps.contiguous(inner_));
        coefficients_[coefficient_count_++] = {elements, operand, direct, steps, 0, 0, 0};
    }
    /// Tiles of one row that fit L1, for what is done to an input before the kernel reads it.
    void limit_to_rows() { one_row_ = true; }
    /// Tiles of several blocks where the operands allow it, for kernels that know how to walk them.
    void take_blocks() { one_block_ = false; }
    void set_target(Operand operand) {
        has_target_ = true;
        target_ = operand;
        target_along_ = along(operand);
    }

    /// Whether an operand varies along the rows of the tiles.
    bool varies(Operand operand) const { return inner_.total > 1 && !along(operand).constant(inner_); }
    /// Whether the target varies along the rows otherwise than from neighbour to neighbour.
    bool target_repeats() const { return has_target_ && varies(target_) && !target_along_.contiguous(inner_); }
    bool output_direct() const { return output_.direct; }
    /// Whether kernels read and write everything where it lies.
    bool direct() const {
        return in_place() && !target_repeats() &&
               std::all_of(coefficients_, coefficients_ + coefficient_count_, [](const auto& c) { return c.direct; });
    }
    int coefficients() const { return coefficient_count_; }

    /// Calls body(i, count, at, step) for stretches of the elements [first, first + n) of a row whose target begins at
    /// `place`: element first + i + k is at `at` + k * step.
    template <class Body>
    void for_each_target(std::int64_t place, std::int64_t first, std::int64_t n, Body&& body) const {
        for (std::int64_t i = 0; i < n;) {
            const std::int64_t element = first + i;
            const std::int64_t count = std::min(inner_.n[0] - element % inner_.n[0], n - i);
            body(i, count, place + target_along_.at(inner_, element), target_along_.stride[0]);
            i += count;
        }
    }

    template <class Body>
    void for_each(Body&& body) {
        bool all_rows = in_place(), all_blocks = all_rows;
        for (int i = 0; i < coefficient_count_; ++i) {
            const Coefficient& c = coefficients_[i];
            all_rows = all_rows && (c.direct || rows_.stride[c.operand] == 0);
            all_blocks = all_blocks && (c.direct || blocks_.stride[c.operand] == 0);
        }
        Part part;
        part.rows = all_rows ? rows_.n : 1;
        part.blocks = part.rows == rows_.n && all_blocks && !one_block_ ? blocks_.n : 1;
        const std::int64_t step = direct() ? inner_.total : tile;
        walk(nest_, outside_, [&](const std::int64_t* offset) {
            for (part.block = 0; part.block < blocks_.n; part.block += part.blocks) {
                for (part.first = 0; part.first < inner_.total; part.first += step) {
                    part.n = std::min(step, inner_.total - part.first);
                    for (part.row = 0; part.row < rows_.n; part.row += part.rows) run(offset, part, body);
                }
                if (rest_ > 0) run(offset, {part.block, part.blocks, rows_.n, 1, 0, rest_}, body);
            }
        });
    }

  private:
    Tiles(const Nest& piece, OperandSet operands, std::int64_t shortest, OperandSet elementwise)
        : nest_(coalesce(piece, operands)), outside_(nest_.depth) {
        if (outside_ > 0) inner_.join(nest_.loops[--outside_]);
        bool has_rows = false;
        while (shortest > 0 && !has_rows && outside_ > 0 && runs_on(nest_.loops[outside_ - 1], elementwise)) {
            Loop& next = nest_.loops[outside_ - 1];
            const bool is_short = inner_.total < shortest;
            has_rows = repeats(next, operands & ~elementwise) && cut_into_rows(next, is_short ? 1 : many_rows);
            if (!has_rows && !is_short) break;
            inner_.join(next);
            --outside_;
        }
        first_inner_ = outside_;
        if (!has_rows && outside_ > 0) rows_ = nest_.loops[--outside_];
        if (outside_ > 0) blocks_ = nest_.loops[--outside_];
    }

    // Longer rows are summed over more lines at once (512 elements: 1.02 of the time), shorter ones cost a call each
    // where operands pass through a buffer (128: 1.3 of the time beside an activation).
    static constexpr std::int64_t row_length = tile / 2;
    // Rows of 32 neighbours or more are cut where packing what repeats is little against them.
    static constexpr std::int64_t many_rows = 16;

    /// Cuts the next loop, along which all but the elements repeats, into so many rows or more: each of a few of its
    /// iterations, and of whole packs if it can be. What repeats is then packed once, and summed down columns, for all
    /// rows.
    bool cut_into_rows(Loop& next, std::int64_t fewest) {
        const std::int64_t of_packs = pack_of_kernels / std::gcd(inner_.total, pack_of_kernels);
        const std::int64_t at_once = of_packs * inner_.total <= tile ? of_packs : 1;
        const std::int64_t periods = std::max<std::int64_t>(1, row_length / (at_once * inner_.total)) * at_once;
        if (periods < 2 || next.n < std::max(periods * fewest, periods + 1)) return false;
        rows_ = next;
        rows_.n = next.n / periods;
        for (std::int64_t& stride : rows_.stride) stride *= periods;
        rest_ = next.n % periods * inner_.total;
        next.n = periods;
        return true;
    }

    static bool repeats(const Loop& loop, OperandSet operands) {
        for (int operand = 0; operand < operand_count; ++operand) {
            if ((operands >> operand & 1) != 0 && loop.stride[operand] != 0) return false;
        }
        return true;
    }

    /// The blocks, rows and elements of a tile.
    struct Part {
        std::int64_t block, blocks, row, rows, first, n;
    };

    /// Whether the inputs and the output are read and written where they lie.
    bool in_place() const {
        return !one_row_ && (!output_.elements.given() || output_.direct) &&
               std::all_of(inputs_, inputs_ + input_count_, [](const Source& source) { return source.direct; });
    }

    struct Source {
        Elements elements;
        Operand operand;
        bool direct;
    };
    struct Coefficient {
        Elements elements;
        Operand operand;
        bool direct;
        Along along;
        std::int64_t packed_start, packed_first, packed_n;  ///< what the buffer holds
    };

    /// Whether the elements of all these operands run on from the inner loop through the next.
    bool runs_on(const Loop& next, OperandSet operands) const {
        const Loop& innermost = nest_.loops[nest_.depth - 1];
        for (int operand = 0; operand < operand_count; ++operand) {
            if ((operands >> operand & 1) == 0) continue;
            if (next.stride[operand] != inner_.total * innermost.stride[operand]) return false;
        }
        return true;
    }
    Along along(Operand operand) const {
        Along result;
        for (int level = 0; level < inner_.levels; ++level) {
            result.stride[level] = nest_.loops[first_inner_ + inner_.levels - 1 - level].stride[operand];
        }
        return result;
    }
    std::int64_t step_of(Operand operand) const {
        return nest_.depth > 0 ? nest_.loops[nest_.depth - 1].stride[operand] : 0;
    }
    bool neighbours(const Elements& elements, Operand operand) const {
        return elements.dtype == stored_as<A>() && (inner_.total == 1 || step_of(operand) == 1);
    }

    const A* input(int i, std::int64_t start, std::int64_t n) {
        const Source& source = inputs_[i];
        if (source.direct) return static_cast<const A*>(source.elements.data) + start;
        load(packed_inputs_[i], source.elements, start, step_of(source.operand), n);
        return packed_inputs_[i];
    }
    const C* coefficient(int i, std::int64_t start, std::int64_t first, std::int64_t n) {
        Coefficient& c = coefficients_[i];
        if (c.direct) {
            return static_cast<const C*>(c.elements.data) + start + (c.along.constant(inner_) ? 0 : first);
        }
        if (c.packed_start != start || c.packed_first != first || c.packed_n < n) {
            load_along(packed_coefficients_[i], c.elements, start, inner_, c.along, first, n);
            c.packed_start = start;
            c.packed_first = first;
            c.packed_n = n;
        }
        return packed_coefficients_[i];
    }

    template <class Body>
    void run(const std::int64_t* offset, const Part& part, Body&& body) {
        const auto at = [&](Operand operand) {
            return offset[operand] + part.block * blocks_.stride[operand] + part.row * rows_.stride[operand];
        };
        const std::int64_t first = part.first, n = part.n;
        Tile<A> result;
        result.blocks = part.blocks;
        result.rows = part.rows;
        result.n = n;
        result.first = first;
        for (int i = 0; i < input_count_; ++i) {
            const Operand operand = inputs_[i].operand;
            result.input[i] = input(i, at(operand) + first * step_of(operand), n);
            result.input_row[i] = rows_.stride[operand];
            result.input_block[i] = blocks_.stride[operand];
        }
        for (int i = 0; i < coefficient_count_; ++i) {
            const Operand operand = coefficients_[i].operand;
            const bool is_direct = coefficients_[i].direct;
            result.coefficient[i] = coefficient(i, at(operand), first, n);
            result.coefficient_row[i] = is_direct ? rows_.stride[operand] : 0;
            result.coefficient_block[i] = is_direct ? blocks_.stride[operand] : 0;
        }
        result.target = at(target_);
        result.target_row = rows_.stride[target_];
        result.target_block = blocks_.stride[target_];
        result.output = nullptr;
        result.output_row = result.output_block = 0;
        if (!output_.elements.given()) {
            body(result);
            return;
        }
        const std::int64_t step = step_of(output_.operand), start = at(output_.operand) + first * step;
        result.output = output_.direct ? static_cast<A*>(output_.elements.data) + start : packed_output_;
        result.output_row = rows_.stride[output_.operand];
        result.output_block = blocks_.stride[output_.operand];
        body(result);
        if (!output_.direct) store(output_.elements, start, step, packed_output_, n);
    }

    Nest nest_;
    InnerLoop inner_;
    Loop rows_{1, false, {}}, blocks_{1, false, {}};
    int outside_, first_inner_ = 0;  // loops of the nest
    std::int64_t rest_ = 0;          // elements behind the last row of an inner loop that was cut into rows
    int input_count_ = 0, coefficient_count_ = 0;
    bool one_row_ = false, one_block_ = true, has_target_ = false;
    Operand target_ = op_x;
    Along target_along_;
    Source inputs_[Tile<A>::max_inputs], output_{{}, op_x, false};
    Coefficient coefficients_[Tile<A>::max_coefficients];
    alignas(64) A packed_inputs_[Tile<A>::max_inputs][tile];
    alignas(64) A packed_output_[tile];
    alignas(64) C packed_coefficients_[Tile<A>::max_coefficients][tile];
};

}  // namespace anynorm::detail
