// SPDX-License-Identifier: Apache-2.0
#include "passes.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#define BENCH_CLONES [[gnu::target_clones("avx2", "default")]]
#else
#define BENCH_CLONES
#endif

namespace bench {
namespace {

using Vector [[gnu::vector_size(32), gnu::may_alias]] = std::int32_t;

// 8 loads in flight per step hide the latency of the cache; more gain nothing.
constexpr std::size_t unroll = 8;
constexpr std::size_t step = unroll * sizeof(Vector);

BENCH_CLONES void copy_vectors(char* to, const char* from, std::size_t bytes) {
    std::size_t i = 0;
    for (; i + step <= bytes; i += step) {
        Vector loaded[unroll];
        for (std::size_t j = 0; j < unroll; ++j) loaded[j] = reinterpret_cast<const Vector*>(from + i)[j];
        for (std::size_t j = 0; j < unroll; ++j) reinterpret_cast<Vector*>(to + i)[j] = loaded[j];
    }
    std::memcpy(to + i, from + i, bytes - i);
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void stream_vectors(char* to, const char* from, std::size_t bytes) {
    std::size_t i = 0;
    for (; i + step <= bytes; i += step) {
        Vector loaded[unroll];
        for (std::size_t j = 0; j < unroll; ++j) loaded[j] = reinterpret_cast<const Vector*>(from + i)[j];
        for (std::size_t j = 0; j < unroll; ++j)
            asm volatile("vmovntdq %1, %0" : "=m"(reinterpret_cast<Vector*>(to + i)[j]) : "x"(loaded[j]));
    }
    std::memcpy(to + i, from + i, bytes - i);
    asm volatile("sfence" ::: "memory");
}
#endif

using Floats [[gnu::vector_size(32), gnu::may_alias]] = float;

BENCH_CLONES void triad_vectors(char* to, const char* from, const char* beside, std::size_t bytes) {
    for (std::size_t i = 0; i + step <= bytes; i += step) {
        for (std::size_t j = 0; j < unroll; ++j) {
            reinterpret_cast<Floats*>(to + i)[j] =
                reinterpret_cast<const Floats*>(from + i)[j] + reinterpret_cast<const Floats*>(beside + i)[j] * 0.5F;
        }
    }
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] void stream_triad_vectors(char* to, const char* from, const char* beside, std::size_t bytes) {
    for (std::size_t i = 0; i + step <= bytes; i += step) {
        for (std::size_t j = 0; j < unroll; ++j) {
            const Floats sum =
                reinterpret_cast<const Floats*>(from + i)[j] + reinterpret_cast<const Floats*>(beside + i)[j] * 0.5F;
            asm volatile("vmovntps %1, %0" : "=m"(reinterpret_cast<Floats*>(to + i)[j]) : "x"(sum));
        }
    }
    asm volatile("sfence" ::: "memory");
}
#endif

BENCH_CLONES int sum_vectors(const char* from, std::size_t bytes) {
    Vector sums[unroll] = {};
    std::size_t i = 0;
    for (; i + step <= bytes; i += step) {
        for (std::size_t j = 0; j < unroll; ++j) sums[j] += reinterpret_cast<const Vector*>(from + i)[j];
    }
    for (std::size_t j = 1; j < unroll; ++j) sums[0] += sums[j];
    std::uint32_t total = 0;  // unsigned, because it may wrap
    for (std::size_t lane = 0; lane < sizeof(Vector) / sizeof(std::int32_t); ++lane)
        total += static_cast<std::uint32_t>(sums[0][lane]);
    for (; i < bytes; ++i) total += static_cast<unsigned char>(from[i]);
    return static_cast<int>(total);
}

/// Runs work(begin, end) over pieces of [0, bytes). Under 128 KB starting the threads costs more than it gains.
template <class Work>
void in_pieces(std::size_t bytes, int threads, const Work& work) {
    if (threads == 1 || bytes < (128U << 10)) return work(std::size_t{0}, bytes);
#if defined(_OPENMP)
    // Several pieces a thread, handed out as they finish: on a shared machine one core may be slower for a while.
    const std::size_t share = bytes / (std::size_t{16} * static_cast<unsigned>(threads));
    const std::size_t length = std::max<std::size_t>(share & ~std::size_t{4095}, 32U << 10);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::size_t begin = 0; begin < bytes; begin += length) work(begin, std::min(bytes, begin + length));
#else
    work(std::size_t{0}, bytes);
#endif
}

}  // namespace

bool has_threads() {
#if defined(_OPENMP)
    return true;
#else
    return false;
#endif
}

void copy_regular(void* to, const void* from, std::size_t bytes, int threads) {
    in_pieces(bytes, threads, [&](std::size_t begin, std::size_t end) {
        copy_vectors(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, end - begin);
    });
}

void copy_streaming(void* to, const void* from, std::size_t bytes, int threads) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return in_pieces(bytes, threads, [&](std::size_t begin, std::size_t end) {
            stream_vectors(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, end - begin);
        });
    }
#endif
    copy_regular(to, from, bytes, threads);
}

void triad(void* to, const void* from, const void* beside, std::size_t bytes, int threads) {
    in_pieces(bytes, threads, [&](std::size_t begin, std::size_t end) {
        triad_vectors(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                      static_cast<const char*>(beside) + begin, end - begin);
    });
}

void triad_streaming(void* to, const void* from, const void* beside, std::size_t bytes, int threads) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return in_pieces(bytes, threads, [&](std::size_t begin, std::size_t end) {
            stream_triad_vectors(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                                 static_cast<const char*>(beside) + begin, end - begin);
        });
    }
#endif
    triad(to, from, beside, bytes, threads);
}

int read(const void* from, std::size_t bytes, int threads) {
    std::atomic<int> total = 0;
    in_pieces(bytes, threads, [&](std::size_t begin, std::size_t end) {
        total.fetch_add(sum_vectors(static_cast<const char*>(from) + begin, end - begin), std::memory_order_relaxed);
    });
    return total;
}

}  // namespace bench
