# SPDX-License-Identifier: MIT
# What `make install` puts where.  The tool and the benchmark programs install themselves
# (tools/CMakeLists.txt, bench/CMakeLists.txt).
include(CMakePackageConfigHelpers)

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/spoke"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
    FILES_MATCHING PATTERN "*.h" PATTERN "*.def")

install(TARGETS spoke spoke-static EXPORT spoke-targets
    LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}"
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")

# CMake: find_package(spoke), then spoke::spoke or spoke::spoke-static.
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/spoke")
install(EXPORT spoke-targets NAMESPACE spoke:: DESTINATION "${package_dir}"
    FILE spokeTargets.cmake)
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/spokeConfig.cmake.in"
    "${PROJECT_BINARY_DIR}/spokeConfig.cmake" INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/spokeConfigVersion.cmake"
    COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/spokeConfig.cmake"
    "${PROJECT_BINARY_DIR}/spokeConfigVersion.cmake" DESTINATION "${package_dir}")

# pkg-config: the prefix follows the file, so an installed tree can be moved.
file(RELATIVE_PATH SPOKE_PC_TO_PREFIX
    "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
string(REGEX REPLACE "/$" "" SPOKE_PC_TO_PREFIX "${SPOKE_PC_TO_PREFIX}")
set(SPOKE_PC_REQUIRES_PRIVATE "liburing, libcbor, libmd, libssl, libcrypto")
if(SPOKE_USE_ALLOCATOR STREQUAL "jemalloc")
    string(APPEND SPOKE_PC_REQUIRES_PRIVATE ", jemalloc")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/spoke.pc.in" "${PROJECT_BINARY_DIR}/spoke.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/spoke.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

# Man pages: docs/man/NAME.SECTION.
file(GLOB man_pages CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/docs/man/*.[1-9]")
foreach(page IN LISTS man_pages)
    string(REGEX REPLACE ".*\\." "" section "${page}")
    install(FILES "${page}" DESTINATION "${CMAKE_INSTALL_MANDIR}/man${section}")
endforeach()

install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
