// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "gradients.hpp"

namespace anynorm::detail {
namespace {

// The shape is cut as for so many threads, whatever their number: sums have the same order for any of them.
constexpr int planned_threads = 4;
// Rows are summed four abreast, beside the results of the four before. Of 8 rows to a piece a quarter would be
// alone, 53 cycles for 16 elements against 43.
constexpr std::int64_t rows_of_piece = 64;
// Half of a L2 of 2 MB, since a piece is read twice: batch norm of 56x56 planes takes 0.87 of the time that it takes in
// pieces of all of it. The kernels read the planes of a set ahead across the gaps between them.
constexpr std::int64_t wide_piece_bytes = 1024 * 1024;
// Two of them fit a L2 of 1 MB, and one has 50 us of memory's time against the 2 us between it and the next: groups of
// 8 planes of 32x64 take 0.89 of the time that they take in pieces of one, even where L2 is half as large.
constexpr std::int64_t planes_piece_bytes = 512 * 1024;
// Two arrays, of which a whole piece and its results take 0.6 to 0.8 of the time of two passes over all of them: group
// norm of 64x64x256 with the channels last, 8 MB, and of 128x128x128, 16 MB.
constexpr std::int64_t cached_bytes = 16 * 1024 * 1024;

}  // namespace

Plan make_gradient_plan(const Nest& nest, const GradientCall& call, int threads) noexcept {
    PlanRequest request;
    request.element_bytes = static_cast<std::int64_t>(size_of(call.x.dtype) + size_of(call.grad_output.dtype));
    request.threads = planned_threads;
    request.rows_of_piece = rows_of_piece;
    request.wide_piece_bytes = wide_piece_bytes;
    request.planes_piece_bytes = planes_piece_bytes;
    request.cached_bytes = cached_bytes;
    Plan plan = make_plan(nest, request);
    plan.threads = plan.threads == 1 ? 1 : threads;
    return plan;
}

}  // namespace anynorm::detail
