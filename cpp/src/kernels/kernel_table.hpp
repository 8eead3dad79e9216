// SPDX-License-Identifier: Apache-2.0
// The contract between the scheduler and the kernels: raw pointers, sizes and strides in elements. A kernel cannot
// fail, allocates nothing and knows nothing of axes, threads or norms.
#pragma once

#include <cstdint>

namespace anynorm::kernels {

/// The moments of a set or of a part of one. The mean is an unevaluated sum mean + mean_lo: for float64 data at a mean
/// of 1e8 the low part is what keeps the normalized values right to the last digits.
struct Cell {
    double count;
    double mean;
    double mean_lo;
    double m2;
};

/// One block of each of `cells` sets: `runs` runs of `n` elements. The moments about the block's first element are
/// summed in float64, so cancellation is bounded by the length of a block whatever the data.
///
/// Row kernel: stride is 1. Column kernel: cell_stride is 1.
template <class T>
struct MomentsArgs {
    const T* x;
    std::int64_t cells, cell_stride;
    std::int64_t runs, run_stride;
    std::int64_t n, stride;
    bool center;  ///< false: moments about 0
    Cell* out;    ///< `cells` of them
};

/// y = ((x - mean) - mean_lo) * (rstd * weight) + bias over `rows` rows of `n` elements; x and y have stride 1 along
/// n. mean, mean_lo and rstd, weight, bias are each constant or have stride 1 along n: the kernel says which.
template <class T>
struct AffineArgs {
    std::int64_t rows, n;
    const T* x;
    T* y;
    const T *mean, *mean_lo, *rstd, *weight, *bias;
    std::int64_t x_row, y_row, stat_row, weight_row, bias_row;
};

template <class T>
struct Kernels {
    void (*moments_row)(const MomentsArgs<T>&) noexcept;
    void (*moments_column)(const MomentsArgs<T>&) noexcept;
    /// Indexed by affine_index().
    void (*affine[8])(const AffineArgs<T>&) noexcept;
};

constexpr int affine_index(bool stat_varies, bool weight_varies, bool bias_varies) noexcept {
    return (stat_varies ? 4 : 0) + (weight_varies ? 2 : 0) + (bias_varies ? 1 : 0);
}

struct KernelTable {
    Kernels<float> f32;
    Kernels<double> f64;
};

// One per instruction set, each defined by the file of that name.
extern const KernelTable baseline_table;
extern const KernelTable avx2_table;
extern const KernelTable avx512_table;
extern const KernelTable neon_table;

}  // namespace anynorm::kernels
