// SPDX-License-Identifier: Apache-2.0
// Runs the library on threads of one's own instead of OpenMP's. A real program would hand the tasks to a pool that
// already exists; starting threads at every call keeps this one short.
#include <anynorm/anynorm.hpp>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

std::atomic<int> tasks_run{0};

void parallel_for(std::int64_t count, int num_threads, void (*task)(void* state, std::int64_t index), void* state) {
    std::atomic<std::int64_t> next{0};
    const auto work = [&] {
        for (std::int64_t index; (index = next.fetch_add(1)) < count; ++tasks_run) task(state, index);
    };
    std::vector<std::thread> threads;
    for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
    work();  // the calling thread takes part
    for (std::thread& thread : threads) thread.join();
}

int main() {
    const std::int64_t rows = 1000, n = 1000;
    std::vector<float> x(rows * n), y(x.size()), z(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 991);

    const anynorm::TensorView in = anynorm::view(x.data(), {rows, n});
    anynorm::layer_norm(in, anynorm::view(y.data(), {rows, n}), {1}, {.num_threads = 1});

    anynorm::set_parallel_for(parallel_for);
    anynorm::layer_norm(in, anynorm::view(z.data(), {rows, n}), {1}, {.num_threads = 4});
    std::printf("%d tasks, %s\n", tasks_run.load(), y == z ? "the same bits" : "other bits");
}
