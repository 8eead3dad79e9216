// SPDX-License-Identifier: Apache-2.0
// The sums of rows by groups, on every instruction set that this machine has: every tail, against the same sums in
// scalar code. Rows end at a page that faults.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "guarded.hpp"
#include "kernel_target.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

constexpr std::int64_t groups = 4;

/// Rows in memory that ends with the last of them, in runs of any length and order, and sums that hold something
/// already.
template <class T>
struct GroupedRows {
    explicit GroupedRows(std::int64_t length) : n(length), memory(1 << 14) {
        Random random(17);
        row = n + 5;
        x = memory.last((rows - 1) * row + n);
        for (std::int64_t i = 0; i < (rows - 1) * row + n; ++i) x[i] = static_cast<T>(random.uniform(-3, 5));
        for (std::int64_t i = 0; i < rows; ++i) row_of.push_back(static_cast<std::uint32_t>(i * 5 % rows));
        for (std::uint32_t last = first; last < rows;) {
            last = std::min(static_cast<std::uint32_t>(rows), last + 1 + static_cast<std::uint32_t>(random.below(4)));
            runs.push_back({static_cast<std::int32_t>(random.below(groups)), last});
        }
        width = kernels::whole_packs(n);
        sums.assign(static_cast<std::size_t>(groups * 3 * width), 0.0);
        for (std::int64_t group = 0; group < groups; ++group) {
            for (std::int64_t i = 0; i < n; ++i) {
                at(sums, group * 3 * width + i) = random.uniform(0, 1);
                at(sums, (group * 3 + 1) * width + i) = random.uniform(-1, 1);
                at(sums, (group * 3 + 2) * width + i) = random.uniform(0, 2);
            }
        }
    }

    kernels::GroupedSumsArgs<T> args() {
        return {std::ssize(runs), n, runs.data(), row_of.data(), first, x, row, sums.data(), 3 * width};
    }

    static constexpr std::int64_t rows = 37;
    static constexpr std::uint32_t first = 2;  ///< of the entries
    std::int64_t n, row = 0, width = 0;
    Guarded<T> memory;
    T* x;
    std::vector<kernels::GroupRun> runs;
    std::vector<std::uint32_t> row_of;
    std::vector<double> sums;
};

class KernelGrouped : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelGrouped, all_targets(), target_name);

TEST_P(KernelGrouped, EveryTail) {
    with_type([&](auto type) {
        using T = decltype(type);
        for (std::int64_t n = 1; n <= 50; ++n) {
            GroupedRows<T> data(n);
            std::vector<double> expected = data.sums;
            std::uint32_t entry = data.first;
            for (const kernels::GroupRun& run : data.runs) {
                for (; entry < run.last; ++entry) {
                    for (std::int64_t i = 0; i < n; ++i) {
                        const std::int64_t c = run.group * 3 * data.width + i, row = at(data.row_of, entry);
                        const double d = static_cast<double>(data.x[row * data.row + i]) - at(expected, c);
                        at(expected, c + data.width) += d;
                        double& squares = at(expected, c + 2 * data.width);
                        squares = mul_add(fused(), d, d, squares);
                    }
                }
            }
            table<T>().grouped_sums(data.args());
            EXPECT_EQ(different_bits(data.sums, expected), 0) << "n = " << n;
        }
    });
}

template <class T>
std::vector<std::uint64_t> bits_of_sums(Isa isa) {
    std::vector<std::uint64_t> result;
    for (std::int64_t n : {1, 16, 21, 48}) {
        GroupedRows<T> data(n);
        detail::kernels_for<T>(*detail::kernels_of(isa)).grouped_sums(data.args());
        for (double sum : data.sums) result.push_back(bits(sum));
    }
    return result;
}

TEST(KernelGroupedBits, EqualOnAllInstructionSetsButTheBaseline_f32) { expect_equal_bits_of_isas(bits_of_sums<float>); }
TEST(KernelGroupedBits, EqualOnAllInstructionSetsButTheBaseline_f64) {
    expect_equal_bits_of_isas(bits_of_sums<double>);
}

}  // namespace
}  // namespace anynorm::test
