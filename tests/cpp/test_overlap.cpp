// SPDX-License-Identifier: Apache-2.0
// Shared memory: exact for the layouts of practical use, against a brute-force list of bytes.
#include "overlap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <sstream>
#include <string>
#include <vector>

#include "support.hpp"
#include "tensor.hpp"

namespace anynorm::test {
namespace {

using detail::overlaps;
using detail::overlaps_itself;
using detail::same_view;

constexpr std::int64_t memory_size = 4096;
alignas(8) std::byte memory[memory_size];

/// A view at a byte of the memory, with strides in elements.
TensorView view_at(std::int64_t byte, DType dtype, const Shape& shape, const std::vector<std::int64_t>& strides) {
    TensorView result = view(static_cast<float*>(nullptr), std::span<const std::int64_t>(shape), strides);
    result.data = memory + byte;
    result.dtype = dtype;
    return result;
}

TensorView floats(std::int64_t first, const Shape& shape, const std::vector<std::int64_t>& strides) {
    return view_at(4 * first, DType::f32, shape, strides);
}

/// How many elements lie on every byte of the memory.
std::vector<int> touched(const TensorView& view) {
    std::vector<int> bytes(static_cast<std::size_t>(memory_size), 0);
    const std::int64_t first = static_cast<const std::byte*>(view.data) - memory;
    const auto size = static_cast<std::int64_t>(size_of(view.dtype));
    for (std::int64_t index = 0; index < view.size(); ++index) {
        std::int64_t rest = index, offset = 0;
        for (int axis = view.rank; axis-- > 0;) {
            offset += rest % view.shape[axis] * view.strides[axis];
            rest /= view.shape[axis];
        }
        for (std::int64_t byte = 0; byte < size; ++byte) ++at(bytes, first + offset * size + byte);
    }
    return bytes;
}

bool share_bytes(const TensorView& a, const TensorView& b) {
    const std::vector<int> a_bytes = touched(a), b_bytes = touched(b);
    for (std::size_t i = 0; i < a_bytes.size(); ++i) {
        if (a_bytes[i] > 0 && b_bytes[i] > 0) return true;
    }
    return false;
}

bool reaches_twice(const TensorView& view) {
    const std::vector<int> bytes = touched(view);
    return *std::max_element(bytes.begin(), bytes.end()) > 1;
}

std::string text_of(const TensorView& view) {
    std::ostringstream text;
    text << name(view.dtype) << " at " << static_cast<const std::byte*>(view.data) - memory << ":";
    for (int axis = 0; axis < view.rank; ++axis) text << " " << view.shape[axis] << ":" << view.strides[axis];
    return text.str();
}

/// Up to three axes of up to five elements, strides from -12 to 12, anywhere near the middle of the memory.
TensorView random_view(Random& random) {
    const std::int64_t rank = random.below(4);
    Shape shape;
    std::vector<std::int64_t> strides;
    for (std::int64_t axis = 0; axis < rank; ++axis) {
        shape.push_back(1 + random.below(5));
        strides.push_back(random.below(25) - 12);
    }
    const DType dtype = random.below(2) == 0 ? DType::f32 : DType::f64;
    return view_at(memory_size / 2 + 4 * random.below(60), dtype, shape, strides);
}

TEST(Overlap, RandomViewsAgreeWithBruteForce) {
    Random random(5);
    int overlapping = 0;
    for (int round = 0; round < 400; ++round) {
        const TensorView a = random_view(random), b = random_view(random);
        const bool expected = share_bytes(a, b);
        EXPECT_EQ(overlaps(a, b), expected) << text_of(a) << " and " << text_of(b);
        EXPECT_EQ(overlaps(b, a), expected) << text_of(b) << " and " << text_of(a);
        overlapping += expected ? 1 : 0;
    }
    EXPECT_GT(overlapping, 50);
    EXPECT_LT(overlapping, 350);
}

TEST(Overlap, InterleavedChannels) {
    const TensorView even = floats(0, {10}, {2}), odd = floats(1, {10}, {2});
    EXPECT_FALSE(overlaps(even, odd));
    EXPECT_TRUE(overlaps(even, floats(2, {10}, {2})));
    const TensorView red = floats(0, {4, 5}, {15, 3}), green = floats(1, {4, 5}, {15, 3});
    EXPECT_FALSE(overlaps(red, green));
    EXPECT_FALSE(overlaps(green, red));
}

TEST(Overlap, HalvesOfABuffer) {
    EXPECT_FALSE(overlaps(floats(0, {10}, {1}), floats(10, {10}, {1})));
    EXPECT_TRUE(overlaps(floats(0, {11}, {1}), floats(10, {10}, {1})));
    EXPECT_FALSE(overlaps(floats(0, {4, 5}, {10, 1}), floats(5, {4, 5}, {10, 1})));  // left and right
    EXPECT_TRUE(overlaps(floats(0, {4, 6}, {10, 1}), floats(5, {4, 5}, {10, 1})));
    EXPECT_FALSE(overlaps(floats(19, {10}, {-1}), floats(9, {10}, {-1})));
}

TEST(Overlap, LargeViewsOfPracticalUseAreExact) {
    // Channel slices of a batch of images, and columns of a matrix: the search must not give up. Geometry only: the
    // addresses are of no memory.
    const auto address = [](std::uintptr_t byte) { return reinterpret_cast<float*>((std::uintptr_t{1} << 30) + byte); };
    const TensorView image = view(address(0), {64, 3, 224, 224}, {200704, 50176, 224, 1});
    TensorView rest = image;
    rest.data = address(std::uintptr_t{4} * 3 * 50176);
    rest.shape[1] = 1;
    EXPECT_FALSE(overlaps(image, rest));
    const TensorView column = view(address(0), {100000, 1}, {1000, 1});
    TensorView others = column;
    others.data = address(4);
    others.shape[1] = 999;
    EXPECT_FALSE(overlaps(column, others));
    others.shape[1] = 1000;
    EXPECT_TRUE(overlaps(column, others));
    const TensorView channels_last = view(address(0), {64, 32, 112, 112}, {802816, 1, 7168, 64});
    TensorView upper = channels_last;
    upper.data = address(4 * 32);
    EXPECT_FALSE(overlaps(channels_last, upper));
}

TEST(Overlap, ElementsOfDifferentSizes) {
    const TensorView wide = view_at(64, DType::f64, {4}, {2});  // bytes 64-71, 80-87, ...
    EXPECT_TRUE(overlaps(wide, view_at(68, DType::f32, {1}, {1})));
    EXPECT_FALSE(overlaps(wide, view_at(72, DType::f32, {1}, {1})));
    EXPECT_FALSE(overlaps(wide, view_at(72, DType::f32, {4}, {4})));
    EXPECT_FALSE(overlaps(wide, view_at(60, DType::f32, {1}, {1})));
}

TEST(Overlap, NothingSharesNothing) {
    const TensorView x = floats(0, {10}, {1});
    EXPECT_FALSE(overlaps(x, {}));
    EXPECT_FALSE(overlaps({}, x));
    EXPECT_FALSE(overlaps(x, floats(0, {0}, {1})));
    EXPECT_FALSE(overlaps(floats(0, {3, 0}, {1, 1}), x));
}

TEST(SameView, SameElementsInTheSameOrder) {
    const TensorView x = floats(0, {2, 3}, {3, 1});
    EXPECT_TRUE(same_view(x, floats(0, {2, 3}, {3, 1})));
    EXPECT_FALSE(same_view(x, floats(1, {2, 3}, {3, 1})));
    EXPECT_FALSE(same_view(x, floats(0, {2, 3}, {1, 2})));
    EXPECT_FALSE(same_view(x, floats(0, {3, 2}, {3, 1})));
    EXPECT_FALSE(same_view(x, floats(0, {6}, {1})));
    EXPECT_FALSE(same_view(x, view_at(0, DType::f64, {2, 3}, {3, 1})));
    // The stride of an axis of length 1 says nothing.
    EXPECT_TRUE(same_view(floats(0, {1, 3}, {3, 1}), floats(0, {1, 3}, {99, 1})));
}

TEST(OverlapsItself, Layouts) {
    EXPECT_FALSE(overlaps_itself({}));
    EXPECT_FALSE(overlaps_itself(floats(0, {}, {})));
    EXPECT_FALSE(overlaps_itself(floats(0, {2, 3}, {3, 1})));
    EXPECT_FALSE(overlaps_itself(floats(9, {2, 3}, {-3, 1})));
    EXPECT_FALSE(overlaps_itself(floats(0, {2, 3}, {7, 2})));
    EXPECT_FALSE(overlaps_itself(floats(0, {1, 3}, {0, 1})));
    EXPECT_FALSE(overlaps_itself(floats(0, {0, 3}, {0, 0})));
    EXPECT_TRUE(overlaps_itself(floats(0, {2, 3}, {0, 1})));  // broadcast
    EXPECT_TRUE(overlaps_itself(floats(0, {4, 3}, {1, 1})));  // sliding window
    EXPECT_TRUE(overlaps_itself(floats(9, {4, 3}, {-2, 1})));
    for (const Layout& layout : layouts()) {
        EXPECT_FALSE(overlaps_itself(Tensor<float>({2, 3, 4, 5}, layout).view())) << layout.name;
    }
}

TEST(OverlapsItself, NeverMissesOne) {
    Random random(6);
    int overlapping = 0, apart = 0;
    for (int round = 0; round < 400; ++round) {
        const TensorView view = random_view(random);
        const bool expected = reaches_twice(view);
        // It may be too careful, but not with one axis.
        if (expected || view.rank < 2) {
            EXPECT_EQ(overlaps_itself(view), expected) << text_of(view);
        }
        (expected ? overlapping : apart) += 1;
    }
    EXPECT_GT(overlapping, 50);
    EXPECT_GT(apart, 50);
}

}  // namespace
}  // namespace anynorm::test
