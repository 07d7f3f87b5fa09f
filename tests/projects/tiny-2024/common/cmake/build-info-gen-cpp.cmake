# Runs at build time in the top folder, and writes into the source tree.
include(${CMAKE_CURRENT_SOURCE_DIR}/cmake/build-info.cmake)
configure_file("${CMAKE_CURRENT_SOURCE_DIR}/common/build-info.cpp.in" "${CMAKE_CURRENT_SOURCE_DIR}/common/build-info.cpp" @ONLY)
