// SPDX-License-Identifier: Apache-2.0
// The sets of one group, which differ in their kept index alone: their elements, compacted, and a chunk of their sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "compaction.hpp"
#include "dispatch.hpp"
#include "members.hpp"
#include "plan.hpp"
#include "reduce.hpp"
#include "weighted.hpp"

namespace anynorm::detail {

/// What depends on the number of members alone.
struct GroupShape {
    std::int64_t members = -1;
    /// The nest without the loops of families. op_x has the strides of the compacted array; op_y and op_sample_weight
    /// those of x and of the weights, 0 for the loop over the members.
    Nest compact;
    int selected = -1;  ///< the loop over the members
    Reduction reduction;
    /// The plan for x as it lies, for members that follow each other, where it gives the same sums.
    std::optional<Plan> in_place;

    /// Whether that plan is one call of a kernel for all sets.
    bool one_call = false;

    /// Whether each set is summed on its own, as a row; else sets that lie side by side are.
    bool sums_rows(bool weighted) const noexcept {
        return reduction.kernel == Reduction::Kernel::row || (weighted && reduction.fold > 1);
    }
};

/// Some of the sets of a group, in the order of its kept loops.
struct SetRange {
    std::int64_t first = 0, last = 0;
};

/// A selected nest, whose op_x, op_cell, op_labels, op_where and op_sample_weight strides count.
class GroupGeometry {
  public:
    GroupGeometry(const Nest& nest, const Members& members, bool weighted) noexcept
        : nest_(nest), members_(members), weighted_(weighted) {
        for (int i = 0; i < nest.depth; ++i) {
            const Loop& loop = nest.loops[i];
            if (is_selected(loop)) selected_ = i;
            if (loop.reduced && !is_selected(loop)) others_ *= loop.n;
            if (loop.reduced) ++reduced_;
            if (!loop.reduced && !is_family(loop)) sets_ *= loop.n;
        }
    }

    /// Sets of a group.
    std::int64_t sets() const noexcept { return sets_; }
    /// Elements of a set for every member of its group.
    std::int64_t others() const noexcept { return others_; }
    const Nest& nest() const noexcept { return nest_; }
    /// Whether a set of so many elements is one chunk for certain. Where more than two loops are reduced, with gaps or
    /// kept loops between them, each iteration of the outer ones is a block, however short.
    bool is_one_chunk(std::int64_t elements) const noexcept { return elements <= (reduced_ <= 2 ? column_block : 1); }

    void shape(std::int64_t members, GroupShape& shape) const noexcept {
        shape.members = members;
        shape.selected = -1;
        shape.compact.depth = 0;
        for (std::int64_t& offset : shape.compact.offset) offset = 0;
        Nest direct;
        for (int i = 0; i < nest_.depth; ++i) {
            Loop loop = nest_.loops[i];
            if (is_family(loop) || (is_selected(loop) && i != selected_)) continue;
            if (i == selected_) loop.n = members;
            direct.loops[direct.depth++] = loop;
            loop.stride[op_y] = loop.stride[op_x];
            if (i == selected_) {
                shape.selected = shape.compact.depth;
                loop.stride[op_y] = loop.stride[op_sample_weight] = 0;
            }
            loop.stride[op_x] = 1;  // also where x is broadcast: a compacted array is not
            shape.compact.loops[shape.compact.depth++] = loop;
        }
        number_elements(shape.compact, op_x);
        shape.reduction = make_reduction(shape.compact);
        shape.in_place.reset();
        shape.one_call = false;
        if (weighted_ || members_.position_loops().depth > 1) return;
        shape.in_place.emplace(direct);
        // A segment is what a call for it alone would read; members of labels and masks follow each other by chance.
        if (!members_.are_segments() && !same_blocks(shape.reduction, shape.in_place->reduction)) {
            shape.in_place.reset();
        } else {
            shape.one_call = is_one_call(shape.in_place->reduction);
        }
    }

  private:
    static bool same_blocks(const Reduction& a, const Reduction& b) noexcept {
        return a.kernel == b.kernel && !b.packed && !b.one_column && a.fold == b.fold && a.interleave == b.interleave &&
               a.n == b.n && a.runs == b.runs && a.block_n == b.block_n && a.block_runs == b.block_runs &&
               a.blocks == b.blocks && a.chunk_blocks == b.chunk_blocks;
    }

    static bool is_one_call(const Reduction& of) noexcept {
        return of.blocks == 1 && of.columns_per_set() == 1 && of.tail_n == 0 && of.kept == 0 && of.cells_loop >= 0 &&
               of.cells_inside && !of.packed;
    }

    const Nest& nest_;
    const Members& members_;
    bool weighted_;
    int selected_ = -1, reduced_ = 0;
    std::int64_t sets_ = 1, others_ = 1;
};

/// One worker's memory and loops.
template <class X>
class GroupSums {
  public:
    /// `largest` is the shape of the group with the most members.
    GroupSums(const kernels::Kernels<X>& kernels, const GroupGeometry& geometry, const Members& members,
              const GroupShape& largest, const Elements& weight, bool center)
        : kernels_(kernels),
          geometry_(geometry),
          members_(members),
          weight_(weight),
          center_(center),
          offsets_(members, op_x),
          weight_offsets_(members, op_sample_weight) {
        make_room(largest);
        places_.resize(static_cast<std::size_t>(geometry.sets() > 1 && !weight.given() ? row_block : 0));
        // Few members that lie side by side are folded into columns, more of them than a large group has.
        GroupShape few;
        for (std::int64_t members = 1; members < std::min(fold_below, largest.members); ++members) {
            geometry.shape(members, few);
            make_room(few);
        }
    }

    /// Chunk `chunk` of the sums of a group, as many cells as it has sets, in the order of its kept loops; only sets
    /// that are summed as rows can be divided into ranges. `x` is where the family's elements begin, `weight` where
    /// their weights do; `squares` gets the sums of squared weights.
    void sum(const X* x, std::int64_t weight, std::int64_t family, std::int64_t group, std::int64_t chunk,
             const SetRange& sets, Cell* out, double* squares) {
        const GroupShape& shape = shape_of(members_.count(family, group));
        const std::int64_t first = members_.first_of_range(family, group);
        if (shape.in_place && first >= 0) {
            const Plan& plan = *shape.in_place;
            if (shape.one_call) return sum_in_one_call(plan, x + members_.offset_of(first, op_x), out);
            const ReduceScratch scratch{nullptr, block_.data(), panel_.data()};
            reduce_chunk<X>(kernels_, x + members_.offset_of(first, op_x), plan, plan.nest, center_, chunk,
                            columns_.data(), scratch);
            std::copy_n(columns_.data(), geometry_.sets(), out);
            return;
        }
        offsets_.begin(family, group);
        weight_offsets_.begin(family, group);
        const Reduction& reduction = shape.reduction;
        const bool row = shape.sums_rows(weight_.given());
        Nest outside;
        for (int i = 0; i < shape.compact.depth; ++i) {
            const Loop& loop = shape.compact.loops[i];
            if (!loop.reduced && (row || i != reduction.cells_loop)) outside.loops[outside.depth++] = loop;
        }
        if (row && !weight_.given()) return sum_rows(shape, x, outside, sets, chunk, out);
        walk(outside, outside.depth, [&](const std::int64_t* offset) {
            const X* const from = x + offset[op_y];
            const std::int64_t weight_from = weight + offset[op_sample_weight];
            if (row) {
                weigh_set(shape, from, weight_from, chunk, *out++, *squares++);
                return;
            }
            const Loop& cells = shape.compact.loops[reduction.cells_loop];
            const std::int64_t width = strip(shape);
            for (std::int64_t cell = 0; cell < cells.n; cell += width) {
                const std::int64_t count = std::min(width, cells.n - cell);
                sum_strip(shape, from + cell * cells.stride[op_y], weight_from + cell * cells.stride[op_sample_weight],
                          count, chunk, out, squares);
                out += count;
                if (squares != nullptr) squares += count;
            }
        });
    }

  private:
    /// A panel of 64 columns and 1024 rows of float32 is 256 KB, half of an L2.
    static constexpr std::int64_t strip_columns = max_weighted_columns;
    /// Weights are doubles beside the elements: a quarter of the rows.
    static constexpr std::int64_t weighted_rows = 256;

    const GroupShape& shape_of(std::int64_t members) {
        GroupShape& shape = shapes_[members % known_shapes];
        if (shape.members != members) {
            geometry_.shape(members, shape);
            make_room(shape);
        }
        return shape;
    }

    /// A small group may be summed as more columns than the largest: its rows are folded where theirs are not.
    void make_room(const GroupShape& shape) {
        const auto grow = [](auto& buffer, std::int64_t count) {
            const auto size = static_cast<std::size_t>(count);
            if (buffer.size() < size) buffer.resize(size);
        };
        std::int64_t columns = strip(shape) * shape.reduction.columns_per_set();
        grow(panel_, std::max(row_block, column_block * columns));
        if (shape.in_place) columns = std::max(columns, geometry_.sets() * shape.in_place->reduction.columns_per_set());
        grow(columns_, columns);
        grow(block_, columns);
        if (weight_.given()) grow(weights_, static_cast<std::int64_t>(panel_.size()));
    }

    /// Sets of a strip.
    static std::int64_t strip(const GroupShape& shape) noexcept {
        const Reduction& reduction = shape.reduction;
        if (reduction.cells_loop < 0) return 1;
        const std::int64_t all = shape.compact.loops[reduction.cells_loop].n;
        // Joined rows must stay whole.
        return reduction.interleave > 1 ? all
                                        : std::min(all, std::max<std::int64_t>(1, strip_columns / reduction.fold));
    }

    /// Loops of one set, or of a strip of `count` sets.
    void set_loops(const GroupShape& shape, std::int64_t count) noexcept {
        elements_.clear();
        weight_elements_.clear();
        for (int i = 0; i < shape.compact.depth; ++i) {
            const Loop& loop = shape.compact.loops[i];
            const bool is_cells = count > 0 && i == shape.reduction.cells_loop;
            if (!loop.reduced && !is_cells) continue;
            const std::int64_t n = is_cells ? count : loop.n;
            elements_.add(n, loop.stride[op_y], i == shape.selected);
            weight_elements_.add(n, loop.stride[op_sample_weight], i == shape.selected);
        }
    }

    /// Where a block begins in the compacted set: the number of its first row, or element.
    static std::int64_t start_of(const Reduction& reduction, std::int64_t index) noexcept {
        const std::int64_t along_n = (reduction.n + reduction.block_n - 1) / reduction.block_n;
        const std::int64_t along_runs = (reduction.runs + reduction.block_runs - 1) / reduction.block_runs;
        const std::int64_t first = index % along_n * reduction.block_n;
        index /= along_n;
        const std::int64_t run = index % along_runs * reduction.block_runs + index / along_runs * reduction.runs;
        return run * reduction.n + first;
    }

    std::int64_t last_block(const Reduction& reduction, std::int64_t chunk) const noexcept {
        return std::min(reduction.blocks, (chunk + 1) * reduction.chunk_blocks);
    }

    /// A short segment: what reduce_chunk() would do, without looking for it.
    void sum_in_one_call(const Plan& plan, const X* x, Cell* out) const {
        const Reduction& reduction = plan.reduction;
        const Loop& cells = plan.nest.loops[reduction.cells_loop];
        const kernels::MomentsArgs<X> args{
            x,       cells.n, cells.stride[op_x], reduction.runs, reduction.run_stride, reduction.n, reduction.stride,
            center_, out};
        (reduction.kernel == Reduction::Kernel::row ? kernels_.moments_row : kernels_.moments_column)(args);
    }

    /// Sets whose elements follow each other in the compacted array, or in runs. Block by block, so that for all sets
    /// members are found once.
    void sum_rows(const GroupShape& shape, const X* x, const Nest& outside, const SetRange& sets, std::int64_t chunk,
                  Cell* out) {
        const Reduction& reduction = shape.reduction;
        set_loops(shape, 0);
        const bool share = sets.last - sets.first > 1 && elements_.ends_selected();
        const std::int64_t first = chunk * reduction.chunk_blocks;
        for (std::int64_t index = first; index < last_block(reduction, chunk); ++index) {
            const Block block = block_of(reduction, index);
            const std::int64_t start = start_of(reduction, index), n = block.runs * block.n;
            if (share) elements_.offsets(offsets_, start, n, places_.data());
            for (std::int64_t set = sets.first; set < sets.last; ++set) {
                const X* const from = x + offset_at(outside, set, op_y);
                if (share) {
                    for (std::int64_t i = 0; i < n; ++i)
                        panel_[static_cast<std::size_t>(i)] = from[places_[static_cast<std::size_t>(i)]];
                } else {
                    elements_.copy(from, offsets_, start, n, panel_.data());
                }
                Cell cell;
                kernels_.moments_row({panel_.data(), 1, 0, block.runs, block.n, block.n, 1, center_, &cell});
                if (index == first) {
                    out[set] = cell;
                } else {
                    kernels_.merge_cells(out + set, &cell, 1);
                }
            }
        }
    }

    /// Sets that lie side by side.
    void sum_strip(const GroupShape& shape, const X* from, std::int64_t weight, std::int64_t count, std::int64_t chunk,
                   Cell* out, double* squares) {
        set_loops(shape, count);
        if (weight_.given()) return weigh_strip(shape, from, weight, count, chunk, out, squares);
        const Reduction& reduction = shape.reduction;
        const std::int64_t columns = count * reduction.fold, joined = columns * reduction.interleave;
        Cell* const sums = columns_.data();
        const auto sum_rows = [&](std::int64_t start, std::int64_t runs, std::int64_t rows, std::int64_t width,
                                  Cell* to) {
            elements_.copy(from, offsets_, start, runs * rows * width, panel_.data());
            kernels_.moments_column({panel_.data(), width, 1, runs, rows * width, rows, width, center_, to});
        };
        const std::int64_t first = chunk * reduction.chunk_blocks, last = last_block(reduction, chunk);
        for (std::int64_t index = first; index < last; ++index) {
            const Block block = block_of(reduction, index);
            Cell* const to = index == first ? sums : block_.data();
            sum_rows(start_of(reduction, index) * joined, block.runs, block.n, joined, to);
            if (to != sums) kernels_.merge_cells(sums, to, joined);
        }
        merge_columns(sums, columns, 1, reduction.interleave, columns);
        if (reduction.tail_n > 0 && last == reduction.blocks) {
            // Counted in rows: those of the reduction are the columns of all sets, which are in several strips where
            // kept loops are several.
            const std::int64_t row = reduction.tail_offset / reduction.row_stride;
            sum_rows(row * columns, 1, reduction.tail_n, columns, block_.data());
            kernels_.merge_cells(sums, block_.data(), columns);
        }
        merge_columns(sums, count, reduction.fold, reduction.fold, 1);
        std::copy_n(sums, count, out);
    }

    /// Copies elements and weights of a stretch of the compacted array.
    void copy_weighted(const X* from, std::int64_t weight, std::int64_t start, std::int64_t n) {
        elements_.copy(from, offsets_, start, n, panel_.data());
        with_type(weight_, [&]<class W>(const W* p) {
            if constexpr (sizeof(W) > 2) {
                weight_elements_.copy(p + weight, weight_offsets_, start, n, weights_.data());
            }
        });
    }

    /// Weighted sums have blocks of their own: the stretch of `total` that belongs to a chunk.
    template <class Sum>
    void each_stretch(const GroupShape& shape, std::int64_t total, std::int64_t length, std::int64_t chunk,
                      const Sum& sum) {
        const std::int64_t chunks = shape.reduction.chunks;
        const std::int64_t first = total * chunk / chunks, last = total * (chunk + 1) / chunks;
        for (std::int64_t start = first; start < last; start += length) sum(start, std::min(length, last - start));
    }

    void weigh_set(const GroupShape& shape, const X* from, std::int64_t weight, std::int64_t chunk, Cell& out,
                   double& squares) {
        set_loops(shape, 0);
        out = {0, 0, 0, 0};
        squares = 0;
        each_stretch(shape, shape.members * geometry_.others(), row_block, chunk,
                     [&](std::int64_t start, std::int64_t n) {
                         copy_weighted(from, weight, start, n);
                         double part = 0;
                         merge(out, weighted_row(panel_.data(), weights_.data(), n, center_, part));
                         squares += part;
                     });
    }

    void weigh_strip(const GroupShape& shape, const X* from, std::int64_t weight, std::int64_t count,
                     std::int64_t chunk, Cell* out, double* squares) {
        std::fill_n(out, count, Cell{0, 0, 0, 0});
        std::fill_n(squares, count, 0.0);
        each_stretch(shape, shape.members * geometry_.others(), weighted_rows, chunk,
                     [&](std::int64_t start, std::int64_t rows) {
                         copy_weighted(from, weight, start * count, rows * count);
                         double parts[max_weighted_columns];
                         weighted_columns(panel_.data(), weights_.data(), rows, count, center_, block_.data(), parts);
                         for (std::int64_t i = 0; i < count; ++i) {
                             merge(out[i], block_[static_cast<std::size_t>(i)]);
                             squares[i] += parts[i];
                         }
                     });
    }

    const kernels::Kernels<X>& kernels_;
    const GroupGeometry& geometry_;
    const Members& members_;
    Elements weight_;
    bool center_;
    MemberOffsets offsets_, weight_offsets_;
    Compaction elements_, weight_elements_;
    std::vector<Cell> columns_, block_;
    std::vector<X> panel_;
    std::vector<std::int64_t> places_;  ///< of the elements of a block
    std::vector<double> weights_;
    static constexpr int known_shapes = 64;
    GroupShape shapes_[known_shapes];
};

}  // namespace anynorm::detail
