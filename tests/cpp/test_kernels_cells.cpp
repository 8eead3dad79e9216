// SPDX-License-Identifier: Apache-2.0
// Merging and coefficients of many cells, on every instruction set, against the scalar merge and the formula: empty
// sets, infinities and means too far apart among ordinary ones, at every place of a vector.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "dispatch.hpp"
#include "kernels/cell.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

using kernels::Cell;

class KernelCells : public testing::TestWithParam<Isa> {
  protected:
    const kernels::KernelTable& table() const { return *detail::kernels_of(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(, KernelCells, testing::ValuesIn(isas_of_this_machine()),
                         [](const auto& info) { return std::string(name(info.param)); });

std::vector<Cell> ordinary(std::int64_t count, std::uint64_t seed) {
    Random random(seed);
    std::vector<Cell> result;
    for (std::int64_t i = 0; i < count; ++i) {
        const double n = static_cast<double>(1 + random.below(4096));
        result.push_back({n, random.uniform(-1e3, 1e3), random.uniform(-1e-14, 1e-14), n * random.uniform(0, 9)});
    }
    return result;
}

// All NaN are one value: which of two operands an ARM CPU passes on depends on the order that the compiler chose.
bool same(double a, double b) { return bits(a) == bits(b) || (std::isnan(a) && std::isnan(b)); }

std::int64_t different(const Cell& a, const Cell& b) {
    return same(a.count, b.count) && same(a.mean, b.mean) && same(a.mean_lo, b.mean_lo) && same(a.m2, b.m2) ? 0 : 1;
}

TEST_P(KernelCells, MergeAsOneByOne) {
    const Cell specials[] = {{0, 0, 0, 0}, {3, infinity, 0, infinity}, {3, -infinity, 0, nan}, {2, 1e308, 0, 1}};
    for (std::int64_t count : {1, 2, 7, 63, 64, 65, 130}) {
        for (std::int64_t place = -1; place < count; place += count < 8 ? 1 : 9) {
            for (const Cell& special : specials) {
                for (bool in_first : {true, false}) {
                    std::vector<Cell> into = ordinary(count, 3), from = ordinary(count, 4);
                    if (place >= 0) at(in_first ? into : from, place) = special;
                    if (place >= 0 && special.mean == 1e308) at(in_first ? from : into, place).mean = -1e308;
                    std::vector<Cell> expected = into;
                    for (std::int64_t i = 0; i < count; ++i) kernels::merge(at(expected, i), at(from, i));
                    table().f32.merge_cells(into.data(), from.data(), count);
                    std::int64_t wrong = 0;
                    for (std::int64_t i = 0; i < count; ++i) wrong += different(at(into, i), at(expected, i));
                    EXPECT_EQ(wrong, 0) << count << " cells, special at " << place;
                }
            }
        }
    }
}

TEST_P(KernelCells, CoefficientsAreTheirDefinition) {
    const double eps = 1e-5;
    for (std::int64_t count : {1, 3, 16, 61}) {
        const std::vector<Cell> cells = ordinary(count, 5);
        std::vector<float> mean(cells.size()), low(cells.size()), rstd(cells.size());
        table().f32.coefficients(cells.data(), count, eps, mean.data(), low.data(), rstd.data());
        for (std::size_t i = 0; i < cells.size(); ++i) {
            const Cell& cell = cells[i];
            EXPECT_EQ(mean[i], static_cast<float>(cell.mean));
            EXPECT_NEAR(static_cast<double>(mean[i]) + static_cast<double>(low[i]), cell.mean + cell.mean_lo,
                        1e-14 * std::fabs(cell.mean));
            EXPECT_EQ(rstd[i], static_cast<float>(1 / std::sqrt(cell.m2 / cell.count + eps)));
        }
    }
}

}  // namespace
}  // namespace anynorm::test
