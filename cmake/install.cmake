# The install rules: headers, a CMake package and two pkg-config files, all independent of the architecture.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(effinfer_cmake_folder ${CMAKE_INSTALL_DATADIR}/cmake/effinfer)
set(effinfer_components kernels compiled)

# Two export sets, so that the kernels can be found where the libraries that text needs are not installed.
install(TARGETS effinfer_kernels EXPORT effinfer-kernels-targets FILE_SET HEADERS)
install(EXPORT effinfer-kernels-targets NAMESPACE effinfer:: DESTINATION ${effinfer_cmake_folder})
install(DIRECTORY compiled DESTINATION ${CMAKE_INSTALL_DATADIR}/effinfer)
install(FILES cmake/compiled.cmake cmake/cublaslt.cmake DESTINATION ${effinfer_cmake_folder})
if(TARGET effinfer)
  list(APPEND effinfer_components effinfer)
  install(TARGETS effinfer EXPORT effinfer-targets)
  install(EXPORT effinfer-targets NAMESPACE effinfer:: DESTINATION ${effinfer_cmake_folder})
  install(FILES cmake/FindRapidJSON.cmake cmake/FindPCRE2.cmake cmake/Findutf8proc.cmake
          DESTINATION ${effinfer_cmake_folder})
endif()

set(effinfer_installed_sources ${CMAKE_INSTALL_DATADIR}/effinfer/compiled)
configure_package_config_file(cmake/effinfer-config.cmake.in effinfer-config.cmake
                              INSTALL_DESTINATION ${effinfer_cmake_folder} PATH_VARS effinfer_installed_sources)
write_basic_package_version_file(effinfer-config-version.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/effinfer-config.cmake ${PROJECT_BINARY_DIR}/effinfer-config-version.cmake
        DESTINATION ${effinfer_cmake_folder})

# pkg-config: the prefix is relative to the file, so the installed tree may be moved.
list(REMOVE_ITEM effinfer_components compiled)
foreach(component IN LISTS effinfer_components)
  if(component STREQUAL "kernels")
    set(pc_name effinfer-kernels)
    set(pc_description "kernels and policies of effinfer, on raw pointers")
    set(pc_requires "")
  else()
    set(pc_name effinfer)
    set(pc_description "${PROJECT_DESCRIPTION}")
    set(pc_requires "RapidJSON libpcre2-8 libutf8proc")
  endif()
  configure_file(cmake/effinfer.pc.in ${pc_name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${pc_name}.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
endforeach()
