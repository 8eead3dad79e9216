// SPDX-License-Identifier: Apache-2.0
// Rows of which a mask takes some, here and there: to the bit what a call for those rows alone gives, whatever lies in
// the others.
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "anynorm/normalize.hpp"
#include "selections.hpp"

namespace anynorm::test {
namespace {

/// Rows that are torn, whole or left out in long stretches, and torn at the end again.
std::unique_ptr<bool[]> draw_mask(std::int64_t rows) {
    auto mask = std::make_unique<bool[]>(static_cast<std::size_t>(rows));
    Random random(23);
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t eighth = row * 8 / rows;
        mask[static_cast<std::size_t>(row)] = eighth == 2 || eighth == 3 ? true
                                              : eighth == 4              ? false
                                                                         : random.below(10) < 7;
    }
    return mask;
}

class TornRows : public testing::TestWithParam<std::tuple<std::int64_t, Layout>> {
  protected:
    static constexpr std::int64_t rows = 9001;

    template <class X, class Y>
    void expect_compacted(Excluded excluded, bool in_place, int threads) {
        const auto& [columns, layout] = GetParam();
        SCOPED_TRACE(testing::Message() << short_name<X>() << " to " << short_name<Y>() << ", " << threads
                                        << " threads, excluded as " << static_cast<int>(excluded)
                                        << (in_place ? ", in place" : ""));
        const std::unique_ptr<bool[]> mask = draw_mask(rows);
        const auto is_member = [&](std::int64_t i) { return mask[static_cast<std::size_t>(i / columns)]; };
        Tensor<X> x({rows, columns}, layout);
        Tensor<Y> y({rows, columns}, layout);
        Random random(17);
        std::vector<X> kept;
        // In the other rows there is what nobody may look at, and what a norm would change.
        const double others[] = {std::numeric_limits<double>::quiet_NaN(), -1e6};
        x.fill([&](std::int64_t i) { return is_member(i) ? 100 + random.unit() : others[i % 2]; });
        y.fill([&](std::int64_t i) { return in_place ? static_cast<Y>(x[i]) : Y(-5); });
        for (std::int64_t i = 0; i < x.size(); ++i)
            if (is_member(i)) kept.push_back(x[i]);
        std::vector<float> weight(static_cast<std::size_t>(columns)), bias(weight);
        for (float& each : weight) each = static_cast<float>(random.unit());
        for (float& each : bias) each = static_cast<float>(random.unit());
        NormalizeOptions options{
            .weight = view(weight.data(), {columns}), .bias = view(bias.data(), {columns}), .num_threads = threads};
        const Shape of_kept = {std::ssize(kept) / columns, columns};
        const std::span<const std::int64_t> lengths(of_kept);
        std::vector<Y> results(kept.size());
        // From the same statistics, whose last bits depend on the layout.
        ThreeArrays statistics({columns});
        moments(view(kept.data(), lengths), {{0}}, statistics.view());
        options.given = statistics.view();
        normalize(view(kept.data(), lengths), {{0}}, view(results.data(), lengths), options);
        std::vector<Y> expected = y.values();
        std::int64_t next = 0;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            if (is_member(i)) {
                at(expected, i) = at(results, next++);
            } else if (excluded != Excluded::keep) {
                at(expected, i) = excluded == Excluded::zero ? Y(0) : static_cast<Y>(x[i]);
            }
        }
        options.excluded = excluded;
        normalize(in_place ? y.view() : x.view(), {{0}, {.where = view(mask.get(), {rows, 1})}}, y.view(), options);
        EXPECT_EQ(different_bits(y.values(), expected), 0);
        EXPECT_EQ(y.changed_gaps(), 0);
    }
};

TEST_P(TornRows, AreTheCompactedRows) {
    for (const Excluded excluded : {Excluded::zero, Excluded::input, Excluded::keep}) {
        expect_compacted<float, float>(excluded, false, 1);
        expect_compacted<float, float>(excluded, true, 3);
        expect_compacted<double, double>(excluded, false, 3);
        expect_compacted<float, double>(excluded, false, 1);
    }
}

INSTANTIATE_TEST_SUITE_P(, TornRows, testing::Combine(testing::Values(1, 3, 16, 31), testing::ValuesIn(layouts())),
                         [](const auto& info) {
                             return std::to_string(std::get<0>(info.param)) + "_columns_" +
                                    std::get<1>(info.param).name;
                         });

}  // namespace
}  // namespace anynorm::test
