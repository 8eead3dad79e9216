// SPDX-License-Identifier: Apache-2.0
#include "epilogue.hpp"

#include <algorithm>

#include "activations.hpp"
#include "dispatch.hpp"
#include "inner_loop.hpp"

namespace anynorm::detail {
namespace {

/// Rounds n values to int8 or uint8.
template <class C>
void quantize_run(const kernels::KernelTable& table, const Elements& to, std::int64_t offset, std::int64_t stride,
                  const C* from, std::int64_t n, double scale, int zero_point) noexcept {
    const int least = to.dtype == DType::i8 ? -128 : 0, largest = least + 255;
    const kernels::Quantization<C> how{static_cast<C>(scale), static_cast<C>(least - zero_point),
                                       static_cast<C>(largest - zero_point), zero_point};
    const auto quantize = kernels_for<C>(table).quantize;
    auto* const q = static_cast<std::uint8_t*>(to.data) + offset;
    if (stride == 1) return quantize(q, from, n, how);
    std::uint8_t packed[tile];
    for (std::int64_t first = 0; first < n; first += tile) {
        const std::int64_t count = std::min(tile, n - first);
        quantize(packed, from + first, count, how);
        copy_strided(q + first * stride, stride, static_cast<const std::uint8_t*>(packed), 1, count);
    }
}

}  // namespace

Epilogue Epilogue::at(const StepsPlace& place) const noexcept {
    Epilogue result = *this;
    if (steps.scale.given()) result.scale = element_at(steps.scale, place.scale);
    if (steps.zero_point.given()) result.zero_point = zero_point_at(steps.zero_point, place.zero_point);
    return result;
}

template <class C>
void Epilogue::finish_each(C* results, const C* scales, const C* zero_points, std::int64_t n, const Elements& y,
                           std::int64_t offset, std::int64_t stride) const noexcept {
    if (activation != Activation::none) activate(*table, activation, results, results, n);
    std::uint8_t packed[tile];
    for (std::int64_t first = 0; first < n; first += tile) {
        const std::int64_t count = std::min(tile, n - first);
        quantize_each(packed, results + first, scales + first, zero_points + first, count, y.dtype);
        copy_strided(static_cast<std::uint8_t*>(y.data) + offset + first * stride, stride,
                     static_cast<const std::uint8_t*>(packed), 1, count);
    }
}

template <class C>
void Epilogue::finish(C* results, std::int64_t n, const Elements& y, std::int64_t offset,
                      std::int64_t stride) const noexcept {
    if (y.dtype == stored_as<C>() && stride == 1) {
        return activate(*table, activation, static_cast<C*>(y.data) + offset, results, n);
    }
    if (activation != Activation::none) activate(*table, activation, results, results, n);
    if (is_quantized(y.dtype)) return quantize_run(*table, y, offset, stride, results, n, scale, zero_point);
    store(*table, y, offset, stride, results, n);
}

template void Epilogue::finish<float>(float*, std::int64_t, const Elements&, std::int64_t, std::int64_t) const noexcept;
template void Epilogue::finish<double>(double*, std::int64_t, const Elements&, std::int64_t,
                                       std::int64_t) const noexcept;
template void Epilogue::finish_each<float>(float*, const float*, const float*, std::int64_t, const Elements&,
                                           std::int64_t, std::int64_t) const noexcept;
template void Epilogue::finish_each<double>(double*, const double*, const double*, std::int64_t, const Elements&,
                                            std::int64_t, std::int64_t) const noexcept;

}  // namespace anynorm::detail
