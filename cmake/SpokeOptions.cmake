# SPDX-License-Identifier: MIT
# What can be chosen, and the compiler flags that follow from it.  Everything that we compile links
# `spoke-flags`; the library and the tests link `spoke-internals` too.

find_package(PkgConfig REQUIRED)
pkg_check_modules(CRITERION QUIET IMPORTED_TARGET criterion)

option(SPOKE_BUILD_TOOLS "Build the program spoke" ON)
option(SPOKE_BUILD_COMPAT "Build the stand-in for libnanomsg" ON)
option(SPOKE_BUILD_BENCH "Build the benchmark programs" ON)
option(SPOKE_BUILD_TESTS "Build the tests (by default where Criterion is installed)" ${CRITERION_FOUND})
option(SPOKE_BUILD_EXAMPLES "Build the examples" ON)
option(SPOKE_FUZZ "Build the fuzz targets with libFuzzer (clang)" OFF)
option(SPOKE_COVERAGE "Instrument for llvm-cov (clang)" OFF)
option(SPOKE_WERROR "Treat warnings as errors" ON)

set(SPOKE_SANITIZE none CACHE STRING "none, address (with undefined) or thread")
set_property(CACHE SPOKE_SANITIZE PROPERTY STRINGS none address thread)
if(NOT SPOKE_SANITIZE MATCHES "^(none|address|thread)$")
    message(FATAL_ERROR "SPOKE_SANITIZE is \"${SPOKE_SANITIZE}\"; it can be none, address or thread")
endif()

set(SPOKE_ALLOCATOR jemalloc CACHE STRING "jemalloc or system (always system under a sanitizer)")
set_property(CACHE SPOKE_ALLOCATOR PROPERTY STRINGS jemalloc system)
if(NOT SPOKE_ALLOCATOR MATCHES "^(jemalloc|system)$")
    message(FATAL_ERROR "SPOKE_ALLOCATOR is \"${SPOKE_ALLOCATOR}\"; it can be jemalloc or system")
endif()

if(SPOKE_SANITIZE STREQUAL "none")
    set(SPOKE_SANITIZED FALSE)
    set(SPOKE_USE_ALLOCATOR "${SPOKE_ALLOCATOR}")
else()
    set(SPOKE_SANITIZED TRUE)
    set(SPOKE_USE_ALLOCATOR system)
endif()

# Checks that cost time: on where nobody measures.  Without them the library is compiled with NDEBUG.
option(SPOKE_DEBUG_CHECKS "Keep the library's assertions and expensive checks" ${SPOKE_SANITIZED})

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()
# CMake's own flags carry NDEBUG to every target; here SPOKE_DEBUG_CHECKS decides, for the library.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_C_FLAGS_RELEASE "-O2")

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if((SPOKE_FUZZ OR SPOKE_COVERAGE) AND NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SPOKE_FUZZ and SPOKE_COVERAGE need clang: configure with CC=clang")
endif()

add_library(spoke-flags INTERFACE)
target_compile_options(spoke-flags INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
    -Wstrict-prototypes -Wmissing-prototypes)
if(SPOKE_WERROR)
    target_compile_options(spoke-flags INTERFACE -Werror)
endif()
if(SPOKE_SANITIZE STREQUAL "address")
    set(instrumentation -fsanitize=address,undefined -fno-sanitize-recover=undefined)
elseif(SPOKE_SANITIZE STREQUAL "thread")
    set(instrumentation -fsanitize=thread)
else()
    set(instrumentation)
endif()
if(SPOKE_SANITIZE STREQUAL "thread" AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
    target_compile_options(spoke-flags INTERFACE -Wno-tsan) # it says that it does not know fences
endif()
if(SPOKE_SANITIZED)
    target_compile_options(spoke-flags INTERFACE -fno-omit-frame-pointer)
endif()
if(SPOKE_COVERAGE)
    list(APPEND instrumentation -fprofile-instr-generate -fcoverage-mapping)
endif()
target_compile_options(spoke-flags INTERFACE ${instrumentation})
target_link_options(spoke-flags INTERFACE ${instrumentation})
if(SPOKE_FUZZ)
    target_compile_options(spoke-flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The view from inside: sources say "runtime/engine/engine.h" and <spoke/message.h>.
add_library(spoke-internals INTERFACE)
target_include_directories(spoke-internals INTERFACE
    "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}")
target_compile_definitions(spoke-internals INTERFACE _GNU_SOURCE
    $<$<STREQUAL:${SPOKE_USE_ALLOCATOR},jemalloc>:SPOKE_USE_JEMALLOC=1>
    $<$<BOOL:${SPOKE_SANITIZED}>:SPOKE_SYSTEM_POOLS=1>
    $<$<BOOL:${SPOKE_DEBUG_CHECKS}>:SPOKE_DEBUG_CHECKS=1>)
