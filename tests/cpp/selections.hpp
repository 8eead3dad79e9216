// SPDX-License-Identifier: Apache-2.0
// Selections of every kind over an array of any shape, and which set each element is in by them.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "anynorm/grouping.hpp"
#include "oracle.hpp"
#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {

/// What a test selects by; the views lie along `reduce`, or everywhere for an `elementwise` mask or weight.
struct SelectionKind {
    const char* name;
    bool labels = false, sorted = false, segments = false, pairs = false, where = false, weights = false;
    bool elementwise = false;
    bool everything_out = false;  ///< the mask excludes all

    friend void PrintTo(const SelectionKind& self, std::ostream* out) { *out << self.name; }
};

inline const std::vector<SelectionKind>& selection_kinds() {
    static const std::vector<SelectionKind> kinds = {
        {.name = "labels", .labels = true},
        {.name = "sorted_labels", .labels = true, .sorted = true},
        {.name = "segments", .segments = true},
        {.name = "segments_with_holes", .segments = true, .pairs = true},
        {.name = "mask", .where = true},
        {.name = "mask_of_elements", .where = true, .elementwise = true},
        {.name = "mask_of_nothing", .where = true, .everything_out = true},
        {.name = "weights", .weights = true},
        {.name = "weights_of_elements", .weights = true, .elementwise = true},
        {.name = "labels_and_mask", .labels = true, .where = true},
        {.name = "labels_and_mask_of_elements", .labels = true, .where = true, .elementwise = true},
        {.name = "segments_and_mask", .segments = true, .where = true},
        {.name = "labels_and_weights", .labels = true, .weights = true},
        {.name = "segments_and_weights_of_elements", .segments = true, .weights = true, .elementwise = true},
        {.name = "mask_and_weights", .where = true, .weights = true},
    };
    return kinds;
}

/// The arrays of a selection, and the set of each element in C order: group * kept sets + the number of the kept
/// index, or -1.
class SelectionCase {
  public:
    SelectionCase(const SelectionKind& kind, const Shape& shape, const std::vector<int>& reduce, std::uint64_t seed) {
        Random random(seed);
        const Numbering kept = sets_of(shape, reduce), along = number_along(shape, reduce);
        kept_ = kept.count;
        // Views over the reduced axes have length 1 elsewhere; views over all elements are those of x.
        Shape over_reduced(shape.size(), 1);
        for (int axis : reduce) at(over_reduced, axis) = at(shape, axis);
        const Shape& over = kind.elementwise ? shape : over_reduced;
        const std::int64_t positions = along.count, extent = size_of(over);
        const std::size_t size = static_cast<std::size_t>(size_of(shape));
        std::vector<std::int64_t> group(size, 0);

        if (kind.labels) {
            selection.num_groups = 5;  // of which 3 has no members
            for (std::int64_t i = 0; i < positions; ++i) {
                const std::int64_t any = kind.sorted ? i * 6 / positions - 1 : random.below(6) - 1;
                labels_.push_back(any == 3 ? 2 : any);
            }
            selection.labels = view(labels_.data(), std::span<const std::int64_t>(over_reduced));
            for (std::size_t i = 0; i < size; ++i) group[i] = at(labels_, along.of[i]);
        }
        if (kind.segments) {
            const std::int64_t n = shape[0];
            offsets_ = kind.pairs ? std::vector<std::int32_t>{0,
                                                              static_cast<std::int32_t>(n / 4),
                                                              static_cast<std::int32_t>(n / 3),
                                                              static_cast<std::int32_t>(n / 3),
                                                              static_cast<std::int32_t>(n / 2),
                                                              static_cast<std::int32_t>(n)}
                                  : std::vector<std::int32_t>{
                                        static_cast<std::int32_t>(n / 8), static_cast<std::int32_t>(n / 2),
                                        static_cast<std::int32_t>(n / 2), static_cast<std::int32_t>(n - n / 8)};
            selection.segments = kind.pairs ? view(offsets_.data(), {3, 2}) : view(offsets_.data(), {4});
            const std::vector<int> first_axis = {0};
            const Numbering rows = number_along(shape, first_axis);
            for (std::size_t i = 0; i < size; ++i) {
                group[i] = -1;
                for (int segment = 0; segment < 3; ++segment) {
                    const int start = kind.pairs ? 2 * segment : segment;
                    const std::int64_t row = rows.of[i];
                    if (row >= at(offsets_, start) && row < at(offsets_, start + 1)) group[i] = segment;
                }
            }
        }
        const auto place = [&](std::size_t i) { return kind.elementwise ? static_cast<std::int64_t>(i) : along.of[i]; };
        if (kind.where) {
            mask_ = std::make_unique<bool[]>(static_cast<std::size_t>(extent));
            for (std::int64_t i = 0; i < extent; ++i)
                mask_[static_cast<std::size_t>(i)] = !kind.everything_out && random.below(3) != 0;
            selection.where = view(mask_.get(), std::span<const std::int64_t>(over));
            for (std::size_t i = 0; i < size; ++i)
                if (!mask_[static_cast<std::size_t>(place(i))]) group[i] = -1;
        }
        weight.assign(size, 1.0);
        if (kind.weights) {
            for (std::int64_t i = 0; i < extent; ++i)
                weights_.push_back(random.below(5) == 0 ? 0 : random.uniform(0.25, 3));
            selection.sample_weight = view(weights_.data(), std::span<const std::int64_t>(over));
            for (std::size_t i = 0; i < size; ++i) weight[i] = at(weights_, place(i));
        }
        groups = kind.labels ? 5 : kind.segments ? 3 : 1;
        sets.count = groups * kept.count;
        for (std::size_t i = 0; i < size; ++i) sets.of.push_back(group[i] < 0 ? -1 : group[i] * kept_ + kept.of[i]);
    }

    Selection selection;
    std::int64_t groups = 1;
    Numbering sets;
    std::vector<double> weight;  ///< of every element

    /// The shape of the moments.
    Shape moments_shape() const { return selection.splits() ? Shape{groups, kept_} : Shape{kept_}; }

  private:
    std::int64_t kept_ = 1;
    std::vector<std::int64_t> labels_;
    std::vector<std::int32_t> offsets_;
    std::unique_ptr<bool[]> mask_;
    std::vector<double> weights_;
};

/// The moments of selected, weighted sets.
template <class T>
std::vector<ExactMoments> exact_moments(const std::vector<T>& x, const SelectionCase& of, bool center = true) {
    std::vector<ExactMoments> result(static_cast<std::size_t>(of.sets.count));
    const auto each = [&](const auto& body) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            if (of.sets.of[i] >= 0 && of.weight[i] > 0)
                body(at(result, of.sets.of[i]), static_cast<long double>(of.weight[i]), static_cast<long double>(x[i]));
        }
    };
    each([&](ExactMoments& set, long double w, long double value) {
        set.count += w;
        if (center) set.mean += w * value;
    });
    for (ExactMoments& set : result) set.mean /= set.count;
    each([](ExactMoments& set, long double w, long double value) {
        set.m2 += w * (value - set.mean) * (value - set.mean);
    });
    return result;
}

inline Axes axes_of(const std::vector<int>& reduce) { return Axes(std::span<const int>(reduce)); }

/// What a call for the elements alone gives.
inline Moments moments_of(const std::vector<float>& elements) {
    Moments result;
    moments(view(elements.data(), {length(elements)}), {{0}},
            {view(&result.count, {}), view(&result.mean, {}), view(&result.m2, {})});
    return result;
}

inline void expect_same(const Moments& actual, const Moments& expected, const char* what) {
    EXPECT_EQ(bits(actual.count), bits(expected.count)) << what;
    EXPECT_EQ(bits(actual.mean), bits(expected.mean)) << what;
    EXPECT_EQ(bits(actual.m2), bits(expected.m2)) << what;
}

inline std::vector<float> random_values(std::int64_t n, double mean = 100) {
    std::vector<float> x(static_cast<std::size_t>(n));
    Random random(3);
    for (float& value : x) value = static_cast<float>(mean + random.unit());
    return x;
}

struct ThreeArrays {
    std::vector<double> count, mean, m2;
    Shape shape;

    explicit ThreeArrays(const Shape& of) : count(numbers(size_of(of))), mean(count), m2(count), shape(of) {}
    MomentsView view() {
        const std::span<const std::int64_t> lengths(shape);
        return {anynorm::view(count.data(), lengths), anynorm::view(mean.data(), lengths),
                anynorm::view(m2.data(), lengths)};
    }
    Moments operator[](std::int64_t i) const { return {at(count, i), at(mean, i), at(m2, i)}; }
    bool operator==(const ThreeArrays& other) const {
        return different_bits(count, other.count) == 0 && different_bits(mean, other.mean) == 0 &&
               different_bits(m2, other.m2) == 0;
    }
};

}  // namespace anynorm::test
