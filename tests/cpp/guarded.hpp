// SPDX-License-Identifier: Apache-2.0
// Memory with an end that faults: whatever touches one byte behind it stops the test program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__unix__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace anynorm::test {

/// Room for `capacity` elements; arrays are placed so that they end where the memory ends.
template <class T>
class Guarded {
  public:
    explicit Guarded(std::int64_t capacity) {
        const auto bytes = static_cast<std::size_t>(capacity) * sizeof(T);
#if defined(__unix__)
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t inside = (bytes + page - 1) / page * page;
        mapped_ = inside + page;
        base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base_ == MAP_FAILED) throw std::bad_alloc();
        auto* end = static_cast<std::byte*>(base_) + inside;
        if (mprotect(end, page, PROT_NONE) != 0) throw std::bad_alloc();
        end_ = reinterpret_cast<T*>(end);
#else
        base_ = ::operator new(bytes);
        end_ = static_cast<T*>(base_) + capacity;
#endif
    }
    ~Guarded() {
#if defined(__unix__)
        munmap(base_, mapped_);
#else
        ::operator delete(base_);
#endif
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    /// The last `n` elements.
    T* last(std::int64_t n) { return end_ - n; }

  private:
    void* base_;
    std::size_t mapped_ = 0;
    T* end_;
};

}  // namespace anynorm::test
