// SPDX-License-Identifier: Apache-2.0
// The parameter of the kernel tests: every instruction set of this machine with every element type.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "dispatch.hpp"
#include "kernels/kernel_table.hpp"
#include "support.hpp"

namespace anynorm::test {

using Target = std::tuple<Isa, DType>;

class KernelTest : public testing::TestWithParam<Target> {
  protected:
    Isa isa() const { return std::get<0>(GetParam()); }
    bool fused() const { return isa() != Isa::baseline; }
    template <class T>
    const kernels::Kernels<T>& table() const {
        return detail::kernels_for<T>(*detail::kernels_of(isa()));
    }
    /// Calls test(T{}) with the element type of the parameter.
    template <class Test>
    void with_type(Test&& test) const {
        if (std::get<1>(GetParam()) == DType::f32) {
            test(float{});
        } else {
            test(double{});
        }
    }
};

inline std::string target_name(const testing::TestParamInfo<Target>& info) {
    const auto [isa, dtype] = info.param;
    return std::string(name(isa)) + (dtype == DType::f32 ? "_f32" : "_f64");
}

inline auto all_targets() {
    return testing::Combine(testing::ValuesIn(isas_of_this_machine()), testing::Values(DType::f32, DType::f64));
}

/// A product that the compiler of this file cannot fuse with a sum, on any architecture.
template <class T>
T product(T a, T b) {
    volatile const T result = a * b;
    return result;
}

template <class T>
T mul_add(bool fused, T a, T b, T c) {
    return fused ? std::fma(a, b, c) : product(a, b) + c;
}

/// Checks that `results(isa)` has the same bits for all instruction sets that promise it.
template <class Results>
void expect_equal_bits_of_isas(Results&& results) {
    const std::vector<Isa> isas = isas_with_equal_bits();
    if (isas.size() < 2) GTEST_SKIP() << "one instruction set on this machine; the model stands in for the others";
    const std::vector<std::uint64_t> expected = results(isas[0]);
    for (std::size_t i = 1; i < isas.size(); ++i) {
        EXPECT_TRUE(results(isas[i]) == expected) << name(isas[i]) << " and " << name(isas[0]);
    }
}

}  // namespace anynorm::test
