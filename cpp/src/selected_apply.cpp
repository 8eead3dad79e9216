// SPDX-License-Identifier: Apache-2.0
#include "selected_apply.hpp"

#include <algorithm>

#include "inner_loop.hpp"

namespace anynorm::detail {
namespace {

using kernels::AffineArgs;
using kernels::Kernels;

/// Calls body(p) with the results as a pointer to their type, 8-bit ones too.
template <class Body>
void with_result(const Elements& y, Body&& body) {
    if (y.dtype == DType::i8) return body(static_cast<std::int8_t*>(y.data));
    if (y.dtype == DType::u8) return body(static_cast<std::uint8_t*>(y.data));
    with_type(y, body);
}

template <class To>
To result_of(double value) noexcept {
    if constexpr (sizeof(To) == 1) {
        return static_cast<To>(value);
    } else {
        return round_to<To>(value);
    }
}

template <class A>
class SelectedPass {
  public:
    using C = kernels::Compute<A>;

    SelectedPass(const Kernels<A>& kernels, const SelectedApply& apply, const Nest& piece,
                 const Coefficients<C>& coefficients)
        : kernels_(kernels),
          apply_(apply),
          operands_(apply.operands),
          coefficients_(coefficients),
          group_of_(apply.selection),
          mask_(static_cast<const unsigned char*>(apply.selection.where.data)),
          nest_(coalesce(piece, operand_set(op_x, op_y, op_cell, op_weight, op_bias, op_labels, op_where))) {
        outside_ = nest_.depth;
        if (outside_ > 0) inner_ = nest_.loops[--outside_];
        if (outside_ > 0) rows_ = nest_.loops[--outside_];
        by_rows_ = inner_.n == 1 || (inner_.stride[op_labels] == 0 && inner_.stride[op_where] == 0);
        const auto contiguous = [&](Operand operand) { return inner_.n == 1 || inner_.stride[operand] == 1; };
        const auto one_or_all = [&](Operand operand) { return inner_.stride[operand] == 0 || contiguous(operand); };
        direct_ = operands_.x.dtype == stored_as<A>() && operands_.y.dtype == stored_as<A>() && contiguous(op_x) &&
                  contiguous(op_y) && !operands_.epilogue.given() && one_or_all(op_cell) && is_direct(op_weight) &&
                  is_direct(op_bias);
    }

    void run() {
        walk(nest_, outside_, [&](const std::int64_t* offset) {
            if (by_rows_) {
                run_rows(offset);
            } else {
                for (std::int64_t row = 0; row < rows_.n; ++row) run_row(offset, row, -1);
            }
        });
    }

  private:
    const Elements& parameter(Operand operand) const {
        return operand == op_weight ? operands_.weight : operands_.bias;
    }
    bool is_direct(Operand operand) const {
        const std::int64_t stride = inner_.n == 1 ? 0 : inner_.stride[operand];
        return parameter(operand).dtype == stored_as<C>() && (stride == 0 || stride == 1);
    }
    std::int64_t at(const std::int64_t* offset, Operand operand, std::int64_t row) const {
        return offset[operand] + row * rows_.stride[operand];
    }
    /// The group of an element; -1 for one that is excluded.
    std::int64_t group_at(std::int64_t labels, std::int64_t where) {
        return mask_ != nullptr && mask_[where] == 0 ? -1 : group_of_(labels);
    }

    /// Rows of one group each: as many at a time as follow each other.
    void run_rows(const std::int64_t* offset) {
        for (std::int64_t row = 0; row < rows_.n;) {
            const auto group_of_row = [&](std::int64_t index) {
                return group_at(at(offset, op_labels, index), at(offset, op_where, index));
            };
            const std::int64_t group = group_of_row(row);
            std::int64_t end = row + 1;
            while (end < rows_.n && group_of_row(end) == group) ++end;
            if (group >= 0 && direct_) {
                run_kernel(offset, row, end - row, group);
            } else if (group >= 0 || apply_.excluded != Excluded::keep) {
                for (std::int64_t index = row; index < end; ++index) {
                    if (group >= 0) {
                        run_row(offset, index, group);
                    } else {
                        exclude(offset, index);
                    }
                }
            }
            row = end;
        }
    }

    AffineArgs<A> arguments(const std::int64_t* offset, std::int64_t row, std::int64_t first) const {
        AffineArgs<A> args{};
        args.x = static_cast<const A*>(operands_.x.data) + at(offset, op_x, row) + first * inner_.stride[op_x];
        args.y = static_cast<A*>(operands_.y.data) + at(offset, op_y, row) + first * inner_.stride[op_y];
        return args;
    }

    void run_kernel(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t group) {
        // Shorter stretches would spend their time on the fence behind them.
        constexpr std::int64_t long_stretch = 4096;
        AffineArgs<A> args = arguments(offset, row, 0);
        const std::int64_t cell = group * apply_.group_cells + at(offset, op_cell, row);
        args.rows = rows;
        args.n = inner_.n;
        args.mean = coefficients_.mean + cell;
        args.mean_lo = coefficients_.mean_lo + cell;
        args.rstd = coefficients_.rstd + cell;
        args.weight = static_cast<const C*>(operands_.weight.data) + at(offset, op_weight, row);
        args.bias = static_cast<const C*>(operands_.bias.data) + at(offset, op_bias, row);
        args.x_row = rows_.stride[op_x];
        args.y_row = rows_.stride[op_y];
        args.stat_row = rows_.stride[op_cell];
        args.weight_row = rows_.stride[op_weight];
        args.bias_row = rows_.stride[op_bias];
        args.stream = operands_.stream && rows * inner_.n >= long_stretch;
        const auto varies = [&](Operand operand) { return inner_.n > 1 && inner_.stride[operand] != 0; };
        kernels_.affine[kernels::affine_index(varies(op_cell), varies(op_weight), varies(op_bias))](args);
    }

    /// A row through L1, a tile at a time; its elements are of `group`, or -1: each is looked up.
    void run_row(const std::int64_t* offset, std::int64_t row, std::int64_t group) {
        for (std::int64_t first = 0; first < inner_.n; first += tile) {
            const std::int64_t n = std::min(tile, inner_.n - first);
            const auto start = [&](Operand operand) {
                return at(offset, operand, row) + first * inner_.stride[operand];
            };
            find_cells(start(op_cell), start(op_labels), start(op_where), n, group);
            if (members_ == 0) {
                if (apply_.excluded != Excluded::keep) {
                    exclude_run(start(op_x), start(op_y), n);
                }
                continue;
            }
            AffineArgs<A> args{};
            args.rows = 1;
            args.n = n;
            load_x(start(op_x), n);
            args.x = packed_x_;
            args.y = packed_y_;
            args.mean = mean_;
            args.mean_lo = mean_lo_;
            args.rstd = rstd_;
            const bool weight_varies = load_parameter(op_weight, weight_, start(op_weight), n);
            const bool bias_varies = load_parameter(op_bias, bias_, start(op_bias), n);
            args.weight = weight_;
            args.bias = bias_;
            kernels_.affine[kernels::affine_index(true, weight_varies, bias_varies)](args);
            if (members_ == n) {
                write(operands_.y, start(op_y), inner_.stride[op_y], n);
            } else {
                write_members(start(op_x), start(op_y), n);
            }
        }
    }

    /// Gathers the coefficients of a tile, and who of it is a member.
    void find_cells(std::int64_t cell, std::int64_t labels, std::int64_t where, std::int64_t n, std::int64_t group) {
        members_ = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t own =
                group >= 0 ? group
                           : group_at(labels + i * inner_.stride[op_labels], where + i * inner_.stride[op_where]);
            is_member_[i] = own >= 0;
            if (own < 0) {
                mean_[i] = mean_lo_[i] = rstd_[i] = 0;
                continue;
            }
            const std::int64_t index = own * apply_.group_cells + cell + i * inner_.stride[op_cell];
            mean_[i] = coefficients_.mean[index];
            mean_lo_[i] = coefficients_.mean_lo[index];
            rstd_[i] = coefficients_.rstd[index];
            ++members_;
        }
    }

    void load_x(std::int64_t x, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (operands_.epilogue.given())
                return load(*operands_.epilogue.table, packed_x_, operands_.x, x, inner_.stride[op_x], n);
        }
        load(packed_x_, operands_.x, x, inner_.stride[op_x], n);
    }

    /// Whether it varies along the tile.
    bool load_parameter(Operand operand, C* to, std::int64_t from, std::int64_t n) const {
        const std::int64_t stride = inner_.stride[operand];
        load(to, parameter(operand), from, stride, stride == 0 ? 1 : n);
        return stride != 0;
    }

    void write(const Elements& to, std::int64_t offset, std::int64_t stride, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (operands_.epilogue.given()) return operands_.epilogue.finish(packed_y_, n, to, offset, stride);
        }
        store(to, offset, stride, static_cast<const A*>(packed_y_), n);
    }

    /// Results of a tile of which some elements are excluded: rounded beside y, then picked.
    void write_members(std::int64_t x, std::int64_t y, std::int64_t n) {
        write({finished_, operands_.y.dtype}, 0, 1, n);
        with_result(operands_.y, [&]<class Y>(Y* to) {
            const Y* const from = reinterpret_cast<const Y*>(finished_);
            for (std::int64_t i = 0; i < n; ++i) {
                if (is_member_[i]) {
                    to[y + i * inner_.stride[op_y]] = from[i];
                } else if (apply_.excluded != Excluded::keep) {
                    to[y + i * inner_.stride[op_y]] = stand_in<Y>(x + i * inner_.stride[op_x]);
                }
            }
        });
    }

    /// What an excluded element gets: its own value, or what stands for 0.
    template <class Y>
    Y stand_in(std::int64_t x) const {
        if (apply_.excluded == Excluded::input) return result_of<Y>(element_at(operands_.x, x));
        return result_of<Y>(sizeof(Y) == 1 ? operands_.epilogue.zero_point : 0);
    }

    void exclude_run(std::int64_t x, std::int64_t y, std::int64_t n) {
        with_result(operands_.y, [&]<class Y>(Y* to) {
            to += y;
            if (apply_.excluded == Excluded::zero) {
                const Y zero = stand_in<Y>(x);
                for (std::int64_t i = 0; i < n; ++i) to[i * inner_.stride[op_y]] = zero;
            } else {
                for (std::int64_t i = 0; i < n; ++i)
                    to[i * inner_.stride[op_y]] = stand_in<Y>(x + i * inner_.stride[op_x]);
            }
        });
    }

    void exclude(const std::int64_t* offset, std::int64_t row) {
        // In place the input is there already.
        if (apply_.excluded == Excluded::input && operands_.x.data == operands_.y.data) return;
        exclude_run(at(offset, op_x, row), at(offset, op_y, row), inner_.n);
    }

    const Kernels<A>& kernels_;
    const SelectedApply& apply_;
    const ApplyOperands& operands_;
    Coefficients<C> coefficients_;
    GroupLookup group_of_;
    const unsigned char* mask_;
    Nest nest_;
    Loop inner_{1, false, {}}, rows_{1, false, {}};
    int outside_ = 0;
    bool by_rows_, direct_;
    std::int64_t members_ = 0;
    bool is_member_[tile];
    alignas(64) C mean_[tile], mean_lo_[tile], rstd_[tile], weight_[tile], bias_[tile];
    alignas(64) A packed_x_[tile], packed_y_[tile];
    alignas(64) unsigned char finished_[tile * sizeof(double)];
};

}  // namespace

template <class A>
void selected_apply(const Kernels<A>& kernels, const SelectedApply& apply, const Nest& piece,
                    const CoefficientsOf<A>& coefficients) noexcept {
    SelectedPass<A>(kernels, apply, piece, coefficients).run();
}

#define ANYNORM_INSTANTIATE(A)                                                            \
    template void selected_apply<A>(const Kernels<A>&, const SelectedApply&, const Nest&, \
                                    const CoefficientsOf<A>&) noexcept;
ANYNORM_INSTANTIATE(float)
ANYNORM_INSTANTIATE(double)
ANYNORM_INSTANTIATE(kernels::F16)
ANYNORM_INSTANTIATE(kernels::BF16)
#undef ANYNORM_INSTANTIATE

}  // namespace anynorm::detail
