// SPDX-License-Identifier: Apache-2.0
// The gradient of an activation's argument, a tile at a time: what the kernels of a backward call then take for
// grad_output.
#pragma once

#include <type_traits>

#include "activations.hpp"
#include "apply.hpp"
#include "gradients.hpp"
#include "tiles.hpp"

namespace anynorm::detail {

/// A is the compute type where there is an activation.
template <class A>
class Activated {
  public:
    using C = kernels::Compute<A>;

    Activated(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
              const CoefficientsOf<A>& statistics)
        : kernels_(kernels),
          call_(call),
          weight_(weight),
          bias_(call.bias.given() ? call.bias : Elements{const_cast<C*>(&zero), stored_as<C>()}),
          statistics_(statistics) {}

    bool given() const { return call_.activation != Activation::none; }
    /// What varies beside the operands of a kernel.
    OperandSet operands() const { return given() ? operand_set(op_cell, op_weight, op_bias) : 0; }

    /// After those of the kernel.
    void add_coefficients(Tiles<A>& tiles) const {
        if (!given()) return;
        for (C* coefficient : {statistics_.mean, statistics_.mean_lo, statistics_.rstd}) {
            tiles.add_coefficient({coefficient, stored_as<C>()}, op_cell);
        }
        tiles.add_coefficient(weight_, op_weight);
        tiles.add_coefficient(bias_, op_bias);
        tiles.limit_to_rows();
    }

    /// Calls body for all tiles, whose second input is grad_output.
    template <class Body>
    void for_each(Tiles<A>& tiles, Body&& body) const {
        if constexpr (std::is_same_v<A, C>) {
            if (given()) {
                alignas(64) C results[tile], gradients[tile];
                const int first = tiles.coefficients() - count;
                const auto affine = kernels_.affine[kernels::affine_index(
                    tiles.varies(op_cell), tiles.varies(op_weight), tiles.varies(op_bias))];
                tiles.for_each([&](Tile<A>& of) {
                    const C* const* const coefficient = of.coefficient + first;
                    affine({of.rows, of.n, of.input[0], results, coefficient[0], coefficient[1], coefficient[2],
                            coefficient[3], coefficient[4], 0, 0, 0, 0, 0, false});
                    activation_gradient(*call_.table, call_.activation, gradients, of.input[1], results, of.n);
                    of.input[1] = gradients;
                    body(of);
                });
                return;
            }
        }
        tiles.for_each(body);
    }

  private:
    static constexpr int count = 5;
    static constexpr C zero = 0;

    const kernels::Kernels<A>& kernels_;
    const GradientCall& call_;
    Elements weight_, bias_;
    const CoefficientsOf<A>& statistics_;
};

}  // namespace anynorm::detail
