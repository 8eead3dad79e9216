// SPDX-License-Identifier: Apache-2.0
#include "selected_apply.hpp"

#include <algorithm>

#include "inner_loop.hpp"
#include "torn_rows.hpp"

namespace anynorm::detail {
namespace {

using kernels::AffineArgs;
using kernels::Kernels;

template <class A>
class SelectedWriter {
  public:
    using C = kernels::Compute<A>;

    SelectedWriter(const Kernels<A>& kernels, const SelectedApply& apply, const Nest& piece,
                   const Coefficients<C>& coefficients)
        : kernels_(kernels),
          apply_(apply),
          operands_(apply.operands),
          coefficients_(coefficients),
          group_of_(apply.selection),
          mask_(static_cast<const unsigned char*>(apply.selection.where.data)),
          nest_(coalesce(piece, operand_set(op_x, op_y, op_cell, op_weight, op_bias, op_labels, op_where, op_scale,
                                            op_zero_point))) {
        outside_ = nest_.depth;
        if (outside_ > 0) inner_ = nest_.loops[--outside_];
        if (outside_ > 0) rows_ = nest_.loops[--outside_];
        by_rows_ = inner_.n == 1 || (inner_.stride[op_labels] == 0 && inner_.stride[op_where] == 0);
        const auto contiguous = [&](Operand operand) { return inner_.n == 1 || inner_.stride[operand] == 1; };
        const auto one_or_all = [&](Operand operand) { return inner_.stride[operand] == 0 || contiguous(operand); };
        steps_ = operands_.epilogue.steps.given();
        if (steps_) {
            std::fill_n(scale_, tile, static_cast<C>(operands_.epilogue.scale));
            std::fill_n(zero_point_, tile, static_cast<C>(operands_.epilogue.zero_point));
        }
        direct_ = operands_.x.dtype == stored_as<A>() && operands_.y.dtype == stored_as<A>() && contiguous(op_x) &&
                  contiguous(op_y) && !operands_.epilogue.given() && one_or_all(op_cell) && is_direct(op_weight) &&
                  is_direct(op_bias);
        const bool replaces = apply_.excluded == Excluded::zero ||
                              (apply_.excluded == Excluded::input && operands_.x.data != operands_.y.data);
        overwrites_ = mask_ != nullptr && by_rows_ && direct_ && replaces && !apply_.selection.splits() &&
                      rows_.stride[op_where] != 0 && inner_.n < join_below;
    }

    void run() {
        const bool looks_up = apply_.selection.splits() && rows_.stride[op_labels] != 0 && !has_long_segments();
        walk(nest_, outside_, [&](const std::int64_t* offset) {
            if (by_rows_ && direct_ && looks_up) {
                run_looked_up(offset);
            } else if (by_rows_) {
                run_rows(offset);
            } else {
                run_elements(offset);
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

    /// Elements of one group that are worth a pass of their own. It takes 1 us to begin: as long as the row kernel
    /// needs for 100 rows that are no packs, and for more of those that are.
    std::int64_t long_run() const {
        const bool has_kernel = direct_ && (inner_.n == short_row || inner_.n >= join_below);
        return has_kernel ? 8192 : 1024;
    }
    /// Segments that are so, on average.
    bool has_long_segments() const {
        const Segments segments(apply_.selection.segments);
        return segments.count() > 0 && segments.rows() / segments.count() * inner_.n >= long_run();
    }

    /// Rows with labels of their own, or in short segments: the kernel looks up the statistics of each.
    void run_looked_up(const std::int64_t* offset) {
        std::int32_t group_of[most_rows];
        // Coefficients of so many rows are fetched before the first of them is written: 100 ns each on their own. The
        // kernel of short rows does that itself.
        const std::int64_t row_bytes = 3 * inner_.n * static_cast<std::int64_t>(sizeof(C));
        const bool fetches = apply_.far && row_bytes <= max_fetched && inner_.n != short_row;
        const std::int64_t most =
            fetches ? std::clamp<std::int64_t>(fetched_bytes / row_bytes, 1, most_rows) : most_rows;
        for (std::int64_t row = 0; row < rows_.n;) {
            std::int64_t count = find_members(offset, row, std::min(most, rows_.n - row), group_of);
            for (std::int64_t i = 0; fetches && i < count; ++i) {
                const C* const first = coefficients_.mean + group_of[i] * apply_.group_step + offset[op_cell];
                const auto* const bytes = reinterpret_cast<const char*>(first);
                for (std::int64_t byte = 0; byte < row_bytes; byte += line) __builtin_prefetch(bytes + byte);
            }
            if (count > 0) {
                run_kernel(offset, row, count, 0, group_of);
            } else {
                if (apply_.excluded != Excluded::keep) exclude(offset, row);
                count = 1;
            }
            row += count;
        }
    }

    /// The groups of up to n rows from `row` on, until one that is in none; returns how many they are.
    std::int64_t find_members(const std::int64_t* offset, std::int64_t row, std::int64_t n, std::int32_t* group_of) {
        if (apply_.selection.segments.given()) return find_in_segments(offset, row, n, group_of);
        const std::int64_t label_step = rows_.stride[op_labels], mask_step = rows_.stride[op_where];
        const unsigned char* const is_member = mask_ == nullptr ? nullptr : mask_ + at(offset, op_where, row);
        return with_labels(elements_of(apply_.selection.labels), [&](const auto* labels) {
            labels += at(offset, op_labels, row);
            if (is_member == nullptr && label_step == 1) {
                std::int64_t signs = 0;  // without a branch, so that compilers vectorize it
                for (std::int64_t i = 0; i < n; ++i) {
                    signs |= labels[i];
                    group_of[i] = static_cast<std::int32_t>(labels[i]);
                }
                if (signs >= 0) return n;
            }
            for (std::int64_t i = 0; i < n; ++i) {
                const std::int64_t label = labels[i * label_step];
                if (label < 0 || (is_member != nullptr && is_member[i * mask_step] == 0)) return i;
                group_of[i] = static_cast<std::int32_t>(label);
            }
            return n;
        });
    }

    std::int64_t find_in_segments(const std::int64_t* offset, std::int64_t row, std::int64_t n,
                                  std::int32_t* group_of) {
        for (std::int64_t i = 0; i < n;) {
            const std::int64_t group = group_of_row(offset, row + i);
            if (group < 0) return i;
            const std::int64_t end = i + run_of(offset, row + i, n - i);
            for (; i < end; ++i) group_of[i] = static_cast<std::int32_t>(group);
        }
        return n;
    }

    std::int64_t group_of_row(const std::int64_t* offset, std::int64_t row) {
        return group_at(at(offset, op_labels, row), at(offset, op_where, row));
    }
    /// How many of n rows are in the group of the first, as far as that is known without looking at each.
    std::int64_t run_of(const std::int64_t* offset, std::int64_t row, std::int64_t n) const {
        if (mask_ != nullptr && rows_.stride[op_where] != 0) return 1;
        return group_of_.run(at(offset, op_labels, row), rows_.stride[op_labels], n);
    }

    /// Elements that are each in or out, or of a group: short rows that follow each other share a tile.
    void run_elements(const std::int64_t* offset) {
        const bool follows = (rows_.n == 1 || rows_.stride[op_x] == inner_.n * inner_.stride[op_x]) &&
                             (rows_.n == 1 || rows_.stride[op_y] == inner_.n * inner_.stride[op_y]);
        const std::int64_t joined = follows ? std::max<std::int64_t>(1, tile / inner_.n) : 1;
        for (std::int64_t row = 0; row < rows_.n; row += joined)
            run_tiles(offset, row, std::min(joined, rows_.n - row), -1);
    }

    /// Rows of one group each; stretches of short ones that a mask tears apart are computed as a whole.
    void run_rows(const std::int64_t* offset) {
        const std::int64_t stretch = overwrites_ ? std::max<std::int64_t>(1, torn_stretch / inner_.n) : rows_.n;
        std::int64_t begin = 0;
        for (std::int64_t row = 0; overwrites_ && row < rows_.n; row += stretch) {
            const std::int64_t rows = std::min(stretch, rows_.n - row);
            const RowsAt<const unsigned char> mask{mask_ + at(offset, op_where, row), rows_.stride[op_where]};
            if (!is_torn(mask, rows)) continue;
            run_rows(offset, begin, row);
            ApplyOperands through_caches = operands_;
            through_caches.stream = false;
            run_joined(through_caches, offset, row, rows, 0);
            const AffineArgs<A> args = arguments(offset, row, 0);
            const A* const stand_ins = apply_.excluded == Excluded::zero ? nullptr : args.x;
            replace_excluded<A>(mask, {stand_ins, rows_.stride[op_x]}, {args.y, rows_.stride[op_y]}, rows, inner_.n);
            begin = row + rows;
        }
        run_rows(offset, begin, rows_.n);
    }

    /// The rows of [row, last): as many at a time as follow each other.
    void run_rows(const std::int64_t* offset, std::int64_t row, std::int64_t last) {
        while (row < last) {
            const std::int64_t group = group_of_row(offset, row);
            std::int64_t end = row + (group >= 0 ? run_of(offset, row, last - row) : 1);
            while (end < last && group_of_row(offset, end) == group) ++end;
            if (group >= 0 && (end - row) * inner_.n >= long_run()) {
                run_joined(operands_, offset, row, end - row, group);
            } else if (group >= 0 && direct_) {
                run_kernel(offset, row, end - row, group, nullptr);
            } else if (group >= 0 || apply_.excluded != Excluded::keep) {
                for (std::int64_t index = row; index < end; ++index) {
                    if (group >= 0) {
                        run_tiles(offset, index, 1, group);
                    } else {
                        exclude(offset, index);
                    }
                }
            }
            row = end;
        }
    }

    /// Rows of one group as the apply pass of a call without a selection takes them: rows of few elements are joined.
    void run_joined(const ApplyOperands& operands, const std::int64_t* offset, std::int64_t row, std::int64_t rows,
                    std::int64_t group) {
        Nest run;
        run.depth = 2;
        run.loops[0] = rows_;
        run.loops[0].n = rows;
        run.loops[1] = inner_;
        for (int operand = 0; operand < operand_count; ++operand)
            run.offset[operand] = at(offset, static_cast<Operand>(operand), row);
        const std::int64_t first = group * apply_.group_step;
        apply_piece(
            kernels_, operands, run,
            Coefficients<C>{coefficients_.mean + first, coefficients_.mean_lo + first, coefficients_.rstd + first});
    }

    AffineArgs<A> arguments(const std::int64_t* offset, std::int64_t row, std::int64_t first) const {
        AffineArgs<A> args{};
        args.x = static_cast<const A*>(operands_.x.data) + at(offset, op_x, row) + first * inner_.stride[op_x];
        args.y = static_cast<A*>(operands_.y.data) + at(offset, op_y, row) + first * inner_.stride[op_y];
        return args;
    }

    void run_kernel(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t group,
                    const std::int32_t* group_of) {
        // Shorter stretches would spend their time on the fence behind them.
        constexpr std::int64_t long_stretch = 4096;
        // Of rows that look up their statistics one of 17 elements takes 17 ns past the caches, 10 through them.
        // Shorter ones are joined to lines on that way, longer ones have whole lines.
        const bool looks_up = group_of != nullptr && inner_.n > short_row && inner_.n < 32;
        AffineArgs<A> args = arguments(offset, row, 0);
        const std::int64_t cell = group * apply_.group_step + at(offset, op_cell, row);
        args.rows = rows;
        args.n = inner_.n;
        args.mean = coefficients_.mean + cell;
        args.mean_lo = coefficients_.mean_lo + cell;
        args.rstd = coefficients_.rstd + cell;
        args.weight = static_cast<const C*>(operands_.weight.data) + at(offset, op_weight, row);
        args.bias = static_cast<const C*>(operands_.bias.data) + at(offset, op_bias, row);
        args.x_row = rows_.stride[op_x];
        args.y_row = rows_.stride[op_y];
        args.stat_row = group_of != nullptr ? apply_.group_step : rows_.stride[op_cell];
        args.stat_of = group_of;
        args.weight_row = rows_.stride[op_weight];
        args.bias_row = rows_.stride[op_bias];
        args.stream = operands_.stream && rows * inner_.n >= long_stretch && !looks_up;
        const auto varies = [&](Operand operand) { return inner_.n > 1 && inner_.stride[operand] != 0; };
        kernels_.affine[kernels::affine_index(varies(op_cell), varies(op_weight), varies(op_bias))](args);
    }

    /// Rows through L1, a tile at a time, and several to a tile if `rows` is above 1; their elements are of `group`, or
    /// -1: each is looked up.
    void run_tiles(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t group) {
        for (std::int64_t first = 0; first < inner_.n; first += tile) {
            const std::int64_t length = std::min(tile, inner_.n - first), n = rows * length;
            const auto start = [&](Operand operand, std::int64_t index) {
                return at(offset, operand, row + index) + first * inner_.stride[operand];
            };
            if (steps_) take_steps(offset, row, rows, first, length);
            members_ = 0;
            for (std::int64_t i = 0; i < rows; ++i) {
                find_cells(start(op_cell, i), start(op_labels, i), start(op_where, i), i * length, length, group);
            }
            const std::int64_t x = start(op_x, 0), y = start(op_y, 0);
            if (members_ == 0) {
                if (apply_.excluded != Excluded::keep) exclude_run(x, y, n);
                continue;
            }
            AffineArgs<A> args{};
            args.rows = 1;
            args.n = n;
            load_x(x, n);
            args.x = packed_x_;
            args.y = packed_y_;
            args.mean = mean_;
            args.mean_lo = mean_lo_;
            args.rstd = rstd_;
            bool varies[2];
            for (const Operand operand : {op_weight, op_bias}) {
                C* const to = operand == op_weight ? weight_ : bias_;
                bool& own = varies[operand == op_weight ? 0 : 1];
                own = inner_.stride[operand] != 0 || (rows > 1 && rows_.stride[operand] != 0);
                for (std::int64_t i = 0; i < (own ? rows : 1); ++i)
                    load_parameter(operand, to + i * length, start(operand, i), own ? length : 1);
            }
            args.weight = weight_;
            args.bias = bias_;
            kernels_.affine[kernels::affine_index(true, varies[0], varies[1])](args);
            if (members_ == n) {
                write(operands_.y, y, inner_.stride[op_y], n);
            } else {
                write_members(x, y, n);
            }
        }
    }

    /// Gathers the coefficients of n elements, and who of them is a member, to place `to` of the tile.
    void find_cells(std::int64_t cell, std::int64_t labels, std::int64_t where, std::int64_t to, std::int64_t n,
                    std::int64_t group) {
        const bool one_group = group >= 0 || inner_.stride[op_labels] == 0;
        if (group < 0 && one_group) group = group_of_(labels);
        if (one_group && group < 0) {
            std::fill_n(is_member_ + to, n, static_cast<unsigned char>(0));
            for (C* each : {mean_, mean_lo_, rstd_}) std::fill_n(each + to, n, C(0));
            return;
        }
        if (one_group) {
            const std::int64_t first = group * apply_.group_step + cell, step = inner_.stride[op_cell];
            copy_cells(mean_ + to, coefficients_.mean + first, step, n);
            copy_cells(mean_lo_ + to, coefficients_.mean_lo + first, step, n);
            copy_cells(rstd_ + to, coefficients_.rstd + first, step, n);
            if (mask_ == nullptr || inner_.stride[op_where] == 0) {
                const unsigned char member = mask_ == nullptr || mask_[where] != 0 ? 1 : 0;
                std::fill_n(is_member_ + to, n, member);
                members_ += member * n;
                return;
            }
            const std::int64_t where_step = inner_.stride[op_where];
            std::int64_t members = 0;
            for (std::int64_t i = 0; i < n; ++i) {
                is_member_[to + i] = mask_[where + i * where_step] != 0 ? 1 : 0;
                members += is_member_[to + i];
            }
            members_ += members;
            return;
        }
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t own =
                group_at(labels + i * inner_.stride[op_labels], where + i * inner_.stride[op_where]);
            is_member_[to + i] = own >= 0 ? 1 : 0;
            const std::int64_t index =
                std::max<std::int64_t>(own, 0) * apply_.group_step + cell + i * inner_.stride[op_cell];
            const bool any = apply_.group_step > 0 && own >= 0;
            mean_[to + i] = any ? coefficients_.mean[index] : 0;
            mean_lo_[to + i] = any ? coefficients_.mean_lo[index] : 0;
            rstd_[to + i] = any ? coefficients_.rstd[index] : 0;
            members_ += is_member_[to + i];
        }
    }

    /// The scales and zero points of a tile, where one of them is an array.
    void take_steps(const std::int64_t* offset, std::int64_t row, std::int64_t rows, std::int64_t first,
                    std::int64_t n) {
        const std::int64_t scale_step = inner_.stride[op_scale], zero_step = inner_.stride[op_zero_point];
        for (std::int64_t i = 0; i < rows; ++i) {
            const StepsPlace place{at(offset, op_scale, row + i) + first * scale_step, scale_step,
                                   at(offset, op_zero_point, row + i) + first * zero_step, zero_step};
            load_steps(operands_.epilogue.steps, place, scale_ + i * n, zero_point_ + i * n, n);
        }
    }

    static void copy_cells(C* to, const C* from, std::int64_t step, std::int64_t n) {
        if (step == 0) {
            std::fill_n(to, n, *from);
        } else {
            copy_strided(to, 1, from, step, n);
        }
    }

    void load_x(std::int64_t x, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (operands_.epilogue.given())
                return load(*operands_.epilogue.table, packed_x_, operands_.x, x, inner_.stride[op_x], n);
        }
        load(packed_x_, operands_.x, x, inner_.stride[op_x], n);
    }

    void load_parameter(Operand operand, C* to, std::int64_t from, std::int64_t n) const {
        const std::int64_t stride = inner_.stride[operand];
        if (stride == 0) {
            std::fill_n(to, n, static_cast<C>(element_at(parameter(operand), from)));
        } else {
            load(to, parameter(operand), from, stride, n);
        }
    }

    void write(const Elements& to, std::int64_t offset, std::int64_t stride, std::int64_t n) {
        if constexpr (std::is_same_v<A, C>) {
            if (steps_) return operands_.epilogue.finish_each(packed_y_, scale_, zero_point_, n, to, offset, stride);
            if (operands_.epilogue.given()) return operands_.epilogue.finish(packed_y_, n, to, offset, stride);
        }
        store(to, offset, stride, static_cast<const A*>(packed_y_), n);
    }

    /// Results of a tile of which some elements are excluded: rounded beside y, then picked.
    void write_members(std::int64_t x, std::int64_t y, std::int64_t n) {
        write({finished_, operands_.y.dtype}, 0, 1, n);
        with_result(operands_.y, [&]<class Y>(Y* to) {
            const Y* const from = reinterpret_cast<const Y*>(finished_);
            if (apply_.excluded == Excluded::zero && !steps_) {
                // Both values at hand make this a select: 55 ms for (1000000, 16) on two threads, 62 with pick().
                const Y zero = stand_in<Y>(x, 0);
                for (std::int64_t i = 0; i < n; ++i) {
                    const Y value = from[i];
                    to[y + i * inner_.stride[op_y]] = is_member_[i] != 0 ? value : zero;
                }
                return;
            }
            for (std::int64_t i = 0; i < n; ++i) {
                if (is_member_[i] != 0) {
                    to[y + i * inner_.stride[op_y]] = from[i];
                } else if (apply_.excluded != Excluded::keep) {
                    to[y + i * inner_.stride[op_y]] = stand_in<Y>(x + i * inner_.stride[op_x], i);
                }
            }
        });
    }

    /// What an excluded element, number `i` of a tile, gets: its own value, or what stands for 0.
    template <class Y>
    Y stand_in(std::int64_t x, std::int64_t i) const {
        if (apply_.excluded == Excluded::input) return result_of<Y>(element_at(operands_.x, x));
        if (sizeof(Y) > 1) return result_of<Y>(0);
        return result_of<Y>(steps_ ? static_cast<double>(zero_point_[i]) : operands_.epilogue.zero_point);
    }

    void exclude_run(std::int64_t x, std::int64_t y, std::int64_t n) {
        with_result(operands_.y, [&]<class Y>(Y* to) {
            to += y;
            if (apply_.excluded == Excluded::zero && !steps_) {
                const Y zero = stand_in<Y>(x, 0);
                for (std::int64_t i = 0; i < n; ++i) to[i * inner_.stride[op_y]] = zero;
            } else {
                for (std::int64_t i = 0; i < n; ++i)
                    to[i * inner_.stride[op_y]] = stand_in<Y>(x + i * inner_.stride[op_x], i);
            }
        });
    }

    void exclude(const std::int64_t* offset, std::int64_t row) {
        // In place the input is there already.
        if (apply_.excluded == Excluded::input && operands_.x.data == operands_.y.data) return;
        const std::int64_t x = at(offset, op_x, row), y = at(offset, op_y, row);
        if (!steps_) return exclude_run(x, y, inner_.n);
        for (std::int64_t first = 0; first < inner_.n; first += tile) {
            const std::int64_t n = std::min(tile, inner_.n - first);
            take_steps(offset, row, 1, first, n);
            exclude_run(x + first * inner_.stride[op_x], y + first * inner_.stride[op_y], n);
        }
    }

    static constexpr std::int64_t most_rows = 1024, line = 64;
    static constexpr std::int64_t short_row = 16;  ///< kernels/looked_up_rows.inl.hpp
    static constexpr std::int64_t fetched_bytes = 64 * 1024, max_fetched = 1024;

    const Kernels<A>& kernels_;
    const SelectedApply& apply_;
    const ApplyOperands& operands_;
    Coefficients<C> coefficients_;
    GroupLookup group_of_;
    const unsigned char* mask_;
    Nest nest_;
    Loop inner_{1, false, {}}, rows_{1, false, {}};
    int outside_ = 0;
    bool by_rows_, direct_, overwrites_;
    bool steps_;  ///< scales or zero points are arrays
    std::int64_t members_ = 0;
    unsigned char is_member_[tile];
    alignas(64) C mean_[tile], mean_lo_[tile], rstd_[tile], weight_[tile], bias_[tile];
    alignas(64) C scale_[tile], zero_point_[tile];
    alignas(64) A packed_x_[tile], packed_y_[tile];
    alignas(64) unsigned char finished_[tile * sizeof(double)];
};

}  // namespace

template <class A>
void selected_apply(const Kernels<A>& kernels, const SelectedApply& apply, const Nest& piece,
                    const CoefficientsOf<A>& coefficients) noexcept {
    SelectedWriter<A>(kernels, apply, piece, coefficients).run();
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
