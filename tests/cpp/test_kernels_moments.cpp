// SPDX-License-Identifier: Apache-2.0
// The statistics kernels of every instruction set that this machine has, against two references: long double for the
// value, and a scalar model of the 16 lanes for the bits. All instruction sets but the baseline promise the bits of the
// model, so they are compared with each other even where no machine has two of them.
//
// Blocks end at a page that faults, and the gaps between rows hold NaN: a tail that is read beyond its elements shows.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "guarded.hpp"
#include "kernel_target.hpp"
#include "oracle.hpp"
#include "support.hpp"

namespace anynorm::test {
namespace {

using kernels::Cell;
using kernels::Kernels;
using kernels::MomentsArgs;

// ---- The model ------------------------------------------------------------------------------------------------------

Cell model_finish(double count, bool center, double c, double s1, double s2) {
    if (!center) return {count, 0, 0, s2};
    const double shift = s1 / count;
    const double m2 = s2 - product(s1, shift);
    const double mean = c + shift;
    const double c_part = mean - shift;
    return {count, mean, (c - c_part) + (shift - (mean - c_part)), std::max(m2, 0.0)};
}

/// The sum of 16 lanes: halves, quarters, ... are added.
double model_sum(double (&lanes)[16]) {
    for (int width = 8; width >= 1; width /= 2) {
        for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    return lanes[0];
}

/// Element `index` of a block, counted through its runs.
template <class T>
double element_of(const MomentsArgs<T>& args, const T* x, std::int64_t index) {
    return static_cast<double>(x[index / args.n * args.run_stride + index % args.n * args.stride]);
}

/// What the elements of a block are shifted by: the first one or, in a long block, about the mean of 16.
template <class T>
double model_shift(const MomentsArgs<T>& args, const T* x, bool as_lanes) {
    if (!args.center) return 0;
    const double first = element_of(args, x, 0);
    if (args.runs * args.n < 128) return first;
    double d[16];
    for (int i = 0; i < 16; ++i) d[i] = element_of(args, x, i) - first;
    const double sum = as_lanes ? model_sum(d) : std::accumulate(d, d + 16, 0.0);
    return static_cast<double>(static_cast<T>(first + sum / 16));
}

/// Lane i of 16 sums the elements i, i + 16, ... of every run; 32 packs are summed on their own first.
template <class T>
Cell model_row(bool fused, const MomentsArgs<T>& args, std::int64_t cell) {
    const T* x = args.x + cell * args.cell_stride;
    const double c = model_shift(args, x, args.n >= 16);
    double s1[16] = {}, s2[16] = {}, total1[16] = {}, total2[16] = {};
    const auto flush = [&] {
        for (int i = 0; i < 16; ++i) {
            total1[i] += std::exchange(s1[i], 0.0);
            total2[i] += std::exchange(s2[i], 0.0);
        }
    };
    int packs = 0;
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t i = 0; i < args.n; ++i) {
            const double d = element_of(args, x, run * args.n + i) - c;
            s1[i % 16] += d;
            s2[i % 16] = mul_add(fused, d, d, s2[i % 16]);
            const bool ends_pack = i % 16 == 15 || i == args.n - 1;
            if (ends_pack && ++packs % 32 == 0) flush();
        }
    }
    flush();
    return model_finish(static_cast<double>(args.runs * args.n), args.center, c, model_sum(total1), model_sum(total2));
}

/// Eight rows of a run are summed on their own first, of those left over four, two and one; and so are 16 such steps.
template <class T>
Cell model_column(bool fused, const MomentsArgs<T>& args, std::int64_t cell) {
    const T* x = args.x + cell;
    const double c = model_shift(args, x, false);
    double s1 = 0, s2 = 0, total1 = 0, total2 = 0;
    const auto flush = [&] {
        total1 += std::exchange(s1, 0.0);
        total2 += std::exchange(s2, 0.0);
    };
    int steps = 0;
    for (std::int64_t run = 0; run < args.runs; ++run) {
        for (std::int64_t begin = 0; begin < args.n;) {
            std::int64_t rows = 8;
            while (rows > args.n - begin) rows /= 2;
            const std::int64_t end = begin + rows;
            double step1 = 0, step2 = 0;
            for (; begin < end; ++begin) {
                const double d = element_of(args, x, run * args.n + begin) - c;
                step1 += d;
                step2 = mul_add(fused, d, d, step2);
            }
            s1 += step1;
            s2 += step2;
            if (++steps % 16 == 0) flush();
        }
    }
    flush();
    return model_finish(static_cast<double>(args.runs * args.n), args.center, c, total1, total2);
}

// ---- Cases ----------------------------------------------------------------------------------------------------------

/// Where a kernel's block lies: gaps of NaN between the runs (row) or the rows (column), the end at the guard.
template <class T>
class Block {
  public:
    Block() : memory_(1 << 15), out_(1 << 11) {}

    MomentsArgs<T> rows(std::int64_t cells, std::int64_t runs, std::int64_t n, bool center) {
        const std::int64_t run_stride = n + 3, cell_stride = runs * run_stride;
        T* x = begin(cells * cell_stride - 3);
        for (std::int64_t cell = 0; cell < cells; ++cell) {
            for (std::int64_t run = 0; run < runs; ++run) fill(x + cell * cell_stride + run * run_stride, n);
        }
        return {x, cells, cell_stride, runs, run_stride, n, 1, center, out(cells)};
    }

    MomentsArgs<T> columns(std::int64_t cells, std::int64_t runs, std::int64_t n, bool center) {
        const std::int64_t stride = cells + 3, run_stride = n * stride;
        T* x = begin(runs * run_stride - 3);
        for (std::int64_t row = 0; row < runs * n; ++row) fill(x + row * stride, cells);
        return {x, cells, 1, runs, run_stride, n, stride, center, out(cells)};
    }

  private:
    T* begin(std::int64_t n) {
        T* x = memory_.last(n);
        std::fill(x, x + n, static_cast<T>(nan));
        return x;
    }
    void fill(T* x, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(300 + random_.unit());
    }
    Cell* out(std::int64_t cells) { return out_.last(cells); }

    Guarded<T> memory_;
    Guarded<Cell> out_;
    Random random_{1};
};

/// Calls check(args) for blocks of every length of tail.
template <class T, class Check>
void for_each_row_block(Check&& check) {
    Block<T> block;
    for (std::int64_t n = 1; n <= 70; ++n) {
        check(block.rows(2, 1, n, true));
        check(block.rows(1, 3, n, true));
    }
    for (std::int64_t n : {1, 15, 16, 17, 64}) check(block.rows(2, 2, n, false));
    // Long blocks have another shift.
    for (std::int64_t n : {127, 128, 255, 256, 4095, 4096}) check(block.rows(1, 1, n, true));
    for (std::int64_t n : {1, 5, 15, 16, 33, 70}) check(block.rows(2, 130 / n + 1, n, true));
}

template <class T, class Check>
void for_each_column_block(Check&& check) {
    Block<T> block;
    for (std::int64_t cells = 1; cells <= 70; cells += cells < 35 ? 1 : 5) {
        for (std::int64_t n : {1, 7, 8, 22}) check(block.columns(cells, 1, n, true));
        check(block.columns(cells, 3, 5, true));
        check(block.columns(cells, 2, 9, false));
    }
    for (std::int64_t cells : {513, 1023, 1024, 1025}) check(block.columns(cells, 2, 9, true));  // tiles of 1024
    check(block.columns(3, 1, 1024, true));
    for (std::int64_t cells : {1, 7, 16, 35}) {
        for (std::int64_t n : {127, 128, 255}) check(block.columns(cells, 1, n, true));
        for (std::int64_t n : {1, 7, 15, 16}) check(block.columns(cells, 130 / n + 1, n, true));
    }
}

// ---- The tests ------------------------------------------------------------------------------------------------------

class KernelMoments : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(, KernelMoments, all_targets(), target_name);

template <class T>
std::string text_of(const MomentsArgs<T>& args) {
    return std::to_string(args.cells) + " cells of " + std::to_string(args.runs) + " runs of " +
           std::to_string(args.n) + (args.center ? "" : ", about 0");
}

template <class T>
void expect_exact(const MomentsArgs<T>& args) {
    for (std::int64_t cell = 0; cell < args.cells; ++cell) {
        std::vector<double> x;
        for (std::int64_t run = 0; run < args.runs; ++run) {
            for (std::int64_t i = 0; i < args.n; ++i) {
                x.push_back(
                    static_cast<double>(args.x[cell * args.cell_stride + run * args.run_stride + i * args.stride]));
            }
        }
        const ExactMoments exact = exact_moments(x, sets_of({length(x)}, {0}), args.center)[0];
        const Cell& got = args.out[cell];
        EXPECT_EQ(got.count, static_cast<double>(exact.count)) << text_of(args);
        const long double mean = static_cast<long double>(got.mean) + static_cast<long double>(got.mean_lo);
        EXPECT_LT(std::fabs(mean - exact.mean), 1e-15L * 2) << text_of(args) << " cell " << cell;
        const long double scale = std::max(exact.m2, 1e-30L);
        EXPECT_LT(std::fabs(static_cast<long double>(got.m2) - exact.m2) / scale, 1e-13L)
            << text_of(args) << " cell " << cell;
    }
}

void expect_bits(const Cell& got, const Cell& expected, const std::string& what) {
    EXPECT_EQ(bits(got.count), bits(expected.count)) << what;
    EXPECT_EQ(bits(got.mean), bits(expected.mean)) << what;
    EXPECT_EQ(bits(got.mean_lo), bits(expected.mean_lo)) << what;
    EXPECT_EQ(bits(got.m2), bits(expected.m2)) << what << ": " << got.m2 << " and " << expected.m2;
}

TEST_P(KernelMoments, MomentsOfRows) {
    with_type([&](auto type) {
        using T = decltype(type);
        for_each_row_block<T>([&](const MomentsArgs<T>& args) {
            table<T>().moments_row(args);
            expect_exact(args);
            for (std::int64_t cell = 0; cell < args.cells; ++cell) {
                expect_bits(args.out[cell], model_row(fused(), args, cell), text_of(args));
            }
        });
    });
}

TEST_P(KernelMoments, MomentsOfColumns) {
    with_type([&](auto type) {
        using T = decltype(type);
        for_each_column_block<T>([&](const MomentsArgs<T>& args) {
            table<T>().moments_column(args);
            expect_exact(args);
            for (std::int64_t cell = 0; cell < args.cells; ++cell) {
                expect_bits(args.out[cell], model_column(fused(), args, cell), text_of(args));
            }
        });
    });
}

TEST_P(KernelMoments, EqualElementsHaveNoVariance) {
    with_type([&](auto type) {
        using T = decltype(type);
        for (T value : {T(0.1), T(-1e30), T(0)}) {
            std::vector<T> x(1000, value);
            Cell out[2];
            for (std::int64_t n : {1, 5, 16, 100, 333}) {
                table<T>().moments_row({x.data(), 2, n, 1, n, n, 1, true, out});
                expect_bits(out[0], {static_cast<double>(n), static_cast<double>(value), 0, 0}, std::to_string(n));
                table<T>().moments_column({x.data(), 2, 1, 1, n, n, 2, true, out});
                expect_bits(out[1], {static_cast<double>(n), static_cast<double>(value), 0, 0}, std::to_string(n));
            }
        }
    });
}

TEST_P(KernelMoments, NotFiniteElementsGiveWhatNumPyGives) {
    with_type([&](auto type) {
        using T = decltype(type);
        struct Case {
            T at_0, at_20;
            double mean;
        };
        const auto inf = static_cast<T>(infinity);
        for (const Case& each : {Case{static_cast<T>(nan), 1, nan}, Case{1, static_cast<T>(nan), nan},
                                 Case{inf, 1, infinity}, Case{1, -inf, -infinity}, Case{inf, -inf, nan}}) {
            std::vector<T> x(2 * 21, T(1));
            for (std::size_t i : {std::size_t{0}, std::size_t{1}}) {  // two columns, and one row of the first half
                x[i] = each.at_0;
                x[40 + i] = each.at_20;
            }
            Cell out[2];
            table<T>().moments_column({x.data(), 2, 1, 1, 42, 21, 2, true, out});
            for (const Cell& cell : out) {
                EXPECT_EQ(bits(cell.mean), bits(each.mean));
                EXPECT_TRUE(std::isnan(cell.m2));
                EXPECT_EQ(cell.count, 21);
            }
            std::vector<T> row(21, T(1));
            row[0] = each.at_0;
            row[20] = each.at_20;
            table<T>().moments_row({row.data(), 1, 21, 1, 21, 21, 1, true, out});
            EXPECT_EQ(bits(out[0].mean), bits(each.mean));
            EXPECT_TRUE(std::isnan(out[0].m2));
        }
    });
}

TEST_P(KernelMoments, NotFiniteColumnsSpoilNoNeighbour) {
    with_type([&](auto type) {
        using T = decltype(type);
        Block<T> block;
        const MomentsArgs<T> args = block.columns(37, 1, 20, true);
        const_cast<T*>(args.x)[3 * args.stride + 5] = static_cast<T>(nan);
        const_cast<T*>(args.x)[4 * args.stride + 35] = static_cast<T>(infinity);
        table<T>().moments_column(args);
        for (std::int64_t cell = 0; cell < args.cells; ++cell) {
            EXPECT_EQ(std::isnan(args.out[cell].m2), cell == 5 || cell == 35) << cell;
        }
    });
}

TEST_P(KernelMoments, HugeFiniteElementsHaveAFiniteMean) {
    with_type([&](auto type) {
        using T = decltype(type);
        const T huge = std::numeric_limits<T>::max();
        std::vector<T> x;
        for (int i = 0; i < 40; ++i) x.push_back(i % 4 == 3 ? -huge : huge);
        Cell out[1];
        table<T>().moments_row({x.data(), 1, 40, 1, 40, 40, 1, true, out});
        EXPECT_NEAR(out[0].mean / static_cast<double>(huge), 0.5, 1e-12);
        EXPECT_EQ(std::isinf(out[0].m2), sizeof(T) == sizeof(double));  // squares of float32 cannot overflow
    });
}

template <class T>
std::vector<std::uint64_t> bits_of_all_blocks(Isa isa) {
    const Kernels<T>& table = detail::kernels_for<T>(*detail::kernels_of(isa));
    std::vector<std::uint64_t> result;
    const auto add_cells = [&](const MomentsArgs<T>& args) {
        for (std::int64_t cell = 0; cell < args.cells; ++cell) {
            const Cell& got = args.out[cell];
            for (double value : {got.count, got.mean, got.mean_lo, got.m2}) result.push_back(bits(value));
        }
    };
    for_each_row_block<T>([&](const MomentsArgs<T>& args) {
        table.moments_row(args);
        add_cells(args);
    });
    for_each_column_block<T>([&](const MomentsArgs<T>& args) {
        table.moments_column(args);
        add_cells(args);
    });
    return result;
}

TEST(KernelMomentsBits, EqualOnAllInstructionSetsButTheBaseline_f32) {
    expect_equal_bits_of_isas(bits_of_all_blocks<float>);
}
TEST(KernelMomentsBits, EqualOnAllInstructionSetsButTheBaseline_f64) {
    expect_equal_bits_of_isas(bits_of_all_blocks<double>);
}

}  // namespace
}  // namespace anynorm::test
