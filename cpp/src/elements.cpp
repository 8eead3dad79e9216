// SPDX-License-Identifier: Apache-2.0
#include "elements.hpp"

namespace anynorm::detail {

template <class X>
void load(X* to, const Elements& from, std::int64_t offset, std::int64_t stride, std::int64_t n) noexcept {
    with_type(from, [&]<class From>(const From* p) {
        p += offset;
        if constexpr (std::is_same_v<X, From>) {
            copy_strided(to, 1, p, stride, n);
        } else if constexpr (sizeof(X) > 2) {
            for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<X>(promote(p[i * stride]));
        }
    });
}

template <class X>
void store(const Elements& to, std::int64_t offset, std::int64_t stride, const X* from, std::int64_t n) noexcept {
    with_type(to, [&]<class To>(To* p) {
        p += offset;
        if constexpr (std::is_same_v<X, To>) {
            copy_strided(p, stride, from, 1, n);
        } else if constexpr (sizeof(X) > 2) {
            for (std::int64_t i = 0; i < n; ++i) p[i * stride] = round_to<To>(from[i]);
        }
    });
}

template void load(float*, const Elements&, std::int64_t, std::int64_t, std::int64_t) noexcept;
template void load(double*, const Elements&, std::int64_t, std::int64_t, std::int64_t) noexcept;
template void load(kernels::F16*, const Elements&, std::int64_t, std::int64_t, std::int64_t) noexcept;
template void load(kernels::BF16*, const Elements&, std::int64_t, std::int64_t, std::int64_t) noexcept;
template void store(const Elements&, std::int64_t, std::int64_t, const float*, std::int64_t) noexcept;
template void store(const Elements&, std::int64_t, std::int64_t, const double*, std::int64_t) noexcept;
template void store(const Elements&, std::int64_t, std::int64_t, const kernels::F16*, std::int64_t) noexcept;
template void store(const Elements&, std::int64_t, std::int64_t, const kernels::BF16*, std::int64_t) noexcept;

}  // namespace anynorm::detail
