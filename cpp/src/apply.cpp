// SPDX-License-Identifier: Apache-2.0
#include "apply.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace anynorm::detail {
namespace {

using kernels::AffineArgs;
using kernels::Kernels;

// Eight buffers of 512 float64 are 32 KB: operands that a kernel cannot read in place pass through L1.
constexpr std::int64_t tile = 512;
// An innermost loop below two packs is joined with its neighbour where x and y allow it.
constexpr std::int64_t join_below = 32;

template <class To, class From>
void copy_strided(To* to, std::int64_t to_stride, const From* from, std::int64_t from_stride, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) to[i * to_stride] = static_cast<To>(from[i * from_stride]);
}

template <class C>
void load(C* to, const Elements& from, std::int64_t offset, std::int64_t stride, std::int64_t n) {
    if (from.dtype == DType::f32) {
        copy_strided(to, 1, static_cast<const float*>(from.data) + offset, stride, n);
    } else {
        copy_strided(to, 1, static_cast<const double*>(from.data) + offset, stride, n);
    }
}

template <class C>
void store(const Elements& to, std::int64_t offset, std::int64_t stride, const C* from, std::int64_t n) {
    if (to.dtype == DType::f32) {
        copy_strided(static_cast<float*>(to.data) + offset, stride, from, 1, n);
    } else {
        copy_strided(static_cast<double*>(to.data) + offset, stride, from, 1, n);
    }
}

/// A coefficient along the inner loop, which may be two loops of the nest joined: element i of the loop is at
/// i / joined * outer_stride + i % joined * inner_stride.
struct Along {
    std::int64_t inner_stride, outer_stride, joined;

    bool constant() const { return inner_stride == 0 && outer_stride == 0; }
    bool contiguous() const { return inner_stride == 1 && outer_stride == joined; }
};

template <class C>
void load_along(C* to, const Elements& from, std::int64_t offset, const Along& along, std::int64_t first,
                std::int64_t n) {
    if (along.constant()) {
        load(to, from, offset, 0, 1);
        return;
    }
    for (std::int64_t i = first; i < first + n;) {
        const std::int64_t inner = i % along.joined;
        const std::int64_t count = std::min(along.joined - inner, first + n - i);
        load(to + (i - first), from, offset + i / along.joined * along.outer_stride + inner * along.inner_stride,
             along.inner_stride, count);
        i += count;
    }
}

/// One of mean, mean_lo, rstd, weight, bias.
struct Coefficient {
    Elements elements;
    Operand operand;
    Along along;
    std::int64_t row_stride;
    bool direct;  ///< the kernel can read it in place
};

template <class C>
class Pass {
  public:
    Pass(const Kernels<C>& kernels, const ApplyOperands& operands, const Nest& piece,
         const Coefficients<C>& coefficients)
        : operands_(operands), nest_(coalesce(piece, operand_set(op_x, op_y, op_cell, op_weight, op_bias))) {
        choose_inner();
        const Elements cells[] = {{coefficients.mean, dtype_of<C>()},
                                  {coefficients.mean_lo, dtype_of<C>()},
                                  {coefficients.rstd, dtype_of<C>()}};
        for (int i = 0; i < 3; ++i) coefficients_[i] = coefficient(cells[i], op_cell);
        coefficients_[3] = coefficient(operands.weight, op_weight);
        coefficients_[4] = coefficient(operands.bias, op_bias);
        x_direct_ = operands.x.dtype == dtype_of<C>() && (n_ == 1 || inner_.stride[op_x] == 1);
        y_direct_ = operands.y.dtype == dtype_of<C>() && (n_ == 1 || inner_.stride[op_y] == 1);
        affine_ =
            kernels.affine[kernels::affine_index(!coefficients_[0].along.constant(), !coefficients_[3].along.constant(),
                                                 !coefficients_[4].along.constant())];
    }

    void run() {
        walk(nest_, outside_, [&](const std::int64_t* offset) { run_rectangle(offset); });
    }

  private:
    /// Splits the nest into an inner loop for the vectors, a loop of rows for the kernel, and the loops outside.
    void choose_inner() {
        int left = nest_.depth;
        if (left > 0) {
            inner_ = nest_.loops[--left];
            n_ = inner_.n;
        }
        if (left > 0 && inner_.n < join_below) {
            const Loop& next = nest_.loops[left - 1];
            if (next.stride[op_x] == inner_.n * inner_.stride[op_x] &&
                next.stride[op_y] == inner_.n * inner_.stride[op_y]) {
                joined_ = next;
                n_ *= next.n;
                --left;
            }
        }
        if (left > 0) rows_ = nest_.loops[--left];
        outside_ = left;
    }

    Coefficient coefficient(const Elements& elements, Operand operand) const {
        // Without a joined loop its stride continues the inner one, so that one test covers both.
        const std::int64_t inner = inner_.stride[operand];
        const std::int64_t outer = joined_.n > 1 ? joined_.stride[operand] : inner * inner_.n;
        const Along along{inner, outer, inner_.n};
        const bool direct = elements.dtype == dtype_of<C>() && (along.constant() || along.contiguous());
        return {elements, operand, along, rows_.stride[operand], direct};
    }

    /// rows_.n rows of n_ elements; tiled along n where something must be packed.
    void run_rectangle(const std::int64_t* offset) {
        bool in_place = x_direct_ && y_direct_, all_rows = in_place;
        for (const Coefficient& c : coefficients_) {
            in_place = in_place && c.direct;
            all_rows = all_rows && (c.direct || c.row_stride == 0);
        }
        // Whole periods of the inner of two joined loops: what repeats with it is packed once for all tiles.
        const std::int64_t step = in_place ? n_ : joined_.n > 1 ? tile / inner_.n * inner_.n : tile;
        for (std::int64_t first = 0; first < n_; first += step) {
            const std::int64_t n = std::min(step, n_ - first);
            for (int i = 0; i < 5; ++i) {
                const Coefficient& c = coefficients_[i];
                const bool repeats = !c.direct && c.row_stride == 0 && c.along.outer_stride == 0 && joined_.n > 1;
                if (first == 0 || !repeats) prepare(i, offset, 0, first, n);
            }
            if (all_rows) {
                run_rows(offset, 0, rows_.n, first, n);
                continue;
            }
            for (std::int64_t row = 0; row < rows_.n; ++row) {
                for (int i = 0; i < 5 && row > 0; ++i) {
                    if (coefficients_[i].direct || coefficients_[i].row_stride != 0) prepare(i, offset, row, first, n);
                }
                run_rows(offset, row, 1, first, n);
            }
        }
    }

    /// Points pointer_[i] at the coefficient of row `row` from element `first` on, packing it if need be.
    void prepare(int i, const std::int64_t* offset, std::int64_t row, std::int64_t first, std::int64_t n) {
        const Coefficient& c = coefficients_[i];
        const std::int64_t start = offset[c.operand] + row * c.row_stride;
        if (c.direct) {
            pointer_[i] = static_cast<const C*>(c.elements.data) + start + (c.along.constant() ? 0 : first);
        } else {
            load_along(packed_[i], c.elements, start, c.along, first, n);
            pointer_[i] = packed_[i];
        }
    }

    void run_rows(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t n) {
        const std::int64_t x = offset[op_x] + row * rows_.stride[op_x] + first * inner_.stride[op_x];
        const std::int64_t y = offset[op_y] + row * rows_.stride[op_y] + first * inner_.stride[op_y];
        AffineArgs<C> args{};
        args.rows = rows;
        args.n = n;
        if (x_direct_) {
            args.x = static_cast<const C*>(operands_.x.data) + x;
        } else {
            load(packed_x_, operands_.x, x, inner_.stride[op_x], n);
            args.x = packed_x_;
        }
        args.y = y_direct_ ? static_cast<C*>(operands_.y.data) + y : packed_y_;
        args.x_row = rows_.stride[op_x];
        args.y_row = rows_.stride[op_y];
        args.mean = pointer_[0];
        args.mean_lo = pointer_[1];
        args.rstd = pointer_[2];
        args.weight = pointer_[3];
        args.bias = pointer_[4];
        args.stat_row = coefficients_[0].row_stride;
        args.weight_row = coefficients_[3].row_stride;
        args.bias_row = coefficients_[4].row_stride;
        affine_(args);
        if (!y_direct_) store(operands_.y, y, inner_.stride[op_y], packed_y_, n);
    }

    const ApplyOperands& operands_;
    Nest nest_;
    Loop inner_, joined_, rows_;
    std::int64_t n_ = 1;
    int outside_ = 0;
    Coefficient coefficients_[5];
    const C* pointer_[5];
    bool x_direct_, y_direct_;
    void (*affine_)(const AffineArgs<C>&) noexcept;
    C packed_[5][tile], packed_x_[tile], packed_y_[tile];
};

}  // namespace

template <class C>
void make_coefficients(const Cell* cells, std::int64_t count, double eps, const Coefficients<C>& out) noexcept {
    for (std::int64_t i = 0; i < count; ++i) {
        const Cell& cell = cells[i];
        out.mean[i] = static_cast<C>(cell.mean);
        out.mean_lo[i] = static_cast<C>((cell.mean - static_cast<double>(out.mean[i])) + cell.mean_lo);
        out.rstd[i] = static_cast<C>(1 / std::sqrt(cell.m2 / cell.count + eps));
    }
}

template <class C>
void apply_piece(const Kernels<C>& kernels, const ApplyOperands& operands, const Nest& piece,
                 const Coefficients<C>& coefficients) noexcept {
    Pass<C>(kernels, operands, piece, coefficients).run();
}

#define ANYNORM_INSTANTIATE(C)                                                                              \
    template void make_coefficients<C>(const Cell*, std::int64_t, double, const Coefficients<C>&) noexcept; \
    template void apply_piece<C>(const Kernels<C>&, const ApplyOperands&, const Nest&, const Coefficients<C>&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
