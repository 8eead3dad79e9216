// SPDX-License-Identifier: Apache-2.0
#include "row_buckets.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace anynorm::detail {
namespace {

/// Below so many rows a thread of their own gains nothing.
constexpr std::int64_t rows_of_thread = 32 * 1024;

}  // namespace

/// Calls body(number of the part and bucket, row, group) for all rows.
template <class Body>
void RowBuckets::each_part(const Body& body) {
    for_each_piece(parts_, threads_, [&](int, std::int64_t part) {
        std::uint32_t* const counts = counts_.data() + part * static_cast<std::int64_t>(starts_.size());
        const std::int64_t first = loop_.n * part / parts_, last = loop_.n * (part + 1) / parts_;
        each_group(selection_, loop_, offset_, first, last - first, [&](std::int64_t i, std::int64_t group) {
            body(counts[group < 0 ? buckets() : group >> shift_], first + i, group);
        });
    });
}

RowBuckets::RowBuckets(const Selection& selection, const Loop& rows, const std::int64_t* offset, int shift, int threads)
    : selection_(selection), loop_(rows), offset_(offset), shift_(shift), threads_(threads) {
    const std::int64_t buckets = ((selection.num_groups - 1) >> shift) + 1;
    // What is excluded goes to a bucket behind the others, because a branch that a random mask mispredicts takes
    // longer.
    const std::int64_t all = buckets + 1;
    parts_ = std::clamp<std::int64_t>(std::min(rows.n / rows_of_thread, rows.n / all), 1, threads);
    counts_.resize(static_cast<std::size_t>(parts_ * all));
    starts_.resize(static_cast<std::size_t>(all));
    each_part([](std::uint32_t& count, std::int64_t, std::int64_t) { ++count; });
    std::uint32_t sum = 0;
    for (std::int64_t bucket = 0; bucket < all; ++bucket) {
        starts_[static_cast<std::size_t>(bucket)] = sum;
        for (std::int64_t part = 0; part < parts_; ++part) {
            std::uint32_t& count = counts_[static_cast<std::size_t>(part * all + bucket)];
            const std::uint32_t own = count;
            count = sum;
            sum += own;
        }
    }
}

void RowBuckets::sort() {
    entries_ = std::make_unique_for_overwrite<kernels::RowEntry[]>(static_cast<std::size_t>(loop_.n));
    each_part([entries = entries_.get(), mask = (std::int64_t{1} << shift_) - 1](std::uint32_t& next, std::int64_t row,
                                                                                 std::int64_t group) {
        entries[next++] = {static_cast<std::uint32_t>(row), static_cast<std::int32_t>(group & mask)};
    });
}

}  // namespace anynorm::detail
