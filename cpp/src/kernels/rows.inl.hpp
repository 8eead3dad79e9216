// SPDX-License-Identifier: Apache-2.0
// Sets that are rows: statistics and the affine pass in one walk over memory.
//
// Row r is written in the loop that sums row r + 2, so that reads and writes are under way together: 0.88 of a copy
// from memory on one core, where a pass after the other reaches 0.78.
#pragma once

#include "affine.inl.hpp"
#include "kernel_table.hpp"
#include "moments.inl.hpp"
#include "simd.hpp"
#include "tiny_rows.inl.hpp"

namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE {
namespace {

/// The moments of one row, merged from its blocks as the scheduler merges them.
template <class X, class Beside = Nothing>
[[gnu::always_inline]] inline Cell SumBlocks(const RowsArgs<X>& args, const X* x, const Beside& beside = {}) {
    Cell row{}, chunk{};
    std::int64_t blocks = 0;
    for (std::int64_t begin = 0; begin < args.n; begin += args.block) {
        const std::int64_t n = args.n - begin < args.block ? args.n - begin : args.block;
        const MomentsArgs<X> block{x, 1, 0, 1, 0, n, 1, args.center, nullptr};
        merge(chunk, SumRow(block, x + begin, beside));
        if (++blocks == args.chunk_blocks) {
            merge(row, chunk);
            chunk = Cell{};
            blocks = 0;
        }
    }
    merge(row, chunk);
    return row;
}

template <bool stream, class X, bool weight_varies, bool bias_varies>
class RowsPass {
  public:
    explicit RowsPass(const RowsArgs<X>& args) : args_(args) {}

    void Run() const {
        // In a short row the ends take as long as the middle: finish the sums of several rows first.
        if (args_.n < (stream ? long_block : short_row)) {
            for (std::int64_t row = 0; row < args_.rows; row += row_group) RunGroup(row);
            return;
        }
        // Row r is written while row r + 2 is read, and the 150 cycles from the sums of row r + 1 to its coefficients
        // pass meanwhile.
        Scalars now = Finished(0, SumBlocks(args_, args_.x));
        Cell next = args_.rows > 1 ? SumBlocks(args_, args_.x + args_.x_row) : Cell{};
        for (std::int64_t row = 0; row < args_.rows; ++row) {
            const Scalars later = row + 1 < args_.rows ? Finished(row + 1, next) : now;
            const Row affine = AffineOf(row, &now.mean, &now.mean_lo, &now.rstd);
            std::int64_t i = affine.template StoreHead<stream>(args_.n);
            if (row + 2 < args_.rows) {
                next = SumBlocks(args_, args_.x + (row + 2) * args_.x_row, [&, n = args_.n] {
                    if (i + pack_size > n) return;
                    affine.template Store<stream>(i);
                    i += pack_size;
                });
            }
            affine.template StoreFrom<stream>(i, args_.n);
            now = later;
        }
    }

  private:
    using C = Compute<X>;
    using Row = AffineRow<X, false, weight_varies, bias_varies>;
    struct Scalars {
        C mean, mean_lo, rstd;
    };

    [[gnu::always_inline]] Scalars Finished(std::int64_t row, const Cell& cell) const {
        if (args_.out != nullptr) args_.out[row] = cell;
        Scalars result;
        Coefficients<C>(&cell, 1, args_.eps, &result.mean, &result.mean_lo, &result.rstd);
        return result;
    }

    [[gnu::always_inline]] Row AffineOf(std::int64_t row, const C* mean, const C* mean_lo, const C* rstd) const {
        return Row(args_.x + row * args_.x_row, args_.y + row * args_.y_row, mean, mean_lo, rstd,
                   args_.weight + row * args_.weight_row, args_.bias + row * args_.bias_row);
    }

    void RunGroup(std::int64_t first) const {
        const std::int64_t rows = args_.rows - first < row_group ? args_.rows - first : row_group;
        Cell own[row_group];
        Cell* const cells = args_.out != nullptr ? args_.out + first : own;
        const X* x = args_.x + first * args_.x_row;
        const MomentsArgs<X> sums{x, rows, args_.x_row, 1, 0, args_.n, 1, args_.center, cells};
        C mean[row_group] = {}, mean_lo[row_group] = {}, rstd[row_group] = {};
        const AffineArgs<X> affine{rows,
                                   args_.n,
                                   x,
                                   args_.y + first * args_.y_row,
                                   mean,
                                   mean_lo,
                                   rstd,
                                   args_.weight + first * args_.weight_row,
                                   args_.bias + first * args_.bias_row,
                                   args_.x_row,
                                   args_.y_row,
                                   1,
                                   args_.weight_row,
                                   args_.bias_row,
                                   stream};
        if (args_.n < pack_size) {
            const TinyRows<X> tiny(x, args_.x_row, rows, args_.n);
            tiny.Sum(sums, x, cells);
            Coefficients<C>(cells, rows, args_.eps, mean, mean_lo, rstd);
            tiny.template Write<weight_varies, bias_varies>(affine);
        } else {
            MomentsRow<X>(sums);
            Coefficients<C>(cells, rows, args_.eps, mean, mean_lo, rstd);
            Affine<X, false, weight_varies, bias_varies>(affine);
        }
    }

    const RowsArgs<X>& args_;
};

template <class X, bool weight_varies, bool bias_varies>
void NormalizeRows(const RowsArgs<X>& args) noexcept {
    if (args.stream) {
        RowsPass<true, X, weight_varies, bias_varies>(args).Run();
        StreamFence();
    } else {
        RowsPass<false, X, weight_varies, bias_varies>(args).Run();
    }
}

}  // namespace
}  // namespace anynorm::kernels::ANYNORM_ISA_NAMESPACE
