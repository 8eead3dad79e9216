// SPDX-License-Identifier: Apache-2.0
#include "grouped_columns.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"
#include "row_buckets.hpp"

namespace anynorm::detail {
namespace {

// Sums of 24 bytes a set. Those of a bucket fit an L2. Without buckets they may be more: what spills into the last
// cache takes less time than to sort the labels and to fetch rows from all over memory. But many of them are as many
// cells to each part of the rows, so that more than two threads are better off with buckets. 6 MB are those of 16,000
// groups, as many as a window is sorted by.
constexpr std::int64_t bucket_bytes = 512 * 1024, sums_bytes = 1024 * 1024, cached_bytes = 6 * 1024 * 1024;
constexpr int threads_of_one = 2;
// Sums of one row that leave room in L2 for a few more; wider rows are compacted in strips.
constexpr std::int64_t row_bytes = 64 * 1024;
// Rows of a block are added one to the other: 256 roundings of m2, and the cancellation in it, are below 1e-14.
constexpr std::int64_t block_rows = 256;
// The rows of a window are sorted by group, for 4 ns each, so that sums are loaded and stored once for all that a group
// has there: eight of them if labels are random. A window of few groups fits an L2, one of many or of long rows is a
// part of the last cache.
constexpr std::int64_t rows_of_group = 8, min_window = 2048, max_window = 32768, window_bytes = 2 * 1024 * 1024;
// Groups whose first row is fetched while others are added.
constexpr std::int64_t groups_ahead = 4;
// Every part has cells of its own, 32 bytes a set: together below 6 % of x.
constexpr std::int64_t max_parts = 16, bytes_of_part = 16;

std::int64_t group_stride(std::int64_t columns) { return 3 * kernels::whole_packs(columns); }
std::int64_t group_bytes(std::int64_t columns) {
    return group_stride(columns) * static_cast<std::int64_t>(sizeof(double));
}
std::int64_t columns_of(const Nest& loops) { return loops.depth > 1 ? loops.loops[1].n : 1; }

/// Rows of one bucket, or of x in its order, whose sums are formed together.
struct Part {
    std::int64_t bucket, first, last;
    Cell* cells = nullptr;  ///< of a bucket that has several parts
};

/// The sums of one worker.
template <class X>
class GroupedRows {
  public:
    GroupedRows(const kernels::Kernels<X>& kernels, const SelectedOperands& operands, const Selection& selection,
                const Nest& loops, const RowBuckets* buckets, std::int64_t groups)
        : kernels_(kernels),
          selection_(selection),
          buckets_(buckets),
          center_(operands.center),
          nest_(loops),
          x_(static_cast<const X*>(operands.x.data) + loops.offset[op_x]),
          x_row_(loops.loops[0].stride[op_x]),
          columns_(columns_of(loops)),
          stride_(group_stride(columns_)),
          sums_(static_cast<std::size_t>(groups * stride_)),
          counts_(static_cast<std::size_t>(groups)),
          begun_(static_cast<std::size_t>(groups)),
          wrong_(static_cast<std::size_t>(groups * columns_)),
          own_(wrong_.size()) {
        const std::int64_t bytes = columns_ * static_cast<std::int64_t>(sizeof(X));
        window_ = std::min(std::clamp(rows_of_group * groups, min_window, max_window),
                           std::max<std::int64_t>(1, window_bytes / bytes));
        window_ = std::min(window_, std::max<std::int64_t>(1, loops.loops[0].n));
        sorts_ = groups <= window_ / 2;
        if (sorts_) starts_.resize(static_cast<std::size_t>(groups + 2));
        order_.resize(static_cast<std::size_t>(window_));
        runs_.reserve(static_cast<std::size_t>(sorts_ ? groups + window_ / block_rows : window_));
    }

    /// The cells of `groups` groups, of which there are no more than the worker has room for.
    const Cell* sum(const Part& part, std::int64_t groups) {
        cells_ = part.cells != nullptr ? part.cells : own_.data();
        std::fill_n(counts_.begin(), groups, 0);
        std::fill_n(begun_.begin(), groups, static_cast<unsigned char>(0));
        any_wrong_ = false;
        for (std::int64_t first = part.first; first < part.last; first += window_) {
            const std::int64_t n = std::min(window_, part.last - first);
            if (sorts_) {
                add_sorted(first, n, part.last - first - n, groups);
            } else {
                add_in_order(first, n);
            }
        }
        for (std::int64_t group = 0; group < groups; ++group) {
            if (counts_[static_cast<std::size_t>(group)] > 0) {
                finish(group);
            } else if (begun_[static_cast<std::size_t>(group)] == 0) {
                std::fill_n(cells_ + group * columns_, columns_, empty_cell);
            }
        }
        if (any_wrong_) mend(part, groups);
        return cells_;
    }

  private:
    const X* row(std::int64_t number) const { return x_ + number * x_row_; }

    /// Calls body(i, row, group) for n entries, with a negative group for those that are in none.
    template <class Body>
    void each_entry(std::int64_t first, std::int64_t n, const Body& body) const {
        if (buckets_ != nullptr) {
            const std::uint32_t* const rows = buckets_->rows() + first;
            const std::int32_t* const groups = buckets_->groups() + first;
            for (std::int64_t i = 0; i < n; ++i) body(i, rows[i], static_cast<std::int64_t>(groups[i]));
        } else {
            each_group(selection_, nest_.loops[0], nest_.offset, first, n, [&](std::int64_t i, std::int64_t group) {
                body(i, static_cast<std::uint32_t>(first + i), group);
            });
        }
    }

    /// Adds the rows of a window, sorted by group: each group's in their order. `next` entries follow.
    void add_sorted(std::int64_t first, std::int64_t n, std::int64_t next, std::int64_t groups) {
        const X* const x = x_;
        const std::int64_t x_row = x_row_;
        if (buckets_ != nullptr) {
            const std::uint32_t* const rows = buckets_->rows() + first + n;
            sort(first, n, groups, [=](std::int64_t i) {
                if (i < next) __builtin_prefetch(x + rows[i] * x_row, 0, 2);
            });
        } else {
            const X* const ahead = next < n ? x : row(first + n);
            sort(first, n, groups,
                 [ahead, step = next < n ? 0 : x_row](std::int64_t i) { __builtin_prefetch(ahead + i * step, 0, 2); });
        }
        const std::uint32_t *const starts = starts_.data(), *const order = order_.data();
        for (std::int64_t group = 0; group < groups; ++group) {
            const std::uint32_t soon = starts[std::min(group + groups_ahead, groups)];
            if (soon < n) __builtin_prefetch(row(order[soon]));
            if (starts[group] < starts[group + 1]) add(group, starts[group], starts[group + 1]);
        }
        sum_runs();
    }

    /// Group g has the rows of `order_` from starts_[g] to starts_[g + 1]. This reads labels alone, and meanwhile
    /// fetches the rows of the next window, a half of them in each pass.
    template <class Fetch>
    void sort(std::int64_t first, std::int64_t n, std::int64_t groups, const Fetch& fetch) {
        std::uint32_t *const starts = starts_.data(), *const order = order_.data();
        std::fill_n(starts, groups + 2, 0U);
        each_entry(first, n, [=](std::int64_t i, std::uint32_t, std::int64_t group) {
            fetch(i / 2);
            ++starts[group + 2];
        });
        for (std::int64_t i = 1; i < groups + 1; ++i) starts[i + 1] += starts[i];
        each_entry(first, n, [=](std::int64_t i, std::uint32_t number, std::int64_t group) {
            fetch((n + i) / 2);
            order[starts[group + 1]++] = number;  // which moves the start of each group to the next
        });
    }

    void add_in_order(std::int64_t first, std::int64_t n) {
        std::uint32_t entries = 0;
        each_entry(first, n, [&](std::int64_t, std::uint32_t number, std::int64_t group) {
            if (group < 0) return;
            order_[entries++] = number;
            add(group, entries - 1, entries);
        });
        sum_runs();
    }

    /// Adds rows of a group. A block that is full is finished before its group has more, so that it does not matter
    /// which other groups have rows among its own.
    void add(std::int64_t group, std::uint32_t first, std::uint32_t last) {
        std::int32_t& count = counts_[static_cast<std::size_t>(group)];
        if (runs_.empty()) first_ = first;
        while (first < last) {
            if (count == 0) begin(row(order_[first]), group);
            const auto n = std::min(last - first, static_cast<std::uint32_t>(block_rows - count));
            first += n;
            count += static_cast<std::int32_t>(n);
            runs_.push_back({static_cast<std::int32_t>(group), first});
            if (count < block_rows) return;
            sum_runs();
            first_ = first;
            finish(group);
        }
    }

    void sum_runs() {
        if (runs_.empty()) return;
        kernels_.grouped_sums(
            {std::ssize(runs_), columns_, runs_.data(), order_.data(), first_, x_, x_row_, sums_.data(), stride_});
        runs_.clear();
    }

    /// A block of a group has its first row as shift.
    void begin(const X* x, std::int64_t group) {
        double* const c = sums_.data() + group * stride_;
        std::fill_n(c, stride_, 0.0);
        for (std::int64_t i = 0; i < columns_ && center_; ++i) {
            const double value = static_cast<double>(promote(x[i]));
            c[i] = value - value == 0 ? value : 0;
        }
    }

    /// Merges the block of a group into its cells.
    void finish(std::int64_t group) {
        const double* const c = sums_.data() + group * stride_;
        const double *const s1 = c + stride_ / 3, *const s2 = s1 + stride_ / 3;
        const auto count = static_cast<double>(counts_[static_cast<std::size_t>(group)]);
        counts_[static_cast<std::size_t>(group)] = 0;
        Cell* const cells = cells_ + group * columns_;
        unsigned char& begun = begun_[static_cast<std::size_t>(group)];
        double not_finite = 0;
        for (std::int64_t i = 0; i < columns_; ++i) {
            const Cell cell = center_ ? cell_of_sums(count, c[i], s1[i], s2[i]) : Cell{count, 0, 0, s2[i]};
            not_finite += (s1[i] - s1[i]) + (s2[i] - s2[i]);
            if (begun != 0) {
                merge(cells[i], cell);
            } else {
                cells[i] = cell;
            }
        }
        begun = 1;
        if (not_finite == 0) return;
        if (!any_wrong_) std::fill(wrong_.begin(), wrong_.end(), static_cast<unsigned char>(0));
        any_wrong_ = true;
        for (std::int64_t i = 0; i < columns_; ++i) {
            if (!std::isfinite(s1[i]) || !std::isfinite(s2[i]))
                wrong_[static_cast<std::size_t>(group * columns_ + i)] = 1;
        }
    }

    /// Sets of which a sum is not finite are merged from their elements, so that those are what decides.
    void mend(const Part& part, std::int64_t groups) {
        for (std::int64_t i = 0; i < groups * columns_; ++i) {
            if (wrong_[static_cast<std::size_t>(i)] != 0) cells_[i] = empty_cell;
        }
        each_entry(part.first, part.last - part.first, [&](std::int64_t, std::uint32_t number, std::int64_t group) {
            if (group < 0) return;
            const std::int64_t first = group * columns_;
            for (std::int64_t i = 0; i < columns_; ++i) {
                if (wrong_[static_cast<std::size_t>(first + i)] == 0) continue;
                const double value = static_cast<double>(promote(row(number)[i]));
                merge(cells_[first + i], center_ ? Cell{1, value, 0, value - value} : Cell{1, 0, 0, value * value});
            }
        });
    }

    const kernels::Kernels<X>& kernels_;
    const Selection& selection_;
    const RowBuckets* buckets_;
    bool center_, any_wrong_ = false;
    const Nest& nest_;
    const X* x_;
    std::int64_t x_row_, columns_, stride_, window_;
    bool sorts_;
    std::uint32_t first_ = 0;  ///< entry of the runs that are not summed yet
    Cell* cells_ = nullptr;
    std::vector<double> sums_;
    std::vector<std::int32_t> counts_;
    std::vector<unsigned char> begun_, wrong_;  ///< of groups with a cell, of cells
    std::vector<Cell> own_;
    std::vector<std::uint32_t> order_, starts_;  ///< rows of a window in the order in which they are added
    std::vector<kernels::GroupRun> runs_;
};

/// How the groups are divided: all of them in one bucket, or 2^shift in each.
struct Division {
    int shift = 0;
    std::int64_t all, groups;

    static Division in_one(std::int64_t of) { return {0, of, of}; }
    static Division in_buckets(std::int64_t of, std::int64_t columns) {
        int shift = 0;
        while ((std::int64_t{2} << shift) * group_bytes(columns) <= bucket_bytes) ++shift;
        return {shift, of, std::int64_t{1} << shift};
    }
    std::int64_t groups_of(std::int64_t bucket) const noexcept { return std::min(groups, all - bucket * groups); }
};

/// Parts of about equal size in each bucket: a cut by what is in them, never by threads.
struct RowParts {
    std::vector<Part> parts;
    std::vector<Cell> cells;  ///< of buckets that have several
    bool is_cut = false;

    RowParts(const Division& division, const RowBuckets* buckets, std::int64_t rows, std::int64_t columns,
             std::int64_t element_bytes) {
        const std::int64_t count = buckets != nullptr ? buckets->buckets() : 1;
        parts.reserve(static_cast<std::size_t>(count));
        std::int64_t partial = 0;
        for (std::int64_t bucket = 0; bucket < count; ++bucket) {
            const std::int64_t first = buckets != nullptr ? buckets->first(bucket) : 0;
            const std::int64_t n = (buckets != nullptr ? buckets->first(bucket + 1) : rows) - first;
            const std::int64_t own = division.groups_of(bucket) * columns;
            const std::int64_t cut = std::clamp<std::int64_t>(
                n * columns * element_bytes / (bytes_of_part * own * static_cast<std::int64_t>(sizeof(Cell))), 1,
                max_parts);
            for (std::int64_t i = 0; i < cut; ++i)
                parts.push_back({bucket, first + n * i / cut, first + n * (i + 1) / cut});
            if (cut > 1) partial += cut * own;
        }
        is_cut = partial > 0;
        cells.resize(static_cast<std::size_t>(partial));
        Cell* next = cells.data();
        for (std::size_t i = 0; i < parts.size(); ++i) {
            const bool follows = i > 0 && parts[i - 1].bucket == parts[i].bucket;
            const bool leads = i + 1 < parts.size() && parts[i + 1].bucket == parts[i].bucket;
            if (!follows && !leads) continue;
            parts[i].cells = next;
            next += division.groups_of(parts[i].bucket) * columns;
        }
    }
};

template <class X>
void sum_groups(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                const Nest& loops, int threads, const CellSink& sink) {
    const kernels::Kernels<X>& kernels = kernels_for<X>(table);
    const std::int64_t columns = columns_of(loops), groups = selection.num_groups;
    const std::int64_t bytes = groups * group_bytes(columns), element = static_cast<std::int64_t>(sizeof(X));
    const Loop& rows = loops.loops[0];
    Division division = Division::in_one(groups);
    std::optional<RowBuckets> buckets;
    std::optional<RowParts> parts;
    if (bytes > sums_bytes) {
        division = Division::in_buckets(groups, columns);
        buckets.emplace(selection, rows, loops.offset, division.shift, threads);
        parts.emplace(division, &*buckets, rows.n, columns, element);
        // Sums of groups that no bucket divides are the same, to the bit, without buckets.
        if (threads <= threads_of_one && bytes <= cached_bytes && !parts->is_cut) {
            division = Division::in_one(groups);
            buckets.reset();
            parts->parts = {{0, 0, rows.n}};
        } else {
            buckets->sort();
        }
    } else {
        parts.emplace(division, nullptr, rows.n, columns, element);
    }
    const RowBuckets* const sorted = buckets ? &*buckets : nullptr;
    const RowParts& cut = *parts;
    const auto jobs = static_cast<std::int64_t>(cut.parts.size());
    threads = static_cast<int>(std::min<std::int64_t>(threads, jobs));
    std::vector<GroupedRows<X>> workers;
    workers.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i)
        workers.emplace_back(kernels, operands, selection, loops, sorted, division.groups_of(0));
    const auto give = [&](std::int64_t bucket, const Cell* cells) {
        sink(bucket * division.groups, division.groups_of(bucket), cells, nullptr);
    };
    for_each_piece(jobs, threads, [&](int worker, std::int64_t index) {
        const Part& part = cut.parts[static_cast<std::size_t>(index)];
        const Cell* const cells = workers[static_cast<std::size_t>(worker)].sum(part, division.groups_of(part.bucket));
        if (part.cells == nullptr) give(part.bucket, cells);
    });
    for (std::size_t i = 0; i < cut.parts.size();) {
        const Part& first = cut.parts[i++];
        if (first.cells == nullptr) continue;
        for (; i < cut.parts.size() && cut.parts[i].bucket == first.bucket; ++i)
            kernels.merge_cells(first.cells, cut.parts[i].cells, division.groups_of(first.bucket) * columns);
        give(first.bucket, first.cells);
    }
}

}  // namespace

bool are_grouped_columns(const Selection& selection, const Nest& loops) noexcept {
    if (!selection.labels.given() || selection.sample_weight.given() || selection.num_groups == 0) return false;
    if (loops.depth < 1 || loops.depth > 2 || !is_selected(loops.loops[0])) return false;
    if (loops.depth > 1) {
        const Loop& inner = loops.loops[1];
        if (inner.reduced || is_family(inner) || inner.stride[op_x] != 1) return false;
    }
    const std::int64_t bytes = group_bytes(columns_of(loops));
    return bytes <= row_bytes || selection.num_groups * bytes <= sums_bytes;
}

void grouped_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                     const Nest& loops, int threads, const CellSink& sink) {
    with_type(operands.x, [&]<class X>(X*) { sum_groups<X>(table, operands, selection, loops, threads, sink); });
}

}  // namespace anynorm::detail
