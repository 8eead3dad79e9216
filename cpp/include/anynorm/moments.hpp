// SPDX-License-Identifier: Apache-2.0
// Count, mean and sum of squared deviations of every set, in one read of x.
#pragma once

#include <cmath>
#include <limits>

#include "anynorm/grouping.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm::inline ANYNORM_ABI {

/// What Welford keeps of one set. 32 bytes, trivially copyable; a default-constructed state is the empty set, neutral
/// in `merge`, with a mean and a variance of NaN as NumPy gives for no elements.
///
/// The mean is the unevaluated sum mean + mean_low. At a mean of 1e8 and a deviation of 1, merging rounded means gets
/// the variance wrong by 8e-9; with the low part it is right to 1e-14 at any mean.
///
/// Sources: Welford, Technometrics 4 (1962); Chan, Golub, LeVeque, The American Statistician 37 (1983); the exact
/// rounding error of a sum is Knuth's, The Art of Computer Programming 2, 4.2.2.
struct Moments {
    double count = 0;
    double mean = std::numeric_limits<double>::quiet_NaN();
    double m2 = 0;
    double mean_low = 0;  ///< what the rounding of the mean has lost; 0 where nothing is known

    /// Adds one element (Welford): the merge of a set of one.
    void push(double x) noexcept { merge({1, x, x - x}); }

    /// Adds all elements of another set (Chan). An infinite mean stays what NumPy's mean of all elements is.
    void merge(const Moments& other) noexcept {
        if (other.count == 0) return;
        if (count == 0) {
            *this = other;
            return;
        }
        const double total = count + other.count, share = other.count / total;
        const double delta = (other.mean - mean) + (other.mean_low - mean_low);
        m2 = m2 + other.m2 + delta * delta * (count * share);
        if (delta - delta == 0) {
            const double shift = delta * share + mean_low, sum = mean + shift, part = sum - shift;
            mean_low = (mean - part) + (shift - (sum - part));
            mean = sum;
        } else {
            mean = mean * (count / total) + other.mean * share;
            mean_low = 0;
        }
        count = total;
    }

    /// m2 / (count - correction): 0 for the population variance, 1 for the unbiased estimate. NaN where the divisor
    /// is not positive.
    double variance(double correction = 0) const noexcept {
        const double divisor = count - correction;
        return divisor > 0 ? m2 / divisor : std::numeric_limits<double>::quiet_NaN();
    }

    /// 1 / sqrt(variance() + eps).
    double rstd(double eps) const noexcept { return 1 / std::sqrt(variance() + eps); }
};

/// The moments of all sets of a grouping, as arrays. The shape is that of x without the reduced axes, or with
/// them at length 1, behind an axis for the groups where there are labels or segments; strides are free, so an array of
/// `Moments` is four views of stride 4.
struct MomentsView {
    TensorView count{}, mean{}, m2{};
    /// Of results alone: the sum of the squared weights of every set, which is `count` where there are no weights. With
    /// reliability weights, which are known up to a factor, the unbiased variance is m2 / (count - weight2 / count).
    TensorView weight2{};
    /// What the rounding of `mean` to float64 has lost, below half of its spacing: the mean is mean + mean_low. Of
    /// given moments it may be left out, and is 0 then; without it results of float64 data move by the spacing of the
    /// mean.
    TensorView mean_low{};

    constexpr bool given() const noexcept {
        return count.given() || mean.given() || m2.given() || weight2.given() || mean_low.given();
    }
};

struct MomentsOptions {
    /// false holds the mean at 0, as RMSNorm does: `mean` and `mean_low` are 0 and `m2` is the plain sum of squares.
    bool center = true;
    /// 0 asks for as many threads as OpenMP would use. The result does not depend on it.
    int num_threads = 0;
};

/// Computes the moments of every set in one read of x, accumulating in float64 whatever the dtype of x.
///
/// @param x       float16, bfloat16, float32 or float64, rank 0 to 16, any strides; read only.
/// @param sets    which elements share a set.
/// @param out     float64 arrays to write, each optional. Sets without elements get count 0, mean NaN, m2 0;
///                where the mean is not finite, mean_low is 0.
/// @throws std::invalid_argument for an axis out of range or named twice, and for an output of another dtype or
///         shape, or one that overlaps x or itself; for a selection that does not fit; nothing has been written then.
///
/// The moments of a selected set are those of its elements, compacted in the order of memory, to the bit; but for
/// labels of rows that lie across columns and do not rise, which are added row by row: within 1e-14, on any number of
/// threads the same bits.
///
/// Cost: reads x once; extra memory below 1 % of x. With a selection up to 40 bytes a set beside it, with labels up
/// to 12 bytes for each.
void moments(const TensorView& x, const Grouping& sets, const MomentsView& out, const MomentsOptions& options = {});

}  // namespace anynorm::inline ANYNORM_ABI
