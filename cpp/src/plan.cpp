// SPDX-License-Identifier: Apache-2.0
#include "plan.hpp"

#include <algorithm>
#include <numeric>

namespace anynorm::detail {
namespace {

constexpr std::int64_t pack_width = 16;
// Up to this stride packing uses at least 1/8 of every cache line that it reads; beyond, plain column order costs no
// more than the lines themselves.
constexpr std::int64_t pack_stride = 8;
// At most so many chunks a set: their partial moments stay below 1 % of x.
constexpr std::int64_t max_chunks = 256;
// A piece of 256 KB leaves half of a 512 KB L2 for y and the coefficients.
constexpr std::int64_t piece_bytes = 256 * 1024;
// Half of it where a piece is written while the next is read: two of them are in L2.
constexpr std::int64_t half_piece_bytes = piece_bytes / 2;
// What is smaller comes from the last cache, however many cores share it.
constexpr std::int64_t small_bytes = 4 * 1024 * 1024;
constexpr std::int64_t min_piece_bytes = 32 * 1024;
// The sets of batch norm are in as many places as there are samples. So many or more are walked in the order of memory,
// twice: 2048 samples of 14x14 planes take 0.45 of the time that pieces of whole sets take, their gradients 0.4; 128
// samples would take 1.2 and 1.4.
constexpr std::int64_t many_places = 512;
// Elements that a piece has in each of fewer places, if the last cache holds as many: gradients of 352 samples of 14x14
// planes take 0.5 of the time of pieces of one channel.
constexpr std::int64_t min_stretch = 1024;
constexpr std::int64_t max_piece_cells = 1024;
// Strips of fewer columns read less than 512 bytes of a row at a time: good enough within L2, not from memory, where
// instance norm of 28x28x256 takes 0.7 of the time in whole rows, its gradients 0.5.
constexpr std::int64_t min_strip = 128;
constexpr std::int64_t min_strip_from_memory = 1024;
// Below 128 KB of x the fork and join cost more than a second thread gains.
constexpr std::int64_t serial_bytes = 128 * 1024;

// Joined rows that sets have at least.
constexpr std::int64_t least_joined = 8;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct ReducedLoops {
    int count = 0;
    std::int64_t n[max_rank], stride[max_rank];

    void add(std::int64_t length, std::int64_t step) {
        if (count > 0 && stride[count - 1] == length * step) {
            n[count - 1] *= length;
            stride[count - 1] = step;
        } else {
            n[count] = length;
            stride[count++] = step;
        }
    }
};

ReducedLoops reduced_loops(const Nest& nest, int depth) {
    ReducedLoops reduced;
    for (int i = 0; i < depth; ++i) {
        if (nest.loops[i].reduced) reduced.add(nest.loops[i].n, nest.loops[i].stride[op_x]);
    }
    return reduced;
}

/// Few columns: as many rows in one as fill two packs or more. Not in short sets, since to merge what lies side by side
/// takes as long as to add a few of such rows: sets of 16 in 10 columns would take three times as long. Only where the
/// rows are contiguous and are all of the reduction, so that one remainder is left.
void choose_interleaving(ReducedLoops& reduced, std::int64_t columns, Reduction& reduction) {
    if (reduction.packed || columns >= fold_below || columns % pack_width == 0) return;
    if (reduced.count != 1 || reduced.stride[0] != columns) return;
    const std::int64_t count = std::max(pack_width / std::gcd(columns, pack_width), ceil_div(fold_below, columns));
    if (reduced.n[0] < least_joined * count) return;
    reduction.interleave = count;
    reduction.row_stride = columns;
    reduction.tail_n = reduced.n[0] % count;
    reduction.tail_offset = (reduced.n[0] - reduction.tail_n) * columns;
    reduced.n[0] /= count;
    reduced.stride[0] *= count;
}

/// Chooses the kernel for a nest of x alone, and returns the reduced loops that are left to it.
ReducedLoops choose_kernel(const Nest& nest, Reduction& reduction) {
    reduction.kernel = Reduction::Kernel::row;
    if (nest.depth == 0) return {};
    const int last = nest.depth - 1;
    const Loop& inner = nest.loops[last];
    const std::int64_t stride = inner.stride[op_x];
    if (!inner.reduced) {
        reduction.kernel = Reduction::Kernel::column;
        reduction.packed = stride != 1;
        ReducedLoops reduced = reduced_loops(nest, last);
        choose_interleaving(reduced, inner.n, reduction);
        return reduced;
    }
    ReducedLoops outside = reduced_loops(nest, last);
    if (stride == 1 && inner.n < fold_below && outside.count > 0 && !nest.loops[last - 1].reduced &&
        nest.loops[last - 1].stride[op_x] == inner.n) {
        reduction.kernel = Reduction::Kernel::column;
        reduction.fold = inner.n;
        choose_interleaving(outside, nest.loops[last - 1].n * inner.n, reduction);
        return outside;
    }
    if (stride > pack_stride) {
        reduction.kernel = Reduction::Kernel::column;
        reduction.one_column = true;
    } else {
        reduction.packed = stride != 1;
    }
    return reduced_loops(nest, nest.depth);
}

void choose_blocks(const ReducedLoops& loops, Reduction& reduction) {
    const bool row = reduction.kernel == Reduction::Kernel::row;
    const std::int64_t block = row ? row_block : column_block;
    int left = loops.count;
    if (left > 0) {
        --left;
        reduction.n = loops.n[left];
        reduction.stride = loops.stride[left];
    }
    reduction.block_n = std::min(reduction.n, block);
    if (left > 0 && reduction.n < block) {
        --left;
        reduction.runs = loops.n[left];
        reduction.run_stride = loops.stride[left];
        reduction.block_runs = std::min(reduction.runs, block / reduction.n);
    }
    reduction.blocks = ceil_div(reduction.n, reduction.block_n) * ceil_div(reduction.runs, reduction.block_runs);
    reduction.outer = left;
    for (int i = 0; i < left; ++i) {
        reduction.outer_n[i] = loops.n[i];
        reduction.outer_stride[i] = loops.stride[i];
        reduction.blocks *= loops.n[i];
    }
    reduction.chunk_blocks = blocks_of_chunk(reduction.kernel, reduction.blocks);
    reduction.chunks = ceil_div(reduction.blocks, reduction.chunk_blocks);
}

/// Pieces of about `target` elements and, of whole sets, at most `max_cells` cells; ranges of `strip_loop`, along
/// which x is contiguous, have at least `min_strip_length` and whole packs.
Cut make_cut(const Nest& nest, bool kept_only, std::int64_t target, std::int64_t max_cells, int strip_loop,
             std::int64_t min_strip_length) {
    Cut cut;
    cut.kept_only = kept_only;
    std::int64_t elements = 1, cells = 1;
    for (int i = 0; kept_only && i < nest.depth; ++i) elements *= nest.loops[i].reduced ? nest.loops[i].n : 1;
    int i = nest.depth - 1;
    for (; i >= 0; --i) {
        const Loop& loop = nest.loops[i];
        if (kept_only && loop.reduced) continue;
        if (elements * loop.n > target || (kept_only && cells * loop.n > max_cells)) {
            std::int64_t length = std::max<std::int64_t>(1, target / elements);
            if (i == strip_loop) length = std::max(length, min_strip_length);
            if (kept_only) length = std::min(length, std::max<std::int64_t>(1, max_cells / cells));
            length = std::min(length, loop.n);
            const std::int64_t parts = ceil_div(loop.n, length);
            cut.loop = i;
            cut.length = ceil_div(loop.n, parts);
            if (i == strip_loop) cut.length = std::min(loop.n, ceil_div(cut.length, 16) * 16);  // whole packs
            cut.pieces = ceil_div(loop.n, cut.length);
            break;
        }
        elements *= loop.n;
        cells *= loop.reduced ? 1 : loop.n;
    }
    for (--i; i >= 0; --i) {
        if (!kept_only || !nest.loops[i].reduced) cut.pieces *= nest.loops[i].n;
    }
    return cut;
}

std::int64_t piece_elements(const PlanRequest& request, std::int64_t threads, std::int64_t elements) {
    const std::int64_t target = piece_bytes / request.element_bytes;
    if (threads == 1) return target;
    return std::clamp(elements / (4 * threads), min_piece_bytes / request.element_bytes, target);
}

/// Where the planes of a set lie apart, with those of other sets between them.
struct Places {
    std::int64_t count = 1;    ///< of each set
    std::int64_t stretch = 1;  ///< elements of a set in each

    Places(const Nest& nest, int cells_loop) {
        for (int i = 0; i < nest.depth; ++i) {
            const std::int64_t n = nest.loops[i].reduced ? nest.loops[i].n : 1;
            (i < cells_loop ? count : stretch) *= n;
        }
    }
};

bool sets_are_rows(const Nest& nest, const Reduction& reduction) {
    if (nest.depth == 0 || reduction.kernel != Reduction::Kernel::row || reduction.packed) return false;
    for (int i = 0; i < nest.depth; ++i) {
        if (nest.loops[i].reduced != (i == nest.depth - 1)) return false;
    }
    return true;
}

std::int64_t cells_of_largest_piece(const Nest& nest, const Cut& cut) {
    std::int64_t cells = cut.loop < 0 || nest.loops[cut.loop].reduced ? 1 : cut.length;
    for (int i = cut.loop + 1; i < nest.depth; ++i) cells *= nest.loops[i].reduced ? 1 : nest.loops[i].n;
    return cells;
}

}  // namespace

std::int64_t blocks_of_chunk(Reduction::Kernel kernel, std::int64_t blocks) noexcept {
    // A chunk of 16 row blocks is 64 K elements, work enough for a task; a column block already is one.
    return std::max<std::int64_t>(kernel == Reduction::Kernel::row ? 16 : 1, ceil_div(blocks, max_chunks));
}

Reduction make_reduction(const Nest& nest) noexcept {
    Reduction reduction;
    // Of x alone: the layout of y or the parameters must not show in the bits of the statistics.
    const ReducedLoops reduced = choose_kernel(coalesce(nest, operand_set(op_x, op_cell)), reduction);
    for (int i = nest.depth - 1; i >= 0 && reduction.cells_loop < 0 && !reduction.one_column; --i) {
        if (!nest.loops[i].reduced) reduction.cells_loop = i;
    }
    for (int i = 0; i < nest.depth; ++i) {
        if (!nest.loops[i].reduced && i != reduction.cells_loop) reduction.kept_loop[reduction.kept++] = i;
    }
    choose_blocks(reduced, reduction);
    if (reduction.kernel == Reduction::Kernel::row && reduction.blocks > 1) {
        reduction.cells_inside =
            reduction.cells_loop >= 0 && nest.loops[reduction.cells_loop].stride[op_x] < reduced.stride[0];
    }
    return reduction;
}

Plan::Plan(const Nest& of_nest) noexcept : nest(of_nest), reduction(make_reduction(of_nest)) {}

Plan make_plan(const Nest& nest, const PlanRequest& request) noexcept {
    Plan plan(nest);
    const Reduction& reduction = plan.reduction;
    const std::int64_t elements = nest.size();
    const std::int64_t threads =
        elements * request.element_bytes < serial_bytes ? 1 : std::max<std::int64_t>(1, request.threads);
    const bool column = reduction.kernel == Reduction::Kernel::column;
    plan.rows = sets_are_rows(nest, reduction);

    // Four pieces a thread even out what the cores do not share evenly.
    const bool wide =
        !plan.rows && !reduction.one_column && reduction.cells_inside && nest.depth > 0 && nest.loops[0].reduced;
    std::int64_t target = (wide        ? request.wide_piece_bytes
                           : plan.rows ? piece_bytes
                           : column    ? half_piece_bytes
                                       : request.planes_piece_bytes) /
                          request.element_bytes;
    if (plan.rows) target = std::max(target, request.rows_of_piece * reduction.n);
    const bool planes = wide && !column;
    const Places places(nest, reduction.cells_loop);
    const bool scattered = planes && places.count >= many_places && elements * request.element_bytes > small_bytes;
    if (planes) {
        const std::int64_t stretched = ceil_div(min_stretch, places.stretch) * places.count * places.stretch;
        target = std::max(target, std::min(stretched, request.cached_bytes / request.element_bytes));
    }
    // What no cache gives back: pieces as long as the threads allow have the longest stretches of memory. The chunks of
    // planes are pieces as well; columns have many of them, and so many partial moments that they are not.
    if (scattered || (wide && !request.apply)) target = elements;
    const bool by_chunks = planes && (scattered || !request.apply);
    if (threads > 1) {
        const std::int64_t parts = ceil_div(4 * threads, by_chunks ? reduction.chunks : 1);
        target = std::min(target, std::max(elements / parts, min_piece_bytes / request.element_bytes));
    }
    const int strip_loop = column ? reduction.cells_loop : -1;
    const std::int64_t columns = reduction.columns_per_set();
    const bool from_memory = reduction.chunks > 1 || elements * request.element_bytes > small_bytes;
    const std::int64_t strip = from_memory ? min_strip_from_memory : min_strip;
    // Rows that the kernel sees as one must stay whole.
    const std::int64_t min_length =
        reduction.interleave > 1 ? nest.loops[strip_loop].n : ceil_div(strip, reduction.fold);
    plan.sets = make_cut(nest, true, target, max_piece_cells / columns, strip_loop, min_length);
    plan.elements = make_cut(nest, false, piece_elements(request, threads, elements), 0, -1, 1);
    plan.piece_columns = cells_of_largest_piece(nest, plan.sets) * columns;

    // Given statistics need no piece to be whole, so y is written in the order of memory while the coefficients of
    // all sets stay below 1 % of x.
    const bool few_cells = nest.cells() <= std::max<std::int64_t>(max_piece_cells, elements / 1024);
    if (request.statistics) {
        // A chunk is the smallest part of a set that can be summed on its own.
        const bool can_split = reduction.chunks > 1 || request.apply;
        const bool uneven = plan.sets.pieces < 4 * threads && (by_chunks || plan.sets.pieces % threads != 0);
        // What no cache gives back is better read twice in the order of memory.
        const bool read_twice =
            request.apply && column && elements / plan.sets.pieces * request.element_bytes > request.cached_bytes;
        if ((uneven || read_twice || scattered) && can_split) plan.mode = Plan::Mode::split_sets;
    } else if (few_cells) {
        plan.mode = Plan::Mode::split_sets;
    }
    // Every worker has scratch of its own: no more of them than there is work for.
    const bool whole = plan.mode == Plan::Mode::whole_sets;
    const std::int64_t work =
        whole ? plan.sets.pieces : std::max(plan.sets.pieces * reduction.chunks, plan.elements.pieces);
    plan.threads = static_cast<int>(std::min(threads, work));
    if (reduction.packed && !column) plan.pack_elements = row_block;
    return plan;
}

Cut cut_kept(const Nest& nest, std::int64_t elements) noexcept {
    return make_cut(nest, true, elements, nest.size(), nest.depth - 1, min_strip_from_memory);
}

Nest piece_of(const Nest& nest, const Cut& cut, std::int64_t index) noexcept {
    Nest piece = nest;
    if (cut.loop < 0) return piece;
    const std::int64_t parts = ceil_div(nest.loops[cut.loop].n, cut.length);
    const std::int64_t first = index % parts * cut.length;
    restrict_loop(piece, cut.loop, first, std::min(cut.length, nest.loops[cut.loop].n - first));
    index /= parts;
    for (int i = cut.loop - 1; i >= 0; --i) {
        if (cut.kept_only && nest.loops[i].reduced) continue;
        restrict_loop(piece, i, index % nest.loops[i].n, 1);
        index /= nest.loops[i].n;
    }
    return piece;
}

Block block_of(const Reduction& reduction, std::int64_t index) noexcept {
    const std::int64_t along_n = ceil_div(reduction.n, reduction.block_n);
    const std::int64_t along_runs = ceil_div(reduction.runs, reduction.block_runs);
    const std::int64_t first = index % along_n * reduction.block_n;
    index /= along_n;
    const std::int64_t first_run = index % along_runs * reduction.block_runs;
    index /= along_runs;
    Block block;
    block.offset = first * reduction.stride + first_run * reduction.run_stride;
    block.n = std::min(reduction.block_n, reduction.n - first);
    block.runs = std::min(reduction.block_runs, reduction.runs - first_run);
    for (int i = reduction.outer - 1; i >= 0; --i) {
        block.offset += index % reduction.outer_n[i] * reduction.outer_stride[i];
        index /= reduction.outer_n[i];
    }
    return block;
}

std::string to_string(const Plan& plan) {
    const auto number = [](std::int64_t value) { return std::to_string(value); };
    const Reduction& reduction = plan.reduction;
    std::string text = "nest";
    for (int i = 0; i < plan.nest.depth; ++i) {
        const Loop& loop = plan.nest.loops[i];
        text += std::string(loop.reduced ? " R" : " K") + number(loop.n) + ":" + number(loop.stride[op_x]);
    }
    text += "\nreduce ";
    text += reduction.kernel == Reduction::Kernel::row ? "row" : "column";
    if (reduction.packed) text += " packed";
    if (reduction.fold > 1) text += " fold=" + number(reduction.fold);
    if (reduction.interleave > 1) text += " interleave=" + number(reduction.interleave);
    text += " block=" + number(reduction.block_runs) + "x" + number(reduction.block_n);
    text += " blocks=" + number(reduction.blocks) + " chunks=" + number(reduction.chunks);
    text += "\nrun ";
    text += plan.mode == Plan::Mode::whole_sets ? "whole_sets" : "split_sets";
    text += " sets=" + number(plan.sets.pieces) + " elements=" + number(plan.elements.pieces);
    text += " threads=" + number(plan.threads) + "\n";
    return text;
}

}  // namespace anynorm::detail
