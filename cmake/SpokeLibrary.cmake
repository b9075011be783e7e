# SPDX-License-Identifier: MIT
# libspoke.so and libspoke.a, from one compilation.  A new module is found by itself: no line here.
file(GLOB_RECURSE SPOKE_SOURCES CONFIGURE_DEPENDS
    "${PROJECT_SOURCE_DIR}/runtime/*.c"
    "${PROJECT_SOURCE_DIR}/transports/*.c"
    "${PROJECT_SOURCE_DIR}/protocols/*.c")

add_library(spoke-objects OBJECT ${SPOKE_SOURCES})
set_target_properties(spoke-objects PROPERTIES
    POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
target_link_libraries(spoke-objects PRIVATE spoke-flags spoke-internals)
# A call from the library to one of its own public functions stays inside the library.
target_compile_options(spoke-objects PRIVATE -fno-semantic-interposition)
if(NOT SPOKE_DEBUG_CHECKS)
    target_compile_definitions(spoke-objects PRIVATE NDEBUG)
endif()

function(spoke_public_face target)
    target_include_directories(${target} PUBLIC
        "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
        "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
    set_target_properties(${target} PROPERTIES
        ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib"
        LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
endfunction()

# What the archive needs at the end of a link.  The installed package names the libraries plainly: its
# users need no pkg-config for that.
set(static_needs uring cbor md ssl crypto http_parser)
if(SPOKE_USE_ALLOCATOR STREQUAL "jemalloc")
    list(APPEND static_needs jemalloc)
endif()

add_library(spoke-static STATIC $<TARGET_OBJECTS:spoke-objects>)
set_target_properties(spoke-static PROPERTIES OUTPUT_NAME spoke)
target_link_libraries(spoke-static PRIVATE
    "$<BUILD_INTERFACE:spoke-flags>" "$<BUILD_INTERFACE:spoke-internals>"
    "$<INSTALL_INTERFACE:${static_needs}>" Threads::Threads)
spoke_public_face(spoke-static)

add_library(spoke SHARED $<TARGET_OBJECTS:spoke-objects>)
set_target_properties(spoke PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION 0
    LINK_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/spoke.map")
target_link_libraries(spoke PRIVATE "$<BUILD_INTERFACE:spoke-flags>"
    "$<BUILD_INTERFACE:spoke-internals>")
target_link_options(spoke PRIVATE
    "LINKER:--version-script=${PROJECT_SOURCE_DIR}/cmake/spoke.map")
if(NOT SPOKE_SANITIZED AND NOT SPOKE_FUZZ AND NOT SPOKE_COVERAGE)
    target_link_options(spoke PRIVATE "LINKER:--no-undefined")
endif()
spoke_public_face(spoke)
