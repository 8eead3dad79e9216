// SPDX-License-Identifier: Apache-2.0
// Statistics of labels, segments and masks against those of the compacted data, to the bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "selections.hpp"

namespace anynorm::test {
namespace {

TEST(SelectedBits, MaskedRowsAreTheCompactedRows) {
    const std::int64_t rows = 7, n = 20'011;
    const std::vector<float> x = random_values(rows * n);
    const auto mask = std::make_unique<bool[]>(x.size());
    Random random(4);
    for (std::size_t i = 0; i < x.size(); ++i) mask[i] = random.below(4) != 0;
    ThreeArrays out({rows});
    moments(view(x.data(), {rows, n}), {{1}, {.where = view(mask.get(), {rows, n})}}, out.view());
    for (std::int64_t row = 0; row < rows; ++row) {
        std::vector<float> elements;
        for (std::int64_t i = row * n; i < (row + 1) * n; ++i)
            if (mask[static_cast<std::size_t>(i)]) elements.push_back(at(x, i));
        expect_same(out[row], moments_of(elements), "row");
    }
}

TEST(SelectedBits, MaskedColumnsAreTheCompactedColumns) {
    for (const std::int64_t columns : {3, 16, 37}) {
        const std::int64_t n = 11'000;
        const std::vector<float> x = random_values(n * columns);
        const auto mask = std::make_unique<bool[]>(x.size());
        Random random(14);
        for (std::size_t i = 0; i < x.size(); ++i) {
            const std::size_t column = i % static_cast<std::size_t>(columns);
            mask[i] = column != 1 && (column == 2 || random.below(5) != 0);  // one without members, one with all
        }
        ThreeArrays out({columns});
        moments(view(x.data(), {n, columns}), {{0}, {.where = view(mask.get(), {n, columns})}}, out.view());
        for (std::int64_t column = 0; column < columns; ++column) {
            std::vector<float> elements;
            for (std::int64_t i = column; i < n * columns; i += columns)
                if (mask[static_cast<std::size_t>(i)]) elements.push_back(at(x, i));
            expect_same(out[column], moments_of(elements), "column");
        }
    }
}

TEST(SelectedBits, AMaskOfRowsLeavesThem) {
    const std::int64_t n = 9000;
    const auto mask = std::make_unique<bool[]>(n);
    for (std::int64_t row = 0; row < n; ++row) mask[static_cast<std::size_t>(row)] = row % 7 != 1 && row / 40 % 5 != 1;
    for (const std::int64_t columns : {1, 3, 150}) {
        const std::vector<float> x = random_values(n * columns);
        std::vector<float> kept;
        for (std::int64_t i = 0; i < n * columns; ++i)
            if (mask[static_cast<std::size_t>(i / columns)]) kept.push_back(at(x, i));
        ThreeArrays out({columns}), expected({columns});
        moments(view(x.data(), {n, columns}), {{0}, {.where = view(mask.get(), {n, 1})}}, out.view());
        moments(view(kept.data(), {std::ssize(kept) / columns, columns}), {{0}}, expected.view());
        for (std::int64_t i = 0; i < columns; ++i) expect_same(out[i], expected[i], "column");
    }
}

/// Columns of labels that are the same for two rows each: every group is compacted.
void expect_columns_of_rows(std::int64_t n, std::int64_t columns) {
    const std::int64_t groups = 4, row_size = 2 * columns;
    const std::vector<float> x = random_values(n * row_size);
    std::vector<std::int32_t> label(static_cast<std::size_t>(n));
    Random random(9);
    for (std::int32_t& each : label) each = static_cast<std::int32_t>(random.below(4)) - 1;
    ThreeArrays out({groups, columns});
    moments(view(x.data(), {n, 2, columns}), {{0, 1}, {.labels = view(label.data(), {n, 1, 1}), .num_groups = groups}},
            out.view());
    for (std::int32_t group = 0; group < 3; ++group) {
        std::vector<float> compacted;
        for (std::int64_t row = 0; row < n; ++row) {
            if (at(label, row) == group)
                compacted.insert(compacted.end(), x.begin() + row * row_size, x.begin() + (row + 1) * row_size);
        }
        ThreeArrays own({columns});
        moments(view(compacted.data(), {length(compacted) / columns, columns}), {{0}}, own.view());
        for (std::int64_t column = 0; column < columns; ++column)
            expect_same(out[group * columns + column], own[column], "column");
    }
}

TEST(SelectedBits, LabelledColumnsAreTheCompactedRows) {
    for (std::int64_t columns : {2, 3, 16, 31, 32, 100}) {
        SCOPED_TRACE(columns);
        expect_columns_of_rows(50, columns);
        expect_columns_of_rows(4'500, columns);
    }
}

/// Few labels of many rows: summed as they come.
template <class T>
void expect_grouped_columns(std::int64_t columns, bool spoiled) {
    const std::int64_t n = 20'000, groups = 7;
    std::vector<T> x;
    std::vector<std::int64_t> label;
    const auto mask = std::make_unique<bool[]>(static_cast<std::size_t>(n));
    Random random(31);
    for (std::int64_t row = 0; row < n; ++row) {
        label.push_back(row % 977 == 0 ? 6 : random.below(7) - 1);  // of 5 none, of 6 a few
        if (label.back() == 5) label.back() = -1;
        mask[static_cast<std::size_t>(row)] = random.below(9) != 0;
        for (std::int64_t i = 0; i < columns; ++i) x.push_back(static_cast<T>(1000 + random.unit()));
    }
    if (spoiled) {
        for (std::size_t row = 0; row < 3000; ++row) {
            if (label[row] == 2) x[row * static_cast<std::size_t>(columns)] = static_cast<T>(infinity);
        }
    }
    ThreeArrays out({groups, columns});
    moments(view(x.data(), {n, columns}),
            {{0}, {.labels = view(label.data(), {n, 1}), .num_groups = groups, .where = view(mask.get(), {n, 1})}},
            out.view());
    for (std::int64_t group = 0; group < groups; ++group) {
        for (std::int64_t column = 0; column < columns; ++column) {
            std::vector<T> elements;
            for (std::int64_t row = 0; row < n; ++row) {
                if (at(label, row) == group && mask[static_cast<std::size_t>(row)])
                    elements.push_back(at(x, row * columns + column));
            }
            const Moments actual = out[group * columns + column];
            ASSERT_EQ(actual.count, static_cast<double>(elements.size()));
            if (elements.empty()) {
                EXPECT_TRUE(std::isnan(actual.mean));
            } else if (spoiled && group == 2 && column == 0) {
                EXPECT_EQ(actual.mean, infinity);
                EXPECT_TRUE(std::isnan(actual.m2));
            } else {
                const ExactMoments exact = exact_moments(elements, number_along({length(elements)}, {}))[0];
                EXPECT_NEAR(actual.mean, static_cast<double>(exact.mean), 1e-15 * 1000);
                EXPECT_NEAR(actual.m2, static_cast<double>(exact.m2), 1e-14 * static_cast<double>(exact.m2));
            }
        }
    }
}

TEST(SelectedColumns, OfFewLabelsAreExact) {
    for (std::int64_t columns : {1, 3, 16, 40}) {
        SCOPED_TRACE(columns);
        expect_grouped_columns<float>(columns, false);
        expect_grouped_columns<double>(columns, false);
        expect_grouped_columns<float>(columns, true);
    }
}

TEST(SelectedBits, SegmentsAreCallsOfTheirOwn) {
    const Shape shapes[] = {{5000, 24}, {300, 3, 7}, {40, 3, 400}, {2000, 2, 3, 5}};
    const std::vector<std::vector<int>> axes = {{0}, {0, 2}, {0, 2}, {0, 2, 3}};
    for (std::size_t i = 0; i < 4; ++i) {
        const Shape& shape = shapes[i];
        const std::int64_t n = shape[0], row = size_of(shape) / n;
        const std::vector<float> x = random_values(size_of(shape));
        const std::int64_t offsets[] = {1, n / 3, n / 3, n / 2, n};
        const std::int64_t kept = shape[1];
        ThreeArrays out({4, kept});
        moments(view(x.data(), std::span<const std::int64_t>(shape)),
                {axes_of(axes[i]), {.segments = view(offsets, {5})}}, out.view());
        for (std::int64_t segment = 0; segment < 4; ++segment) {
            Shape own = shape;
            own[0] = offsets[segment + 1] - offsets[segment];
            ThreeArrays alone({kept});
            moments(view(x.data() + offsets[segment] * row, std::span<const std::int64_t>(own)), {axes_of(axes[i])},
                    alone.view());
            for (std::int64_t set = 0; set < kept; ++set) expect_same(out[segment * kept + set], alone[set], "segment");
        }
    }
}

TEST(SelectedBits, DoNotDependOnThreads) {
    const std::int64_t n = 60'000, columns = 10;
    const std::vector<float> x = random_values(n * columns);
    std::vector<std::int64_t> label(static_cast<std::size_t>(n));
    std::vector<double> weight(static_cast<std::size_t>(n));
    const auto mask = std::make_unique<bool[]>(label.size());
    Random random(21);
    for (std::size_t i = 0; i < label.size(); ++i) {
        label[i] = random.below(10) == 0 ? random.below(500) : random.below(2);
        weight[i] = random.uniform(0, 2);
        mask[i] = random.below(3) != 0;
    }
    const TensorView labels = view(label.data(), {n, 1}), weights = view(weight.data(), {n, 1}),
                     where = view(mask.get(), {n, 1});
    for (const Selection& selection : {Selection{.labels = labels, .num_groups = 500}, Selection{.where = where},
                                       Selection{.sample_weight = weights},
                                       Selection{.labels = labels, .num_groups = 500, .sample_weight = weights}}) {
        const Shape shape = selection.splits() ? Shape{500, columns} : Shape{columns};
        ThreeArrays first(shape);
        std::vector<float> expected(x.size());
        for (int threads : {1, 2, 3, 7}) {
            ThreeArrays out(shape);
            std::vector<float> y(x.size());
            normalize(view(x.data(), {n, columns}), {{0}, selection}, view(y.data(), {n, columns}),
                      {.moments = out.view(), .num_threads = threads});
            if (threads == 1) {
                first = out;
                expected = y;
            }
            EXPECT_TRUE(out == first) << threads << " threads";
            EXPECT_EQ(different_bits(y, expected), 0) << threads << " threads";
        }
    }
}

}  // namespace
}  // namespace anynorm::test
