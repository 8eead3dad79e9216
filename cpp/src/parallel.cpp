// SPDX-License-Identifier: Apache-2.0
#include "parallel.hpp"

#include <algorithm>

#if defined(ANYNORM_OPENMP)
#include <omp.h>
#if defined(__unix__)
#include <pthread.h>
#endif
#endif

namespace anynorm::inline ANYNORM_ABI {
namespace {

std::atomic<ParallelFor> embedder_parallel_for{nullptr};

// By all calls that are under way.
std::atomic<int> threads_in_use{0};

#if defined(ANYNORM_OPENMP)
// A child made by fork() inherits libgomp's idea of a thread pool but none of its threads, and would wait for them
// for ever; it runs serially instead.
std::atomic<bool> is_forked_child{false};

#if defined(__unix__)
[[maybe_unused]] const int fork_handler =
    pthread_atfork(nullptr, nullptr, [] { is_forked_child.store(true, std::memory_order_relaxed); });
#endif
#endif

}  // namespace

int max_threads() noexcept {
#if defined(ANYNORM_OPENMP)
    // Asked at every call, so that omp_set_num_threads and threadpoolctl are obeyed.
    return is_forked_child.load(std::memory_order_relaxed) ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

void set_parallel_for(ParallelFor parallel_for) noexcept { embedder_parallel_for.store(parallel_for); }

}  // namespace anynorm::inline ANYNORM_ABI

namespace anynorm::detail {

ThreadShare::ThreadShare(int num_threads) noexcept {
    const int most = num_threads > 0 ? num_threads : max_threads();
    int in_use = threads_in_use.load(std::memory_order_relaxed);
    do {
        count_ = num_threads > 0 ? num_threads : std::max(1, most - in_use);
    } while (!threads_in_use.compare_exchange_weak(in_use, in_use + count_, std::memory_order_relaxed));
}

void ThreadShare::keep(int count) noexcept {
    if (count >= count_) return;
    threads_in_use.fetch_sub(count_ - count, std::memory_order_relaxed);
    count_ = count;
}

void run_parallel(std::int64_t count, int threads, void (*task)(void* state, std::int64_t index), void* state) {
    if (const ParallelFor parallel_for = embedder_parallel_for.load()) {
        parallel_for(count, threads, task, state);
        return;
    }
#if defined(ANYNORM_OPENMP)
    if (threads > 1 && !is_forked_child.load(std::memory_order_relaxed)) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (std::int64_t i = 0; i < count; ++i) task(state, i);
        return;
    }
#endif
    for (std::int64_t i = 0; i < count; ++i) task(state, i);
}

}  // namespace anynorm::detail
