// SPDX-License-Identifier: Apache-2.0
// What the kernels of a backward call do with one piece.
#pragma once

#include "activated.hpp"
#include "apply.hpp"
#include "gradient_sums.hpp"
#include "gradients.hpp"
#include "layout.hpp"

namespace anynorm::detail {

/// Mean, slope, offset and scale of the sets of a piece, in its order.
template <class C>
struct Slopes {
    C *mean, *slope, *offset, *scale;
};
template <class A>
using SlopesOf = Slopes<kernels::Compute<A>>;

/// Slope, offset and scale of every set of a piece from its sums. `weight` is given where it is constant in each.
template <class C>
void make_slopes(const GradientCall& call, const Elements& weight, const Nest& piece, const kernels::Cell* cells,
                 double elements_of_set, const Sums& sums, const C* mean_lo, const Slopes<C>& out) noexcept;

/// Adds the sums of a piece to those of a target, of grad_output times `weight` where that is given. A kernel that can
/// writes what is in the queue `beside` meanwhile.
template <class A>
void add_gradient_sums(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                       const Nest& piece, Operand target, const CoefficientsOf<A>& statistics,
                       const Activated<A>& activated, const Sums& sums,
                       kernels::GradientInputQueue<A>* beside = nullptr) noexcept;

/// Writes the grad_input of a piece. `weight` is given where it varies within the sets; elsewhere the scale holds it.
template <class A>
void write_grad_input(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                      const Nest& piece, const SlopesOf<A>& sets, const Activated<A>& activated, bool stream) noexcept;

/// Leaves that to a queue, from which it is streamed beside the sums of another piece, if it can be: it is one call of
/// a kernel, and what that writes is whole lines of the cache.
template <class A>
bool queue_grad_input(const GradientCall& call, const Elements& weight, const Nest& piece, const SlopesOf<A>& sets,
                      kernels::GradientInputQueue<A>& queue) noexcept;

/// Sums and grad_input of every set of a piece, each a row of x, grad_output and grad_input that the kernel can take as
/// it lies. The sums go to `sets`, in the order of the piece, where that is given; where `parameters` is, the gradients
/// of the elements of a row are added to it. `weight` is that of the call in the compute type.
template <class A>
void gradient_rows(const kernels::Kernels<A>& kernels, const GradientCall& call, const Elements& weight,
                   const Nest& piece, const kernels::Cell* cells, bool stream, const Sums& sets,
                   const Sums& parameters) noexcept;

}  // namespace anynorm::detail
