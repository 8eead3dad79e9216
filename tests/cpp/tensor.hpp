// SPDX-License-Identifier: Apache-2.0
// An array in any memory layout whose elements are named by their place in C order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "anynorm/tensor_view.hpp"
#include "support.hpp"

namespace anynorm::test {

using Shape = std::vector<std::int64_t>;

inline std::int64_t size_of(const Shape& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

/// How the axes lie in memory.
struct Layout {
    enum class Order : std::uint8_t { c, fortran, channels_last, first_two_swapped };

    const char* name = "c";
    Order order = Order::c;
    std::int64_t step = 1;  ///< between elements of the fastest axis
    std::int64_t gap = 0;   ///< after every run of the fastest axis
    bool reversed = false;  ///< all strides negative

    friend void PrintTo(const Layout& self, std::ostream* out) { *out << self.name; }

    /// The axes from the slowest to the fastest.
    std::vector<int> axes(int rank) const {
        std::vector<int> result(static_cast<std::size_t>(rank));
        std::iota(result.begin(), result.end(), 0);
        if (order == Order::fortran) std::reverse(result.begin(), result.end());
        if (order == Order::channels_last && rank > 2)
            std::rotate(result.begin() + 1, result.begin() + 2, result.end());
        if (order == Order::first_two_swapped && rank > 1) std::swap(result[0], result[1]);
        return result;
    }
};

inline const std::vector<Layout>& layouts() {
    static const std::vector<Layout> result = {
        {.name = "c"},
        {.name = "channels_last", .order = Layout::Order::channels_last},
        {.name = "fortran", .order = Layout::Order::fortran},
        {.name = "swapped", .order = Layout::Order::first_two_swapped},
        {.name = "strided", .step = 3},
        {.name = "padded", .gap = 5},
        {.name = "reversed", .reversed = true},
        {.name = "channels_last_padded_reversed", .order = Layout::Order::channels_last, .gap = 3, .reversed = true},
    };
    return result;
}

/// Strides, where element 0 is, and how much memory it takes.
struct Placement {
    std::vector<std::int64_t> strides;
    std::int64_t first = 0, extent = 1;
};

inline Placement place(const Shape& shape, const Layout& layout) {
    Placement result;
    result.strides.resize(shape.size());
    const std::vector<int> axes = layout.axes(static_cast<int>(shape.size()));
    std::int64_t step = layout.step;
    for (std::size_t i = axes.size(); i-- > 0;) {
        const std::int64_t n = at(shape, axes[i]);
        at(result.strides, axes[i]) = layout.reversed ? -step : step;
        if (layout.reversed && n > 0) result.first += step * (n - 1);
        step *= n;
        if (i + 1 == axes.size()) step += layout.gap;
    }
    result.extent = std::max<std::int64_t>(step, 1);
    return result;
}

template <class T>
class Tensor {
  public:
    explicit Tensor(const Shape& shape, const Layout& layout = {})
        : shape_(shape),
          placement_(place(shape, layout)),
          memory_(static_cast<std::size_t>(placement_.extent), canary) {}

    std::int64_t size() const { return size_of(shape_); }
    const Shape& shape() const { return shape_; }
    TensorView view() {
        return anynorm::view(memory_.data() + placement_.first, std::span<const std::int64_t>(shape_),
                             placement_.strides);
    }

    /// The element at a place in C order.
    T& operator[](std::int64_t index) { return memory_[offset(index)]; }

    template <class Value>
    Tensor& fill(Value&& value) {
        for (std::int64_t i = 0; i < size(); ++i) (*this)[i] = static_cast<T>(value(i));
        return *this;
    }

    std::vector<T> values() {
        std::vector<T> result;
        for (std::int64_t i = 0; i < size(); ++i) result.push_back((*this)[i]);
        return result;
    }

    /// Elements of the memory that are not of the array, and have changed.
    std::int64_t changed_gaps() {
        std::vector<bool> own(memory_.size(), false);
        for (std::int64_t i = 0; i < size(); ++i) own[offset(i)] = true;
        std::int64_t changed = 0;
        for (std::size_t i = 0; i < memory_.size(); ++i) changed += !own[i] && memory_[i] != canary ? 1 : 0;
        return changed;
    }

  private:
    static constexpr T canary = static_cast<T>(std::is_integral_v<T> ? 77 : -123456.5);

    std::size_t offset(std::int64_t index) const {
        std::int64_t result = placement_.first;
        for (std::size_t axis = shape_.size(); axis-- > 0;) {
            result += index % shape_[axis] * placement_.strides[axis];
            index /= shape_[axis];
        }
        return static_cast<std::size_t>(result);
    }

    Shape shape_;
    Placement placement_;
    std::vector<T> memory_;
};

}  // namespace anynorm::test
