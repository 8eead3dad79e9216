// SPDX-License-Identifier: Apache-2.0
// normalize_backward() over sets that are named by labels, segments, masks and weights: against the definition, for
// every kind, layout and dtype, and its bits against themselves.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "selection_gradients.hpp"

namespace anynorm::test {
namespace {

using namespace selection_gradients;

class SelectionBackward : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, SelectionBackward, testing::ValuesIn(kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(SelectionBackward, IsTheDefinitionInEveryLayout) {
    const std::vector<Layout>& all = layouts();
    for (std::size_t i = 0; i < all.size(); ++i) {
        SCOPED_TRACE(all[i].name);
        Backward call(GetParam(), {}, all[i], all[i], all[i]);
        call.run();
        call.expect_exact();
        Backward mixed(GetParam(), {DType::f64, DType::f64, DType::f64}, all[i], all[(i + 1) % all.size()],
                       all[(i + 3) % all.size()]);
        mixed.given = true;
        mixed.run();
        mixed.expect_exact();
    }
}

TEST_P(SelectionBackward, IsTheDefinitionForEveryDType) {
    const DTypes mixes[] = {{DType::f16, DType::f16, DType::f16, DType::f16},
                            {DType::bf16, DType::bf16, DType::bf16},
                            {DType::f16, DType::f32, DType::bf16, DType::f64},
                            {DType::f32, DType::f32, DType::f64},
                            {DType::f32, DType::f64, DType::f32, DType::bf16}};
    for (const DTypes& dtypes : mixes) {
        SCOPED_TRACE(std::string(name(dtypes.x)) + ", " + name(dtypes.grad_output) + ", " + name(dtypes.grad_input));
        Backward call(GetParam(), dtypes);
        call.run();
        call.expect_exact();
    }
}

TEST_P(SelectionBackward, ExcludedElementsAreNotLookedAt) {
    Backward clean(GetParam()), spoilt(GetParam());
    clean.run();
    spoilt.spoil();
    spoilt.run();
    expect_same(clean, spoilt);
}

TEST_P(SelectionBackward, ExcludedResultsAreWhatWasAskedFor) {
    for (const Excluded excluded : {Excluded::input, Excluded::keep}) {
        Backward zero(GetParam()), other(GetParam());
        other.excluded = excluded;
        zero.run();
        other.dx.fill([](std::int64_t i) { return i; });
        other.run();
        for (std::int64_t i = 0; i < zero.x.size(); ++i) {
            const double expected = at(zero.sets.of, i) >= 0      ? zero.dx[i]
                                    : excluded == Excluded::input ? zero.dy[i]
                                                                  : static_cast<double>(i);
            ASSERT_EQ(other.dx[i], expected) << i;
        }
    }
}

TEST_P(SelectionBackward, InPlace) {
    Backward apart(GetParam());
    apart.run();
    for (const bool over_x : {false, true}) {
        Backward call(GetParam());
        AnyArray& target = over_x ? call.x : call.dy;
        normalize_backward(call.dy.view(), call.x.view(), {axes_of(call.kind.reduce), call.selection()},
                           {target.view(), {}, {}}, call.options());
        for (std::int64_t i = 0; i < target.size(); ++i) {
            ASSERT_NEAR(target[i], apart.dx[i], 1e-5 * std::max(1.0, std::fabs(apart.dx[i]))) << i;
        }
    }
}

TEST_P(SelectionBackward, EachGradientIsOptional) {
    Backward all(GetParam());
    all.run();
    for (int only = 0; only < 3; ++only) {
        Backward some(GetParam());
        Gradients gradients;
        if (only == 0) gradients.grad_input = some.dx.view();
        if (only == 1) gradients.grad_weight = some.grad_weight.view();
        if (only == 2) gradients.grad_bias = some.grad_bias.view();
        normalize_backward(some.dy.view(), some.x.view(), {axes_of(some.kind.reduce), some.selection()}, gradients,
                           some.options());
        AnyArray& result = only == 0 ? some.dx : only == 1 ? some.grad_weight : some.grad_bias;
        AnyArray& expected = only == 0 ? all.dx : only == 1 ? all.grad_weight : all.grad_bias;
        for (std::int64_t i = 0; i < result.size(); ++i) {
            ASSERT_NEAR(result[i], expected[i], 1e-5 * std::max(1.0, std::fabs(expected[i]))) << only << " at " << i;
        }
    }
}

TEST_P(SelectionBackward, OnEveryInstructionSet) {
    const auto on = [](Isa isa) {
        const UseIsa use(isa);
        Backward call(GetParam());
        call.run();
        call.expect_exact();
        return call;
    };
    for (const Isa isa : isas_of_this_machine()) {
        SCOPED_TRACE(name(isa));
        on(isa);
    }
    const std::vector<Isa> isas = isas_with_equal_bits();
    for (std::size_t i = 1; i < isas.size(); ++i) {
        Backward first = on(isas[0]), other = on(isas[i]);
        expect_same(first, other);
    }
}

class LargeSelectionBackward : public testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, LargeSelectionBackward, testing::ValuesIn(large_kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(LargeSelectionBackward, IsTheDefinitionForAnyNumberOfThreads) {
    Backward one(GetParam());
    one.run(1);
    one.expect_exact();
    for (const int threads : {2, 5}) {
        Backward other(GetParam());
        other.run(threads);
        expect_same(one, other);
    }
}

}  // namespace
}  // namespace anynorm::test
