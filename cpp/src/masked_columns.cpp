// SPDX-License-Identifier: Apache-2.0
#include "masked_columns.hpp"

#include <algorithm>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "plan.hpp"

namespace anynorm::detail {
namespace {

// A line of float32. 16 blocks of 4096 are 256 KB: half of an L2.
constexpr std::int64_t strip = 16;
// Whether a block is full is asked after so many rows.
constexpr std::int64_t stretch = 256;

template <class X>
class Collector {
  public:
    Collector(const kernels::Kernels<X>& kernels, bool center)
        : kernels_(kernels), center_(center), elements_(static_cast<std::size_t>(strip * room)) {}

    /// The columns `first` to `first + columns` of an array and its mask.
    void run(const X* x, const unsigned char* mask, const Nest& loops, std::int64_t columns, Cell* cells) {
        const Loop &rows = loops.loops[0], &along = loops.loops[1];
        const std::int64_t x_row = rows.stride[op_x], mask_row = rows.stride[op_where];
        const std::int64_t mask_step = along.stride[op_where];
        for (std::int64_t j = 0; j < columns; ++j) {
            columns_[j] = {};
            columns_[j].chunk_blocks = chunk_blocks(mask + j * mask_step, rows.n, mask_row);
        }
        std::int64_t counts[strip] = {};
        for (std::int64_t row = 0; row < rows.n; row += stretch) {
            const std::int64_t end = std::min(rows.n, row + stretch);
            for (std::int64_t i = row; i < end; ++i) {
                const X* const from = x + i * x_row;
                const unsigned char* const is_member = mask + i * mask_row;
                // Without a branch, which a random mask would mispredict: what is no member is written over.
                for (std::int64_t j = 0; j < columns; ++j) {
                    elements_[static_cast<std::size_t>(j * room + counts[j])] = from[j];
                    counts[j] += is_member[j * mask_step] != 0 ? 1 : 0;
                }
            }
            for (std::int64_t j = 0; j < columns; ++j) {
                if (counts[j] < row_block) continue;
                X* const block = elements_.data() + j * room;
                add(columns_[j], block, row_block);
                std::copy(block + row_block, block + counts[j], block);
                counts[j] -= row_block;
            }
        }
        for (std::int64_t j = 0; j < columns; ++j) {
            if (counts[j] > 0) add(columns_[j], elements_.data() + j * room, counts[j]);
            Column& column = columns_[j];
            if (column.blocks > 0) close(column);
            cells[j] = column.chunks > 0 ? column.set : empty_cell;
        }
    }

  private:
    static constexpr std::int64_t room = row_block + stretch;

    struct Column {
        Cell set{}, chunk{};
        std::int64_t blocks = 0, chunks = 0, chunk_blocks = 1;
    };

    /// Blocks of a chunk, as of a contiguous row that the members would be. Only of very many are they counted.
    static std::int64_t chunk_blocks(const unsigned char* mask, std::int64_t rows, std::int64_t step) {
        const auto of = [](std::int64_t members) {
            return blocks_of_chunk(Reduction::Kernel::row, (members + row_block - 1) / row_block);
        };
        if (of(rows) == of(0)) return of(0);
        std::int64_t members = 0;
        for (std::int64_t i = 0; i < rows; ++i) members += mask[i * step] != 0 ? 1 : 0;
        return of(members);
    }

    void add(Column& column, const X* block, std::int64_t n) {
        Cell cell;
        kernels_.moments_row({block, 1, 0, 1, n, n, 1, center_, &cell});
        if (column.blocks == 0) {
            column.chunk = cell;
        } else {
            kernels_.merge_cells(&column.chunk, &cell, 1);
        }
        if (++column.blocks == column.chunk_blocks) close(column);
    }

    void close(Column& column) {
        if (column.chunks++ == 0) {
            column.set = column.chunk;
        } else {
            kernels_.merge_cells(&column.set, &column.chunk, 1);
        }
        column.blocks = 0;
    }

    const kernels::Kernels<X>& kernels_;
    bool center_;
    std::vector<X> elements_;
    Column columns_[strip];
};

}  // namespace

bool are_masked_columns(const Selection& selection, const Nest& loops) noexcept {
    if (!selection.where.given() || selection.splits() || selection.sample_weight.given() || loops.depth != 2) {
        return false;
    }
    return is_selected(loops.loops[0]) && is_family(loops.loops[1]) && loops.loops[1].stride[op_x] == 1;
}

void masked_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                    const Nest& loops, int threads, const CellSink& sink) {
    const auto* const mask = static_cast<const unsigned char*>(selection.where.data) + loops.offset[op_where];
    const std::int64_t columns = loops.loops[1].n, strips = (columns + strip - 1) / strip;
    threads = static_cast<int>(std::min<std::int64_t>(threads, strips));
    std::vector<Cell> cells(static_cast<std::size_t>(columns));
    with_type(operands.x, [&]<class X>(const X* x) {
        std::vector<Collector<X>> workers;
        workers.reserve(static_cast<std::size_t>(threads));
        for (int i = 0; i < threads; ++i) workers.emplace_back(kernels_for<X>(table), operands.center);
        for_each_piece(strips, threads, [&](int worker, std::int64_t index) {
            const std::int64_t first = index * strip;
            workers[static_cast<std::size_t>(worker)].run(x + loops.offset[op_x] + first,
                                                          mask + first * loops.loops[1].stride[op_where], loops,
                                                          std::min(strip, columns - first), cells.data() + first);
        });
    });
    sink(0, 1, cells.data(), nullptr);
}

}  // namespace anynorm::detail
