// SPDX-License-Identifier: Apache-2.0
#include "anynorm/runtime.hpp"

#define ANYNORM_TEXT_OF(token) #token
#define ANYNORM_TEXT(macro) ANYNORM_TEXT_OF(macro)

namespace anynorm::inline ANYNORM_ABI {

std::string_view version() noexcept {
    return ANYNORM_TEXT(ANYNORM_VERSION_MAJOR) "." ANYNORM_TEXT(ANYNORM_VERSION_MINOR) "." ANYNORM_TEXT(
        ANYNORM_VERSION_PATCH);
}

}  // namespace anynorm::inline ANYNORM_ABI
