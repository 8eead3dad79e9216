// SPDX-License-Identifier: Apache-2.0
// The statistics pass over one piece.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.hpp"
#include "merge.hpp"
#include "plan.hpp"

namespace anynorm::detail {

/// Scratch of one worker, each array of Plan::piece_columns cells; `pack` has Plan::pack_elements elements of x.
struct ReduceScratch {
    Cell* chunk;
    Cell* block;
    void* pack;
};

/// What is written while sums are formed: nothing, a queue of rows, or columns, those that belong to x's first element.
template <class T>
struct Beside {
    kernels::AffineQueue<T>* rows = nullptr;
    kernels::AffineColumns<T> columns{};
};

/// Sums chunk `chunk` of every set of a piece into cells[0 .. cells of the piece), in the piece's order; `cells` has
/// room for Plan::piece_columns.
template <class T>
void reduce_chunk(const kernels::Kernels<T>& kernels, const T* x, const Plan& plan, const Nest& piece, bool center,
                  std::int64_t chunk, Cell* cells, const ReduceScratch& scratch, const Beside<T>& beside = {}) noexcept;

/// All chunks of every set of a piece.
template <class T>
void reduce_sets(const kernels::Kernels<T>& kernels, const T* x, const Plan& plan, const Nest& piece, bool center,
                 Cell* cells, const ReduceScratch& scratch, const Beside<T>& beside = {}) noexcept;

}  // namespace anynorm::detail
