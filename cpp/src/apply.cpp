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
// An inner loop below two packs is joined with its neighbours where x and y allow it.
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

/// The vectors' loop: the innermost loop of the nest, joined with its neighbours while it is short and x and y run on
/// through them. Levels are counted from the inside.
struct InnerLoop {
    int levels = 0;
    std::int64_t n[max_rank];
    std::int64_t total = 1;
    /// Elements after which all levels but the last begin again.
    std::int64_t period = 1;

    void join(const Loop& loop) {
        n[levels++] = loop.n;
        period = total;
        total *= loop.n;
    }
};

/// The strides of a coefficient along the levels of the inner loop.
struct Along {
    std::int64_t stride[max_rank] = {};

    bool constant(const InnerLoop& inner) const {
        return std::all_of(stride, stride + inner.levels, [](std::int64_t step) { return step == 0; });
    }
    bool contiguous(const InnerLoop& inner) const {
        std::int64_t expected = 1;
        for (int level = 0; level < inner.levels; ++level) {
            if (stride[level] != expected) return false;
            expected *= inner.n[level];
        }
        return true;
    }
    bool repeats(const InnerLoop& inner) const { return inner.levels > 1 && stride[inner.levels - 1] == 0; }

    /// Offset of element `index`.
    std::int64_t at(const InnerLoop& inner, std::int64_t index) const {
        std::int64_t offset = 0;
        for (int level = 0; level < inner.levels; ++level) {
            offset += index % inner.n[level] * stride[level];
            index /= inner.n[level];
        }
        return offset;
    }
};

template <class C>
void load_along(C* to, const Elements& from, std::int64_t offset, const InnerLoop& inner, const Along& along,
                std::int64_t first, std::int64_t n) {
    if (along.constant(inner)) {
        load(to, from, offset, 0, 1);
        return;
    }
    for (std::int64_t i = first; i < first + n;) {
        const std::int64_t count = std::min(inner.n[0] - i % inner.n[0], first + n - i);
        load(to + (i - first), from, offset + along.at(inner, i), along.stride[0], count);
        i += count;
    }
}

/// One of mean, mean_lo, rstd, weight, bias.
struct Coefficient {
    Elements elements;
    Operand operand;
    Along along;
    std::int64_t row_stride;
    bool varies;  ///< along the inner loop
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
        const bool x_unit = inner_.total == 1 || x_step_ == 1, y_unit = inner_.total == 1 || y_step_ == 1;
        x_direct_ = operands.x.dtype == dtype_of<C>() && x_unit;
        y_direct_ = operands.y.dtype == dtype_of<C>() && y_unit;
        affine_ = kernels.affine[kernels::affine_index(coefficients_[0].varies, coefficients_[3].varies,
                                                       coefficients_[4].varies)];
    }

    void run() {
        walk(nest_, outside_, [&](const std::int64_t* offset) { run_rectangle(offset); });
    }

  private:
    /// Splits the nest into an inner loop for the vectors, a loop of rows for the kernel, and the loops outside.
    void choose_inner() {
        outside_ = nest_.depth;
        if (outside_ > 0) {
            const Loop& loop = nest_.loops[--outside_];
            inner_.join(loop);
            x_step_ = loop.stride[op_x];
            y_step_ = loop.stride[op_y];
        }
        for (; outside_ > 0 && inner_.total < join_below; --outside_) {
            const Loop& next = nest_.loops[outside_ - 1];
            if (next.stride[op_x] != inner_.total * x_step_ || next.stride[op_y] != inner_.total * y_step_) break;
            inner_.join(next);
        }
        first_inner_ = outside_;
        if (outside_ > 0) rows_ = nest_.loops[--outside_];
    }

    Coefficient coefficient(const Elements& elements, Operand operand) const {
        Along along;
        for (int level = 0; level < inner_.levels; ++level) {
            along.stride[level] = nest_.loops[first_inner_ + inner_.levels - 1 - level].stride[operand];
        }
        const bool varies = !along.constant(inner_);
        const bool direct = elements.dtype == dtype_of<C>() && (!varies || along.contiguous(inner_));
        return {elements, operand, along, rows_.stride[operand], varies, direct};
    }

    /// rows_.n rows of inner_.total elements; tiled along n where something must be packed.
    void run_rectangle(const std::int64_t* offset) {
        bool in_place = x_direct_ && y_direct_, all_rows = in_place;
        for (const Coefficient& c : coefficients_) {
            in_place = in_place && c.direct;
            all_rows = all_rows && (c.direct || c.row_stride == 0);
        }
        // Tiles are whole periods, so that what repeats with the period is packed once for all of them.
        const std::int64_t step = in_place ? inner_.total : tile / inner_.period * inner_.period;
        for (std::int64_t first = 0; first < inner_.total; first += step) {
            const std::int64_t n = std::min(step, inner_.total - first);
            for (int i = 0; i < 5; ++i) {
                const Coefficient& c = coefficients_[i];
                const bool keeps = !c.direct && c.row_stride == 0 && c.along.repeats(inner_);
                if (first == 0 || !keeps) prepare(i, offset, 0, first, n);
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
            pointer_[i] = static_cast<const C*>(c.elements.data) + start + (c.varies ? first : 0);
        } else {
            load_along(packed_[i], c.elements, start, inner_, c.along, first, n);
            pointer_[i] = packed_[i];
        }
    }

    void run_rows(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t first, std::int64_t n) {
        const std::int64_t x = offset[op_x] + row * rows_.stride[op_x] + first * x_step_;
        const std::int64_t y = offset[op_y] + row * rows_.stride[op_y] + first * y_step_;
        AffineArgs<C> args{};
        args.rows = rows;
        args.n = n;
        if (x_direct_) {
            args.x = static_cast<const C*>(operands_.x.data) + x;
        } else {
            load(packed_x_, operands_.x, x, x_step_, n);
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
        if (!y_direct_) store(operands_.y, y, y_step_, packed_y_, n);
    }

    const ApplyOperands& operands_;
    Nest nest_;
    InnerLoop inner_;
    std::int64_t x_step_ = 0, y_step_ = 0;
    Loop rows_{1, false, {}};
    int outside_ = 0, first_inner_ = 0;  // loops of the nest
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
