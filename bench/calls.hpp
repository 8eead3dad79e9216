// SPDX-License-Identifier: Apache-2.0
// From a case to the call of the library that it stands for.
#pragma once

#include <functional>

#include "cases.hpp"
#include "memory.hpp"

namespace bench {

using Call = std::function<void()>;

/// Ready to run, as long as the case and the buffers are there.
Call make_call(const Case& each, const Buffers& buffers, int threads);

}  // namespace bench
