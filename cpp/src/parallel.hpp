// SPDX-License-Identifier: Apache-2.0
// Threads: OpenMP, the embedder's hook, or none. The file behind this header is the only one that says OpenMP.
#pragma once

#include <atomic>
#include <cstdint>

#include "anynorm/runtime.hpp"

namespace anynorm::detail {

/// The threads of one call: as many as it was told, else those of max_threads() that no other call is using, and at
/// least its own. Callers on several threads then share the machine instead of multiplying on it; nobody sees a
/// difference but in time.
class ThreadShare {
  public:
    explicit ThreadShare(int num_threads) noexcept;  ///< 0: not told
    ~ThreadShare() { keep(0); }
    ThreadShare(const ThreadShare&) = delete;
    ThreadShare& operator=(const ThreadShare&) = delete;

    int count() const noexcept { return count_; }
    /// Leaves all but so many to others.
    void keep(int count) noexcept;

  private:
    int count_;
};

/// Runs task(state, i) for i in [0, count) on up to `threads` threads.
void run_parallel(std::int64_t count, int threads, void (*task)(void* state, std::int64_t index), void* state);

/// Runs body(worker, piece) for every piece; `worker` is below `threads` and never used by two threads at once, so it
/// can name a scratch buffer. Pieces are handed out one by one: which worker gets which never shows in the result.
template <class Body>
void for_each_piece(std::int64_t pieces, int threads, Body&& body) {
    if (pieces < threads) threads = static_cast<int>(pieces);
    if (threads <= 1) {
        for (std::int64_t piece = 0; piece < pieces; ++piece) body(0, piece);
        return;
    }
    struct Shared {
        Body& body;
        std::int64_t pieces;
        std::atomic<std::int64_t> next{0};
    } shared{body, pieces};
    run_parallel(
        threads, threads,
        [](void* state, std::int64_t worker) {
            auto& work = *static_cast<Shared*>(state);
            for (std::int64_t piece; (piece = work.next.fetch_add(1, std::memory_order_relaxed)) < work.pieces;) {
                work.body(static_cast<int>(worker), piece);
            }
        },
        &shared);
}

}  // namespace anynorm::detail
