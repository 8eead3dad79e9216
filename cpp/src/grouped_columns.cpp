// SPDX-License-Identifier: Apache-2.0
#include "grouped_columns.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace anynorm::detail {
namespace {

// Sums of 24 bytes a set: half of an L2 of 512 KB, and what spills into the last cache still takes less time than to
// sort the labels and to fetch rows from all over memory.
constexpr std::int64_t sums_bytes = 1024 * 1024;
constexpr std::int64_t rows_of_group = 16;
// The rows of a block bound the cancellation in m2; the sums of a group are looked at after every stretch of rows.
constexpr std::int64_t block_rows = 1024, stretch_rows = 256;
// Every part has cells of its own, 32 bytes a set: together below 6 % of x.
constexpr std::int64_t max_parts = 16, bytes_of_part = 16;

std::int64_t group_stride(std::int64_t columns) { return 3 * kernels::whole_packs(columns); }

/// The sums of one part of the rows.
template <class X>
class Part {
  public:
    Part(const SelectedOperands& operands, const Selection& selection, const Nest& loops)
        : operands_(operands),
          labels_(elements_of(selection.labels)),
          mask_(static_cast<const unsigned char*>(selection.where.data)),
          nest_(loops),
          rows_(loops.loops[0]),
          columns_(loops.depth > 1 ? loops.loops[1].n : 1),
          stride_(group_stride(columns_)),
          sums_(static_cast<std::size_t>(selection.num_groups * stride_)),
          counts_(static_cast<std::size_t>(selection.num_groups)) {}

    /// Adds rows `first` to `last` to the cells. False where a sum is not finite.
    bool sum(const kernels::Kernels<X>& kernels, std::int64_t first, std::int64_t last, Cell* cells) {
        std::fill(counts_.begin(), counts_.end(), 0);
        std::int32_t group_of[stretch_rows];
        for (std::int64_t row = first; row < last; row += stretch_rows) {
            const std::int64_t n = std::min(stretch_rows, last - row);
            find_groups(row, n, group_of);
            kernels.grouped_sums({n, columns_, at(row), rows_.stride[op_x], group_of, sums_.data(), stride_});
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int32_t group = group_of[i];
                if (group >= 0 && counts_[static_cast<std::size_t>(group)] >= block_rows) finish(group, cells);
            }
        }
        for (std::size_t group = 0; group < counts_.size(); ++group) {
            if (counts_[group] > 0) finish(static_cast<std::int64_t>(group), cells);
        }
        return not_finite_ == 0;
    }

  private:
    const X* at(std::int64_t row) const {
        return static_cast<const X*>(operands_.x.data) + nest_.offset[op_x] + row * rows_.stride[op_x];
    }

    /// The groups of n rows; those that begin a block get the row as their shift.
    void find_groups(std::int64_t row, std::int64_t n, std::int32_t* group_of) {
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t index = row + i;
            const bool member = mask_ == nullptr || mask_[nest_.offset[op_where] + index * rows_.stride[op_where]] != 0;
            const std::int64_t group =
                member ? label_at(labels_, nest_.offset[op_labels] + index * rows_.stride[op_labels]) : -1;
            group_of[i] = static_cast<std::int32_t>(std::max<std::int64_t>(-1, group));
            if (group >= 0 && counts_[static_cast<std::size_t>(group)]++ == 0) begin(at(index), group);
        }
    }

    void begin(const X* x, std::int64_t group) {
        double* const c = sums_.data() + group * stride_;
        std::fill_n(c, stride_, 0.0);
        for (std::int64_t i = 0; i < columns_ && operands_.center; ++i) {
            const double value = static_cast<double>(promote(x[i]));
            c[i] = value - value == 0 ? value : 0;
        }
    }

    /// Merges the block of a group into its cells, and begins another.
    void finish(std::int64_t group, Cell* cells) {
        const double* const c = sums_.data() + group * stride_;
        const double *const s1 = c + stride_ / 3, *const s2 = s1 + stride_ / 3;
        const auto count = static_cast<double>(counts_[static_cast<std::size_t>(group)]);
        counts_[static_cast<std::size_t>(group)] = 0;
        for (std::int64_t i = 0; i < columns_; ++i) {
            merge(cells[group * columns_ + i],
                  operands_.center ? cell_of_sums(count, c[i], s1[i], s2[i]) : Cell{count, 0, 0, s2[i]});
            not_finite_ += (s1[i] - s1[i]) + (s2[i] - s2[i]);
        }
    }

    const SelectedOperands& operands_;
    Elements labels_;
    const unsigned char* mask_;
    const Nest& nest_;
    const Loop& rows_;
    std::int64_t columns_, stride_;
    std::vector<double> sums_;
    std::vector<std::int32_t> counts_;
    double not_finite_ = 0;
};

template <class X>
bool sum_groups(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                const Nest& loops, int threads, Cell* cells) {
    const std::int64_t rows = loops.loops[0].n, sets = loops.cells() * selection.num_groups;
    const std::int64_t bytes = loops.size() * static_cast<std::int64_t>(sizeof(X));
    const std::int64_t parts = std::clamp<std::int64_t>(
        bytes / (bytes_of_part * sets * static_cast<std::int64_t>(sizeof(Cell))), 1, max_parts);
    threads = static_cast<int>(std::min<std::int64_t>(threads, parts));
    std::vector<Part<X>> workers;
    workers.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) workers.emplace_back(operands, selection, loops);
    std::vector<Cell> others(static_cast<std::size_t>((parts - 1) * sets));
    std::atomic<bool> finite = true;
    for_each_piece(parts, threads, [&](int worker, std::int64_t part) {
        Cell* const own = part == 0 ? cells : others.data() + (part - 1) * sets;
        std::fill_n(own, sets, empty_cell);
        const std::int64_t first = rows * part / parts, last = rows * (part + 1) / parts;
        if (!workers[static_cast<std::size_t>(worker)].sum(kernels_for<X>(table), first, last, own)) finite = false;
    });
    for (std::int64_t part = 1; part < parts; ++part) {
        kernels_for<X>(table).merge_cells(cells, others.data() + (part - 1) * sets, sets);
    }
    return finite;
}

}  // namespace

bool are_grouped_columns(const Selection& selection, const Nest& loops) noexcept {
    if (!selection.labels.given() || selection.sample_weight.given() || loops.depth < 1 || loops.depth > 2)
        return false;
    if (!is_selected(loops.loops[0])) return false;
    const std::int64_t columns = loops.depth > 1 ? loops.loops[1].n : 1;
    if (loops.depth > 1) {
        const Loop& inner = loops.loops[1];
        if (inner.reduced || is_family(inner) || inner.stride[op_x] != 1) return false;
    }
    const std::int64_t groups = selection.num_groups;
    return groups > 0 && groups * group_stride(columns) * static_cast<std::int64_t>(sizeof(double)) <= sums_bytes &&
           loops.loops[0].n >= rows_of_group * groups;
}

bool grouped_columns(const kernels::KernelTable& table, const SelectedOperands& operands, const Selection& selection,
                     const Nest& loops, int threads, Cell* cells) {
    return with_type(operands.x,
                     [&]<class X>(X*) { return sum_groups<X>(table, operands, selection, loops, threads, cells); });
}

}  // namespace anynorm::detail
