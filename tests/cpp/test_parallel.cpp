// SPDX-License-Identifier: Apache-2.0
// Threads: pieces are handed out once, an embedder's pool takes the place of OpenMP, and a forked child is serial.
#include "parallel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "anynorm/normalize.hpp"
#include "anynorm/norms.hpp"
#include "anynorm/runtime.hpp"
#include "support.hpp"
#include "tensor.hpp"

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace anynorm::test {
namespace {

// What the hooks below have seen.
std::atomic<int> hook_calls{0}, hook_tasks{0}, most_threads{0};

void count_call(std::int64_t count, int num_threads) {
    ++hook_calls;
    hook_tasks += static_cast<int>(count);
    if (num_threads > most_threads) most_threads = num_threads;
}

/// A pool of the embedder: a thread for every task.
void threads_hook(std::int64_t count, int num_threads, void (*task)(void*, std::int64_t), void* state) {
    count_call(count, num_threads);
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < count; ++i) threads.emplace_back(task, state, i);
    for (std::thread& thread : threads) thread.join();
}

/// Any order will do, on one thread as well.
void backwards_hook(std::int64_t count, int num_threads, void (*task)(void*, std::int64_t), void* state) {
    count_call(count, num_threads);
    for (std::int64_t i = count; i-- > 0;) task(state, i);
}

class UseHook {
  public:
    explicit UseHook(ParallelFor hook) {
        hook_calls = hook_tasks = most_threads = 0;
        set_parallel_for(hook);
    }
    ~UseHook() { set_parallel_for(nullptr); }
    UseHook(const UseHook&) = delete;
    UseHook& operator=(const UseHook&) = delete;
};

/// A call with work for several threads: 300 KB of rows, or of few sets that must be split.
std::vector<float> normalized(const Shape& shape, int axis, int threads) {
    Random random(1);
    Tensor<float> x(shape), y(shape);
    x.fill([&](std::int64_t) { return random.unit(); });
    normalize(x.view(), {{axis}}, y.view(), {.num_threads = threads});
    return y.values();
}

/// grad_input, then grad_weight and grad_bias, whose partial sums several threads write.
std::vector<float> gradients(const Shape& shape, int axis, int threads) {
    Random random(3);
    Tensor<float> x(shape), grad_output(shape), grad_input(shape);
    x.fill([&](std::int64_t) { return random.unit(); });
    grad_output.fill([&](std::int64_t) { return random.unit(); });
    Tensor<float> grad_weight({shape[1]}), grad_bias({shape[1]});
    normalize_backward(grad_output.view(), x.view(), {{axis}},
                       {grad_input.view(), grad_weight.view(), grad_bias.view()}, {.num_threads = threads});
    std::vector<float> result = grad_input.values();
    for (Tensor<float>* each : {&grad_weight, &grad_bias}) {
        const std::vector<float> values = each->values();
        result.insert(result.end(), values.begin(), values.end());
    }
    return result;
}

/// The result and the gradients of rows with labels and a mask, weighted or not, by a way that depends on `groups`.
std::vector<float> selected(std::int64_t groups, bool weighted, int threads) {
    const Shape shape = {3000, 48};
    Random random(5);
    Tensor<float> x(shape), y(shape), grad_input(shape), grad_weight({shape[1]});
    x.fill([&](std::int64_t) { return random.unit(); });
    std::vector<std::int64_t> labels;
    std::vector<double> weights;
    const auto mask = std::make_unique<bool[]>(3000);
    for (std::size_t i = 0; i < 3000; ++i) {
        labels.push_back(random.below(groups));
        weights.push_back(random.uniform(0, 2));
        mask[i] = random.below(4) != 0;
    }
    Grouping sets{{0}, {.where = view(mask.get(), {3000, 1})}};
    if (groups > 1) {
        sets.selection.labels = view(labels.data(), {3000, 1});
        sets.selection.num_groups = groups;
    }
    if (weighted) sets.selection.sample_weight = view(weights.data(), {3000, 1});
    normalize(x.view(), sets, y.view(), {.num_threads = threads});
    normalize_backward(y.view(), x.view(), sets, {grad_input.view(), grad_weight.view(), {}}, {.num_threads = threads});
    std::vector<float> result = y.values();
    for (Tensor<float>* each : {&grad_input, &grad_weight}) {
        const std::vector<float> values = each->values();
        result.insert(result.end(), values.begin(), values.end());
    }
    return result;
}

const Shape rows = {75, 1000};
const Shape few_rows = {2, 37000};

struct NamedHook {
    const char* name;
    ParallelFor hook;

    friend void PrintTo(const NamedHook& self, std::ostream* out) { *out << self.name; }
};

class Hook : public testing::TestWithParam<NamedHook> {};
INSTANTIATE_TEST_SUITE_P(, Hook,
                         testing::Values(NamedHook{"threads", threads_hook}, NamedHook{"backwards", backwards_hook}),
                         [](const auto& info) { return info.param.name; });

TEST_P(Hook, IsUsedAndGivesTheSameBits) {
    for (const Shape& shape : {rows, few_rows}) {
        const std::vector<float> expected = normalized(shape, 1, 1);
        for (int threads : {2, 3, 5}) {
            const UseHook use(GetParam().hook);
            EXPECT_EQ(different_bits(normalized(shape, 1, threads), expected), 0) << threads << " threads";
            EXPECT_GE(hook_calls, 1);
            EXPECT_GE(hook_tasks, 2);
            EXPECT_EQ(most_threads, threads);
        }
    }
}

TEST_P(Hook, EveryScheduleGivesTheSameBits) {
    for (const Shape& shape : {rows, few_rows, Shape{3000, 48}}) {
        for (int axis : {0, 1}) {
            const std::vector<float> results = normalized(shape, axis, 1), expected = gradients(shape, axis, 1);
            const UseHook use(GetParam().hook);
            EXPECT_EQ(different_bits(normalized(shape, axis, 4), results), 0);
            EXPECT_EQ(different_bits(gradients(shape, axis, 4), expected), 0);
            EXPECT_GE(hook_calls, 2);
        }
    }
}

TEST_P(Hook, SelectionsGiveTheSameBits) {
    for (const std::int64_t groups : {1, 5, 900}) {
        for (const bool weighted : {false, true}) {
            const std::vector<float> expected = selected(groups, weighted, 1);
            const UseHook use(GetParam().hook);
            EXPECT_EQ(different_bits(selected(groups, weighted, 4), expected), 0) << groups << " groups";
            EXPECT_GE(hook_calls, 2);
        }
    }
}

TEST_P(Hook, IsNotUsedForSmallOrSerialCalls) {
    const UseHook use(GetParam().hook);
    normalized({10, 10}, 1, 8);
    normalized(rows, 1, 1);
    EXPECT_EQ(hook_calls, 0);
}

TEST_P(Hook, RunsForEachPiece) {
    const UseHook use(GetParam().hook);
    std::atomic<int> sum{0};
    detail::for_each_piece(10, 4, [&](int, std::int64_t piece) { sum += static_cast<int>(piece); });
    EXPECT_EQ(sum, 45);
    EXPECT_EQ(hook_calls, 1);
}

TEST(HookReset, NullRestoresTheDefault) {
    {
        const UseHook use(backwards_hook);
    }
    normalized(rows, 1, 2);
    EXPECT_EQ(hook_calls, 0);
}

TEST(ForEachPiece, EveryPieceOnceAndNoWorkerTwiceAtATime) {
    for (std::int64_t pieces : {0, 1, 2, 7, 100}) {
        for (int threads : {1, 2, 3, 8}) {
            const auto done = std::make_unique<std::atomic<int>[]>(100);
            std::atomic<int> busy[8] = {}, wrong_worker{0}, shared_worker{0};
            detail::for_each_piece(pieces, threads, [&](int worker, std::int64_t piece) {
                if (worker < 0 || worker >= threads) {
                    ++wrong_worker;
                    return;
                }
                if (++busy[worker] > 1) ++shared_worker;
                ++done[static_cast<std::size_t>(piece)];
                --busy[worker];
            });
            EXPECT_EQ(wrong_worker, 0);
            EXPECT_EQ(shared_worker, 0);
            for (std::size_t piece = 0; piece < 100; ++piece) {
                EXPECT_EQ(done[piece], static_cast<std::int64_t>(piece) < pieces ? 1 : 0)
                    << "piece " << piece << " of " << pieces << ", " << threads << " threads";
            }
        }
    }
}

TEST(Threads, ThereIsAtLeastOne) { EXPECT_GE(max_threads(), 1); }

/// Makes a call that is not told how many threads to use while the first one is under way.
void nested_hook(std::int64_t count, int num_threads, void (*task)(void*, std::int64_t), void* state) {
    count_call(count, num_threads);
    if (hook_calls == 1) normalized(rows, 1, 0);
    for (std::int64_t i = 0; i < count; ++i) task(state, i);
}

TEST(Threads, CallsAtTheSameTimeShareThem) {
    const int all = std::max(2, max_threads());
    {
        const UseHook use(nested_hook);
        normalized(rows, 1, all);
        EXPECT_EQ(hook_calls, 1) << "no thread was left for the second call";
    }
    const detail::ThreadShare first(0);
    EXPECT_EQ(first.count(), max_threads());
    {
        detail::ThreadShare told(7), second(0);
        EXPECT_EQ(told.count(), 7);
        EXPECT_EQ(second.count(), 1);
    }
    detail::ThreadShare large(100);
    large.keep(0);
    EXPECT_EQ(large.count(), 0);
    EXPECT_EQ(detail::ThreadShare(0).count(), 1);
}

TEST(Threads, CallersDoNotDisturbEachOther) {
    const std::vector<float> expected = normalized(rows, 1, 1);
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 3; ++caller) {
        callers.emplace_back([&] {
            for (int threads : {1, 2}) wrong += different_bits(normalized(rows, 1, threads), expected) != 0 ? 1 : 0;
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0);
}

/// Every function that reads what another caller may write (the instruction set, the hook), and inputs that all share.
TEST(Threads, ShareInputsAndWriteTheirOwn) {
    const Shape shape = {30, 1200}, sets = {30};
    Random random(2);
    Tensor<float> x(shape), weight({1200});
    x.fill([&](std::int64_t) { return random.unit(); });
    weight.fill([&](std::int64_t) { return random.unit(); });
    const TensorView in = x.view(), scale = weight.view();
    Tensor<float> y(shape), rows(shape);
    Tensor<double> m2(sets);
    normalize(in, {{1}}, y.view(), {.weight = scale, .num_threads = 1});
    layer_norm(view(&x[0], {5, 64}), view(&rows[0], {5, 64}), {1});
    moments(in, {{1}}, {.m2 = m2.view()}, {.num_threads = 1});

    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&, caller] {
            Tensor<float> own(shape), own_rows(shape);
            Tensor<double> own_m2(sets);
            for (int round = 0; round < 4; ++round) {
                use_isa(active_isa());
                normalize(in, {{1}}, own.view(), {.weight = scale, .num_threads = 1 + (caller + round) % 3});
                layer_norm(view(&x[0], {5, 64}), view(&own_rows[0], {5, 64}), {1});
                moments(in, {{1}}, {.m2 = own_m2.view()}, {.num_threads = 1 + round % 2});
                wrong += different_bits(own.values(), y.values()) != 0 ? 1 : 0;
                wrong += different_bits(own_rows.values(), rows.values()) != 0 ? 1 : 0;
                wrong += different_bits(own_m2.values(), m2.values()) != 0 ? 1 : 0;
                wrong += available_isas().empty() || max_threads() < 1 ? 1 : 0;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0);
}

#if defined(__unix__)

/// libgomp's threads are gone in a child, and a parallel region would wait for them for ever.
TEST(Fork, ChildOfAThreadedParentCallsAndExits) {
    const std::vector<float> expected = normalized(rows, 1, 4);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        alarm(60);  // ends a child that hangs
        const bool serial = max_threads() == 1;
        const bool same = different_bits(normalized(rows, 1, 4), expected) == 0 &&
                          different_bits(normalized(rows, 1, 0), expected) == 0;
        _exit(serial && same ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_FALSE(WIFSIGNALED(status)) << "the child was ended by signal " << WTERMSIG(status);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    // The parent goes on with all its threads.
    EXPECT_EQ(different_bits(normalized(rows, 1, 4), expected), 0);
}

#endif

}  // namespace
}  // namespace anynorm::test
