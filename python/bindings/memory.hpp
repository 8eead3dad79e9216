// SPDX-License-Identifier: Apache-2.0
// The memory of large results: whole huge pages, kept for the next result instead of given back to the system.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>

namespace anynorm::python {

/// Results below one huge page stay with NumPy, whose cache of small blocks is faster than any lock.
inline constexpr std::size_t huge_page = std::size_t{2} << 20;

/// NumPy takes the memory of the arrays that this thread makes during its lifetime from the pool (NEP 49). They own it
/// as any other array owns its own, and give it back to the pool.
class FromPool {
  public:
    /// Does nothing for arrays that are too small.
    explicit FromPool(std::size_t bytes);
    ~FromPool();
    FromPool(const FromPool&) = delete;
    FromPool& operator=(const FromPool&) = delete;

  private:
    pybind11::object before_;
};

}  // namespace anynorm::python
