// SPDX-License-Identifier: Apache-2.0
// The arrays that all cases of a dtype work on, one after the other.
#pragma once

#include <anynorm/anynorm.hpp>
#include <cstddef>
#include <vector>

#include "cases.hpp"

namespace bench {

/// Memory as an embedder has it, from a cache line on, filled with numbers and so touched before the first measurement.
class Buffer {
  public:
    Buffer(anynorm::DType dtype, std::size_t bytes);
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer();

    void* data() const { return data_; }
    anynorm::TensorView view(const std::vector<std::int64_t>& shape) const;
    anynorm::TensorView view(const Case& each) const;  ///< of the shape and strides of x

  private:
    anynorm::DType dtype_;
    void* data_;
};

/// Room for the longest case of a dtype, and parameters for the longest axis, in float32 for the half types.
struct Buffers {
    Buffer x, y;
    Buffer beside, sum;  ///< what is read beside x, grad_output or a residual, and what is written beside y
    Buffer parameters;
    Buffers(anynorm::DType dtype, const std::vector<Case>& cases);
};

}  // namespace bench
