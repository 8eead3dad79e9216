// SPDX-License-Identifier: Apache-2.0
// What most tests share: random numbers that are the same everywhere, bit comparison, and instruction sets as names.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "anynorm/runtime.hpp"
#include "anynorm/tensor_view.hpp"

namespace anynorm {

// For GoogleTest's messages.
inline void PrintTo(Isa isa, std::ostream* out) { *out << name(isa); }
inline void PrintTo(DType dtype, std::ostream* out) { *out << name(dtype); }

}  // namespace anynorm

namespace anynorm::test {

inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double infinity = std::numeric_limits<double>::infinity();

/// v[i] for the signed sizes of this library.
template <class Vector>
decltype(auto) at(Vector& v, std::int64_t i) {
    return v[static_cast<std::size_t>(i)];
}

template <class Vector>
std::int64_t length(const Vector& v) {
    return static_cast<std::int64_t>(v.size());
}

inline std::vector<double> numbers(std::int64_t n, double value = 0) {
    return std::vector<double>(static_cast<std::size_t>(n), value);
}

/// splitmix64: cheap to start, which matters where the tests run in an emulator.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(n)); }
    /// In [low, high).
    double uniform(double low, double high) {
        return low + (high - low) * (static_cast<double>(next() >> 11) * 0x1p-53);
    }
    /// Mean 0, variance 1.
    double unit() { return uniform(-1.7320508075688772, 1.7320508075688772); }

  private:
    std::uint64_t state_;
};

/// The bits of a value; all NaNs are one, since only the hardware's default differs between architectures.
template <class T>
std::uint64_t bits(T value) {
    if (std::isnan(value)) return ~std::uint64_t{0};
    if constexpr (sizeof(T) == 4) {
        return std::bit_cast<std::uint32_t>(value);
    } else {
        return std::bit_cast<std::uint64_t>(value);
    }
}

/// The number of elements whose bits differ.
template <class T>
std::int64_t different_bits(const std::vector<T>& a, const std::vector<T>& b) {
    if (a.size() != b.size()) return -1;
    std::int64_t count = 0;
    for (std::size_t i = 0; i < a.size(); ++i) count += bits(a[i]) != bits(b[i]) ? 1 : 0;
    return count;
}

/// Restores the instruction set in use.
class UseIsa {
  public:
    explicit UseIsa(Isa isa) : before_(active_isa()) { use_isa(isa); }
    ~UseIsa() { use_isa(before_); }
    UseIsa(const UseIsa&) = delete;
    UseIsa& operator=(const UseIsa&) = delete;

  private:
    Isa before_;
};

inline std::vector<Isa> isas_of_this_machine() { return {available_isas().begin(), available_isas().end()}; }

/// Those that promise the same bits.
inline std::vector<Isa> isas_with_equal_bits() {
    std::vector<Isa> result;
    for (Isa isa : available_isas()) {
        if (isa != Isa::baseline) result.push_back(isa);
    }
    return result;
}

template <class T>
std::string short_name() {
    return sizeof(T) == 4 ? "f32" : "f64";
}

}  // namespace anynorm::test
