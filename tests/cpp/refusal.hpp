// SPDX-License-Identifier: Apache-2.0
// A call that is refused: what it says, and that it has written nothing.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace anynorm::test {

/// `Arrays` is all that the call may touch: default-constructed, copied and compared.
template <class Arrays>
void expect_refusal(void (*call)(Arrays&), const std::string& expected) {
    Arrays arrays;
    const Arrays before = arrays;
    std::string message = "no std::invalid_argument";
    try {
        call(arrays);
    } catch (const std::invalid_argument& error) {
        message = error.what();
    }
    EXPECT_EQ(message, expected);
    EXPECT_TRUE(arrays == before) << "something has been written";
    for (const char* leak : {".cpp", ".hpp", "/"}) EXPECT_EQ(message.find(leak), std::string::npos);
}

}  // namespace anynorm::test
