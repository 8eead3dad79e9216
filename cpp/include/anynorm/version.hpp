// SPDX-License-Identifier: Apache-2.0
// The one place where the version is written; CMake and pyproject.toml read it from here.
#pragma once

#define ANYNORM_VERSION_MAJOR 0
#define ANYNORM_VERSION_MINOR 1
#define ANYNORM_VERSION_PATCH 0

// The inline namespace changes with every incompatible release, so that two versions linked into one program
// cannot be mistaken for each other.
#define ANYNORM_ABI v0
