# SPDX-License-Identifier: MIT
# The libraries of others.  What the library itself needs is required; the rest is used where found.
# `scripts/install-deps` installs all of them on Debian.
include(CheckIncludeFile)
include(CheckLibraryExists)

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

pkg_check_modules(URING REQUIRED IMPORTED_TARGET "liburing>=2.3")
target_link_libraries(spoke-internals INTERFACE PkgConfig::URING Threads::Threads)
pkg_check_modules(CBOR REQUIRED IMPORTED_TARGET "libcbor>=0.8")
pkg_check_modules(MD REQUIRED IMPORTED_TARGET "libmd>=1.0")
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET "libssl>=3.0" "libcrypto>=3.0")
find_library(HTTP_PARSER_LIBRARY http_parser REQUIRED) # which says nothing to pkg-config
find_path(HTTP_PARSER_INCLUDE_DIR http_parser.h REQUIRED)
mark_as_advanced(HTTP_PARSER_LIBRARY HTTP_PARSER_INCLUDE_DIR)
target_link_libraries(spoke-internals INTERFACE PkgConfig::CBOR PkgConfig::MD PkgConfig::OPENSSL
    "${HTTP_PARSER_LIBRARY}")
target_include_directories(spoke-internals SYSTEM INTERFACE "${HTTP_PARSER_INCLUDE_DIR}")
if(SPOKE_USE_ALLOCATOR STREQUAL "jemalloc")
    pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET "jemalloc>=5.2")
    target_link_libraries(spoke-internals INTERFACE PkgConfig::JEMALLOC)
endif()

# Static probes (USDT): a nop each where nobody traces.
check_include_file(sys/sdt.h SPOKE_HAVE_SDT)
if(SPOKE_HAVE_SDT)
    target_compile_definitions(spoke-internals INTERFACE SPOKE_HAVE_SDT=1)
endif()

# Somebody else's event loop, for one example.
pkg_check_modules(LIBUV IMPORTED_TARGET libuv)

# Peers: what the benchmarks measure beside ours, and what the interoperability tests talk to.
pkg_check_modules(NANOMSG IMPORTED_TARGET nanomsg)
pkg_check_modules(ZEROMQ IMPORTED_TARGET libzmq)
find_library(NNG_LIBRARY nng)
find_path(NNG_INCLUDE_DIR nng/nng.h)
mark_as_advanced(NNG_LIBRARY NNG_INCLUDE_DIR)
find_package(iceoryx_binding_c CONFIG QUIET)
find_program(IOX_ROUDI iox-roudi)
mark_as_advanced(iceoryx_binding_c_DIR IOX_ROUDI)

# One target name for each peer that is there: peer-iceoryx, peer-nanomsg, peer-nng, peer-zeromq.
add_library(peer-iceoryx INTERFACE)
add_library(peer-nanomsg INTERFACE)
add_library(peer-nng INTERFACE)
add_library(peer-zeromq INTERFACE)
set(SPOKE_PEERS)
# Beside its library it needs its daemon, iox-roudi.
if(iceoryx_binding_c_FOUND AND IOX_ROUDI)
    # Only the library itself: its package also names the C++ library, which it brings along for
    # running, while a C compiler alone has nothing to link it from.
    target_link_libraries(peer-iceoryx INTERFACE $<TARGET_FILE:iceoryx_binding_c::iceoryx_binding_c>)
    target_include_directories(peer-iceoryx SYSTEM INTERFACE
        $<TARGET_PROPERTY:iceoryx_binding_c::iceoryx_binding_c,INTERFACE_INCLUDE_DIRECTORIES>)
    list(APPEND SPOKE_PEERS iceoryx)
endif()
if(NANOMSG_FOUND)
    target_link_libraries(peer-nanomsg INTERFACE PkgConfig::NANOMSG)
    target_compile_definitions(peer-nanomsg INTERFACE SPOKE_HAVE_NANOMSG=1)
    list(APPEND SPOKE_PEERS nanomsg)
endif()
if(NNG_LIBRARY AND NNG_INCLUDE_DIR)
    target_link_libraries(peer-nng INTERFACE "${NNG_LIBRARY}" Threads::Threads)
    target_include_directories(peer-nng SYSTEM INTERFACE "${NNG_INCLUDE_DIR}")
    target_compile_definitions(peer-nng INTERFACE SPOKE_HAVE_NNG=1)
    list(APPEND SPOKE_PEERS nng)
endif()
if(ZEROMQ_FOUND)
    target_link_libraries(peer-zeromq INTERFACE PkgConfig::ZEROMQ)
    target_compile_definitions(peer-zeromq INTERFACE SPOKE_HAVE_ZEROMQ=1)
    list(APPEND SPOKE_PEERS zeromq)
endif()
