// SPDX-License-Identifier: Apache-2.0
// Labels that rise along the first axis: to the bit what the segments of their rows give, forward and backward.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <tuple>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "rising_labels.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

constexpr std::int64_t rows = 70'001, groups = 60;

struct Rising {
    const char* name;
    std::int64_t excluded;  ///< rows before those of the first group
    std::int64_t of_each;   ///< labels from one group with rows to the next
    std::int64_t step = 1;

    friend void PrintTo(const Rising& self, std::ostream* out) { *out << self.name; }
};

const Rising kinds[] = {{"every_group", 0, 1},
                        {"after_excluded", 333, 1},
                        {"one_group_of_seven", 50, 7},
                        {"strided", 5, 2, 3},
                        {"long_backwards", 5, 2, -2}};

std::vector<std::int64_t> labels_of(const Rising& of) {
    std::vector<std::int64_t> labels;
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t label = (row - of.excluded) * groups / rows;
        labels.push_back(row < of.excluded ? -1 - row % 3 : label / of.of_each * of.of_each);
    }
    return labels;
}

std::vector<std::int64_t> pairs_of(const std::vector<std::int64_t>& labels) {
    std::vector<std::int64_t> pairs;
    for (std::int64_t group = 0; group < groups; ++group) {
        const auto [first, last] =
            std::equal_range(labels.begin(), labels.end(), group, [](std::int64_t a, std::int64_t b) {
                return std::max<std::int64_t>(a, -1) < std::max<std::int64_t>(b, -1);
            });
        pairs.insert(pairs.end(), {first - labels.begin(), last - labels.begin()});
    }
    return pairs;
}

class RisingLabels : public testing::TestWithParam<Rising> {
  protected:
    template <class Label>
    void expect_segments() {
        const Rising& of = GetParam();
        const std::vector<std::int64_t> all = labels_of(of), pairs = pairs_of(all);
        const std::int64_t size = of.step < 0 ? -of.step : of.step;
        std::vector<Label> memory(static_cast<std::size_t>(rows * size), Label(groups + 5));
        const std::int64_t first = of.step < 0 ? (rows - 1) * size : 0;
        for (std::int64_t row = 0; row < rows; ++row)
            at(memory, first + row * of.step) = static_cast<Label>(at(all, row));
        const Selection labels{.labels = view(&at(memory, first), {rows, 1}, {of.step, 1}), .num_groups = groups};
        const Selection segments{.segments = view(pairs.data(), {groups, 2})};

        const Shape shape = {rows, 3};
        Tensor<float> x(shape), dy(shape);
        Random random(3);
        x.fill([&](std::int64_t) { return 10 + random.unit(); });
        dy.fill([&](std::int64_t) { return random.unit(); });
        for (const int threads : {1, 3}) {
            EXPECT_EQ(detail::rising_rows(labels, x.view(), threads).size(), pairs.size());
            const auto run = [&](const Selection& selection) {
                Tensor<double> m2({groups, 3});
                Tensor<float> y(shape), dx(shape);
                moments(x.view(), {{0}, selection}, {.m2 = m2.view()}, {.num_threads = threads});
                normalize(x.view(), {{0}, selection}, y.view(), {.excluded = Excluded::input, .num_threads = threads});
                normalize_backward(dy.view(), x.view(), {{0}, selection}, {dx.view()},
                                   {.excluded = Excluded::input, .num_threads = threads});
                return std::tuple(m2.values(), y.values(), dx.values());
            };
            EXPECT_EQ(run(labels), run(segments)) << threads;
        }
    }
};

TEST_P(RisingLabels, AreSegments) {
    expect_segments<std::int64_t>();
    expect_segments<std::int32_t>();
}

INSTANTIATE_TEST_SUITE_P(, RisingLabels, testing::ValuesIn(kinds),
                         [](const auto& info) { return std::string(info.param.name); });

/// Of labels that fall somewhere, have a mask, are few or lie along another axis no segments are made.
TEST(RisingRows, AreNoOthers) {
    const std::vector<std::int64_t> rising = labels_of(kinds[1]);
    Tensor<float> x({rows, 1});
    const auto found = [&](const std::vector<std::int64_t>& labels, std::int64_t count, int threads) {
        return !detail::rising_rows({.labels = view(labels.data(), {rows, 1}), .num_groups = count}, x.view(), threads)
                    .empty();
    };
    for (const int threads : {1, 3}) {
        EXPECT_TRUE(found(rising, groups, threads));
        EXPECT_FALSE(found(rising, groups - 1, threads));
        for (const std::int64_t row : {std::int64_t{400}, rows / 3, rows / 3 + 1, rows / 2, rows - 2, rows - 1}) {
            for (const std::int64_t label :
                 {std::int64_t{-1}, std::int64_t{0}, groups, std::numeric_limits<std::int64_t>::min()}) {
                std::vector<std::int64_t> fallen = rising;
                at(fallen, row) = label;
                if (label != 0 || at(rising, row) != 0) {
                    EXPECT_FALSE(found(fallen, groups, threads)) << row << " " << label << " " << threads;
                }
            }
        }
        std::vector<std::int64_t> too_large = rising;  // a group far beyond the last, in many rows
        std::fill(too_large.begin() + 5000, too_large.begin() + 30'000, std::int64_t{1} << 40);
        EXPECT_FALSE(found(too_large, groups, threads));
    }
    const TensorView labels = view(rising.data(), {rows, 1});
    const std::vector<std::int8_t> mask(static_cast<std::size_t>(rows), 1);
    TensorView where = view(mask.data(), {rows, 1});
    where.dtype = DType::boolean;
    EXPECT_TRUE(detail::rising_rows({.labels = labels, .num_groups = groups, .where = where}, x.view(), 1).empty());
    const TensorView few = view(rising.data(), {1000, 1});
    EXPECT_TRUE(detail::rising_rows({.labels = few, .num_groups = groups}, view(rising.data(), {1000, 1}), 1).empty());
    Tensor<float> across({1, rows});
    EXPECT_TRUE(detail::rising_rows({.labels = view(rising.data(), {1, rows}), .num_groups = groups}, across.view(), 1)
                    .empty());
}

}  // namespace
}  // namespace anynorm::test
