// SPDX-License-Identifier: Apache-2.0
// Rows of fewer than 16 elements, 16 rows at a time: vectors lie across the rows, which are transposed on the way in
// and out. The sums are those of the row kernel to the bit: there every element has a lane of its own, here a vector.
#pragma once

#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "simd.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

template <class X>
class TinyRows {
  public:
    using C = Compute<X>;

    /// Reads `rows` rows, 16 at most, of `n` elements.
    TinyRows(const X* x, std::int64_t row_stride, std::int64_t rows, std::int64_t n) : n_(n), rows_(rows) {
        if (rows < pack_size) {
            for (std::int64_t i = 0; i < n; ++i) PackStore(elements_[i], PackSet(C(0)));
        }
        for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t row = 0; row < rows; ++row) elements_[i][row] = Load(x + row * row_stride + i);
        }
    }

    /// Sums as MomentsRow does; `args` are those of the rows.
    void Sum(const MomentsArgs<X>& args, const X* x, Cell* out) const {
        const Pack<double> c = args.center ? PackLoadPromote(elements_[0]) : PackSet(0.0);
        Pack<double> quarter1[4], quarter2[4];
        for (int i = 0; i < 4; ++i) {
            quarter1[i] = quarter2[i] = PackSet(0.0);
            if (i >= n_) continue;
            AddPair(i, c, quarter1[i], quarter2[i]);
            if (i + 4 >= n_) continue;
            Pack<double> other1 = PackSet(0.0), other2 = PackSet(0.0);
            AddPair(i + 4, c, other1, other2);
            quarter1[i] = quarter1[i] + other1;
            quarter2[i] = quarter2[i] + other2;
        }
        double about[pack_size], s1[pack_size], s2[pack_size];
        PackStore(about, c);
        PackStore(s1, (quarter1[0] + quarter1[2]) + (quarter1[1] + quarter1[3]));
        PackStore(s2, (quarter2[0] + quarter2[2]) + (quarter2[1] + quarter2[3]));
        if (FinishAll(static_cast<double>(n_), args.center, rows_, about, s1, s2, out)) return;
        for (std::int64_t row = 0; row < rows_; ++row) {
            out[row] = Finish(args, x + row * args.cell_stride, about[row], s1[row], s2[row]);
        }
    }

    /// Writes the rows, given a mean (as a pair), a rstd, a weight and a bias for each; weight and bias may vary along
    /// the rows instead.
    template <bool weight_varies, bool bias_varies>
    void WriteTransposed(const AffineArgs<X>& args) const {
        const Pack<C> mean = PackLoad(args.mean), mean_lo = PackLoad(args.mean_lo), rstd = PackLoad(args.rstd);
        Pack<C> weight = Parameter(args.weight, args.weight_row), bias = Parameter(args.bias, args.bias_row);
        X results[pack_size];
        for (std::int64_t i = 0; i < n_; ++i) {
            if (weight_varies) weight = Parameter(args.weight + i, args.weight_row);
            if (bias_varies) bias = Parameter(args.bias + i, args.bias_row);
            const Pack<C> d = (PackLoad(elements_[i]) - mean) - mean_lo;
            PackStore(static_cast<X*>(results), PackMulAdd(d, rstd * weight, bias));
            for (std::int64_t row = 0; row < rows_; ++row) args.y[row * args.y_row + i] = results[row];
        }
    }

  private:
    /// A parameter of all rows.
    [[gnu::always_inline]] Pack<C> Parameter(const C* p, std::int64_t row_stride) const {
        if (row_stride == 0) return PackSet(*p);
        C lanes[pack_size] = {};
        for (std::int64_t row = 0; row < rows_; ++row) lanes[row] = p[row * row_stride];
        return PackLoad(static_cast<const C*>(lanes));
    }

    /// Adds elements i and i + 8.
    [[gnu::always_inline]] void AddPair(std::int64_t i, const Pack<double>& c, Pack<double>& s1,
                                        Pack<double>& s2) const {
        for (; i < n_; i += 8) {
            const Pack<double> d = PackLoadPromote(elements_[i]) - c;
            s1 = s1 + d;
            s2 = s2 + d * d;
        }
    }

    std::int64_t n_, rows_;
    alignas(64) C elements_[pack_size][pack_size];
};

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
