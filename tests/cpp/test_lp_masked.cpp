// SPDX-License-Identifier: Apache-2.0
// lp_normalize() and its gradient under a mask: those of x with 0 where it excludes, whatever is there.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "any_array.hpp"
#include "anynorm/lp_normalize.hpp"
#include "lp_oracle.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

/// The axes of the sets, and those that the mask varies along.
struct Kind {
    const char* name;
    Shape shape;
    std::vector<int> axes, where;

    friend void PrintTo(const Kind& self, std::ostream* out) { *out << self.name; }
    Axes axes_of() const { return Axes(std::span<const int>(axes)); }
};

const Kind kinds[] = {
    {"channels", {3, 5, 7, 6}, {1}, {0, 1, 2, 3}},
    {"last", {4, 5, 37}, {2}, {2}},
    {"last_of_samples", {9, 5, 30}, {2}, {0}},
    {"two_axes", {3, 8, 5, 6}, {0, 2}, {0, 3}},
    {"all", {3, 4, 5, 6}, {0, 1, 2, 3}, {1, 3}},
    {"none", {3, 4, 5}, {}, {0, 2}},
    {"long_rows", {3, 4100}, {1}, {0, 1}},
    {"long_columns", {1030, 3}, {0}, {0}},
    {"long_split_row", {70003}, {0}, {0}},
    {"long_split_columns", {10011, 7}, {0}, {0, 1}},
    {"long_planes", {3, 2, 110, 105}, {0, 2, 3}, {0, 2}},
};

class LpMasked : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, LpMasked, testing::ValuesIn(kinds), [](const auto& info) { return info.param.name; });

struct DTypes {
    DType x, grad_output, result;
};
const DTypes all_dtypes[] = {{DType::f32, DType::f32, DType::f32},
                             {DType::f64, DType::f64, DType::f64},
                             {DType::bf16, DType::bf16, DType::f32},
                             {DType::f32, DType::f64, DType::f16}};

Shape spread(const Shape& shape, const std::vector<int>& axes) {
    Shape result(shape.size(), 1);
    for (const int axis : axes) at(result, axis) = at(shape, axis);
    return result;
}

struct Masked {
    AnyArray x, dy, result, where;
    std::vector<bool> used;
    std::vector<double> seen_x, seen_dy;  ///< 0 where nothing is seen

    Masked(const Kind& kind, const DTypes& types, const Layout& one, const Layout& other)
        : x(types.x, kind.shape, one),
          dy(types.grad_output, kind.shape, other),
          result(types.result, kind.shape, other),
          where(DType::boolean, spread(kind.shape, kind.where)) {
        Random random(8);
        const auto eighths = [&](std::int64_t) { return static_cast<double>(random.below(49) - 24) / 8; };
        x.fill(eighths);
        dy.fill(eighths);
        where.fill([&](std::int64_t) { return random.below(3) > 0 ? 1 : 0; });
        result.fill([](std::int64_t i) { return i % 5; });
        const Numbering places = number_along(kind.shape, kind.where);
        for (std::int64_t i = 0; i < x.size(); ++i) {
            used.push_back(where[at(places.of, i)] != 0);
            if (!used.back()) x.set(i, i % 2 == 0 ? nan : infinity);
            seen_x.push_back(used.back() ? x[i] : 0);
            seen_dy.push_back(used.back() ? dy[i] : 0);
        }
    }

    /// What is in the result where nothing is seen.
    double otherwise(std::int64_t i, Excluded excluded, AnyArray& input) {
        return excluded == Excluded::zero ? 0 : excluded == Excluded::input ? input[i] : static_cast<double>(i % 5);
    }

    void expect(const std::vector<long double>& exact, Excluded excluded, AnyArray& input, double tolerance) {
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < x.size(); ++i) {
            const double value = result[i];
            if (!at(used, i)) {
                const double expected = otherwise(i, excluded, input);
                wrong += value == expected || (std::isnan(value) && std::isnan(expected)) ? 0 : 1;
                continue;
            }
            const auto size = static_cast<double>(std::max(1.0L, std::fabs(at(exact, i))));
            wrong += std::fabs(value - static_cast<double>(at(exact, i))) <= tolerance * size ? 0 : 1;
        }
        EXPECT_EQ(wrong, 0) << static_cast<int>(excluded);
        EXPECT_EQ(result.changed_gaps(), 0);
    }
};

TEST_P(LpMasked, IsTheDefinitionOfWhatIsSeen) {
    const Kind& kind = GetParam();
    const Numbering sets = sets_of(kind.shape, kind.axes);
    std::size_t turn = 0;
    const bool large = size_of(kind.shape) > 10000;
    for (const double p : {1.0, 2.0, infinity}) {
        for (const DTypes& types : all_dtypes) {
            for (const Excluded excluded : {Excluded::zero, Excluded::input, Excluded::keep}) {
                const std::size_t number = turn++;
                if (large && number % 4 != 0) continue;
                const double tolerance = types.result == DType::f16 ? 1e-3 : types.result == DType::f32 ? 6e-7 : 1e-13;
                Masked forward(kind, types, at(layouts(), number % layouts().size()), {});
                LpNormalizeOptions options{.p = p, .eps = 2.5, .where = forward.where.view(), .excluded = excluded};
                lp_normalize(forward.x.view(), forward.result.view(), kind.axes_of(), options);
                forward.expect(exact_lp(forward.seen_x, sets, p, 2.5), excluded, forward.x, tolerance);
                Masked backward(kind, types, {}, at(layouts(), number % layouts().size()));
                options.where = backward.where.view();
                lp_normalize_backward(backward.dy.view(), backward.x.view(), backward.result.view(), kind.axes_of(),
                                      options);
                backward.expect(exact_lp_backward(backward.seen_dy, backward.seen_x, sets, p, 2.5), excluded,
                                backward.dy, tolerance);
            }
        }
    }
}

TEST_P(LpMasked, BitsDependNeitherOnThreadsNorOnTheInstructionSet) {
    const Kind& kind = GetParam();
    for (const double p : {1.0, 2.0, infinity}) {
        std::vector<double> first;
        for (const Isa isa : isas_with_equal_bits()) {
            const UseIsa use(isa);
            for (const int threads : {1, 3}) {
                Masked masked(kind, all_dtypes[0], {}, {});
                lp_normalize_backward(masked.dy.view(), masked.x.view(), masked.result.view(), kind.axes_of(),
                                      {.p = p, .where = masked.where.view(), .num_threads = threads});
                if (first.empty()) first = masked.result.values();
                EXPECT_EQ(different_bits(first, masked.result.values()), 0) << p << " " << threads;
            }
        }
    }
}

TEST(LpMaskedErrors, NothingIsWritten) {
    Masked masked({"", {4, 6}, {1}, {1}}, all_dtypes[0], {}, {});
    const std::vector<double> before = masked.result.values();
    const auto refused = [&](const TensorView& where, Excluded excluded) -> std::string {
        try {
            lp_normalize(masked.x.view(), masked.result.view(), {1}, {.where = where, .excluded = excluded});
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "nothing";
    };
    AnyArray short_mask(DType::boolean, {5}), numbers(DType::f32, {6});
    EXPECT_EQ(refused(short_mask.view(), Excluded::zero),
              "lp_normalize: expected where of a shape that broadcasts to (4, 6), got (5,)");
    EXPECT_EQ(refused(numbers.view(), Excluded::zero), "lp_normalize: expected where of dtype bool, got float32");
    EXPECT_EQ(refused(masked.where.view(), static_cast<Excluded>(7)),
              "lp_normalize: expected excluded as zero, input or keep, got number 7");
    TensorView inside = masked.result.view();
    inside.dtype = DType::boolean;
    EXPECT_EQ(refused(inside, Excluded::zero),
              "lp_normalize: expected output apart from where, got arrays that share memory");
    EXPECT_EQ(before, masked.result.values());
}

}  // namespace
}  // namespace anynorm::test
