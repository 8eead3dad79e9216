// SPDX-License-Identifier: Apache-2.0
#include "selected_partition.hpp"

#include <algorithm>

#include "gradient_sums.hpp"

namespace anynorm::detail {
namespace {

// x and grad_output of a piece, and grad_input where it is written at once, stay in an L2 of 512 KB.
constexpr std::int64_t piece_elements = 16 * 1024;
constexpr std::int64_t strip_elements = 64 * 1024;
// As many keep the threads of a desktop busy.
constexpr std::int64_t enough_parts = 8;
// Partial sums that stay in the last cache.
constexpr std::int64_t partial_bytes = 4 * 1024 * 1024;
// Each range of groups reads all labels, or its own segments alone.
constexpr std::int64_t label_ranges = 8, segment_ranges = 64;

Nest all_kept(const Nest& nest) {
    Nest result = nest;
    for (int i = 0; i < nest.depth; ++i) result.loops[i].reduced = false;
    return result;
}

SelectedPass strips_of(const Nest& cut_nest, std::int64_t elements) {
    SelectedPass pass;
    pass.cut_nest = cut_nest;
    pass.cut = cut_kept(cut_nest, elements);
    pass.pieces = pass.parts = pass.cut.pieces;
    return pass;
}

SelectedPass ranges_of(const PartitionRequest& request) {
    SelectedPass pass;
    pass.by_groups = true;
    pass.pieces = std::min(request.groups, request.selection.labels.given() ? label_ranges : segment_ranges);
    pass.parts = pass.pieces;
    return pass;
}

std::int64_t room_for(std::int64_t size) {
    const std::int64_t bytes = size * 2 * static_cast<std::int64_t>(sizeof(double));
    return std::clamp<std::int64_t>(partial_bytes / std::max<std::int64_t>(1, bytes), 1, max_groups);
}

/// Adds a pass for one target alone.
void add_pass(SelectedPartition& partition, const SelectedPass& of, int target) {
    SelectedPass& pass = partition.passes[partition.pass_count++];
    pass = of;
    pass.sums[target] = true;
}

}  // namespace

SelectedPiece SelectedPass::piece(const Nest& nest, const Selection& selection, std::int64_t groups,
                                  std::int64_t index) const {
    if (!by_groups) {
        SelectedPiece piece{piece_of(cut_nest, cut, index), {0, groups}};
        for (int i = 0; i < nest.depth; ++i) piece.nest.loops[i].reduced = nest.loops[i].reduced;
        return piece;
    }
    SelectedPiece piece{nest, {groups * index / pieces, groups * (index + 1) / pieces}};
    if (selection.segments.given()) {
        const Segments segments(selection.segments);
        restrict_rows(piece.nest, segments.start(piece.range.first), segments.stop(piece.range.last - 1));
    }
    return piece;
}

SelectedPass pass_of_elements(const Nest& nest) noexcept {
    SelectedPass pass = strips_of(all_kept(nest), piece_elements);
    return pass;
}

SelectedPartition make_partition(const PartitionRequest& request) noexcept {
    SelectedPartition result;
    const Nest& nest = request.nest;
    const SelectedPass elements = pass_of_elements(nest);
    const auto fits = [&](std::int64_t size, std::int64_t pieces) {
        return room_for(size) >= std::min(enough_parts, pieces);
    };
    // The sets: pieces that have all their elements, or partial sums, or ranges of groups.
    SelectedPass first = elements;
    bool exclusive = false;
    if (request.sets > 0) {
        const SelectedPass strips = strips_of(nest, piece_elements);
        const bool many_strips = strips.pieces >= std::min(enough_parts, elements.pieces);
        const bool ranges = request.groups >= enough_parts && !fits(request.sets, elements.pieces);
        if (many_strips || (!ranges && strips.pieces >= room_for(request.sets))) {
            first = strips;
            result.whole_sets = exclusive = true;
        } else if (ranges) {
            first = ranges_of(request);
            exclusive = true;
        }
        first.sums[0] = true;
    }
    // Parameters of few elements come along, as partial sums of the same parts.
    std::int64_t parts = first.pieces;
    const auto ask_for = [&](std::int64_t size) {
        parts = std::clamp<std::int64_t>(std::min(room_for(size), worthwhile_groups(size, nest.size())), 1, parts);
    };
    if (request.sets > 0 && !exclusive) ask_for(request.sets);
    for (int i = 0; i < 2; ++i) {
        first.sums[i + 1] = request.parameters[i] > 0 && fits(request.parameters[i], first.pieces);
        if (first.sums[i + 1]) ask_for(request.parameters[i]);
    }
    first.parts = parts;
    for (int i = 0; i < 3; ++i) result.partials[i] = first.sums[i] && !(i == 0 && exclusive) ? parts : 1;
    if (first.sums[0] || first.sums[1] || first.sums[2]) result.passes[result.pass_count++] = first;
    // Others have a pass of their own, in strips that share none of their elements.
    for (int i = 0; i < 2; ++i) {
        if (request.parameters[i] == 0 || first.sums[i + 1]) continue;
        add_pass(result, strips_of(grouped_by(nest, i == 0 ? op_grad_weight : op_grad_bias), strip_elements), i + 1);
    }
    return result;
}

}  // namespace anynorm::detail
