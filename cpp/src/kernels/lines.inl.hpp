// SPDX-License-Identifier: Apache-2.0
// Results past the caches, in whole lines. Rows that lie end to end share lines: the end of a row waits in L1 for the
// beginning of the next. Written with ordinary stores it would be read from memory first, and all later stores would
// wait for that.
#pragma once

#include "kernel_table.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// Whether rows are to be written past the caches. Rows with gaps do not complete the lines of each other; lines that
/// two rows share are read and written twice then, which costs more than it saves in rows of few lines.
template <class X>
bool StreamedRows(bool stream, const X* y, std::int64_t y_row, std::int64_t n) {
    constexpr std::int64_t few_lines = 256;
    const std::uintptr_t row = static_cast<std::uintptr_t>(y_row) * sizeof(X);
    return stream && (y_row == n || n >= few_lines || (reinterpret_cast<std::uintptr_t>(y) | row) % 64 == 0);
}

/// Elements `from` to `to` with ordinary stores.
template <class X>
[[gnu::noinline]] void CopyElements(X* to, const X* from, std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) to[i] = from[i];
}

/// Writes rows of any affine map: Begin, whole packs from there on, End. A line is a pack of 16 elements at a multiple
/// of its size. The state stays in registers, apart from the elements of an open line.
template <class X>
class LineWriter {
  public:
    explicit LineWriter(OpenLine& open)
        : elements_(reinterpret_cast<X*>(open.elements)),
          line_(static_cast<X*>(open.line)),
          held_(open.held),
          skip_(open.skip) {}

    /// Takes what precedes the first address that can be streamed to, and returns how many elements those are.
    template <class Row>
    [[gnu::always_inline]] std::int64_t Begin(const Row& row, std::int64_t n) {
        if (row.y != line_ + held_) {
            Close();
            skip_ = held_ = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(row.y) % line_bytes / sizeof(X));
            line_ = row.y - held_;
        }
        if (held_ == 0) return 0;
        if (n < pack_size) {
            PackStore(elements_ + held_, row.ResultsN(0, n));
        } else {
            PackStore(elements_ + held_, row.Results(0));
        }
        const std::int64_t head = pack_size - held_;
        held_ += n < head ? n : head;
        return n < head ? n : head;
    }

    /// Writes the elements from i on.
    template <class Row>
    [[gnu::always_inline]] void End(const Row& row, std::int64_t i, std::int64_t n) {
        for (; i + pack_size <= n; i += pack_size) row.template Store<true>(i);
        // Only now: a load of what two stores have just written waits for both.
        if (held_ == pack_size) Flush();
        if (i < n) {
            PackStore(elements_, row.ResultsN(i, n - i));
            held_ = n - i;
            line_ = row.y + i;
        } else if (held_ == 0) {
            line_ = row.y + n;
        }
    }

    /// Writes what is held.
    void Close() {
        CopyElements(line_, elements_, skip_, held_);
        held_ = skip_ = 0;
    }

    /// Leaves to another writer what is held.
    void Leave(OpenLine& open) const {
        open.line = line_;
        open.held = held_;
        open.skip = skip_;
    }

  private:
    static constexpr std::uintptr_t line_bytes = pack_size * sizeof(X);

    [[gnu::always_inline]] void Flush() {
        if (skip_ == 0) {
            PackStream(line_, PackLoad(static_cast<const X*>(elements_)));
        } else {
            CopyElements(line_, elements_, skip_, held_);
        }
        held_ = skip_ = 0;
    }

    X* elements_;
    X* line_;
    std::int64_t held_, skip_;
};

template <class X>
void CloseLine(OpenLine& open) noexcept {
    LineWriter<X>(open).Close();
    begin_line(open);
    StreamFence();
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
