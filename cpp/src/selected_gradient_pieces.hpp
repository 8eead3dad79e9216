// SPDX-License-Identifier: Apache-2.0
// What a backward call whose sets are named by data does with one piece: sums, and grad_input.
#pragma once

#include "gradient_sums.hpp"
#include "gradients.hpp"
#include "joined_rows.hpp"
#include "selected_tiles.hpp"

namespace anynorm::detail {

/// The operands of such a call, validated.
struct SelectedGradientCall {
    const GradientCall& of;
    const Selection& selection;
    const MomentsView& given;
    const Nest& moments;  ///< that of the given ones
    Excluded excluded;
};

/// What the kernels take for every set, by its number: group * cells_per_group + the number of its cell.
template <class C>
struct SelectedSets {
    C *mean, *mean_lo, *rstd;  ///< of the statistics
    C *slope, *offset;         ///< of grad_input
    std::int64_t groups, cells_per_group;
    bool fits_cache;
};

/// Where the sums of a pass go; what it does not sum is nullptr.
struct SelectedSums {
    Sums sets;
    bool weighted = false;  ///< those of the sets are of grad_output * weight
    Sums parameters[2];
    Operand operand[2] = {op_grad_weight, op_grad_bias};
};

/// The work of one thread. C is the type to compute in; weight and bias are always given.
template <class C>
class SelectedGradientPieces {
  public:
    SelectedGradientPieces(const kernels::Kernels<C>& kernels, const SelectedGradientCall& call,
                           const SelectedSets<C>& sets, const Elements& weight, const Elements& bias) noexcept
        : kernels_(kernels), call_(call), sets_(sets), weight_(weight), bias_(bias) {}

    /// Adds the sums over the elements of a piece that are in a group of the range.
    void add_sums(const Nest& piece, GroupRange range, const SelectedSums& to) noexcept;
    void write_grad_input(const Nest& piece) noexcept;

  private:
    using Rows = RowsAt<const C>;
    /// What is constant along each row or varies with its elements.
    struct Coefficient : Rows {
        bool varies;

        Coefficient from(std::int64_t index) const { return {{Rows::of(index), Rows::row}, varies}; }
    };
    /// x, the gradient of the affine map's result, and its weight, of a tile.
    struct Inputs {
        Rows x, grad_output, gradient;
        Coefficient weight;
    };
    /// Consecutive rows of a tile that share a group.
    struct Run {
        std::int64_t first, rows, group;
    };

    bool is_direct(const Elements& elements, const Loop& inner, Operand operand) const;
    bool needs_buffers(const Loop& inner) const;
    bool writes_in_place(const Loop& inner) const;
    Rows rows_of(const SelectedTile& of, const Elements& elements, Operand operand, C* buffer) const;
    Coefficient parameter(const SelectedTile& of, const Elements& elements, Operand operand, C* buffer) const;
    void gather(const SelectedTile& of, const C* array, C* buffer) const;
    bool constant_and_finite(const SelectedTile& of) const;
    void fetch_ahead(const SelectedTile& of, const Inputs& inputs, const Sums& sums) const;
    Coefficient of_sets(const SelectedTile& of, const Run& run, const C* array, const C* buffer) const;
    Inputs load_inputs(const SelectedTile& of);
    void activate(const SelectedTile& of, const Run& run, const Inputs& inputs, const Coefficient& bias);
    void select(const SelectedTile& of, Inputs& inputs);
    void add(const SelectedTile& of, const Run& run, const Inputs& inputs, const Coefficient& weight, Operand target,
             std::int64_t base, const Sums& sums);
    bool has_short_rows(const Loop& inner) const;
    bool has_short_runs(const SelectedTile& of) const;
    bool share_sets(const SelectedTile& of) const;
    bool fills_rows(const Loop& inner) const;
    bool fill_rows(const SelectedTile& of, Inputs& inputs);
    static bool joins(const SelectedTile& of, const Run& run, const Inputs& inputs, const Coefficient& mean,
                      const Coefficient& weight);
    static void add_short_rows(const kernels::GradientSumsArgs<C>& args, std::int64_t target_row, bool weight_varies);
    void write_together(const SelectedTile& of, const Inputs& inputs);
    void add_joined(kernels::GradientSumsArgs<C> args, int index, bool weight_varies);
    void write_joined(kernels::GradientInputArgs<C> args, int index, bool weight_varies);
    void forget_repeated();
    void add_by_label(const SelectedTile& of, const Run& run, const Inputs& inputs, const Coefficient& weight,
                      const Sums& sums) const;
    void scale_by_sample_weight(const SelectedTile& of);
    kernels::GradientInputArgs<C> input_args(const SelectedTile& of, const Run& run, const Inputs& inputs, C* results,
                                             std::int64_t results_row) const;
    void write_rows(const SelectedTile& of, const Inputs& inputs);
    void write_excluded(const SelectedTile& of, const Run& run);
    void store_selected(const SelectedTile& of, std::int64_t row, const C* grad_output);
    void add_grad_sum(const SelectedTile& of, std::int64_t row, std::int64_t first, C* result, std::int64_t n);

    const kernels::Kernels<C>& kernels_;
    const SelectedGradientCall& call_;
    const SelectedSets<C>& sets_;
    const Elements weight_, bias_;
    bool gathered_ = false;  ///< the coefficients of the sets of this tile are in the buffers
    static constexpr C one_ = 1;
    alignas(64) C x_[tile], grad_output_[tile], gradient_[tile], result_[tile];
    alignas(64) C mean_[tile], mean_lo_[tile], rstd_[tile], slope_[tile], offset_[tile];
    RepeatedRow<C> repeated_mean_, repeated_mean_lo_, repeated_rstd_, repeated_weight_, repeated_slope_,
        repeated_offset_;
    alignas(64) C weights_[tile], biases_[tile], sample_weights_[tile], grad_sum_[tile];
};

}  // namespace anynorm::detail
