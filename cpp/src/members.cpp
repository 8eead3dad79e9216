// SPDX-License-Identifier: Apache-2.0
#include "members.hpp"

#include <algorithm>
#include <utility>

#include "parallel.hpp"

namespace anynorm::detail {
namespace {

/// The loops that fit, with their strides, without any offset.
template <class Fits>
Nest loops_that(const Nest& nest, const Fits& fits) {
    Nest result;
    for (int i = 0; i < nest.depth; ++i) {
        if (fits(nest.loops[i])) result.loops[result.depth++] = nest.loops[i];
    }
    return result;
}

}  // namespace

RowRanges rising_positions(const Selection& selection, const Nest& nest, int threads) {
    if (!selection.labels.given() || selection.where.given()) return {};
    const Nest space = loops_that(nest, is_selected);
    if (space.depth != 1) return {};
    const Loop& loop = space.loops[0];
    return rising_rows(elements_of(selection.labels), nest.offset[op_labels], loop.stride[op_labels], loop.n,
                       selection.num_groups, threads);
}

Members::Members(const Selection& selection, const Nest& nest, RowRanges rising, int threads)
    : groups_(group_count(selection)),
      space_(loops_that(nest, is_selected)),
      family_loops_(loops_that(nest, is_family)),
      mask_(static_cast<const unsigned char*>(selection.where.data)) {
    // The offsets of a nest that runs backwards along labels and masks.
    for (Operand operand : {op_labels, op_where}) space_.offset[operand] = nest.offset[operand];
    families_ = family_loops_.size();
    positions_ = space_.size();
    if (selection.segments.given() && !selection.where.given()) {
        find_ranges(selection);
    } else if (!rising.empty()) {
        table_ = std::move(rising);
        for (std::size_t i = 0; i < table_.size(); i += 2) table_[i + 1] -= table_[i];
    } else if (selection.splits()) {
        sort_labels(selection, threads);
    } else {
        count_ranks(threads);
    }
}

void Members::find_ranges(const Selection& selection) {
    kind_ = Kind::ranges;
    table_.resize(static_cast<std::size_t>(2 * groups_));
    const Segments segments(selection.segments);
    const bool backwards = space_.depth > 0 && space_.loops[0].stride[op_labels] < 0;
    for (std::int64_t group = 0; group < groups_; ++group) {
        const std::int64_t start = segments.start(group), stop = segments.stop(group);
        table_[static_cast<std::size_t>(2 * group)] = backwards ? positions_ - stop : start;
        table_[static_cast<std::size_t>(2 * group + 1)] = stop - start;
    }
}

/// Calls body(position, offset of its label, offset of its mask) for a stretch of positions.
template <class Body>
void Members::each_position(std::int64_t family, std::int64_t first, std::int64_t last, Body&& body) const {
    std::int64_t labels = space_.offset[op_labels] + offset_at(space_, first, op_labels);
    std::int64_t where =
        space_.offset[op_where] + offset_at(family_loops_, family, op_where) + offset_at(space_, first, op_where);
    std::int64_t index[max_rank] = {}, rest = first;
    for (int i = space_.depth - 1; i >= 0; --i) {
        index[i] = rest % space_.loops[i].n;
        rest /= space_.loops[i].n;
    }
    if (space_.depth == 0) {
        if (first < last) body(first, labels, where);
        return;
    }
    const Loop& inner = space_.loops[space_.depth - 1];
    for (std::int64_t position = first; position < last;) {
        const std::int64_t n = std::min(last - position, inner.n - index[space_.depth - 1]);
        for (std::int64_t i = 0; i < n; ++i)
            body(position + i, labels + i * inner.stride[op_labels], where + i * inner.stride[op_where]);
        position += n;
        index[space_.depth - 1] += n - 1;  // the last of them: what follows begins behind it
        labels += (n - 1) * inner.stride[op_labels];
        where += (n - 1) * inner.stride[op_where];
        for (int i = space_.depth - 1; i >= 0; --i) {
            const Loop& loop = space_.loops[i];
            const bool wraps = ++index[i] == loop.n;
            const std::int64_t steps = wraps ? 1 - loop.n : 1;
            labels += steps * loop.stride[op_labels];
            where += steps * loop.stride[op_where];
            if (!wraps) break;
            index[i] = 0;
        }
    }
}

void Members::count_ranks(int threads) {
    kind_ = Kind::ranks;
    const std::int64_t stretches = (positions_ + stretch - 1) / stretch;
    table_.assign(static_cast<std::size_t>(2 * families_), 0);
    if (stretches > 1) before_.assign(static_cast<std::size_t>(families_ * stretches), 0);
    if (families_ * positions_ < labels_of_thread) threads = 1;
    // A piece is a family where there are many of them, else a stretch.
    struct Extent {
        std::int64_t first = -1, last = -1, count = 0;

        void add(const Extent& next) {
            if (next.count == 0) return;
            if (count == 0) first = next.first;
            last = next.last;
            count += next.count;
        }
    };
    const auto extent_of = [&](std::int64_t family, std::int64_t begin, std::int64_t end) {
        Extent extent;
        each_position(family, begin, end, [&](std::int64_t position, std::int64_t, std::int64_t where) {
            if (!is_member(where)) return;
            if (extent.count++ == 0) extent.first = position;
            extent.last = position;
        });
        return extent;
    };
    std::vector<Extent> parts(static_cast<std::size_t>(families_ >= threads ? 0 : stretches));
    const auto finish = [&](std::int64_t family, const auto& part) {
        Extent all;
        for (std::int64_t i = 0; i < stretches; ++i) {
            if (stretches > 1) before_[static_cast<std::size_t>(family * stretches + i)] = all.count;
            all.add(part(i));
        }
        const bool gaps = all.count != all.last - all.first + 1;
        table_[static_cast<std::size_t>(2 * family)] = all.count == 0 || gaps ? -1 : all.first;
        table_[static_cast<std::size_t>(2 * family + 1)] = all.count;
    };
    const auto stretch_of = [&](std::int64_t family, std::int64_t i) {
        return extent_of(family, i * stretch, std::min(positions_, (i + 1) * stretch));
    };
    if (families_ >= threads) {
        for_each_piece(families_, threads, [&](int, std::int64_t family) {
            finish(family, [&](std::int64_t i) { return stretch_of(family, i); });
        });
        return;
    }
    for (std::int64_t family = 0; family < families_; ++family) {
        for_each_piece(stretches, threads,
                       [&](int, std::int64_t i) { parts[static_cast<std::size_t>(i)] = stretch_of(family, i); });
        finish(family, [&](std::int64_t i) { return parts[static_cast<std::size_t>(i)]; });
    }
}

void Members::sort_labels(const Selection& selection, int threads) {
    kind_ = Kind::order;
    table_.assign(static_cast<std::size_t>(families_ * (groups_ + 1)), 0);
    order_.resize(static_cast<std::size_t>(families_ * positions_));
    // Every part of the positions has counts of its own; more parts than threads, or than these pay for, cost memory.
    const bool many_families = families_ >= threads;
    const std::int64_t worthwhile = std::min(positions_ / labels_of_thread, 4 * positions_ / (groups_ + 1));
    const std::int64_t parts = many_families ? 1 : std::clamp<std::int64_t>(worthwhile, 1, threads);
    const std::int64_t at_once = many_families ? std::min<std::int64_t>(families_, threads) : 1;
    std::vector<std::uint32_t> counts(static_cast<std::size_t>(at_once * parts * groups_));

    const auto each_member = [&](std::int64_t family, std::int64_t part, const auto& body) {
        GroupLookup group_of(selection);
        const std::int64_t first = positions_ * part / parts, last = positions_ * (part + 1) / parts;
        each_position(family, first, last, [&](std::int64_t position, std::int64_t label, std::int64_t where) {
            if (!is_member(where)) return;
            const std::int64_t group = group_of(label);
            if (group >= 0) body(position, group);
        });
    };
    const auto sort_family = [&](std::int64_t family, std::uint32_t* count, int workers) {
        std::fill_n(count, parts * groups_, 0);
        for_each_piece(parts, workers, [&](int, std::int64_t part) {
            std::uint32_t* const own = count + part * groups_;
            each_member(family, part, [&](std::int64_t, std::int64_t group) { ++own[group]; });
        });
        std::int64_t* const starts = table_.data() + family * (groups_ + 1);
        std::uint32_t sum = 0;
        for (std::int64_t group = 0; group < groups_; ++group) {
            starts[group] = sum;
            for (std::int64_t part = 0; part < parts; ++part) {
                const std::uint32_t own = count[part * groups_ + group];
                count[part * groups_ + group] = sum;
                sum += own;
            }
        }
        starts[groups_] = sum;
        std::uint32_t* const order = order_.data() + family * positions_;
        for_each_piece(parts, workers, [&](int, std::int64_t part) {
            std::uint32_t* const next = count + part * groups_;
            each_member(family, part, [&](std::int64_t position, std::int64_t group) {
                order[next[group]++] = static_cast<std::uint32_t>(position);
            });
        });
    };
    if (many_families) {
        for_each_piece(families_, threads, [&](int worker, std::int64_t family) {
            sort_family(family, counts.data() + worker * groups_, 1);
        });
    } else {
        for (std::int64_t family = 0; family < families_; ++family) sort_family(family, counts.data(), threads);
    }
}

std::int64_t Members::count(std::int64_t family, std::int64_t group) const noexcept {
    if (kind_ == Kind::order) {
        const std::int64_t* const starts = table_.data() + family * (groups_ + 1);
        return starts[group + 1] - starts[group];
    }
    return table_[static_cast<std::size_t>(2 * (kind_ == Kind::ranges ? group : family) + 1)];
}

std::int64_t Members::first_of_range(std::int64_t family, std::int64_t group) const noexcept {
    if (kind_ != Kind::order) return table_[static_cast<std::size_t>(2 * (kind_ == Kind::ranges ? group : family))];
    const std::int64_t n = count(family, group);
    if (n == 0) return -1;
    const std::uint32_t* const order =
        order_.data() + family * positions_ + table_[static_cast<std::size_t>(family * (groups_ + 1) + group)];
    return order[n - 1] - order[0] == static_cast<std::uint32_t>(n - 1) ? static_cast<std::int64_t>(order[0]) : -1;
}

std::int64_t Members::offset_of(std::int64_t position, Operand operand) const noexcept {
    if (space_.depth == 1) return position * space_.loops[0].stride[operand];
    return offset_at(space_, position, operand);
}

void Members::offsets(std::int64_t family, std::int64_t group, std::int64_t first, std::int64_t count, Operand operand,
                      std::int64_t* out, std::int64_t& position) const noexcept {
    if (kind_ == Kind::order) {
        const std::uint32_t* const order = order_.data() + family * positions_ +
                                           table_[static_cast<std::size_t>(family * (groups_ + 1) + group)] + first;
        if (space_.depth == 1) {
            const std::int64_t stride = space_.loops[0].stride[operand];
            for (std::int64_t i = 0; i < count; ++i) out[i] = static_cast<std::int64_t>(order[i]) * stride;
        } else {
            for (std::int64_t i = 0; i < count; ++i) out[i] = offset_of(order[i], operand);
        }
        return;
    }
    const std::int64_t begin = first_of_range(family, group);
    if (begin >= 0) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = offset_of(begin + first + i, operand);
        return;
    }
    std::int64_t skip = 0;
    if (position < 0) {
        position = 0;
        skip = first;
        if (!before_.empty()) {
            const std::int64_t stretches = (positions_ + stretch - 1) / stretch;
            const std::int64_t* const before = before_.data() + family * stretches;
            const std::int64_t at = std::upper_bound(before, before + stretches, first) - before - 1;
            skip -= before[at];
            position = at * stretch;
        }
    }
    if (space_.depth == 1) return count_out(family, skip, count, operand, out, position);
    // Stretch by stretch, so that little is looked at behind the last member asked for.
    for (std::int64_t from = position, left = count; left > 0 && from < positions_; from += stretch) {
        each_position(family, from, std::min(positions_, from + stretch),
                      [&](std::int64_t at, std::int64_t, std::int64_t where) {
                          if (left == 0 || !is_member(where)) return;
                          if (skip > 0) {
                              --skip;
                              return;
                          }
                          *out++ = offset_of(at, operand);
                          if (--left == 0) position = at + 1;
                      });
    }
}

/// Along one loop, without a branch that masks would make hard to predict.
void Members::count_out(std::int64_t family, std::int64_t skip, std::int64_t count, Operand operand, std::int64_t* out,
                        std::int64_t& position) const noexcept {
    const Loop& loop = space_.loops[0];
    const std::int64_t step = loop.stride[op_where], stride = loop.stride[operand];
    const unsigned char* const mask = mask_ + space_.offset[op_where] + offset_at(family_loops_, family, op_where);
    std::int64_t at = position;
    for (; skip > 0; ++at) skip -= mask[at * step] != 0 ? 1 : 0;
    for (const std::int64_t* const end = out + count; out != end; ++at) {
        *out = at * stride;
        out += mask[at * step] != 0 ? 1 : 0;
    }
    position = at;
}

}  // namespace anynorm::detail
