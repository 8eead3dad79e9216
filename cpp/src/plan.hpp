// SPDX-License-Identifier: Apache-2.0
// Loop nest -> which kernel, how a set is cut into blocks, how the work is cut into pieces. A plan is a value: it can
// be printed and compared, and it is made without touching data.
#pragma once

#include <cstdint>
#include <string>

#include "layout.hpp"

namespace anynorm::detail {

/// A row block bounds the cancellation in m2 and amortizes one division and one horizontal sum over 4096 elements.
inline constexpr std::int64_t row_block = 4096;
/// Columns merge every 1024 rows: short enough that 4096 rows of few columns still give every thread a block.
inline constexpr std::int64_t column_block = 1024;
/// Below two packs of 16 a reduced innermost loop leaves most vector lanes empty: it is folded into columns.
inline constexpr std::int64_t fold_below = 32;

/// Whether so many results are written past the caches: from 4 MB on nobody finds them there before they are driven
/// out, and a line that is written past the caches need not be read first.
constexpr bool passes_caches(std::int64_t elements, DType dtype) noexcept {
    return elements * static_cast<std::int64_t>(size_of(dtype)) >= std::int64_t{4} << 20;
}

/// How the moments of one set are summed. It depends on where x keeps the elements of a set, never on threads, vector
/// lanes or the other operands, and not on the number of sets unless samples are the fastest axis of few columns (see
/// `interleave`). That is why the result has the same bits for all of them:
///
///     set = chunk 0 + chunk 1 + ...     chunk = block 0 + block 1 + ...     (Chan's merge, in this order)
///
/// A block is `block_runs` runs of `block_n` elements, summed by one kernel call.
struct Reduction {
    enum class Kernel : std::uint8_t { row, column };

    Kernel kernel = Kernel::row;
    /// The kernel wants stride 1 where x has another: rows go through a buffer in L1 first, columns are gathered step
    /// by step.
    bool packed = false;
    /// The kept loop that the kernel runs over (an index into the nest), or -1 for one set at a time.
    int cells_loop = -1;
    /// A reduced innermost loop too short to fill vectors is summed as so many neighbouring columns, which are merged
    /// afterwards (channels-last group norm).
    std::int64_t fold = 1;
    /// So many contiguous rows of few columns are summed as one row; `tail_n` rows are left over.
    std::int64_t interleave = 1;
    std::int64_t row_stride = 0, tail_n = 0, tail_offset = 0;
    /// Sets that are far from contiguous and have no neighbours: the column kernel, one set at a time.
    bool one_column = false;

    std::int64_t n = 1, stride = 0, block_n = 1;
    std::int64_t runs = 1, run_stride = 0, block_runs = 1;
    /// The reduced loops outside of a block.
    int outer = 0;
    std::int64_t outer_n[max_rank], outer_stride[max_rank];
    /// The kept loops other than cells_loop (indices into the nest), outermost first.
    int kept = 0;
    int kept_loop[max_rank];

    std::int64_t blocks = 1, chunk_blocks = 1, chunks = 1;
    /// Whether the kernel's sets are walked inside of the blocks (columns; planes of channels) or a set is finished
    /// before the next begins (long rows): the order of x in memory.
    bool cells_inside = true;

    std::int64_t columns_per_set() const noexcept { return fold * interleave; }
};

/// A partition of some loops of a nest into pieces: loops outside `loop` give one index to a piece, `loop` itself
/// ranges of `length`, loops inside are whole.
struct Cut {
    int loop = -1;
    std::int64_t length = 1;
    std::int64_t pieces = 1;
    bool kept_only = true;
};

struct Plan {
    /// whole_sets: a piece holds all elements of its sets; statistics and apply follow each other while the piece is
    /// in cache. split_sets: sets are cut as well; statistics of all, then apply to all.
    enum class Mode : std::uint8_t { whole_sets, split_sets };

    explicit Plan(const Nest& nest) noexcept;

    Nest nest;
    Reduction reduction;
    Mode mode = Mode::whole_sets;
    Cut sets;
    Cut elements;
    int threads = 1;
    /// Cells of the largest piece, times the columns that each is summed as.
    std::int64_t piece_columns = 1;
    /// Elements of the buffer for packed rows; 0 where there is none.
    std::int64_t pack_elements = 0;
    /// Every set is one row in memory: the innermost loop of the nest, with stride 1.
    bool rows = false;

    /// Whether blocks are summed beside the cells that they are merged into.
    bool needs_block() const noexcept {
        return (reduction.blocks > 1 && reduction.chunk_blocks > 1) || reduction.tail_n > 0;
    }
};

struct PlanRequest {
    std::int64_t element_bytes = 4;
    int threads = 1;
    bool statistics = true;  ///< computed from x, not given
    bool apply = true;
    /// At least so many rows to a piece: one is written while the next is read, and a piece of fewer would wait for its
    /// first and its last.
    std::int64_t rows_of_piece = 8;
    /// Pieces of sets in many places. They are walked faster side by side, in longer stretches of memory, though L2
    /// cannot hold so many: the last cache still gives them back at several times the speed of memory.
    std::int64_t wide_piece_bytes = 2 * 1024 * 1024;
    /// Pieces of sets of several rows, side by side.
    std::int64_t planes_piece_bytes = 128 * 1024;
    /// Up to here a second read of a piece comes from the last cache.
    std::int64_t cached_bytes = 4 * 1024 * 1024;
};

/// The blocks of a chunk of a set that has so many.
std::int64_t blocks_of_chunk(Reduction::Kernel kernel, std::int64_t blocks) noexcept;

Reduction make_reduction(const Nest& nest) noexcept;
Plan make_plan(const Nest& nest, const PlanRequest& request) noexcept;

/// Piece `index` of a cut: the nest with its loops restricted; loop indices and cell numbers are those of `nest`.
Nest piece_of(const Nest& nest, const Cut& cut, std::int64_t index) noexcept;

/// Pieces of about `elements` elements that share no kept element, strips of the innermost loop at least a page wide.
Cut cut_kept(const Nest& nest, std::int64_t elements) noexcept;

/// Start (in elements of x), runs and run length of block `index`.
struct Block {
    std::int64_t offset, runs, n;
};
Block block_of(const Reduction& reduction, std::int64_t index) noexcept;

/// One line a level, for tests and for people.
std::string to_string(const Plan& plan);

}  // namespace anynorm::detail
