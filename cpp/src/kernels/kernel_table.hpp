// SPDX-License-Identifier: Apache-2.0
// The contract between the scheduler and the kernels: raw pointers, sizes and strides in elements. A kernel cannot
// fail, allocates nothing and knows nothing of axes, threads or norms.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cell.hpp"
#include "half.hpp"

namespace anynorm::kernels {

/// The type that elements stored as X are normalized in.
template <class X>
struct ComputeOf {
    using type = float;
};
template <>
struct ComputeOf<double> {
    using type = double;
};
template <class X>
using Compute = typename ComputeOf<X>::type;

/// One block of each of `cells` sets: `runs` runs of `n` elements. The moments about an element near by are summed in
/// float64, so cancellation is bounded by the length of a block whatever the data.
///
/// Row kernel: stride is 1. Column kernel: meant for a cell_stride of 1, while others are gathered step by step.
template <class X>
struct MomentsArgs {
    const X* x;
    std::int64_t cells, cell_stride;
    std::int64_t runs, run_stride;
    std::int64_t n, stride;
    bool center;  ///< false: moments about 0
    Cell* out;    ///< `cells` of them
};

/// The elements that sums for many columns are laid out in: the width of 16 virtual lanes.
[[maybe_unused]] static constexpr std::int64_t whole_packs(std::int64_t n) noexcept { return (n + 15) / 16 * 16; }

/// Results that were streamed, but for those that wait for the rest of their line, which the next call brings if it
/// goes on where the last has ended. Two calls that each write a part of a line read it from memory first, and all
/// later stores wait for that; with a fence after each, they wait for all that was streamed. Group norm in sets of 98
/// elements takes 0.65 of the time without the first, and 0.6 without the second.
struct OpenLine {
    alignas(64) std::byte elements[2 * 16 * sizeof(double)];
    void* line;         ///< where they belong
    std::int64_t held;  ///< how many there are
    std::int64_t skip;  ///< how many of these are not of the results
};

/// One that holds nothing. Not a constructor, whose copy in one instruction set might serve another.
[[maybe_unused]] static inline void begin_line(OpenLine& open) noexcept {
    open.line = nullptr;
    open.held = open.skip = 0;
}

/// y = ((x - mean) - mean_lo) * (rstd * weight) + bias over `rows` rows of `n` elements; x and y have stride 1 along
/// n. mean, mean_lo and rstd, weight, bias are each constant or have stride 1 along n: the kernel says which.
template <class X>
struct AffineArgs {
    using C = Compute<X>;
    std::int64_t rows, n;
    const X* x;
    X* y;
    const C *mean, *mean_lo, *rstd, *weight, *bias;
    std::int64_t x_row, y_row, stat_row, weight_row, bias_row;
    /// y is not needed soon: write it past the caches.
    bool stream;
    /// If given, other calls follow, and close_line() after the last.
    OpenLine* open = nullptr;
    /// If given, row r has the statistics number stat_of[r], `stat_row` elements apart, instead of number r.
    const std::int32_t* stat_of = nullptr;
};

/// Calls of the affine kernel with constant coefficients, all streaming and with an open line, that the row kernel
/// works off beside its sums: a pack for each that it reads.
template <class X>
struct AffineQueue {
    AffineArgs<X> args{};
    std::int64_t row = 0, i = 0;                                         ///< the first result that is missing
    bool (*refill)(void* from, AffineArgs<X>& args) noexcept = nullptr;  ///< false: no more
    void* from = nullptr;
};

/// Results that the column kernel streams beside its sums: those of other sets of the same shape, x and y being where
/// the first of them are. Whole packs of columns; y and its rows begin with a line of the cache.
template <class X>
struct AffineColumns {
    using C = Compute<X>;
    const X* x;
    X* y;
    const C *mean, *mean_lo, *scale, *bias;
};

/// Statistics of `rows` sets and y from them, each set a row of `n` elements with stride 1: row r is written while row
/// r + 2 is read. A row is summed in blocks of `block` elements, `chunk_blocks` of them to a chunk. weight and bias are
/// each constant or have stride 1 along n: the kernel says which.
template <class X>
struct RowsArgs {
    using C = Compute<X>;
    std::int64_t rows, n, block, chunk_blocks;
    const X* x;
    X* y;
    const C *weight, *bias;
    std::int64_t x_row, y_row, weight_row, bias_row;
    double eps;
    bool center, stream;
    Cell* out;  ///< `rows` of them, or nullptr
};

/// A row of a list, and the group that it belongs to.
struct RowEntry {
    std::uint32_t row;
    std::int32_t group;
};

/// Which group each of some rows belongs to, negative for those that are in none: labels of rows that follow each
/// other, or a list of rows that lie anywhere. One of them is given.
struct RowGroups {
    const std::int64_t* wide = nullptr;
    const std::int32_t* narrow = nullptr;
    const RowEntry* listed = nullptr;
};

/// The rows of a group are summed in blocks of so many, one added to the other: 256 roundings of m2, and the
/// cancellation in it, are below 1e-14.
constexpr std::int32_t group_block = 256;

/// Memory of the block that a group has open: for each column a shift c, then for each the sum of (x - c), then for
/// each that of (x - c)^2, in lengths of whole packs. 16 columns of float32 are five lines of the cache.
template <class X>
[[maybe_unused]] static constexpr std::int64_t block_bytes(std::int64_t n) noexcept {
    return whole_packs(n) * static_cast<std::int64_t>(sizeof(Compute<X>) + 2 * sizeof(double));
}

/// Adds `rows` rows of `n` elements, in their order, to the blocks of their groups. A group without rows begins one
/// whose shift is the row that it begins with.
template <class X>
struct GroupedSumsArgs {
    std::int64_t rows, n;
    const X* x;
    std::int64_t x_row;
    RowGroups group_of;
    bool center;           ///< false: shifts of 0
    std::int32_t* counts;  ///< rows in the block of each group
    std::byte* blocks;     ///< block_bytes() a group, at a line of the cache
    std::int64_t groups;   ///< those that there are counts and blocks of
};

/// What became of them: rows were added up to one that has filled the block of its group, or all of them.
struct GroupedRun {
    std::int64_t rows;
    std::int64_t full;  ///< the group, or -1
};

/// The cells of the blocks of `groups` groups, whose counts are 0 afterwards.
template <class X>
struct GroupedCellsArgs {
    std::int64_t groups, n;
    bool center;
    std::int32_t* counts;
    std::byte* blocks;
    Cell* out;  ///< n cells a group
};

/// Sums for gradients over `rows` rows of `n` elements, with stride 1 along n: s1 of g = grad_output * weight, s2 of
/// g * ((x - mean) - mean_lo) * rstd. They are added to what s1 and s2 hold. mean, mean_lo and rstd, and weight, are
/// each constant or have stride 1 along n: the kernel says which.
///
/// Row kernel: a sum for every row, `sum_row` apart, of each of `blocks` blocks of so many rows. Column kernel: a sum
/// for each of the n columns, of one block.
template <class X>
struct GradientSumsArgs {
    using C = Compute<X>;
    std::int64_t rows, n;
    const X *x, *grad_output;
    const C *mean, *mean_lo, *rstd, *weight;
    std::int64_t x_row, grad_output_row, stat_row, weight_row;
    double *s1, *s2;
    std::int64_t sum_row;
    std::int64_t blocks = 1, x_block = 0, grad_output_block = 0, stat_block = 0, weight_block = 0, sum_block = 0;
};

/// grad_input = rstd * weight * grad_output + slope * (x - mean) + offset; blocks, rows and strides as above.
template <class X>
struct GradientInputArgs {
    using C = Compute<X>;
    std::int64_t rows, n;
    const X *x, *grad_output;
    X* grad_input;
    const C *mean, *slope, *offset, *rstd, *weight;
    std::int64_t x_row, grad_output_row, grad_input_row, stat_row, weight_row;
    /// grad_input is not needed soon: write it past the caches.
    bool stream;
    std::int64_t blocks = 1, x_block = 0, grad_output_block = 0, grad_input_block = 0, stat_block = 0, weight_block = 0;
    /// If given, added before the result is rounded; may be grad_input.
    const X* grad_sum = nullptr;
    std::int64_t grad_sum_row = 0, grad_sum_block = 0;
    OpenLine* open = nullptr;  ///< as of AffineArgs
};

/// A call of the kernel above that streams whole packs to lines of the cache, with statistics and weight constant along
/// rows and no grad_sum: the row kernel works it off beside its sums, a pack for each that it reads.
template <class X>
struct GradientInputQueue {
    GradientInputArgs<X> args{};
    std::int64_t block = 0, row = 0, i = 0;  ///< the first result that is missing
};

/// Gradients of `rows` sets, each a row of `n` elements with stride 1: for every row its sums, which give its slope and
/// offset, then grad_input. weight is constant or has stride 1 along n: the kernel says which, and whether the sums of
/// the parameters are wanted.
template <class X>
struct GradientRowsArgs {
    using C = Compute<X>;
    std::int64_t rows, n;
    const X *x, *grad_output;
    X* grad_input;  ///< or nullptr
    const C* weight;
    std::int64_t x_row, grad_output_row, grad_input_row, weight_row;
    const Cell* cells;  ///< `rows` of them
    double eps;
    bool center, frozen, stream;
    double *s1, *s2;                  ///< where the sums of each row go, or nullptr
    double *bias_sums, *weight_sums;  ///< n of each, to which those of the rows are added
    const X* grad_sum = nullptr;      ///< as of GradientInputArgs
    std::int64_t grad_sum_row = 0;
};

/// How results of the compute type C become 8 bits: round(y / scale), at least `low` and at most `high`, plus
/// zero_point, which makes it a value of int8 or uint8.
template <class C>
struct Quantization {
    C scale, low, high;
    std::int32_t zero_point;
};

/// The kernels for elements stored as X.
template <class X>
struct Kernels {
    void (*moments_row)(const MomentsArgs<X>&) noexcept;
    void (*moments_column)(const MomentsArgs<X>&) noexcept;
    void (*moments_row_beside)(const MomentsArgs<X>&, AffineQueue<X>&) noexcept;
    void (*moments_column_beside)(const MomentsArgs<X>&, const AffineColumns<X>&) noexcept;
    GroupedRun (*grouped_sums)(const GroupedSumsArgs<X>&) noexcept;
    /// False where a sum is not finite: mean_lo of that cell is NaN, and the rest of it is worth nothing.
    bool (*grouped_cells)(const GroupedCellsArgs<X>&) noexcept;
    /// Indexed by affine_index().
    void (*affine[8])(const AffineArgs<X>&) noexcept;
    /// Writes what an open line holds. What was streamed before is seen by others before what is written from now on,
    /// as at the end of every kernel that leaves no line open: it waits until all is on its way.
    void (*close_line)(OpenLine& open) noexcept;
    /// Indexed by rows_index().
    void (*normalize_rows[4])(const RowsArgs<X>&) noexcept;
    /// into[i] = into[i] + from[i], as merge().
    void (*merge_cells)(Cell* into, const Cell* from, std::int64_t count) noexcept;
    /// Mean (as a pair) and rstd of `count` cells in the compute type.
    void (*coefficients)(const Cell* cells, std::int64_t count, double eps, Compute<X>* mean, Compute<X>* mean_lo,
                         Compute<X>* rstd) noexcept;
    /// Indexed by gradient_index().
    void (*gradient_sums_row[4])(const GradientSumsArgs<X>&) noexcept;
    void (*gradient_sums_column[4])(const GradientSumsArgs<X>&) noexcept;
    void (*gradient_input[4])(const GradientInputArgs<X>&) noexcept;
    /// gradient_sums_row[0] with a queue, of which it may leave something; that is written by the second.
    void (*gradient_sums_beside)(const GradientSumsArgs<X>&, GradientInputQueue<X>&) noexcept;
    void (*gradient_input_left)(GradientInputQueue<X>&) noexcept;
    /// Indexed by gradient_rows_index().
    void (*gradient_rows[4])(const GradientRowsArgs<X>&) noexcept;
    /// n neighbouring elements to and from the compute type.
    void (*promote)(Compute<X>* to, const X* from, std::int64_t n) noexcept;
    void (*demote)(X* to, const Compute<X>* from, std::int64_t n) noexcept;
    /// sum = x + residual, rounded once; sum may be one of them.
    void (*add)(X* sum, const X* x, const X* residual, std::int64_t n) noexcept;
    /// q holds int8 or uint8, as zero_point says.
    void (*quantize)(std::uint8_t* q, const Compute<X>* y, std::int64_t n, const Quantization<Compute<X>>& to) noexcept;
};

/// Activations of float32, which everything but float64 is computed in. Indexed by ActivationIndex.
struct ActivationKernels {
    /// y = f(x); y may be x.
    void (*activate[4])(float* y, const float* x, std::int64_t n) noexcept;
    /// grad_input = grad_output * f'(x); grad_input may be one of them.
    void (*activation_gradient[4])(float* grad_input, const float* grad_output, const float* x,
                                   std::int64_t n) noexcept;
};

enum ActivationIndex : int { relu_index, silu_index, gelu_index, gelu_tanh_index };

constexpr int affine_index(bool stat_varies, bool weight_varies, bool bias_varies) noexcept {
    return (stat_varies ? 4 : 0) + (weight_varies ? 2 : 0) + (bias_varies ? 1 : 0);
}
constexpr int rows_index(bool weight_varies, bool bias_varies) noexcept {
    return (weight_varies ? 2 : 0) + (bias_varies ? 1 : 0);
}
constexpr int gradient_index(bool stat_varies, bool weight_varies) noexcept {
    return (stat_varies ? 2 : 0) + (weight_varies ? 1 : 0);
}
constexpr int gradient_rows_index(bool weight_varies, bool parameters) noexcept {
    return (weight_varies ? 2 : 0) + (parameters ? 1 : 0);
}

struct KernelTable {
    Kernels<float> f32;
    Kernels<double> f64;
    Kernels<F16> f16;
    Kernels<BF16> bf16;
    ActivationKernels activations;
};

// One per instruction set, each defined by the file of that name.
extern const KernelTable baseline_table;
extern const KernelTable avx2_table;
extern const KernelTable avx512_table;
extern const KernelTable neon_table;

}  // namespace anynorm::kernels
