// SPDX-License-Identifier: Apache-2.0
#include "row_buckets.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace anynorm::detail {
namespace {

/// Below so many rows a thread of their own gains nothing.
constexpr std::int64_t rows_of_thread = 32 * 1024;

/// Calls body(i, group) for n rows from `row` on, with -1 for those that are in no group.
template <class Body>
void each_group(const Selection& selection, const Loop& rows, const std::int64_t* offset, std::int64_t row,
                std::int64_t n, const Body& body) {
    const auto* const mask = static_cast<const unsigned char*>(selection.where.data);
    const std::int64_t mask_step = rows.stride[op_where], label_step = rows.stride[op_labels];
    with_labels(elements_of(selection.labels), [&](const auto* labels) {
        labels += offset[op_labels] + row * label_step;
        if (mask == nullptr) {
            for (std::int64_t i = 0; i < n; ++i) body(i, std::max<std::int64_t>(-1, labels[i * label_step]));
            return;
        }
        const unsigned char* const is_member = mask + offset[op_where] + row * mask_step;
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t label = std::max<std::int64_t>(-1, labels[i * label_step]);
            body(i, is_member[i * mask_step] != 0 ? label : -1);
        }
    });
}

}  // namespace

void find_groups(const Selection& selection, const Loop& rows, const std::int64_t* offset, std::int64_t row,
                 std::int64_t n, std::int32_t* group_of) noexcept {
    each_group(selection, rows, offset, row, n,
               [&](std::int64_t i, std::int64_t group) { group_of[i] = static_cast<std::int32_t>(group); });
}

RowBuckets::RowBuckets(const Selection& selection, const Loop& rows, const std::int64_t* offset, int shift,
                       int threads) {
    const std::int64_t buckets = ((selection.num_groups - 1) >> shift) + 1;
    // Every part of the rows has counts of its own; what is excluded goes to a bucket behind the others, because a
    // branch that a random mask mispredicts takes longer.
    const std::int64_t all = buckets + 1;
    const std::int64_t worthwhile = std::min(rows.n / rows_of_thread, rows.n / all);
    const std::int64_t parts = std::clamp<std::int64_t>(worthwhile, 1, threads);
    std::vector<std::uint32_t> counts(static_cast<std::size_t>(parts * all));
    starts_.resize(static_cast<std::size_t>(buckets + 1));
    rows_ = std::make_unique_for_overwrite<std::uint32_t[]>(static_cast<std::size_t>(rows.n));
    groups_ = std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(rows.n));

    const auto each_row = [&](std::int64_t part, const auto& body) {
        const std::int64_t first = rows.n * part / parts, last = rows.n * (part + 1) / parts;
        each_group(selection, rows, offset, first, last - first, [&](std::int64_t i, std::int64_t group) {
            body(first + i, group, group < 0 ? buckets : group >> shift);
        });
    };
    for_each_piece(parts, threads, [&](int, std::int64_t part) {
        std::uint32_t* const count = counts.data() + part * all;
        each_row(part, [&](std::int64_t, std::int64_t, std::int64_t bucket) { ++count[bucket]; });
    });
    std::uint32_t sum = 0;
    for (std::int64_t bucket = 0; bucket < all; ++bucket) {
        starts_[static_cast<std::size_t>(bucket)] = sum;
        for (std::int64_t part = 0; part < parts; ++part) {
            std::uint32_t& count = counts[static_cast<std::size_t>(part * all + bucket)];
            const std::uint32_t own = count;
            count = sum;
            sum += own;
        }
    }
    const std::int64_t mask = (std::int64_t{1} << shift) - 1;
    for_each_piece(parts, threads, [&](int, std::int64_t part) {
        std::uint32_t* const next = counts.data() + part * all;
        each_row(part, [&](std::int64_t row, std::int64_t group, std::int64_t bucket) {
            const std::uint32_t place = next[bucket]++;
            rows_[place] = static_cast<std::uint32_t>(row);
            groups_[place] = static_cast<std::int32_t>(group & mask);
        });
    });
}

}  // namespace anynorm::detail
