// SPDX-License-Identifier: Apache-2.0
// Rows of a few elements that lie end to end, as the kernels are fast with: rows of whole packs, along which their
// coefficients repeat. Of rows of 3 each took a kernel's tail: ten times as long as the same elements in rows of 32.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "inner_loop.hpp"

namespace anynorm::detail {

struct JoinedRows {
    /// The most elements of a row that is joined with others, and of what they become.
    static constexpr std::int64_t short_of = pack_of_kernels, most = (short_of - 1) * pack_of_kernels;

    std::int64_t width = 0;  ///< of a joined row
    std::int64_t rows = 0;   ///< joined rows
    std::int64_t rest = 0;   ///< the elements behind them: whole rows, but fewer than a joined one

    JoinedRows(std::int64_t all, std::int64_t n)
        : width(std::lcm(n, pack_of_kernels)), rows(all * n / width), rest(all * n % width) {}

    /// Below so many rows their coefficients would take as long to repeat.
    static bool worthwhile(std::int64_t rows, std::int64_t n) { return n > 1 && n < short_of && rows >= 16; }
};

/// A row of coefficients again and again. Those of the last row that was asked for are kept until they are forgotten.
template <class C>
class RepeatedRow {
  public:
    const C* of(const C* row, std::int64_t n, std::int64_t width) noexcept {
        if (row != last_) {
            std::copy_n(row, n, values_);
            for (std::int64_t i = n; i < width; ++i) values_[i] = values_[i - n];
            last_ = row;
        }
        return values_;
    }
    void forget() noexcept { last_ = nullptr; }

  private:
    const C* last_ = nullptr;
    alignas(64) C values_[JoinedRows::most];
};

}  // namespace anynorm::detail
