// SPDX-License-Identifier: Apache-2.0
#include "apply.hpp"

#include <algorithm>

#include "inner_loop.hpp"

namespace anynorm::detail {
namespace {

using kernels::AffineArgs;
using kernels::AffineQueue;
using kernels::Kernels;

/// One of mean, mean_lo, rstd, weight, bias.
struct Coefficient {
    Elements elements;
    Operand operand;
    Along along;
    std::int64_t row_stride;
    bool varies;  ///< along the inner loop
    bool direct;  ///< the kernel can read it in place
};

/// Mean, mean_lo, rstd, weight and bias along the inner loop.
template <class C>
struct CoefficientTiles {
    Coefficient of[5];
    const C* at[5];  ///< where the kernel reads them

    /// Points at[i] at the coefficient of row `row` from element `first` on, packing it if need be.
    void prepare(int i, const InnerLoop& inner, const std::int64_t* offset, std::int64_t row, std::int64_t first,
                 std::int64_t n) {
        const Coefficient& c = of[i];
        const std::int64_t start = offset[c.operand] + row * c.row_stride;
        if (c.direct) {
            at[i] = static_cast<const C*>(c.elements.data) + start + (c.varies ? first : 0);
        } else {
            load_along(packed_[i], c.elements, start, inner, c.along, first, n);
            at[i] = packed_[i];
        }
    }

    void prepare_all(const InnerLoop& inner, const std::int64_t* offset, std::int64_t row, std::int64_t n) {
        for (int i = 0; i < 5; ++i) prepare(i, inner, offset, row, 0, n);
    }

    /// rstd * weight and a bias that varies: one load less for the kernel, and one kernel for all.
    void merge_scale(std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) packed_[2][i] *= at[3][of[3].varies ? i : 0];
        if (!of[4].varies) std::fill_n(packed_[4], n, *at[4]);
        at[3] = &one_;
        at[4] = packed_[4];
    }

  private:
    C one_ = 1;
    alignas(64) C packed_[5][tile];
};

template <class A>
class Pass {
  public:
    using C = kernels::Compute<A>;

    Pass(const Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece,
         const Coefficients<C>& coefficients)
        : operands_(operands),
          close_line_(kernels.close_line),
          nest_(coalesce(piece, operand_set(op_x, op_y, op_cell, op_weight, op_bias, op_scale, op_zero_point))) {
        kernels::begin_line(open_);
        choose_inner();
        const Elements cells[] = {{coefficients.mean, stored_as<C>()},
                                  {coefficients.mean_lo, stored_as<C>()},
                                  {coefficients.rstd, stored_as<C>()}};
        for (int i = 0; i < 3; ++i) coefficients_.of[i] = coefficient(cells[i], op_cell);
        coefficients_.of[3] = coefficient(operands.weight, op_weight);
        coefficients_.of[4] = coefficient(operands.bias, op_bias);
        const bool x_unit = inner_.total == 1 || x_step_ == 1, y_unit = inner_.total == 1 || y_step_ == 1;
        x_direct_ = operands.x.dtype == stored_as<A>() && x_unit;
        y_direct_ = operands.y.dtype == stored_as<A>() && y_unit && !operands.epilogue.given();
        all_direct_ = repeats_ = x_direct_ && y_direct_;
        for (const Coefficient& c : coefficients_.of) {
            all_direct_ = all_direct_ && c.direct;
            repeats_ = repeats_ && (!c.varies || c.along.repeats(inner_));
        }
        if (operands.epilogue.steps.given()) take_steps();
        const bool merged = repeats_ && !all_direct_ && coefficients_.of[0].varies;
        affine_ = kernels.affine[merged ? kernels::affine_index(true, false, true)
                                        : kernels::affine_index(coefficients_.of[0].varies, coefficients_.of[3].varies,
                                                                coefficients_.of[4].varies)];
    }

    void run() {
        if (in_place()) {
            AffineArgs<A> args;
            while (next(args)) affine_(args);
        } else {
            const bool finishes = operands_.epilogue.given();
            walk(nest_, outside_,
                 [&](const std::int64_t* offset) { finishes ? run_epilogue(offset) : run_tiles(offset); });
        }
        if (operands_.stream) close_line_(open_);
    }

    /// Runs `work` with a queue of the kernel's calls, then those that it left.
    template <class Work>
    void run_beside(const Work& work) {
        AffineQueue<A> queue;
        queue.refill = [](void* pass, AffineArgs<A>& args) noexcept { return static_cast<Pass*>(pass)->next(args); };
        queue.from = this;
        work(queue);
        AffineArgs<A> args = queue.args;
        if (queue.i > 0) {
            skip(args, queue.row++, queue.i);
            affine_(args);
        }
        args = queue.args;
        skip(args, queue.row, 0);
        args.rows = queue.args.rows - queue.row;
        affine_(args);
        while (next(args)) affine_(args);
        if (operands_.stream) close_line_(open_);
    }

    /// Whether the kernel that sums rows can work off this pass.
    bool can_queue() const {
        constexpr std::int64_t few_lines = 256;
        return operands_.stream && all_direct_ && !coefficients_.of[0].varies && !coefficients_.of[3].varies &&
               !coefficients_.of[4].varies && inner_.total >= few_lines;
    }

  private:
    /// What the kernel takes for rows: those of the nest, or stretches of one of them.
    struct Rows {
        std::int64_t first, count, x_stride, y_stride;
        std::int64_t coefficients;  ///< 1 where the rows are those of the nest, which coefficients have strides for
    };

    /// Splits the nest into an inner loop for the vectors, a loop of rows for the kernel, and the loops outside.
    void choose_inner() {
        outside_ = nest_.depth;
        if (outside_ > 0) {
            const Loop& loop = nest_.loops[--outside_];
            inner_.join(loop);
            x_step_ = loop.stride[op_x];
            y_step_ = loop.stride[op_y];
        }
        for (; outside_ > 0; --outside_) {
            const Loop& next = nest_.loops[outside_ - 1];
            const bool shares = next.stride[op_cell] == 0 && next.stride[op_weight] == 0 && next.stride[op_bias] == 0;
            if (inner_.total >= (operands_.stream && shares ? tile : join_below)) break;
            if (next.stride[op_x] != inner_.total * x_step_ || next.stride[op_y] != inner_.total * y_step_) break;
            inner_.join(next);
        }
        first_inner_ = outside_;
        if (outside_ > 0) rows_ = nest_.loops[--outside_];
    }

    bool in_place() const { return all_direct_ || repeats_; }

    /// The rows of args from `row` on, the first from element i on.
    void skip(AffineArgs<A>& args, std::int64_t row, std::int64_t i) const {
        args.x += row * args.x_row + i;
        args.y += row * args.y_row + i;
        const std::int64_t stat = row * args.stat_row;
        args.mean += stat;
        args.mean_lo += stat;
        args.rstd += stat;
        args.weight += row * args.weight_row;
        args.bias += row * args.bias_row;
        args.n -= i;
        args.rows = 1;
    }

    Along along_inner(Operand operand) const {
        Along along;
        for (int level = 0; level < inner_.levels; ++level) {
            along.stride[level] = nest_.loops[first_inner_ + inner_.levels - 1 - level].stride[operand];
        }
        return along;
    }

    Coefficient coefficient(const Elements& elements, Operand operand) const {
        const Along along = along_inner(operand);
        const bool varies = !along.constant(inner_);
        const bool direct = elements.dtype == stored_as<C>() && (!varies || along.contiguous(inner_));
        return {elements, operand, along, rows_.stride[operand], varies, direct};
    }

    std::int64_t step_of_repeats() const { return std::min(tile / inner_.period * inner_.period, inner_.total); }

    /// The kernel's calls one after the other: all rows of an iteration of the loops outside; or, where everything
    /// comes back after a period, each row as tiles of whole periods, packed once, and what is left.
    bool next(AffineArgs<A>& args) noexcept {
        if (rest_ > 0) {
            set_args(args, offset_, {row_, 1, 0, 0, 0}, inner_.total - rest_, rest_);
            rest_ = 0;
            return true;
        }
        if (!go_on()) return false;
        if (all_direct_) {
            coefficients_.prepare_all(inner_, offset_, 0, inner_.total);
            set_args(args, offset_, {0, rows_.n, rows_.stride[op_x], rows_.stride[op_y], 1}, 0, inner_.total);
            return true;
        }
        const std::int64_t step = step_of_repeats(), count = inner_.total / step;
        rest_ = inner_.total - count * step;
        coefficients_.prepare_all(inner_, offset_, row_, step);
        if (coefficients_.of[0].varies) coefficients_.merge_scale(step);
        set_args(args, offset_, {row_, count, step, step, 0}, 0, step);
        return true;
    }

    /// Goes on to the next row that is a call of its own, or to the next iteration of the loops outside; false at the
    /// end, and from then on.
    bool go_on() noexcept {
        constexpr Operand operands[] = {op_x, op_y, op_cell, op_weight, op_bias};
        if (row_ < 0) {
            for (const Operand operand : operands) offset_[operand] = nest_.offset[operand];
            std::fill_n(index_, outside_, 0);
            row_ = 0;
            return true;
        }
        if (!all_direct_ && row_ + 1 < rows_.n) {
            ++row_;
            return true;
        }
        int level = outside_ - 1;
        while (level >= 0 && index_[level] + 1 == nest_.loops[level].n) --level;
        if (level < 0) return false;
        ++index_[level];
        for (const Operand operand : operands) offset_[operand] += nest_.loops[level].stride[operand];
        for (++level; level < outside_; ++level) {
            for (const Operand operand : operands)
                offset_[operand] -= index_[level] * nest_.loops[level].stride[operand];
            index_[level] = 0;
        }
        row_ = 0;
        return true;
    }

    /// rows_.n rows of inner_.total elements, tiled along them.
    void run_tiles(const std::int64_t* offset) {
        bool all_rows = x_direct_ && y_direct_;
        for (const Coefficient& c : coefficients_.of) all_rows = all_rows && (c.direct || c.row_stride == 0);
        // Tiles are whole periods, so that what repeats with the period is packed once for all of them.
        const std::int64_t step = tile / inner_.period * inner_.period;
        for (std::int64_t first = 0; first < inner_.total; first += step) {
            const std::int64_t n = std::min(step, inner_.total - first);
            for (int i = 0; i < 5; ++i) {
                const Coefficient& c = coefficients_.of[i];
                const bool keeps = !c.direct && c.row_stride == 0 && c.along.repeats(inner_);
                if (first == 0 || !keeps) coefficients_.prepare(i, inner_, offset, 0, first, n);
            }
            if (all_rows) {
                run_kernel(offset, {0, rows_.n, rows_.stride[op_x], rows_.stride[op_y], 1}, first, n);
                continue;
            }
            for (std::int64_t row = 0; row < rows_.n; ++row) {
                for (int i = 0; i < 5 && row > 0; ++i) {
                    if (coefficients_.of[i].direct || coefficients_.of[i].row_stride != 0)
                        coefficients_.prepare(i, inner_, offset, row, first, n);
                }
                run_kernel(offset, {row, 1, 0, 0, 0}, first, n);
            }
        }
    }

    /// The same in the order of memory, for results that are not written by the kernel: a row after the other, or of
    /// short rows as many as a tile takes, since a call for each would cost as much as its work.
    void run_epilogue(const std::int64_t* offset) {
        const std::int64_t step = std::min(tile / inner_.period * inner_.period, inner_.total);
        bool joins = x_direct_;
        for (const Coefficient& c : coefficients_.of) joins = joins && (c.direct || c.row_stride == 0);
        const std::int64_t group = joins ? std::max<std::int64_t>(1, tile / inner_.total) : 1;
        for (std::int64_t row = 0; row < rows_.n; row += group) {
            const std::int64_t count = std::min(group, rows_.n - row);
            for (std::int64_t first = 0; first < inner_.total; first += step) {
                const std::int64_t n = std::min(step, inner_.total - first);
                for (int i = 0; i < 5; ++i) {
                    const Coefficient& c = coefficients_.of[i];
                    // Packed already: for the last row, or for the last tile of this one.
                    const bool of_rows = row > 0 && c.row_stride == 0 && step == inner_.total;
                    const bool of_tiles = first > 0 && c.along.repeats(inner_);
                    if (c.direct || !(of_rows || of_tiles)) coefficients_.prepare(i, inner_, offset, row, first, n);
                }
                run_kernel(offset, {row, count, rows_.stride[op_x], n, 1}, first, n);
            }
        }
    }

    /// In place: 16 bytes of a copy would be loaded from two stores of 8, which are not forwarded, and wait for all
    /// that was streamed before: calls for 98 elements took 1.4 times as long.
    void set_args(AffineArgs<A>& args, const std::int64_t* offset, const Rows& rows, std::int64_t first,
                  std::int64_t n) {
        const std::int64_t x = offset[op_x] + rows.first * rows_.stride[op_x] + first * x_step_;
        const std::int64_t y = offset[op_y] + rows.first * rows_.stride[op_y] + first * y_step_;
        args.rows = rows.count;
        args.n = n;
        args.x = x_direct_ ? static_cast<const A*>(operands_.x.data) + x : packed_x_;
        args.y = y_direct_ ? static_cast<A*>(operands_.y.data) + y : packed_y_;
        args.x_row = rows.x_stride;
        args.y_row = rows.y_stride;
        args.mean = coefficients_.at[0];
        args.mean_lo = coefficients_.at[1];
        args.rstd = coefficients_.at[2];
        args.weight = coefficients_.at[3];
        args.bias = coefficients_.at[4];
        args.stat_row = rows.coefficients * coefficients_.of[0].row_stride;
        args.weight_row = rows.coefficients * coefficients_.of[3].row_stride;
        args.bias_row = rows.coefficients * coefficients_.of[4].row_stride;
        args.stream = operands_.stream && y_direct_;
        args.open = &open_;
    }

    void run_kernel(const std::int64_t* offset, const Rows& rows, std::int64_t first, std::int64_t n) {
        const std::int64_t x = offset[op_x] + rows.first * rows_.stride[op_x] + first * x_step_;
        const std::int64_t y = offset[op_y] + rows.first * rows_.stride[op_y] + first * y_step_;
        if (!x_direct_) read(x, n);
        AffineArgs<A> args;
        set_args(args, offset, rows, first, n);
        affine_(args);
        if (y_direct_) return;
        if (operands_.epilogue.steps.given()) return write_steps(offset, rows, first, n);
        write(y, rows, n);
    }

    /// The scales and zero points of results of 8 bits, where one of them is an array.
    void take_steps() {
        scale_along_ = along_inner(op_scale);
        zero_point_along_ = along_inner(op_zero_point);
        steps_vary_ = !scale_along_.constant(inner_) || !zero_point_along_.constant(inner_);
        std::fill_n(scale_, tile, static_cast<C>(operands_.epilogue.scale));
        std::fill_n(zero_point_, tile, static_cast<C>(operands_.epilogue.zero_point));
    }

    /// As write(), each row with steps of its own.
    void write_steps(const std::int64_t* offset, const Rows& rows, std::int64_t first, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            const Epilogue& all = operands_.epilogue;
            const std::int64_t scale_row = rows_.stride[op_scale], zero_point_row = rows_.stride[op_zero_point];
            for (std::int64_t i = 0; i < rows.count; ++i) {
                const std::int64_t row = rows.first + i;
                const std::int64_t y = offset[op_y] + row * rows_.stride[op_y] + first * y_step_;
                const StepsPlace start{offset[op_scale] + row * scale_row, 0,
                                       offset[op_zero_point] + row * zero_point_row, 0};
                if (!steps_vary_) {
                    all.at(start).finish(packed_y_ + i * n, n, operands_.y, y, y_step_);
                    continue;
                }
                if (i == 0 || scale_row != 0 || zero_point_row != 0) load_steps_along(start, first, n);
                all.finish_each(packed_y_ + i * n, scale_, zero_point_, n, operands_.y, y, y_step_);
            }
        }
    }

    void load_steps_along(const StepsPlace& start, std::int64_t first, std::int64_t n) {
        for (std::int64_t i = first; i < first + n;) {
            const std::int64_t count = std::min(inner_.n[0] - i % inner_.n[0], first + n - i);
            const StepsPlace place{start.scale + scale_along_.at(inner_, i), scale_along_.stride[0],
                                   start.zero_point + zero_point_along_.at(inner_, i), zero_point_along_.stride[0]};
            load_steps(operands_.epilogue.steps, place, scale_ + (i - first), zero_point_ + (i - first), count);
            i += count;
        }
    }

    void read(std::int64_t x, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (operands_.epilogue.given())
                return load(*operands_.epilogue.table, packed_x_, operands_.x, x, x_step_, n);
        }
        load(packed_x_, operands_.x, x, x_step_, n);
    }

    void write(std::int64_t y, const Rows& rows, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (operands_.epilogue.given()) {
                const std::int64_t y_row = rows_.stride[op_y];
                const std::int64_t count = y_step_ == 1 && y_row == n ? 1 : rows.count, length = rows.count / count * n;
                for (std::int64_t row = 0; row < count; ++row) {
                    operands_.epilogue.finish(packed_y_ + row * n, length, operands_.y, y + row * y_row, y_step_);
                }
                return;
            }
        }
        store(operands_.y, y, y_step_, packed_y_, n);
    }

    const ApplyOperands& operands_;
    void (*close_line_)(kernels::OpenLine&) noexcept;
    Nest nest_;
    InnerLoop inner_;
    std::int64_t x_step_ = 0, y_step_ = 0;
    Loop rows_{1, false, {}};
    int outside_ = 0, first_inner_ = 0;  // loops of the nest
    bool x_direct_, y_direct_;
    bool all_direct_;          ///< the kernel reads and writes everything in place
    bool repeats_;             ///< so it does but for coefficients that come back after a period
    bool steps_vary_ = false;  ///< scales or zero points, along the inner loop
    void (*affine_)(const AffineArgs<A>&) noexcept;
    std::int64_t row_ = -1, rest_ = 0, index_[max_rank], offset_[operand_count];  // of next()
    kernels::OpenLine open_;
    CoefficientTiles<C> coefficients_;
    Along scale_along_, zero_point_along_;
    alignas(64) C scale_[tile], zero_point_[tile];
    alignas(64) A packed_x_[tile], packed_y_[tile];
};

}  // namespace

template <class A>
void apply_piece(const Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece,
                 const CoefficientsOf<A>& coefficients) noexcept {
    Pass<A>(kernels, operands, piece, coefficients).run();
}

template <class A>
bool can_apply_beside(const Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece) noexcept {
    return Pass<A>(kernels, operands, piece, {}).can_queue();
}

template <class A>
void apply_beside(const Kernels<A>& kernels, const ApplyOperands& operands, const Nest& piece,
                  const CoefficientsOf<A>& coefficients, const std::function<void(AffineQueue<A>&)>& work) noexcept {
    Pass<A>(kernels, operands, piece, coefficients).run_beside(work);
}

#define ANYNORM_INSTANTIATE(A)                                                                                    \
    template void apply_piece<A>(const Kernels<A>&, const ApplyOperands&, const Nest&,                            \
                                 const CoefficientsOf<A>&) noexcept;                                              \
    template bool can_apply_beside<A>(const Kernels<A>&, const ApplyOperands&, const Nest&) noexcept;             \
    template void apply_beside<A>(const Kernels<A>&, const ApplyOperands&, const Nest&, const CoefficientsOf<A>&, \
                                  const std::function<void(AffineQueue<A>&)>&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
