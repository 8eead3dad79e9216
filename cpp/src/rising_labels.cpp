// SPDX-License-Identifier: Apache-2.0
#include "rising_labels.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#include "parallel.hpp"
#include "selection.hpp"

namespace anynorm::detail {
namespace {

/// Labels in their own type, `step` apart.
template <class L>
struct Labels {
    const L* first;
    std::int64_t step, n;

    std::int64_t operator[](std::int64_t i) const { return first[i * step]; }
};

/// Whether labels fall from one to the next in `first` to `last`, by signs, which compilers vectorize: 0.3 ms for a
/// million labels, where comparisons of 64 bits, which SSE2 has not, take 2.5.
template <class L>
bool fall(const Labels<L>& labels, std::int64_t first, std::int64_t last) {
    const auto any = [&](std::int64_t step) {
        std::uint64_t signs = 0;
        for (std::int64_t i = first; i < last; ++i) {
            const auto label = static_cast<std::uint64_t>(static_cast<std::int64_t>(labels.first[i * step]));
            const auto before = static_cast<std::uint64_t>(static_cast<std::int64_t>(labels.first[(i - 1) * step]));
            // Those that exclude come first.
            signs |= ~before & (label | (label - before));
        }
        return signs >> 63 != 0;
    };
    return labels.step == 1 ? any(1) : any(labels.step);
}

/// The rows of all groups, found by threads that each look at a stretch of labels.
class Rows {
  public:
    explicit Rows(std::int64_t groups) : groups_(groups), rows_(static_cast<std::size_t>(2 * groups), -1) {}

    /// Row `row` is where the group `before` ends and `label` begins; of those that exclude neither is kept. Labels
    /// that fall somewhere may name a group twice, in two threads: what is found is thrown away then, but is no race.
    bool change(std::int64_t row, std::int64_t before, std::int64_t label) {
        if (std::max(before, label) >= groups_) return false;
        if (before >= 0) set(2 * before + 1, row);
        if (label >= 0) set(2 * label, row);
        return true;
    }

    /// Groups without rows lie between their neighbours: segments rise.
    RowRanges take() {
        std::int64_t last = 0;
        for (std::size_t i = 0; i < rows_.size(); ++i) last = rows_[i] = std::max(rows_[i], last);
        return std::move(rows_);
    }

  private:
    void set(std::int64_t index, std::int64_t row) {
        std::atomic_ref(rows_[static_cast<std::size_t>(index)]).store(row, std::memory_order_relaxed);
    }

    std::int64_t groups_;
    RowRanges rows_;
};

/// Finds the changes among the labels `first` to `last`, which rise. Between two equal labels are none but equal ones.
template <class L>
bool find_changes(const Labels<L>& labels, std::int64_t first, std::int64_t last, Rows& rows) {
    constexpr std::int64_t leap = 64;
    for (std::int64_t block = first; block < last; block += leap) {
        const std::int64_t end = std::min(last, block + leap);
        std::int64_t before = labels[block - 1];
        if (labels[end - 1] == before) continue;
        for (std::int64_t i = block; i < end; ++i) {
            const std::int64_t label = labels[i];
            if (label != before && !rows.change(i, before, label)) return false;
            before = label;
        }
    }
    return true;
}

/// Fetches what lies 4 KB behind neighbouring labels: a million that no cache has take 0.6 ms then, 1.0 without.
template <class L>
void read_ahead(const Labels<L>& labels, std::int64_t first, std::int64_t last) {
    constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(L)), ahead = 64 * line;
    if (labels.step != 1 || last + ahead > labels.n) return;
    for (std::int64_t i = first; i < last; i += line) __builtin_prefetch(labels.first + i + ahead, 0, 2);
}

/// The labels are read once: changes are looked for in stretches that have just been seen to rise.
template <class L>
RowRanges rows_of(const Labels<L>& labels, std::int64_t groups, int threads) {
    const std::int64_t n = labels.n;
    // Many labels rise by chance for a while: as many are looked at before there is memory for their rows.
    constexpr std::int64_t first_look = 1024, stretch = 128;
    if (n == 0 || labels[n - 1] >= groups || fall(labels, 1, std::min(n, first_look))) return {};
    Rows rows(groups);
    std::atomic<bool> all{rows.change(0, -1, labels[0])};
    const std::int64_t pieces = std::clamp<std::int64_t>(n / labels_of_thread, 1, threads);
    for_each_piece(pieces, threads, [&](int, std::int64_t piece) {
        const std::int64_t end = n * (piece + 1) / pieces;
        for (std::int64_t i = std::max<std::int64_t>(1, n * piece / pieces); i < end; i += stretch) {
            const std::int64_t last = std::min(end, i + stretch);
            read_ahead(labels, i, last);
            if (!fall(labels, i, last) && find_changes(labels, i, last, rows)) continue;
            return all.store(false, std::memory_order_relaxed);
        }
    });
    if (!all.load(std::memory_order_relaxed) || !rows.change(n, labels[n - 1], -1)) return {};
    return rows.take();
}

}  // namespace

RowRanges rising_rows(const Elements& labels, std::int64_t offset, std::int64_t step, std::int64_t n,
                      std::int64_t groups, int threads) {
    return with_labels(
        labels, [&]<class L>(const L* first) { return rows_of(Labels<L>{first + offset, step, n}, groups, threads); });
}

RowRanges rising_rows(const Selection& selection, const TensorView& x, int threads) {
    const TensorView& labels = selection.labels;
    const std::int64_t n = labels.size();
    if (labels.rank != x.rank || n != labels.shape[0] || n < labels_of_thread || selection.where.given()) return {};
    return rising_rows(elements_of(labels), 0, labels.strides[0], n, selection.num_groups, threads);
}

Selection with_segments(const Selection& selection, const RowRanges& rows) noexcept {
    Selection result = selection;
    if (rows.empty()) return result;
    result.labels = {};
    result.num_groups = 0;
    result.segments = view(rows.data(), {std::ssize(rows) / 2, 2});
    return result;
}

}  // namespace anynorm::detail
