// SPDX-License-Identifier: Apache-2.0
// The sums of rows by groups and their cells, on every instruction set that this machine has: every tail, against the
// same sums in scalar code. Rows end at a page that faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "guarded.hpp"
#include "kernel_target.hpp"
#include "merge.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

enum class Given : std::uint8_t { wide, narrow, listed };

/// The sums of a group in scalar code.
struct ScalarBlock {
    std::int32_t count = 0;
    std::vector<double> c, s1, s2;
};

/// Rows in memory that ends with the last of them; some are in no group.
template <class T>
struct GroupedRows {
    static constexpr std::int64_t rows = 37, groups = 4, excluded = 7;

    explicit GroupedRows(std::int64_t length, bool centers = true)
        : n(length), row(n + 5), center(centers), memory(1 << 14), counts(groups, 0) {
        Random random(17);
        x = memory.last((rows - 1) * row + n);
        for (std::int64_t i = 0; i < (rows - 1) * row + n; ++i) x[i] = static_cast<T>(random.uniform(-3, 5));
        for (std::int64_t i = 0; i < rows; ++i) {
            const auto group = i % excluded == 3 ? -1 : static_cast<std::int32_t>(random.below(groups));
            narrow.push_back(group);
            wide.push_back(group < 0 ? std::numeric_limits<std::int64_t>::min() : group);
            listed.push_back({static_cast<std::uint32_t>(i * 5 % rows), group});
        }
        blocks.resize(static_cast<std::size_t>(groups * kernels::block_bytes<T>(n)), std::byte{0x7f});
    }

    std::int64_t row_at(Given given, std::int64_t i) const { return given == Given::listed ? at(listed, i).row : i; }

    kernels::RowGroups group_of(Given given, std::int64_t first) const {
        if (given == Given::listed) return {.listed = listed.data() + first};
        if (given == Given::narrow) return {.narrow = narrow.data() + first};
        return {.wide = wide.data() + first};
    }

    /// Adds all rows from `first` on, or those up to one that fills a block.
    /// `among` groups, of which the others have no rows: blocks of very many are fetched ahead.
    kernels::GroupedRun add(const kernels::Kernels<T>& table, Given given, std::int64_t first = 0,
                            std::int64_t among = groups) {
        const T* const from = given == Given::listed ? x : x + first * row;
        return table.grouped_sums(
            {rows - first, n, from, row, group_of(given, first), center, counts.data(), blocks.data(), among});
    }

    std::vector<kernels::Cell> cells(const kernels::Kernels<T>& table, bool& finite) {
        std::vector<kernels::Cell> result(static_cast<std::size_t>(groups * n));
        finite = table.grouped_cells({groups, n, center, counts.data(), blocks.data(), result.data()});
        return result;
    }

    std::vector<ScalarBlock> expected(Given given, bool fused) const {
        std::vector<ScalarBlock> result(groups);
        for (std::int64_t i = 0; i < rows; ++i) {
            if (at(narrow, i) < 0) continue;
            ScalarBlock& block = at(result, at(narrow, i));
            const T* const from = x + row_at(given, i) * row;
            if (block.count++ == 0) {
                block.s1 = block.s2 = block.c = std::vector<double>(static_cast<std::size_t>(n));
                for (std::int64_t j = 0; j < n; ++j)
                    at(block.c, j) = center && std::isfinite(from[j]) ? static_cast<double>(from[j]) : 0.0;
            }
            for (std::int64_t j = 0; j < n; ++j) {
                const double d = static_cast<double>(from[j]) - at(block.c, j);
                at(block.s1, j) += d;
                at(block.s2, j) = mul_add(fused, d, d, at(block.s2, j));
            }
        }
        return result;
    }

    std::int64_t n, row;
    bool center;
    Guarded<T> memory;
    T* x;
    std::vector<std::int64_t> wide;
    std::vector<std::int32_t> narrow, counts;
    std::vector<kernels::RowEntry> listed;
    std::vector<std::byte> blocks;
};

class KernelGrouped : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelGrouped, all_targets(), target_name);

TEST_P(KernelGrouped, EveryTail) {
    with_type([&](auto type) {
        using T = decltype(type);
        for (std::int64_t n = 1; n <= 50; ++n) {
            for (const Given given : {Given::wide, Given::narrow, Given::listed}) {
                GroupedRows<T> data(n, n % 7 != 0);
                const std::vector<ScalarBlock> expected = data.expected(given, fused());
                const kernels::GroupedRun run = data.add(table<T>(), given, 0, n % 3 == 1 ? 100'000 : data.groups);
                EXPECT_EQ(run.rows, data.rows);
                EXPECT_EQ(run.full, -1);
                bool finite = false;
                const std::vector<kernels::Cell> cells = data.cells(table<T>(), finite);
                EXPECT_TRUE(finite);
                for (std::int64_t i = 0; i < data.groups * n; ++i) {
                    const ScalarBlock& block = at(expected, i / n);
                    const double s1 = at(block.s1, i % n), s2 = at(block.s2, i % n);
                    kernels::Cell wanted = detail::cell_of_sums(block.count, at(block.c, i % n), s1, s2);
                    if (!data.center) wanted = {static_cast<double>(block.count), 0, 0, s2};
                    EXPECT_EQ(at(cells, i).count, wanted.count);
                    EXPECT_EQ(bits(at(cells, i).mean), bits(wanted.mean)) << "n = " << n;
                    EXPECT_EQ(bits(at(cells, i).mean_lo), bits(wanted.mean_lo)) << "n = " << n;
                    EXPECT_EQ(bits(at(cells, i).m2), bits(wanted.m2)) << "n = " << n;
                }
                EXPECT_EQ(data.counts, std::vector<std::int32_t>(data.groups, 0));
            }
        }
    });
}

TEST_P(KernelGrouped, StopsBehindTheRowThatFillsABlock) {
    with_type([&](auto type) {
        using T = decltype(type);
        for (const Given given : {Given::wide, Given::narrow, Given::listed}) {
            for (const std::int64_t n : {3, 16}) {
                GroupedRows<T> data(n);
                std::fill(data.blocks.begin(), data.blocks.end(), std::byte{0});
                std::fill(data.counts.begin(), data.counts.end(), 1);
                const std::int32_t group = data.narrow.front();
                const auto again = std::find(data.narrow.begin() + 1, data.narrow.end(), group);
                at(data.counts, group) = kernels::group_block - 2;
                const kernels::GroupedRun run = data.add(table<T>(), given);
                EXPECT_EQ(run.full, group);
                EXPECT_EQ(run.rows, again - data.narrow.begin() + 1);
                EXPECT_EQ(at(data.counts, group), kernels::group_block);
            }
        }
    });
}

TEST_P(KernelGrouped, TellsWhichSumsAreNotFinite) {
    with_type([&](auto type) {
        using T = decltype(type);
        const std::int64_t n = 21, wrong = 18;
        for (const T value : {std::numeric_limits<T>::infinity(), std::numeric_limits<T>::quiet_NaN()}) {
            for (const std::int64_t row : {0, 20}) {
                GroupedRows<T> data(n);
                data.x[row * data.row + wrong] = value;
                data.add(table<T>(), Given::wide);
                bool finite = true;
                const std::vector<kernels::Cell> cells = data.cells(table<T>(), finite);
                EXPECT_FALSE(finite);
                for (std::int64_t i = 0; i < data.groups * n; ++i) {
                    const bool is_wrong = i == at(data.narrow, row) * n + wrong;
                    EXPECT_EQ(std::isnan(at(cells, i).mean_lo), is_wrong);
                    EXPECT_TRUE(is_wrong || (std::isfinite(at(cells, i).mean) && std::isfinite(at(cells, i).m2)));
                }
            }
        }
    });
}

TEST_P(KernelGrouped, AGroupWithoutRowsIsEmpty) {
    with_type([&](auto type) {
        using T = decltype(type);
        GroupedRows<T> data(5);
        bool finite = false;
        for (const kernels::Cell& cell : data.cells(table<T>(), finite)) {
            EXPECT_EQ(cell.count, 0);
            EXPECT_TRUE(std::isnan(cell.mean));
            EXPECT_EQ(cell.m2, 0);
        }
        EXPECT_TRUE(finite);
    });
}

template <class T>
std::vector<std::uint64_t> bits_of_cells(Isa isa) {
    std::vector<std::uint64_t> result;
    const kernels::Kernels<T>& table = detail::kernels_for<T>(*detail::kernels_of(isa));
    for (const std::int64_t n : {1, 16, 21, 48}) {
        for (const Given given : {Given::wide, Given::narrow, Given::listed}) {
            GroupedRows<T> data(n);
            data.add(table, given, 0, given == Given::wide ? data.groups : 100'000);
            bool finite = false;
            for (const kernels::Cell& cell : data.cells(table, finite))
                for (const double each : {cell.count, cell.mean, cell.mean_lo, cell.m2}) result.push_back(bits(each));
        }
    }
    return result;
}

TEST(KernelGroupedBits, EqualOnAllInstructionSetsButTheBaseline_f32) {
    expect_equal_bits_of_isas(bits_of_cells<float>);
}
TEST(KernelGroupedBits, EqualOnAllInstructionSetsButTheBaseline_f64) {
    expect_equal_bits_of_isas(bits_of_cells<double>);
}

}  // namespace
}  // namespace anynorm::test
