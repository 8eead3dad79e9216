# SPDX-License-Identifier: Apache-2.0
# What only those who work on anynorm need. An embedder's build passes through without an effect.

get_property(anynorm_multi_config GLOBAL PROPERTY GENERATOR_IS_MULTI_CONFIG)
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT anynorm_multi_config)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  # Beside a build instead of within it: the analyzer needs no object.
  add_custom_target(
    tidy COMMAND run-clang-tidy -quiet -p ${CMAKE_BINARY_DIR} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM
  )
endif()

# Those of a list of instruction sets that this machine can run, as far as Linux tells.
function(anynorm_runnable out)
  set(isas ${ARGN})
  if(NOT CMAKE_CROSSCOMPILING AND EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo flags REGEX "^flags" LIMIT_COUNT 1)
    foreach(pair IN ITEMS "avx2;avx2" "avx512;avx512f")
      list(GET pair 0 isa)
      list(GET pair 1 flag)
      if(NOT flags MATCHES " ${flag}( |$)")
        list(REMOVE_ITEM isas ${isa})
      endif()
    endforeach()
  endif()
  set(${out} ${isas} PARENT_SCOPE)
endfunction()

set(ANYNORM_WARNINGS "")
if(ANYNORM_WERROR)
  # Not -Wsign-conversion: sizes are signed here and the standard library's are not. The public headers are clean of
  # that as well, since an embedder may ask for it; the consumer tests see to it.
  set(ANYNORM_WARNINGS -Wall -Wextra -Wpedantic -Wconversion -Werror)
endif()

if(ANYNORM_SANITIZE)
  # -O0 over whatever the build type says: with every access checked a file takes 28 s at -O1 and 10 s at -O0.
  add_compile_options(-fsanitize=${ANYNORM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer -O0 -g1)
  add_link_options(-fsanitize=${ANYNORM_SANITIZE})
endif()
