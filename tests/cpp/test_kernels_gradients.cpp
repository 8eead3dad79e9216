// SPDX-License-Identifier: Apache-2.0
// The sums and the results of gradients over blocks of rows, on every instruction set that this machine has: every
// tail, against scalar code in the same 16 lanes. Rows end at a page that faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "guarded.hpp"
#include "kernel_target.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

constexpr std::int64_t blocks = 3, rows = 4;

/// Blocks of rows whose last ends where the memory ends. `gap` elements lie between two rows, and more between blocks.
template <class T>
struct Blocks {
    using C = kernels::Compute<T>;

    Blocks(std::int64_t length, std::int64_t gap)
        : n(length), row(n + gap), block(rows * row + 7 * gap), size((blocks - 1) * block + (rows - 1) * row + n) {
        Random random(23);
        x = inputs.last(size);
        dy = gradients.last(size);
        dx = results.last(size);
        for (std::int64_t i = 0; i < size; ++i) {
            x[i] = static_cast<T>(random.uniform(-3, 5));
            dy[i] = static_cast<T>(random.uniform(-1, 2));
            dx[i] = T(-1);
        }
        for (std::int64_t i = 0; i < blocks * rows; ++i) {
            mean.push_back(static_cast<C>(random.uniform(0, 2)));
            mean_lo.push_back(static_cast<C>(random.uniform(-1e-9, 1e-9)));
            rstd.push_back(static_cast<C>(random.uniform(0.5, 2)));
            slope.push_back(static_cast<C>(random.uniform(-1, 1)));
            offset.push_back(static_cast<C>(random.uniform(-1, 1)));
            weight.push_back(static_cast<C>(random.uniform(-2, 2)));
        }
    }

    /// A sum for every row of a block, to which those of all blocks are added.
    kernels::GradientSumsArgs<T> sums(std::vector<double>& s1, std::vector<double>& s2) const {
        return {.rows = rows,
                .n = n,
                .x = x,
                .grad_output = dy,
                .mean = mean.data(),
                .mean_lo = mean_lo.data(),
                .rstd = rstd.data(),
                .weight = weight.data(),
                .x_row = row,
                .grad_output_row = row,
                .stat_row = 1,
                .weight_row = 1,
                .s1 = s1.data(),
                .s2 = s2.data(),
                .sum_row = 1,
                .blocks = blocks,
                .x_block = block,
                .grad_output_block = block,
                .stat_block = rows,
                .weight_block = rows,
                .sum_block = 0};
    }
    kernels::GradientInputArgs<T> input(bool stream) const {
        return {.rows = rows,
                .n = n,
                .x = x,
                .grad_output = dy,
                .grad_input = dx,
                .mean = mean.data(),
                .slope = slope.data(),
                .offset = offset.data(),
                .rstd = rstd.data(),
                .weight = weight.data(),
                .x_row = row,
                .grad_output_row = row,
                .grad_input_row = row,
                .stat_row = 1,
                .weight_row = 1,
                .stream = stream,
                .blocks = blocks,
                .x_block = block,
                .grad_output_block = block,
                .grad_input_block = block,
                .stat_block = rows,
                .weight_block = rows};
    }

    std::int64_t start(std::int64_t b, std::int64_t r) const { return b * block + r * row; }

    std::int64_t n, row, block, size;
    Guarded<T> inputs{1 << 14}, gradients{1 << 14}, results{1 << 14};
    T *x, *dy, *dx;
    std::vector<C> mean, mean_lo, rstd, slope, offset, weight;
};

class KernelGradients : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelGradients, all_targets(), target_name);

double tree_sum(std::array<double, 16> lanes) {
    for (std::size_t width = 8; width > 0; width /= 2) {
        for (std::size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

/// Every length up to a few packs with rows end to end and with gaps, and one that is read ahead across blocks.
template <class Test>
void for_each_shape(Test&& test) {
    for (std::int64_t n = 1; n <= 50; ++n) test(n, n % 3);
    test(std::int64_t{1200}, std::int64_t{0});
    test(std::int64_t{1200}, std::int64_t{1});
}

TEST_P(KernelGradients, SumsOfRows) {
    with_type([&](auto type) {
        using T = decltype(type);
        for_each_shape([&](std::int64_t n, std::int64_t gap) {
            Blocks<T> data(n, gap);
            std::vector<double> s1(rows, 0.5), s2(rows, -0.25), expected1 = s1, expected2 = s2;
            for (std::int64_t b = 0; b < blocks; ++b) {
                for (std::int64_t r = 0; r < rows; ++r) {
                    const std::int64_t stat = b * rows + r, from = data.start(b, r);
                    const double mean = static_cast<double>(at(data.mean, stat));
                    const double mean_lo = static_cast<double>(at(data.mean_lo, stat));
                    const double about = mean + mean_lo, rest = (mean - about) + mean_lo;
                    std::array<double, 16> lanes1{}, lanes2{};
                    for (std::int64_t i = 0; i < n; ++i) {
                        const auto lane = static_cast<std::size_t>(i % 16);
                        const double g = static_cast<double>(data.dy[from + i]);
                        lanes1[lane] += g;
                        lanes2[lane] = mul_add(fused(), g, static_cast<double>(data.x[from + i]) - about, lanes2[lane]);
                    }
                    const double sum1 = tree_sum(lanes1), product1 = product(rest, sum1);
                    const double sum2 = (tree_sum(lanes2) - product1) * static_cast<double>(at(data.rstd, stat));
                    const double weight = static_cast<double>(at(data.weight, stat));
                    at(expected1, r) += product(weight, sum1);
                    at(expected2, r) += product(weight, sum2);
                }
            }
            table<T>().gradient_sums_row[kernels::gradient_index(false, false)](data.sums(s1, s2));
            EXPECT_EQ(different_bits(s1, expected1), 0) << "n = " << n << ", gap = " << gap;
            EXPECT_EQ(different_bits(s2, expected2), 0) << "n = " << n << ", gap = " << gap;
        });
    });
}

/// Sums of columns with statistics of their own: few, as many as have theirs promoted once, more, and more than a
/// strip; rows end to end and with gaps.
TEST_P(KernelGradients, SumsOfColumns) {
    with_type([&](auto type) {
        using T = decltype(type);
        using C = kernels::Compute<T>;
        constexpr std::int64_t column_rows = 11, widest = 4133;
        for (const std::int64_t n :
             {std::int64_t{37}, std::int64_t{512}, std::int64_t{520}, std::int64_t{4096}, widest}) {
            for (const std::int64_t gap : {0, 5}) {
                const std::int64_t row = n + gap, size = (column_rows - 1) * row + n;
                Random random(29);
                Guarded<T> inputs(size), gradients(size);
                T *const x = inputs.last(size), *const dy = gradients.last(size);
                for (std::int64_t i = 0; i < size; ++i) {
                    x[i] = static_cast<T>(random.uniform(-3, 5));
                    dy[i] = static_cast<T>(random.uniform(-1, 2));
                }
                std::vector<C> mean, mean_lo, rstd;
                const C weight = C(1.5);
                std::vector<double> s1, s2, expected1, expected2;
                for (std::int64_t j = 0; j < n; ++j) {
                    mean.push_back(static_cast<C>(random.uniform(0, 2)));
                    mean_lo.push_back(static_cast<C>(random.uniform(-1e-9, 1e-9)));
                    rstd.push_back(static_cast<C>(random.uniform(0.5, 2)));
                    s1.push_back(random.uniform(-1, 1));
                    s2.push_back(random.uniform(-1, 1));
                    const double hi = static_cast<double>(mean.back()), lo = static_cast<double>(mean_lo.back());
                    double sum1 = s1.back(), sum2 = s2.back();
                    for (std::int64_t first = 0; first < column_rows; first += 8) {
                        double step1 = 0, step2 = 0;
                        for (std::int64_t r = first; r < std::min(first + 8, column_rows); ++r) {
                            const double value = static_cast<double>(x[r * row + j]);
                            const double d = sizeof(T) == sizeof(double) ? (value - hi) - lo : value - (hi + lo);
                            const double g = static_cast<double>(dy[r * row + j]);
                            step1 += g;
                            step2 = mul_add(fused(), g, d, step2);
                        }
                        sum1 += product(step1, static_cast<double>(weight));
                        const double scaled = product(step2, static_cast<double>(rstd.back()));
                        sum2 += product(scaled, static_cast<double>(weight));
                    }
                    expected1.push_back(sum1);
                    expected2.push_back(sum2);
                }
                table<T>().gradient_sums_column[kernels::gradient_index(true, false)]({.rows = column_rows,
                                                                                       .n = n,
                                                                                       .x = x,
                                                                                       .grad_output = dy,
                                                                                       .mean = mean.data(),
                                                                                       .mean_lo = mean_lo.data(),
                                                                                       .rstd = rstd.data(),
                                                                                       .weight = &weight,
                                                                                       .x_row = row,
                                                                                       .grad_output_row = row,
                                                                                       .stat_row = 0,
                                                                                       .weight_row = 0,
                                                                                       .s1 = s1.data(),
                                                                                       .s2 = s2.data(),
                                                                                       .sum_row = 0});
                EXPECT_EQ(different_bits(s1, expected1), 0) << "n = " << n << ", gap = " << gap;
                EXPECT_EQ(different_bits(s2, expected2), 0) << "n = " << n << ", gap = " << gap;
            }
        }
    });
}

TEST_P(KernelGradients, Results) {
    with_type([&](auto type) {
        using T = decltype(type);
        for (const bool stream : {false, true}) {
            for_each_shape([&](std::int64_t n, std::int64_t gap) {
                Blocks<T> data(n, gap);
                std::vector<T> expected(data.dx, data.dx + data.size);
                for (std::int64_t b = 0; b < blocks; ++b) {
                    for (std::int64_t r = 0; r < rows; ++r) {
                        const std::int64_t stat = b * rows + r;
                        const T scale = product(at(data.rstd, stat), at(data.weight, stat));
                        for (std::int64_t i = data.start(b, r); i < data.start(b, r) + n; ++i) {
                            const T along = mul_add(fused(), at(data.slope, stat), data.x[i] - at(data.mean, stat),
                                                    at(data.offset, stat));
                            at(expected, i) = mul_add(fused(), scale, data.dy[i], along);
                        }
                    }
                }
                table<T>().gradient_input[kernels::gradient_index(false, false)](data.input(stream));
                // The gaps are those of the array: nothing is written there.
                EXPECT_EQ(different_bits(std::vector<T>(data.dx, data.dx + data.size), expected), 0)
                    << "n = " << n << ", gap = " << gap << ", stream = " << stream;
            });
        }
    });
}

/// A call for each row, which leaves a line open for the next: the bits of one call for all, and nothing is written in
/// the gaps.
TEST_P(KernelGradients, ResultsOfCallsThatLeaveLinesOpen) {
    with_type([&](auto type) {
        using T = decltype(type);
        const auto kernel = table<T>().gradient_input[kernels::gradient_index(false, false)];
        for_each_shape([&](std::int64_t n, std::int64_t gap) {
            Blocks<T> data(n, gap);
            kernel(data.input(false));
            const std::vector<T> expected(data.dx, data.dx + data.size);
            std::fill_n(data.dx, data.size, T(-1));
            kernels::OpenLine open;
            kernels::begin_line(open);
            for (std::int64_t b = 0; b < blocks; ++b) {
                for (std::int64_t r = 0; r < rows; ++r) {
                    kernels::GradientInputArgs<T> args = data.input(true);
                    const std::int64_t from = data.start(b, r), stat = b * rows + r;
                    args.rows = args.blocks = 1;
                    args.x += from;
                    args.grad_output += from;
                    args.grad_input += from;
                    args.mean += stat;
                    args.slope += stat;
                    args.offset += stat;
                    args.rstd += stat;
                    args.weight += stat;
                    args.open = &open;
                    kernel(args);
                }
            }
            table<T>().close_line(open);
            EXPECT_EQ(different_bits(std::vector<T>(data.dx, data.dx + data.size), expected), 0)
                << "n = " << n << ", gap = " << gap;
        });
    });
}

/// Sums of some blocks of rows while results of others are written, which are more or fewer: the bits of one after the
/// other.
TEST_P(KernelGradients, SumsBesideResults) {
    with_type([&](auto type) {
        using T = decltype(type);
        constexpr std::int64_t lengths[][2] = {{48, 48}, {48, 16}, {16, 64}, {37, 32}, {1200, 80}};
        for (const auto& [n, written_n] : lengths) {
            for (const std::int64_t gap : {0, 16}) {
                const Blocks<T> data(n, gap), written(written_n, gap);
                std::vector<double> s1(rows, 0.5), s2(rows, -0.25), expected1 = s1, expected2 = s2;
                table<T>().gradient_sums_row[kernels::gradient_index(false, false)](data.sums(expected1, expected2));
                table<T>().gradient_input[kernels::gradient_index(false, false)](written.input(true));
                const std::vector<T> expected(written.dx, written.dx + written.size);
                std::fill_n(written.dx, written.size, T(-1));

                kernels::GradientInputQueue<T> queue{written.input(true)};
                table<T>().gradient_sums_beside(data.sums(s1, s2), queue);
                const std::int64_t done = std::min(blocks * rows * (n / 16 * 16), blocks * rows * written_n);
                std::int64_t missing = 0;
                for (std::int64_t b = 0; b < blocks; ++b) {
                    for (std::int64_t r = 0; r < rows; ++r) {
                        const T* const row = written.dx + written.start(b, r);
                        missing += std::count(row, row + written_n, T(-1));
                    }
                }
                EXPECT_EQ(missing, blocks * rows * written_n - done) << "n = " << n << " beside " << written_n;
                EXPECT_EQ(different_bits(s1, expected1) + different_bits(s2, expected2), 0) << "n = " << n;
                table<T>().gradient_input_left(queue);
                EXPECT_EQ(different_bits(std::vector<T>(written.dx, written.dx + written.size), expected), 0)
                    << "n = " << n << " beside " << written_n;
            }
        }
    });
}

}  // namespace
}  // namespace anynorm::test
