// SPDX-License-Identifier: Apache-2.0
#include "memory.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <random>

namespace bench {
namespace {

constexpr std::align_val_t alignment{64};

/// Towards zero, and without the subnormal numbers: good enough for data to work on.
anynorm::Float16 to_float16(double value) {
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
    if (fraction == 0 || exponent < -13) return {0};
    const auto mantissa = static_cast<std::uint16_t>((2 * fraction - 1) * 1024);
    const auto magnitude = static_cast<std::uint16_t>(((exponent + 14) << 10) | mantissa);
    return {static_cast<std::uint16_t>(magnitude | (value < 0 ? 0x8000U : 0U))};
}

anynorm::BFloat16 to_bfloat16(double value) {
    return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(value)) >> 16)};
}

template <class T, class Convert>
void fill(void* data, std::size_t bytes, const Convert& convert) {
    // A prime number of normal values, repeated: no two neighbouring rows or channels are alike.
    constexpr std::size_t distinct = 65537;
    T* elements = static_cast<T*>(data);
    const std::size_t size = bytes / sizeof(T);
    std::mt19937 random(7);  // NOLINT(cert-msc51-cpp): the same data in every run
    std::normal_distribution<double> normal(3, 2);
    for (std::size_t i = 0; i < std::min(size, distinct); ++i) elements[i] = convert(normal(random));
    for (std::size_t i = distinct; i < size; ++i) elements[i] = elements[i - distinct];
}

anynorm::DType parameter_type(anynorm::DType dtype) {
    return dtype == anynorm::DType::f64 ? dtype : anynorm::DType::f32;
}

std::size_t longest(anynorm::DType dtype, const std::vector<Case>& cases) {
    std::size_t bytes = 0;
    for (const Case& each : cases)
        if (each.dtype == dtype) bytes = std::max(bytes, each.bytes());
    return bytes;
}

std::size_t parameter_bytes(anynorm::DType dtype, const std::vector<Case>& cases) {
    std::int64_t length = 0;
    for (const Case& each : cases)
        if (each.dtype == dtype) length = std::max(length, *std::max_element(each.shape.begin(), each.shape.end()));
    return static_cast<std::size_t>(length) * anynorm::size_of(parameter_type(dtype));
}

}  // namespace

Buffer::Buffer(anynorm::DType dtype, std::size_t bytes) : dtype_(dtype), data_(::operator new(bytes, alignment)) {
    if (dtype == anynorm::DType::f32) fill<float>(data_, bytes, [](double value) { return static_cast<float>(value); });
    if (dtype == anynorm::DType::f64) fill<double>(data_, bytes, [](double value) { return value; });
    if (dtype == anynorm::DType::f16) fill<anynorm::Float16>(data_, bytes, to_float16);
    if (dtype == anynorm::DType::bf16) fill<anynorm::BFloat16>(data_, bytes, to_bfloat16);
}

Buffer::~Buffer() { ::operator delete(data_, alignment); }

anynorm::TensorView Buffer::view(const std::vector<std::int64_t>& shape) const {
    anynorm::TensorView result = anynorm::view(static_cast<float*>(data_), shape);
    result.dtype = dtype_;
    return result;
}

anynorm::TensorView Buffer::view(const Case& each) const {
    anynorm::TensorView result = view(each.shape);
    const std::vector<std::int64_t> strides = each.strides();
    std::copy(strides.begin(), strides.end(), result.strides);
    return result;
}

Buffers::Buffers(anynorm::DType dtype, const std::vector<Case>& cases)
    : x(dtype, longest(dtype, cases)),
      y(dtype, longest(dtype, cases)),
      beside(dtype, longest(dtype, cases)),
      sum(dtype, longest(dtype, cases)),
      parameters(parameter_type(dtype), parameter_bytes(dtype, cases)) {}

}  // namespace bench
