// SPDX-License-Identifier: Apache-2.0
// Labelled rows by the hundreds or thousands of groups that they belong to: one counting sort over a number of buckets
// that a cache can write to, instead of one over all groups.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernel_table.hpp"
#include "selection.hpp"

namespace anynorm::detail {

/// Bucket b has the rows of the groups b << shift to (b + 1) << shift, in the order of rows. 8 bytes a row: row and
/// group together, so that a bucket is one place to write to, not two.
class RowBuckets {
  public:
    /// `rows` is the loop that labels, and a mask if there is one, vary along; of a nest that starts at `offset`.
    /// Counts the rows of each bucket: reads labels and mask. Throws std::bad_alloc.
    RowBuckets(const Selection& selection, const Loop& rows, const std::int64_t* offset, int shift, int threads);

    /// Finds the entries. Throws std::bad_alloc.
    void sort();

    std::int64_t buckets() const noexcept { return static_cast<std::int64_t>(starts_.size()) - 1; }
    /// The entries of a bucket are those from first(bucket) to first(bucket + 1).
    std::int64_t first(std::int64_t bucket) const noexcept { return starts_[static_cast<std::size_t>(bucket)]; }
    /// Their groups are counted from the first of the bucket.
    const kernels::RowEntry* entries() const noexcept { return entries_.get(); }

  private:
    template <class Body>
    void each_part(const Body& body);

    const Selection& selection_;
    const Loop& loop_;
    const std::int64_t* offset_;
    int shift_, threads_;
    std::int64_t parts_;
    std::vector<std::uint32_t> counts_;  ///< of each part of the rows and each bucket
    std::vector<std::int64_t> starts_;
    std::unique_ptr<kernels::RowEntry[]> entries_;
};

/// Calls body(i, group) for n rows from `row` on, with -1 for those that are in no group. `rows` and `offset` are as
/// for RowBuckets.
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

}  // namespace anynorm::detail
