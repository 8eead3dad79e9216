// SPDX-License-Identifier: Apache-2.0
// Segments that are normalized, short ones and long ones: to the bit what calls for each of them alone give, whether
// they are written while a cache still has them or when all are summed.
#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "anynorm/anynorm.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

struct Segmented {
    const char* name;
    std::int64_t rows, columns;
    std::vector<std::int64_t> pairs;  ///< where each begins and ends
    const char* layout = "c";

    friend void PrintTo(const Segmented& self, std::ostream* out) { *out << self.name; }
};

/// Segments of so many rows, every other one with a row behind it that is in none.
std::vector<std::int64_t> each_of(std::int64_t length, std::int64_t rows) {
    std::vector<std::int64_t> pairs;
    for (std::int64_t row = 2; row + length <= rows; row += length + std::ssize(pairs) / 2 % 2)
        pairs.insert(pairs.end(), {row, row + length});
    return pairs;
}

const std::vector<Segmented>& segmented() {
    static const std::vector<Segmented> result = {
        {"packs", 4000, 16, each_of(700, 4000)},
        {"long_of_several_chunks", 7000, 16, each_of(2500, 7000)},
        {"long_beyond_the_cache", 9000, 16, {0, 100, 100, 8000, 8500, 8500}},
        {"packs_in_short_segments", 4000, 16, each_of(7, 4000)},
        {"long_past_the_caches", 70'000, 16, each_of(900, 70'000)},
        {"long_in_short_segments", 70'000, 16, each_of(90, 70'000)},
        {"ragged", 4000, 5, each_of(300, 4000)},
        {"ragged_in_short_segments", 1000, 17, each_of(9, 1000)},
        {"of_any_length", 5000, 17, {1, 2, 2, 2, 5, 3000, 3000, 3070, 3071, 3072, 3072, 4999}},
        {"wide", 90, 700, each_of(12, 90)},
        {"long_row", 1, 70'000, {0, 0, 0, 1, 1, 1}},
        {"one_column", 9000, 1, each_of(1500, 9000)},
        {"padded", 2000, 16, each_of(600, 2000), "padded"},
        {"strided", 2000, 5, each_of(600, 2000), "strided"},
        {"long_fortran", 20'000, 4, each_of(1100, 20'000), "fortran"},
        {"fortran_in_short_segments", 9000, 4, each_of(100, 9000), "fortran"},
        {"long_backwards", 9000, 16, each_of(900, 9000), "reversed"},
        {"backwards_in_short_segments", 5000, 16, each_of(13, 5000), "reversed"},
        {"in_none", 100, 16, {40, 40}},
    };
    return result;
}

const Layout& layout_of(const Segmented& of) {
    for (const Layout& layout : layouts()) {
        if (std::string(layout.name) == of.layout) return layout;
    }
    throw std::invalid_argument(of.layout);
}

/// Rows `first` to `last` of a view.
TensorView rows_of(TensorView view, std::int64_t first, std::int64_t last) {
    view.data = static_cast<char*>(view.data) +
                first * view.strides[0] * static_cast<std::int64_t>(anynorm::size_of(view.dtype));
    view.shape[0] = last - first;
    return view;
}

class NormalizedSegments : public testing::TestWithParam<Segmented> {
  protected:
    template <class X, class Y>
    void expect_calls(Excluded excluded, bool in_place, int threads) {
        const Segmented& of = GetParam();
        SCOPED_TRACE(testing::Message() << short_name<X>() << " to " << short_name<Y>() << ", " << threads
                                        << " threads, excluded as " << static_cast<int>(excluded)
                                        << (in_place ? ", in place" : ""));
        const Shape shape = {of.rows, of.columns};
        Tensor<X> x(shape, layout_of(of));
        Tensor<Y> y(shape, layout_of(of)), expected(shape, layout_of(of));
        Random random(17);
        x.fill([&](std::int64_t) { return 100 + random.unit(); });
        y.fill([&](std::int64_t i) { return in_place ? static_cast<Y>(x[i]) : Y(-5); });
        expected.fill([&](std::int64_t i) {
            return excluded == Excluded::zero ? Y(0) : excluded == Excluded::input ? static_cast<Y>(x[i]) : y[i];
        });
        std::vector<float> weight(static_cast<std::size_t>(of.columns)), bias(weight);
        for (float& each : weight) each = static_cast<float>(random.unit());
        for (float& each : bias) each = static_cast<float>(random.unit());
        NormalizeOptions options{.weight = view(weight.data(), {of.columns}),
                                 .bias = view(bias.data(), {of.columns}),
                                 .num_threads = threads};
        const auto groups = std::ssize(of.pairs) / 2;
        for (std::int64_t i = 0; i < groups; ++i) {
            const std::int64_t first = at(of.pairs, 2 * i), last = at(of.pairs, 2 * i + 1);
            if (first < last)
                normalize(rows_of(x.view(), first, last), {{0}}, rows_of(expected.view(), first, last), options);
        }
        options.excluded = excluded;
        normalize(in_place ? y.view() : x.view(), {{0}, {.segments = view(of.pairs.data(), {groups, 2})}}, y.view(),
                  options);
        EXPECT_EQ(different_bits(y.values(), expected.values()), 0);
        EXPECT_EQ(y.changed_gaps(), 0);
    }
};

TEST_P(NormalizedSegments, AreCallsOfTheirOwn) {
    for (const int threads : {1, 3}) {
        for (const Excluded excluded : {Excluded::zero, Excluded::input, Excluded::keep}) {
            expect_calls<float, float>(excluded, false, threads);
            expect_calls<float, float>(excluded, true, threads);
        }
        expect_calls<float, double>(Excluded::input, false, threads);
        expect_calls<double, double>(Excluded::zero, false, threads);
    }
}

INSTANTIATE_TEST_SUITE_P(, NormalizedSegments, testing::ValuesIn(segmented()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace anynorm::test
