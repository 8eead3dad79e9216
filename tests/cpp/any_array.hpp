// SPDX-License-Identifier: Apache-2.0
// An array of any dtype in any memory layout, whose elements are numbers named by their place in C order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "elements.hpp"
#include "tensor.hpp"

namespace anynorm::test {

class AnyArray {
  public:
    explicit AnyArray(DType dtype, const Shape& shape, const Layout& layout = {})
        : dtype_(dtype),
          shape_(shape),
          placement_(place(shape, layout)),
          memory_(static_cast<std::size_t>(placement_.extent) * size_of(dtype), canary) {}

    std::int64_t size() const { return size_of(shape_); }
    const Shape& shape() const { return shape_; }

    TensorView view() {
        TensorView result =
            anynorm::view(static_cast<float*>(nullptr), std::span<const std::int64_t>(shape_), placement_.strides);
        result.data = memory_.data() + placement_.first * static_cast<std::int64_t>(size_of(dtype_));
        result.dtype = dtype_;
        return result;
    }

    /// The element at a place in C order.
    double operator[](std::int64_t index) {
        const std::int64_t at = offset(index);
        switch (dtype_) {
            case DType::i32:
                return static_cast<double>(reinterpret_cast<std::int32_t*>(memory_.data())[at]);
            case DType::i64:
                return static_cast<double>(reinterpret_cast<std::int64_t*>(memory_.data())[at]);
            case DType::boolean:
                return memory_[static_cast<std::size_t>(at)] != std::byte{0} ? 1 : 0;
            default:
                return detail::element_at({memory_.data(), dtype_}, at);
        }
    }

    /// Rounds the value to the dtype.
    void set(std::int64_t index, double value) {
        const std::int64_t at = offset(index);
        switch (dtype_) {
            case DType::i32:
                reinterpret_cast<std::int32_t*>(memory_.data())[at] = static_cast<std::int32_t>(value);
                return;
            case DType::i64:
                reinterpret_cast<std::int64_t*>(memory_.data())[at] = static_cast<std::int64_t>(value);
                return;
            case DType::boolean:
                memory_[static_cast<std::size_t>(at)] = std::byte{value != 0};
                return;
            default:
                detail::store({memory_.data(), dtype_}, at, 1, &value, 1);
        }
    }

    template <class Value>
    AnyArray& fill(Value&& value) {
        for (std::int64_t i = 0; i < size(); ++i) set(i, static_cast<double>(value(i)));
        return *this;
    }

    std::vector<double> values() {
        std::vector<double> result;
        for (std::int64_t i = 0; i < size(); ++i) result.push_back((*this)[i]);
        return result;
    }

    const std::vector<std::byte>& memory() const { return memory_; }

    /// Bytes of the memory that are not of the array, and have changed.
    std::int64_t changed_gaps() {
        const std::size_t bytes = size_of(dtype_);
        std::vector<std::byte> rest = memory_;
        for (std::int64_t i = 0; i < size(); ++i) {
            std::memset(rest.data() + static_cast<std::size_t>(offset(i)) * bytes, static_cast<int>(canary), bytes);
        }
        return length(rest) - std::count(rest.begin(), rest.end(), canary);
    }

  private:
    static constexpr std::byte canary{0x5a};

    std::int64_t offset(std::int64_t index) const {
        std::int64_t result = placement_.first;
        for (std::size_t axis = shape_.size(); axis-- > 0;) {
            result += index % shape_[axis] * placement_.strides[axis];
            index /= shape_[axis];
        }
        return result;
    }

    DType dtype_;
    Shape shape_;
    Placement placement_;
    std::vector<std::byte> memory_;
};

}  // namespace anynorm::test
