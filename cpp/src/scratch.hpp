// SPDX-License-Identifier: Apache-2.0
// Scratch memory of one call: a few arrays for each worker, taken before any thread starts, so that nothing can fail
// once the work is under way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace anynorm::detail {

class Scratch {
  public:
    explicit Scratch(std::size_t bytes) : data_(bytes <= sizeof inline_ ? inline_ : allocate(bytes)) {}
    ~Scratch() {
        if (data_ != inline_) ::operator delete(data_, alignment);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    std::byte* data() noexcept { return data_; }

  private:
    static constexpr std::align_val_t alignment{64};
    static std::byte* allocate(std::size_t bytes) { return static_cast<std::byte*>(::operator new(bytes, alignment)); }

    // 2 KB hold all that a call on a few rows needs: a malloc would be a third of its time.
    alignas(64) std::byte inline_[2048];
    std::byte* data_;
};

/// Carves arrays out of a block of memory, each on a cache line of its own. With a null base it only adds up sizes.
class Carver {
  public:
    explicit Carver(std::byte* base) noexcept : base_(base) {}

    template <class T>
    T* take(std::int64_t count) noexcept {
        T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
        used_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
        return result;
    }
    std::size_t used() const noexcept { return used_; }

  private:
    std::byte* base_;
    std::size_t used_ = 0;
};

}  // namespace anynorm::detail
