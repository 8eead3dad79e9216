// SPDX-License-Identifier: Apache-2.0
// Labels of rows that lie across columns, few and many, against a loop over their sets: sums that are kept in a cache,
// bucket by bucket of groups.
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

/// How labels follow each other.
enum class Order : std::uint8_t { random, falling, ends, one_group, rising, torn };

struct Labelled {
    const char* name;
    std::int64_t rows, columns, groups;
    Order order = Order::random;
    bool mask = false, wide_labels = true;

    friend void PrintTo(const Labelled& self, std::ostream* out) { *out << self.name; }
};

/// Beside the few labels of test_selection.cpp: sums of more than 4 MB, of 320 bytes a group and 16 columns of
/// float32, are those of buckets, and those of an L2 fetched ahead.
const std::vector<Labelled>& labelled() {
    static const std::vector<Labelled> result = {
        {.name = "few_rows", .rows = 60, .columns = 16, .groups = 14'000},
        {.name = "few_rows_without_buckets", .rows = 100, .columns = 16, .groups = 2000},
        {.name = "many", .rows = 9000, .columns = 16, .groups = 14'000},
        {.name = "many_and_a_mask", .rows = 9000, .columns = 16, .groups = 14'000, .mask = true, .wide_labels = false},
        {.name = "one_column", .rows = 9000, .columns = 1, .groups = 14'000, .wide_labels = false},
        {.name = "ragged", .rows = 5000, .columns = 5, .groups = 14'001},
        {.name = "ragged_17", .rows = 5000, .columns = 17, .groups = 8001, .mask = true},
        {.name = "rows_of_a_call", .rows = 700, .columns = 300, .groups = 400},
        {.name = "rows_that_are_compacted", .rows = 60, .columns = 3000, .groups = 20},
        {.name = "falling", .rows = 7000, .columns = 16, .groups = 14'000, .order = Order::falling},
        {.name = "ends", .rows = 7000, .columns = 16, .groups = 14'000, .order = Order::ends},
        {.name = "one_group_of_many_blocks",
         .rows = 140'000,
         .columns = 1,
         .groups = 14'000,
         .order = Order::one_group},
        {.name = "beyond_L2", .rows = 9000, .columns = 16, .groups = 6000},
        {.name = "beyond_L2_and_a_mask",
         .rows = 9000,
         .columns = 16,
         .groups = 6000,
         .mask = true,
         .wide_labels = false},
        {.name = "beyond_L2_of_one_column", .rows = 9000, .columns = 1, .groups = 6000},
        {.name = "beyond_L2_in_parts", .rows = 460'000, .columns = 1, .groups = 7000},
        {.name = "few", .rows = 5000, .columns = 16, .groups = 40},
        {.name = "parts", .rows = 30'000, .columns = 16, .groups = 100},
        {.name = "rising", .rows = 70'001, .columns = 3, .groups = 300, .order = Order::rising},
        {.name = "rising_narrow",
         .rows = 40'000,
         .columns = 5,
         .groups = 14'000,
         .order = Order::rising,
         .wide_labels = false},
        {.name = "torn", .rows = 70'001, .columns = 3, .groups = 300, .order = Order::torn},
    };
    return result;
}

std::int64_t label_of(const Labelled& of, std::int64_t row, Random& random) {
    const std::int64_t least = of.wide_labels ? INT64_MIN : INT32_MIN;
    switch (of.order) {
        case Order::falling:
            return of.groups - 1 - row;
        case Order::ends:
            return row % 2 == 0 ? of.groups - 1 : 0;
        case Order::one_group:
            return random.below(50) == 0 ? random.below(of.groups) : of.groups - 2;
        case Order::rising:
        case Order::torn:
            // In none, however small, before all others, or so that the last group is no segment; groups of many rows
            // and of few.
            if (row < of.rows / 8) return row % 3 == 0 ? least : -1;
            if (of.order == Order::torn && row == of.rows - 2) return least;
            return row * row / of.rows * of.groups / of.rows;
        default:
            return random.below(of.groups + of.groups / 8) - of.groups / 8;  // an eighth is in none
    }
}

template <class T>
struct LabelledCase {
    Labelled of;
    Shape shape;
    Tensor<T> x;
    std::vector<std::int64_t> wide;
    std::vector<std::int32_t> narrow;
    std::unique_ptr<bool[]> mask;
    Numbering sets;  ///< that of every element, those in none in one more behind the others
    Selection selection{};
    std::vector<double> count, mean, m2;

    LabelledCase(const Labelled& labelled, const Layout& layout, double middle)
        : of(labelled), shape{labelled.rows, labelled.columns}, x(shape, layout) {
        Random random(41);
        x.fill([&](std::int64_t) { return middle + random.unit(); });
        mask = std::make_unique<bool[]>(static_cast<std::size_t>(of.rows));
        for (std::int64_t row = 0; row < of.rows; ++row) {
            wide.push_back(label_of(of, row, random));
            mask[static_cast<std::size_t>(row)] = !of.mask || random.below(4) != 0;
            narrow.push_back(static_cast<std::int32_t>(wide.back()));
            const std::int64_t group = mask[static_cast<std::size_t>(row)] ? wide.back() : -1;
            for (std::int64_t i = 0; i < of.columns; ++i)
                sets.of.push_back((group < 0 ? of.groups : group) * of.columns + i);
        }
        sets.count = (of.groups + 1) * of.columns;
        selection.labels = of.wide_labels ? view(wide.data(), {of.rows, 1}) : view(narrow.data(), {of.rows, 1});
        selection.num_groups = of.groups;
        if (of.mask) selection.where = view(mask.get(), {of.rows, 1});
        for (auto* each : {&count, &mean, &m2}) *each = numbers(of.groups * of.columns, -7);
    }
    MomentsView out() {
        const Shape of_sets = {of.groups, of.columns};
        const std::span<const std::int64_t> lengths(of_sets);
        return {anynorm::view(count.data(), lengths), anynorm::view(mean.data(), lengths),
                anynorm::view(m2.data(), lengths)};
    }
};

class LabelledRows : public testing::TestWithParam<Labelled> {};

template <class T>
void expect_exact(const Labelled& of, const Layout& layout, double middle, bool center = true) {
    SCOPED_TRACE(testing::Message() << short_name<T>() << " around " << middle << ", " << layout.name);
    LabelledCase<T> labelled(of, layout, middle);
    moments(labelled.x.view(), {{0}, labelled.selection}, labelled.out(), {.center = center});
    const std::vector<ExactMoments> exact = exact_moments(labelled.x.values(), labelled.sets, center);
    int wrong = 0;
    for (std::int64_t set = 0; set < of.groups * of.columns; ++set) {
        const ExactMoments& expected = at(exact, set);
        const auto count = static_cast<double>(expected.count), mean = static_cast<double>(expected.mean),
                   m2 = static_cast<double>(expected.m2);
        const bool is_mean = count == 0 ? std::isnan(at(labelled.mean, set))
                                        : std::fabs(at(labelled.mean, set) - mean) <= 1e-14 * std::fabs(middle) + 1e-15;
        const bool is_m2 = std::fabs(at(labelled.m2, set) - (count == 0 ? 0 : m2)) <= 1e-14 * (count + m2);
        if (at(labelled.count, set) != count || (count == 0 && !center ? false : !is_mean) || !is_m2) {
            if (++wrong > 5) return;
            ADD_FAILURE() << "set " << set << " of " << count << ": mean " << at(labelled.mean, set) - mean
                          << " off; m2 " << (at(labelled.m2, set) - m2) / m2 << " of " << m2 << " off";
        }
    }
}

TEST_P(LabelledRows, AreExact) {
    expect_exact<float>(GetParam(), {}, 3);
    expect_exact<double>(GetParam(), {}, 1e8);
    expect_exact<double>(GetParam(), {.name = "reversed", .reversed = true}, 3);
    expect_exact<float>(GetParam(), {.name = "padded", .gap = 5}, 3, false);
}

TEST_P(LabelledRows, HaveTheSameBitsOnAnyThreads) {
    LabelledCase<float> labelled(GetParam(), {}, 100);
    Tensor<float> y(labelled.shape);
    std::vector<double> count, mean, m2;
    std::vector<float> expected;
    for (int threads : {1, 2, 3, 7}) {
        normalize(labelled.x.view(), {{0}, labelled.selection}, y.view(),
                  {.moments = labelled.out(), .num_threads = threads});
        if (threads == 1) {
            count = labelled.count;
            mean = labelled.mean;
            m2 = labelled.m2;
            expected = y.values();
        }
        EXPECT_EQ(different_bits(labelled.count, count), 0) << threads << " threads";
        EXPECT_EQ(different_bits(labelled.mean, mean), 0) << threads << " threads";
        EXPECT_EQ(different_bits(labelled.m2, m2), 0) << threads << " threads";
        EXPECT_EQ(different_bits(y.values(), expected), 0) << threads << " threads";
    }
}

/// Groups with an infinity or a NaN in column 0 spoil that column of theirs alone.
template <class T>
void expect_spoiled(const Labelled& of) {
    SCOPED_TRACE(short_name<T>());
    LabelledCase<T> clean(of, {}, 3), spoiled(of, {}, 3);
    std::vector<double> expected(static_cast<std::size_t>(of.groups), 0);
    for (std::int64_t row = 0; row < of.rows; row += 7) {
        const std::int64_t place = row * of.columns, group = at(spoiled.sets.of, place) / of.columns;
        if (group % 3 != 0 || group == of.groups) continue;
        const double value = group % 2 == 0 ? infinity : nan;
        spoiled.x[place] = static_cast<T>(value);
        at(expected, group) = value;
    }
    for (LabelledCase<T>* each : {&clean, &spoiled}) moments(each->x.view(), {{0}, each->selection}, each->out());
    for (std::int64_t set = 0; set < of.groups * of.columns; ++set) {
        const double value = at(expected, set / of.columns);
        ASSERT_EQ(at(spoiled.count, set), at(clean.count, set));
        if (set % of.columns == 0 && value != 0) {
            ASSERT_EQ(bits(at(spoiled.mean, set)), bits(value)) << "set " << set;
            ASSERT_TRUE(std::isnan(at(spoiled.m2, set))) << "set " << set;
        } else {
            ASSERT_EQ(bits(at(spoiled.mean, set)), bits(at(clean.mean, set))) << "set " << set;
            ASSERT_EQ(bits(at(spoiled.m2, set)), bits(at(clean.m2, set))) << "set " << set;
        }
    }
}

TEST_P(LabelledRows, AreSpoiledByTheirOwn) {
    expect_spoiled<float>(GetParam());
    expect_spoiled<double>(GetParam());
}

INSTANTIATE_TEST_SUITE_P(, LabelledRows, testing::ValuesIn(labelled()),
                         [](const auto& info) { return std::string(info.param.name); });

/// One label of many is too large: among those that rise, which are looked at but once, and among others.
TEST(ManyLabels, AreAllBelowTheNumberOfGroups) {
    const std::int64_t n = 100'000, groups = 50;
    const std::vector<float> x(static_cast<std::size_t>(n), 1.0F);
    for (const bool rising : {true, false}) {
        for (const std::int64_t place : {std::int64_t{0}, n / 2, n - 2, n - 1}) {
            std::vector<std::int64_t> labels;
            for (std::int64_t i = 0; i < n; ++i) labels.push_back(rising ? i * groups / n : i * 7 % groups);
            std::vector<double> count = numbers(groups, -7);
            for (const int threads : {1, 3}) {
                const auto run = [&] {
                    moments(view(x.data(), {n}), {{0}, {.labels = view(labels.data(), {n}), .num_groups = groups}},
                            {.count = view(count.data(), {groups})}, {.num_threads = threads});
                };
                at(labels, place) = groups;
                try {
                    run();
                    ADD_FAILURE() << "label " << place << " has passed";
                } catch (const std::invalid_argument& error) {
                    EXPECT_STREQ(error.what(), "moments: expected labels below num_groups=50, got 50");
                }
                EXPECT_EQ(count, numbers(groups, -7));
                at(labels, place) = groups - 1;
                run();
                count = numbers(groups, -7);
            }
        }
    }
}

}  // namespace
}  // namespace anynorm::test
