// SPDX-License-Identifier: Apache-2.0
#include "grouped_columns.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "row_buckets.hpp"
#include "scratch.hpp"

namespace anynorm::detail {
namespace {

// Sums of 20 bytes a set, of 24 in float64: those of all groups in the order of the rows while they are no more than
// this, else those of a bucket of groups that fits an L2. On a core with 2 MB of L2, 4000 groups of 16 columns take 7
// ns a row in the order of memory and 11 in buckets, 10,000 take 13 and 11. Fetched from an L3 they take 23 and 35, on
// a core with 512 KB of L2, but a thread's share of the work is a bucket, or a part of rows that are many.
constexpr std::int64_t bucket_bytes = 512 * 1024, sums_bytes = 2 * 1024 * 1024, shared_bytes = 4 * 1024 * 1024;
// Sums of one row that leave room in L2 for a few more; wider rows are compacted in strips.
constexpr std::int64_t row_bytes = 64 * 1024;
// Labels that are masked or not neighbours are copied together, so many at a time.
constexpr std::int64_t window = 1024;
// Rows of x are cut into parts of at least so many rows a group, since to begin, finish and merge sums takes as long as
// to add ten rows; into four at least, for threads, where the groups have rows for that.
constexpr std::int64_t max_parts = 16, rows_of_part = 128, min_parts = 4, rows_of_min_part = 32;
// Sets that are merged at a time.
constexpr std::int64_t sets_of_merge = 4096;

std::int64_t columns_of(const Nest& loops) { return loops.depth > 1 ? loops.loops[1].n : 1; }

std::int64_t bytes_of_group(const Elements& x, std::int64_t columns) {
    return x.dtype == DType::f64 ? kernels::block_bytes<double>(columns) : kernels::block_bytes<float>(columns);
}

/// Entries of a bucket, or rows of x, whose sums are formed together.
struct Part {
    std::int64_t first, last;
};

/// The memory of one worker.
template <class X>
struct GroupMemory {
    std::byte* blocks;
    std::int32_t* counts;          ///< rows in the block of each group
    unsigned char *begun, *wrong;  ///< groups with a cell; cells that are not finite
    Cell *cells, *block;           ///< of all groups, of one

    GroupMemory(Carver& memory, std::int64_t groups, std::int64_t columns)
        : blocks(memory.take<std::byte>(groups * kernels::block_bytes<X>(columns))),
          counts(memory.take<std::int32_t>(groups)),
          begun(memory.take<unsigned char>(groups)),
          wrong(memory.take<unsigned char>(groups * columns)),
          cells(memory.take<Cell>(groups * columns)),
          block(memory.take<Cell>(columns)) {}
};

/// The sums of one worker.
template <class X>
class GroupedRows {
  public:
    GroupedRows(const kernels::Kernels<X>& kernels, const SelectedOperands& operands, const Selection& selection,
                const Nest& loops, const RowBuckets* buckets, const GroupMemory<X>& memory)
        : kernels_(kernels),
          selection_(selection),
          buckets_(buckets),
          center_(operands.center),
          nest_(loops),
          x_(static_cast<const X*>(operands.x.data) + loops.offset[op_x]),
          x_row_(loops.loops[0].stride[op_x]),
          columns_(columns_of(loops)),
          memory_(memory) {}

    /// Finds the cells of `groups` groups, of which there are no more than the worker has room for.
    void sum(const Part& part, std::int64_t groups) {
        std::fill_n(memory_.counts, groups, 0);
        std::fill_n(memory_.begun, groups, static_cast<unsigned char>(0));
        groups_ = groups;
        any_wrong_ = false;
        if (buckets_ != nullptr) {
            add(part.first, part.last, {.listed = buckets_->entries() + part.first});
        } else {
            add_labelled(part);
        }
        finish_all();
        if (any_wrong_) mend(part);
    }
    const Cell* cells() const noexcept { return memory_.cells; }
    void swap_cells(Cell*& other) noexcept { std::swap(memory_.cells, other); }

  private:
    const X* row(std::int64_t number) const { return x_ + number * x_row_; }

    /// Rows in the order of memory.
    void add_labelled(const Part& part) {
        const Loop& rows = nest_.loops[0];
        if (selection_.where.given() || rows.stride[op_labels] != 1) {
            std::int32_t groups[window];
            for (std::int64_t first = part.first; first < part.last; first += window) {
                const std::int64_t n = std::min(window, part.last - first);
                each_group(selection_, rows, nest_.offset, first, n,
                           [&](std::int64_t i, std::int64_t group) { groups[i] = static_cast<std::int32_t>(group); });
                add(first, first + n, {.narrow = groups});
            }
            return;
        }
        with_labels(elements_of(selection_.labels), [&]<class Label>(const Label* labels) {
            labels += nest_.offset[op_labels] + part.first;
            if constexpr (sizeof(Label) == 8) {
                add(part.first, part.last, {.wide = labels});
            } else {
                add(part.first, part.last, {.narrow = labels});
            }
        });
    }

    /// Adds rows or entries. A block that is full is finished before its group has more, so that it does not matter
    /// which other groups have rows among its own.
    void add(std::int64_t first, std::int64_t last, kernels::RowGroups group_of) {
        const bool listed = group_of.listed != nullptr;
        while (first < last) {
            const kernels::GroupedRun run =
                kernels_.grouped_sums({last - first, columns_, listed ? x_ : row(first), x_row_, group_of, center_,
                                       memory_.counts, memory_.blocks, groups_});
            first += run.rows;
            if (listed) group_of.listed += run.rows;
            if (group_of.wide != nullptr) group_of.wide += run.rows;
            if (group_of.narrow != nullptr) group_of.narrow += run.rows;
            if (run.full >= 0) finish(run.full);
        }
    }

    /// Turns the blocks of some groups into cells.
    void cells_of(std::int64_t first, std::int64_t groups, Cell* out) {
        if (kernels_.grouped_cells({groups, columns_, center_, memory_.counts + first,
                                    memory_.blocks + first * kernels::block_bytes<X>(columns_), out})) {
            return;
        }
        if (!any_wrong_) std::fill_n(memory_.wrong, groups_ * columns_, static_cast<unsigned char>(0));
        any_wrong_ = true;
        for (std::int64_t i = 0; i < groups * columns_; ++i) {
            if (out[i].count > 0 && std::isnan(out[i].mean_lo)) memory_.wrong[first * columns_ + i] = 1;
        }
    }

    /// Merges the block of a group into its cells.
    void finish(std::int64_t group) {
        unsigned char& begun = memory_.begun[group];
        Cell* const cells = memory_.cells + group * columns_;
        cells_of(group, 1, begun != 0 ? memory_.block : cells);
        if (begun != 0) kernels_.merge_cells(cells, memory_.block, columns_);
        begun = 1;
    }

    /// Those of all groups: many at a time of those that have no cell yet, be it for want of rows.
    void finish_all() {
        for (std::int64_t group = 0; group < groups_;) {
            std::int64_t end = group;
            while (end < groups_ && memory_.begun[end] == 0) ++end;
            if (end > group) cells_of(group, end - group, memory_.cells + group * columns_);
            for (group = end; group < groups_ && memory_.begun[group] != 0; ++group) {
                if (memory_.counts[group] > 0) finish(group);
            }
        }
    }

    /// Calls body(row, group) for the rows of a part that are in a group.
    template <class Body>
    void each_row(const Part& part, const Body& body) const {
        const std::int64_t n = part.last - part.first;
        if (buckets_ != nullptr) {
            const kernels::RowEntry* const entries = buckets_->entries() + part.first;
            for (std::int64_t i = 0; i < n; ++i) body(static_cast<std::int64_t>(entries[i].row), entries[i].group);
        } else {
            each_group(selection_, nest_.loops[0], nest_.offset, part.first, n,
                       [&](std::int64_t i, std::int64_t group) {
                           if (group >= 0) body(part.first + i, group);
                       });
        }
    }

    /// Sets of which a sum is not finite are merged from their elements, so that those are what decides.
    void mend(const Part& part) {
        for (std::int64_t i = 0; i < groups_ * columns_; ++i) {
            if (memory_.wrong[i] != 0) memory_.cells[i] = empty_cell;
        }
        each_row(part, [&](std::int64_t number, std::int64_t group) {
            const std::int64_t first = group * columns_;
            for (std::int64_t i = 0; i < columns_; ++i) {
                if (memory_.wrong[first + i] == 0) continue;
                const double value = static_cast<double>(promote(row(number)[i]));
                merge(memory_.cells[first + i],
                      center_ ? Cell{1, value, 0, value - value} : Cell{1, 0, 0, value * value});
            }
        });
    }

    const kernels::Kernels<X>& kernels_;
    const Selection& selection_;
    const RowBuckets* buckets_;
    bool center_, any_wrong_ = false;
    const Nest& nest_;
    const X* x_;
    std::int64_t x_row_, columns_, groups_ = 0;
    GroupMemory<X> memory_;
};

/// How many parts of about equal size rows are cut into: by how many they are, never by threads. A power of two, which
/// threads share evenly.
std::int64_t parts_of(std::int64_t rows, std::int64_t groups, bool are_all) {
    std::int64_t parts = 1;
    while (parts < max_parts) {
        const std::int64_t least = are_all && parts < min_parts ? rows_of_min_part : rows_of_part;
        if (rows < 2 * parts * least * groups) break;
        parts *= 2;
    }
    return parts;
}

/// How the groups are divided: all of them in one bucket, or 2^shift in each.
struct Division {
    int shift;
    std::int64_t all, groups;

    static Division of(std::int64_t all, std::int64_t group_bytes, std::int64_t rows) {
        const bool shared = parts_of(rows, all, true) > 1;
        if (all * group_bytes <= (shared ? shared_bytes : sums_bytes)) return {0, all, all};
        int shift = 0;
        while ((std::int64_t{2} << shift) * group_bytes <= bucket_bytes) ++shift;
        return {shift, all, std::int64_t{1} << shift};
    }
    std::int64_t buckets() const noexcept { return (all - 1) / groups + 1; }
    std::int64_t groups_of(std::int64_t bucket) const noexcept { return std::min(groups, all - bucket * groups); }
};

/// All labelled rows of a call.
template <class X>
class GroupedSets {
  public:
    GroupedSets(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                const Nest& loops, int threads)
        : kernels_(kernels_for<X>(table)),
          columns_(columns_of(loops)),
          threads_(threads),
          division_(Division::of(selection.num_groups, kernels::block_bytes<X>(columns_), loops.loops[0].n)) {
        if (division_.buckets() > 1) {
            buckets_.emplace(selection, loops.loops[0], loops.offset, division_.shift, threads);
            buckets_->sort();
        }
        std::int64_t most_parts = 1;
        for (std::int64_t bucket = 0; bucket < division_.buckets(); ++bucket) {
            const std::int64_t first = buckets_ ? buckets_->first(bucket) : 0;
            const std::int64_t last = buckets_ ? buckets_->first(bucket + 1) : loops.loops[0].n;
            const std::int64_t parts = parts_of(last - first, division_.groups_of(bucket), !buckets_);
            (parts > 1 ? cut_ : whole_).push_back({bucket, first, last, parts});
            most_parts = std::max(most_parts, parts);
        }
        threads_ = static_cast<int>(std::min<std::int64_t>(threads_, std::max(most_parts, std::ssize(whole_))));
        const RowBuckets* const sorted = buckets_ ? &*buckets_ : nullptr;
        take_memory([&](GroupMemory<X> memory) {
            workers_.emplace_back(kernels_, operands, selection, loops, sorted, memory);
        });
    }

    void run(const CellSink& sink) {
        for_each_piece(std::ssize(whole_), threads_, [&](int worker, std::int64_t index) {
            const Rows& rows = whole_[static_cast<std::size_t>(index)];
            GroupedRows<X>& own = workers_[static_cast<std::size_t>(worker)];
            own.sum({rows.first, rows.last}, division_.groups_of(rows.bucket));
            sink(rows.bucket * division_.groups, division_.groups_of(rows.bucket), own.cells(), nullptr);
        });
        for (const Rows& rows : cut_) sum_parts(rows, sink);
    }

  private:
    /// Those of a bucket, or of x, in so many parts.
    struct Rows {
        std::int64_t bucket, first, last, parts;
    };

    /// One block of memory: of several, some would be given back to the system and taken again in every call, and a
    /// page of it costs as much as 250 rows.
    template <class Take>
    void take_memory(const Take& take) {
        const std::int64_t groups = division_.groups_of(0);
        const auto carve = [&](Carver memory, const auto& use) {
            for (int i = 0; i < threads_; ++i) use(GroupMemory<X>(memory, groups, columns_));
            if (!cut_.empty()) total_ = memory.template take<Cell>(groups * columns_);
            return memory.used();
        };
        memory_ = std::make_unique<Scratch>(carve(Carver(nullptr), [](const GroupMemory<X>&) {}));
        workers_.reserve(static_cast<std::size_t>(threads_));
        carve(Carver(memory_->data()), take);
    }

    /// As many parts at a time as there are threads, merged in their order.
    void sum_parts(const Rows& rows, const CellSink& sink) {
        const std::int64_t groups = division_.groups_of(rows.bucket), n = rows.last - rows.first;
        const std::int64_t pieces = std::clamp<std::int64_t>(groups * columns_ / sets_of_merge, 1, groups);
        for (std::int64_t done = 0; done < rows.parts;) {
            const std::int64_t count = std::min<std::int64_t>(threads_, rows.parts - done);
            for_each_piece(count, threads_, [&](int, std::int64_t i) {
                const std::int64_t part = done + i;
                workers_[static_cast<std::size_t>(i)].sum(
                    {rows.first + n * part / rows.parts, rows.first + n * (part + 1) / rows.parts}, groups);
            });
            const std::int64_t first = done == 0 ? 1 : 0;
            if (first == 1) workers_[0].swap_cells(total_);
            done += count;
            for_each_piece(pieces, threads_, [&](int, std::int64_t piece) {
                const std::int64_t begin = groups * piece / pieces, end = groups * (piece + 1) / pieces;
                Cell* const into = total_ + begin * columns_;
                for (std::int64_t i = first; i < count; ++i) {
                    kernels_.merge_cells(into, workers_[static_cast<std::size_t>(i)].cells() + begin * columns_,
                                         (end - begin) * columns_);
                }
                if (done == rows.parts) sink(rows.bucket * division_.groups + begin, end - begin, into, nullptr);
            });
        }
    }

    const kernels::Kernels<X>& kernels_;
    std::int64_t columns_;
    int threads_;
    Division division_;
    std::optional<RowBuckets> buckets_;
    std::vector<Rows> whole_, cut_;
    std::unique_ptr<Scratch> memory_;
    std::vector<GroupedRows<X>> workers_;
    Cell* total_ = nullptr;  ///< of the parts that are merged
};

}  // namespace

bool are_grouped_columns(const Elements& x, const Selection& selection, const Nest& loops) noexcept {
    if (!selection.labels.given() || selection.sample_weight.given() || selection.num_groups == 0) return false;
    if (loops.depth < 1 || loops.depth > 2 || !is_selected(loops.loops[0])) return false;
    if (loops.depth > 1) {
        const Loop& inner = loops.loops[1];
        if (inner.reduced || is_family(inner) || inner.stride[op_x] != 1) return false;
    }
    const std::int64_t bytes = bytes_of_group(x, columns_of(loops));
    return selection.num_groups * bytes <= sums_bytes || bytes <= row_bytes;
}

void grouped_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                     const Nest& loops, int threads, const CellSink& sink) {
    with_type(operands.x, [&]<class X>(X*) { GroupedSets<X>(table, operands, selection, loops, threads).run(sink); });
}

}  // namespace anynorm::detail
