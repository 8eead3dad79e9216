// SPDX-License-Identifier: Apache-2.0
// Walks a piece as kernels take it: rows of neighbouring elements. What a kernel cannot read in place, because it is of
// another type or strided, passes through a buffer in L1.
#pragma once

#include <algorithm>
#include <cstdint>

#include "elements.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// `rows` rows of `n` elements. A coefficient is constant along a row, or neighbouring, as Tiles::varies says.
template <class A>
struct Tile {
    using C = kernels::Compute<A>;
    static constexpr int max_inputs = 2, max_coefficients = 5;

    std::int64_t rows, n;
    const A* input[max_inputs];
    std::int64_t input_row[max_inputs];
    A* output;
    std::int64_t output_row;
    const C* coefficient[max_coefficients];
    std::int64_t coefficient_row[max_coefficients];
    /// Of an operand that the kernel adds up in memory of the engine: where, and how far apart the rows are.
    std::int64_t target, target_row;
};

/// A is the type of the inputs and the output that the kernels take; others are converted.
template <class A>
class Tiles {
  public:
    using C = kernels::Compute<A>;

    Tiles(const Nest& piece, OperandSet operands) : nest_(coalesce(piece, operands)), outside_(nest_.depth) {
        if (outside_ > 0) inner_ = nest_.loops[--outside_];
        if (outside_ > 0) rows_ = nest_.loops[--outside_];
    }

    void add_input(const Elements& elements, Operand operand) {
        inputs_[input_count_++] = {elements, operand, neighbours(elements, operand, stored_as<A>())};
    }
    void set_output(const Elements& elements, Operand operand) {
        output_ = {elements, operand, neighbours(elements, operand, stored_as<A>())};
    }
    void add_coefficient(const Elements& elements, Operand operand) {
        const bool direct = elements.dtype == stored_as<C>() && (!varies(operand) || inner_.stride[operand] == 1);
        coefficients_[coefficient_count_++] = {elements, operand, direct};
    }
    void set_target(Operand operand) { target_ = operand; }

    /// Whether an operand varies along the rows of the tiles.
    bool varies(Operand operand) const { return inner_.n > 1 && inner_.stride[operand] != 0; }
    bool output_direct() const { return output_.direct; }

    template <class Body>
    void for_each(Body&& body) {
        bool direct = !output_.elements.given() || output_.direct;
        for (int i = 0; i < input_count_; ++i) direct = direct && inputs_[i].direct;
        for (int i = 0; i < coefficient_count_; ++i) direct = direct && coefficients_[i].direct;
        walk(nest_, outside_, [&](const std::int64_t* offset) {
            if (direct) {
                run(offset, 0, rows_.n, 0, inner_.n, body);
                return;
            }
            for (std::int64_t row = 0; row < rows_.n; ++row) {
                for (std::int64_t first = 0; first < inner_.n; first += length) {
                    run(offset, row, 1, first, std::min(length, inner_.n - first), body);
                }
            }
        });
    }

  private:
    // Eight buffers of 512 float64 are 32 KB.
    static constexpr std::int64_t length = 512;

    struct Source {
        Elements elements;
        Operand operand;
        bool direct;
    };

    bool neighbours(const Elements& elements, Operand operand, DType dtype) const {
        return elements.dtype == dtype && (inner_.n == 1 || inner_.stride[operand] == 1);
    }
    std::int64_t at(const std::int64_t* offset, Operand operand, std::int64_t row, std::int64_t first) const {
        return offset[operand] + row * rows_.stride[operand] + first * inner_.stride[operand];
    }

    template <class T>
    const T* read(const Source& source, T* packed, const std::int64_t* offset, std::int64_t row, std::int64_t first,
                  std::int64_t n) const {
        const std::int64_t start = at(offset, source.operand, row, first);
        if (source.direct) return static_cast<const T*>(source.elements.data) + start;
        load(packed, source.elements, start, inner_.stride[source.operand], n);
        return packed;
    }

    template <class Body>
    void run(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t n,
             Body&& body) {
        Tile<A> tile{};
        tile.rows = rows;
        tile.n = n;
        for (int i = 0; i < input_count_; ++i) {
            tile.input[i] = read(inputs_[i], packed_inputs_[i], offset, row, first, n);
            tile.input_row[i] = rows_.stride[inputs_[i].operand];
        }
        for (int i = 0; i < coefficient_count_; ++i) {
            const Source& source = coefficients_[i];
            tile.coefficient[i] =
                read(source, packed_coefficients_[i], offset, row, first, varies(source.operand) ? n : 1);
            tile.coefficient_row[i] = rows_.stride[source.operand];
        }
        tile.target = at(offset, target_, row, first);
        tile.target_row = rows_.stride[target_];
        if (!output_.elements.given()) {
            body(tile);
            return;
        }
        const std::int64_t start = at(offset, output_.operand, row, first);
        tile.output = output_.direct ? static_cast<A*>(output_.elements.data) + start : packed_output_;
        tile.output_row = rows_.stride[output_.operand];
        body(tile);
        if (!output_.direct) store(output_.elements, start, inner_.stride[output_.operand], packed_output_, n);
    }

    Nest nest_;
    Loop inner_{1, false, {}}, rows_{1, false, {}};
    int outside_;
    int input_count_ = 0, coefficient_count_ = 0;
    Operand target_ = op_x;
    Source inputs_[Tile<A>::max_inputs], coefficients_[Tile<A>::max_coefficients], output_{{}, op_x, false};
    alignas(64) A packed_inputs_[Tile<A>::max_inputs][length];
    alignas(64) A packed_output_[length];
    alignas(64) C packed_coefficients_[Tile<A>::max_coefficients][length];
};

}  // namespace anynorm::detail
