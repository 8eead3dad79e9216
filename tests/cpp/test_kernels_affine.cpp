// SPDX-License-Identifier: Apache-2.0
// The affine kernels of every instruction set that this machine has: the eight shapes, every tail, against the formula
// in scalar code for the bits and in long double for the value. Operands end at a page that faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "guarded.hpp"
#include "kernel_target.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

using kernels::affine_index;
using kernels::AffineArgs;
using kernels::Kernels;

/// One operand of the affine kernel: `rows` rows of `n` elements with a gap, or one element a row.
template <class T>
class AffineOperand {
  public:
    AffineOperand() : memory_(1 << 14) {}

    const T* make(Random& random, bool varies, std::int64_t rows, std::int64_t n, double low, double high) {
        row_ = varies ? n + 3 : 1;
        const std::int64_t size = varies ? rows * row_ - 3 : rows;
        T* begin = memory_.last(size);
        std::fill(begin, begin + size, static_cast<T>(nan));
        for (std::int64_t row = 0; row < rows; ++row) {
            for (std::int64_t i = 0; i < (varies ? n : 1); ++i) {
                begin[row * row_ + i] = static_cast<T>(random.uniform(low, high));
            }
        }
        return begin;
    }
    std::int64_t row() const { return row_; }

  private:
    Guarded<T> memory_;
    std::int64_t row_ = 0;
};

template <class T>
struct AffineBlock {
    AffineOperand<T> x, y, mean, mean_lo, rstd, weight, bias;
    Random random{9};

    AffineArgs<T> make(std::int64_t rows, std::int64_t n, bool stat, bool weight_varies, bool bias_varies) {
        AffineArgs<T> args{};
        args.rows = rows;
        args.n = n;
        args.x = x.make(random, true, rows, n, -5, 5);
        args.y = const_cast<T*>(y.make(random, true, rows, n, 0, 0));
        args.mean = mean.make(random, stat, rows, n, -1, 1);
        args.mean_lo = mean_lo.make(random, stat, rows, n, -1e-8, 1e-8);
        args.rstd = rstd.make(random, stat, rows, n, 0.5, 2);
        args.weight = weight.make(random, weight_varies, rows, n, 0.5, 2);
        args.bias = bias.make(random, bias_varies, rows, n, -1, 1);
        args.x_row = x.row();
        args.y_row = y.row();
        args.stat_row = mean.row();
        args.weight_row = weight.row();
        args.bias_row = bias.row();
        return args;
    }
};

class KernelAffine : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelAffine, all_targets(), target_name);

/// y and the gaps of y; `input` is x as it was before the call.
template <class T>
void expect_affine(bool fused, const AffineArgs<T>& args, const std::vector<T>& input, int shape) {
    const bool varies[3] = {(shape & 4) != 0, (shape & 2) != 0, (shape & 1) != 0};
    std::int64_t wrong = 0, far = 0, gaps = 0;
    for (std::int64_t row = 0; row < args.rows; ++row) {
        for (std::int64_t i = 0; i < args.n; ++i) {
            const std::int64_t stat = row * args.stat_row + (varies[0] ? i : 0);
            const T x = at(input, row * args.x_row + i), got = args.y[row * args.y_row + i];
            const T weight = args.weight[row * args.weight_row + (varies[1] ? i : 0)];
            const T bias = args.bias[row * args.bias_row + (varies[2] ? i : 0)];
            const T d = (x - args.mean[stat]) - args.mean_lo[stat];
            const T expected = mul_add(fused, d, product(args.rstd[stat], weight), bias);
            wrong += bits(got) != bits(expected) ? 1 : 0;
            using Wide = long double;
            const Wide exact =
                (Wide(x) - Wide(args.mean[stat]) - Wide(args.mean_lo[stat])) * Wide(args.rstd[stat]) * Wide(weight) +
                Wide(bias);
            far += !(std::fabs(Wide(got) - exact) <= 50 * Wide(std::numeric_limits<T>::epsilon())) ? 1 : 0;
        }
        for (std::int64_t i = args.n; i < args.y_row && row + 1 < args.rows; ++i) {
            gaps += !std::isnan(args.y[row * args.y_row + i]) ? 1 : 0;
        }
    }
    EXPECT_EQ(wrong, 0) << "n = " << args.n << ", shape " << shape;
    EXPECT_EQ(far, 0) << "n = " << args.n << ", shape " << shape;
    EXPECT_EQ(gaps, 0) << "n = " << args.n << ", shape " << shape;
}

template <class T>
std::vector<T> copy_of_x(const AffineArgs<T>& args) {
    return {args.x, args.x + (args.rows - 1) * args.x_row + args.n};
}

TEST_P(KernelAffine, EveryShapeAndTail) {
    with_type([&](auto type) {
        using T = decltype(type);
        AffineBlock<T> block;
        for (int shape = 0; shape < 8; ++shape) {
            const bool stat = (shape & 4) != 0, weight = (shape & 2) != 0, bias = (shape & 1) != 0;
            for (std::int64_t n = 1; n <= 70; n += n < 36 ? 1 : 7) {
                const AffineArgs<T> args = block.make(2, n, stat, weight, bias);
                const std::vector<T> input = copy_of_x(args);
                table<T>().affine[affine_index(stat, weight, bias)](args);
                expect_affine(fused(), args, input, shape);
            }
        }
    });
}

TEST_P(KernelAffine, InPlace) {
    with_type([&](auto type) {
        using T = decltype(type);
        AffineBlock<T> block;
        for (std::int64_t n : {1, 15, 16, 33, 1000}) {
            AffineArgs<T> args = block.make(3, n, false, true, true);
            const std::vector<T> input = copy_of_x(args);
            args.y = const_cast<T*>(args.x);
            args.y_row = args.x_row;
            table<T>().affine[affine_index(false, true, true)](args);
            expect_affine(fused(), args, input, 3);
        }
    });
}

/// Rows that share a coefficient: a stride of 0 from row to row.
TEST_P(KernelAffine, OneCoefficientForAllRows) {
    with_type([&](auto type) {
        using T = decltype(type);
        AffineBlock<T> block;
        AffineArgs<T> args = block.make(3, 21, false, true, false);
        args.stat_row = args.weight_row = args.bias_row = 0;
        table<T>().affine[affine_index(false, true, false)](args);
        expect_affine(fused(), args, copy_of_x(args), 2);
    });
}

/// Rows that name their statistics: the bits of calls for one row after the other.
TEST_P(KernelAffine, StatisticsByNumber) {
    with_type([&](auto type) {
        using T = decltype(type);
        AffineBlock<T> block;
        const std::int32_t numbers[] = {2, 0, 2, 1, 0};
        for (int shape = 0; shape < 8; ++shape) {
            const bool stat = (shape & 4) != 0, weight = (shape & 2) != 0, bias = (shape & 1) != 0;
            for (std::int64_t n : {1, 16, 21, 47}) {
                AffineArgs<T> args = block.make(5, n, stat, weight, bias);
                const auto kernel = table<T>().affine[affine_index(stat, weight, bias)];
                args.stat_of = numbers;
                kernel(args);
                std::vector<T> by_number, one_by_one(static_cast<std::size_t>(n));
                for (std::int64_t row = 0; row < args.rows; ++row) {
                    by_number.assign(args.y + row * args.y_row, args.y + row * args.y_row + n);
                    AffineArgs<T> one = args;
                    one.stat_of = nullptr;
                    one.rows = 1;
                    one.x += row * args.x_row;
                    one.y = one_by_one.data();
                    one.mean += numbers[row] * args.stat_row;
                    one.mean_lo += numbers[row] * args.stat_row;
                    one.rstd += numbers[row] * args.stat_row;
                    one.weight += row * args.weight_row;
                    one.bias += row * args.bias_row;
                    kernel(one);
                    EXPECT_EQ(different_bits(by_number, one_by_one), 0) << "row " << row << ", n = " << n;
                }
            }
        }
    });
}

/// Rows of 16 that name their statistics, past the caches to any address: the bits of ordinary stores, and nothing
/// beside them is written.
TEST_P(KernelAffine, StatisticsByNumberPastTheCaches) {
    with_type([&](auto type) {
        using T = decltype(type);
        const std::int64_t n = 16, most = 150, groups = 5, around = 16;
        Random random(23);
        std::vector<T> x(most * n), stats(3 * groups * n);
        for (auto* values : {&x, &stats})
            for (T& each : *values) each = static_cast<T>(random.uniform(-2, 2));
        std::vector<std::int32_t> numbers(most);
        for (std::int32_t& each : numbers) each = static_cast<std::int32_t>(random.below(groups));
        const T weight = 2, bias = 3, untouched = 77;
        for (const std::int64_t rows : {1, 63, 64, 65, 150}) {
            for (std::int64_t offset = 0; offset < n; ++offset) {
                std::vector<T> results[2];
                for (const bool stream : {false, true}) {
                    std::vector<T>& y = results[stream ? 1 : 0];
                    y.assign(static_cast<std::size_t>(rows * n + n + 2 * around), untouched);
                    // The vector begins at a multiple of 16 bytes, so that `offset` finds every place in a line.
                    AffineArgs<T> args{};
                    args.rows = rows;
                    args.n = args.x_row = args.y_row = n;
                    args.x = x.data();
                    args.y = y.data() + around + offset;
                    args.mean = stats.data();
                    args.mean_lo = args.mean + n;
                    args.rstd = args.mean + 2 * n;
                    args.stat_row = 3 * n;
                    args.stat_of = numbers.data();
                    args.weight = &weight;
                    args.bias = &bias;
                    args.stream = stream;
                    table<T>().affine[affine_index(true, false, false)](args);
                    EXPECT_EQ(y[static_cast<std::size_t>(around + offset - 1)], untouched);
                    EXPECT_EQ(y[static_cast<std::size_t>(around + offset + rows * n)], untouched);
                }
                EXPECT_EQ(different_bits(results[0], results[1]), 0) << "rows " << rows << ", offset " << offset;
            }
        }
    });
}

/// Calls that leave a line open for each other, end to end, with gaps and back to an earlier place, past the caches
/// from any address on: the bits of ordinary stores, and nothing beside them is written.
TEST_P(KernelAffine, CallsThatLeaveLinesOpen) {
    struct Call {
        std::int64_t start, rows, n;
    };
    constexpr Call calls[] = {{20, 2, 49},  {118, 1, 3}, {121, 1, 16}, {137, 3, 5},   {152, 1, 8}, {167, 1, 64},
                              {231, 4, 16}, {300, 2, 7}, {0, 1, 20},   {400, 1, 200}, {600, 5, 1}, {605, 2, 33}};
    with_type([&](auto type) {
        using T = decltype(type);
        constexpr std::int64_t size = 700, around = 16;
        Random random(29);
        std::vector<T> x(size);
        for (T& each : x) each = static_cast<T>(random.uniform(-2, 2));
        const T mean = T(0.5), mean_lo = T(0), rstd = 2, weight = T(1.5), bias = 3, untouched = 77;
        for (std::int64_t offset = 0; offset < 16; ++offset) {
            std::vector<T> results[2];
            for (const bool stream : {false, true}) {
                std::vector<T>& y = results[stream ? 1 : 0];
                y.assign(static_cast<std::size_t>(size + 2 * around), untouched);
                kernels::OpenLine open;
                kernels::begin_line(open);
                for (const Call& call : calls) {
                    AffineArgs<T> args{};
                    args.rows = call.rows;
                    args.n = args.x_row = args.y_row = call.n;
                    args.x = x.data() + call.start;
                    args.y = y.data() + around + offset + call.start;
                    args.mean = &mean;
                    args.mean_lo = &mean_lo;
                    args.rstd = &rstd;
                    args.weight = &weight;
                    args.bias = &bias;
                    args.stream = stream;
                    args.open = stream ? &open : nullptr;
                    table<T>().affine[affine_index(false, false, false)](args);
                }
                table<T>().close_line(open);
                EXPECT_EQ(open.held, 0);
            }
            EXPECT_EQ(different_bits(results[0], results[1]), 0) << "offset " << offset;
        }
    });
}

template <class T>
std::vector<std::uint64_t> bits_of_all_shapes(Isa isa) {
    const Kernels<T>& table = detail::kernels_for<T>(*detail::kernels_of(isa));
    std::vector<std::uint64_t> result;
    AffineBlock<T> block;
    for (int shape = 0; shape < 8; ++shape) {
        for (std::int64_t n : {1, 16, 21, 47, 64}) {
            const AffineArgs<T> args = block.make(2, n, (shape & 4) != 0, (shape & 2) != 0, (shape & 1) != 0);
            table.affine[shape](args);
            for (std::int64_t i = 0; i < n; ++i) result.push_back(bits(args.y[i]));
        }
    }
    return result;
}

TEST(KernelAffineBits, EqualOnAllInstructionSetsButTheBaseline_f32) {
    expect_equal_bits_of_isas(bits_of_all_shapes<float>);
}
TEST(KernelAffineBits, EqualOnAllInstructionSetsButTheBaseline_f64) {
    expect_equal_bits_of_isas(bits_of_all_shapes<double>);
}

}  // namespace
}  // namespace anynorm::test
