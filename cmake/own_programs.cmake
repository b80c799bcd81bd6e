# How effinfer's own tests, examples and benches are compiled. None of it reaches a user of the library.

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(EFFINFER_CCACHE ccache)
  mark_as_advanced(EFFINFER_CCACHE)
  if(EFFINFER_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${EFFINFER_CCACHE})
  endif()
endif()

# Without a build type a kernel would be measured unoptimized.
if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

# effinfer_own_program(target): links the library and asks for the warnings that the headers promise to be free of.
function(effinfer_own_program target)
  target_link_libraries(${target} PRIVATE $<IF:$<TARGET_EXISTS:effinfer::effinfer>,effinfer::effinfer,effinfer::kernels>
                                          effinfer::compiled)
  set(warnings -Wall -Wextra -Wconversion -Wshadow $<$<BOOL:${EFFINFER_WARNINGS_AS_ERRORS}>:-Werror>)
  # CMake 3.25 doesn't know that nvcc has C++20.
  target_compile_options(
    ${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>"
                      "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--expt-relaxed-constexpr;-Xcompiler=-Wall,-Wextra>")
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()
