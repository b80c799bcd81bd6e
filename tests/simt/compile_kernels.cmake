# Compiles the CUDA kernels of a file for an architecture and says what they take; a kernel that spills registers fails, as does
# one whose warpgroup instructions the assembler makes wait for each other, or whose distribution of registers it ignores. Without
# -O3, which nvcc passes on to the host's compiler: kernels are always optimized, and what is for the host isn't run.
#   cmake -D NVCC=nvcc -D ARCHITECTURE=90a -D INCLUDE=include -D SOURCE=instantiations.cu -D OUTPUT=folder -P compile_kernels.cmake

cmake_path(GET SOURCE STEM kernels_of)
string(TIMESTAMP began "%s")
execute_process(
  COMMAND ${NVCC} -std=c++20 --expt-relaxed-constexpr -Werror cross-execution-space-call -Werror all-warnings
          -gencode arch=compute_${ARCHITECTURE},code=sm_${ARCHITECTURE} -Xptxas -v -I ${INCLUDE} -c ${SOURCE}
          -o ${OUTPUT}/${kernels_of}_${ARCHITECTURE}.o
  RESULT_VARIABLE status ERROR_VARIABLE report OUTPUT_VARIABLE report)
string(TIMESTAMP ended "%s")
if(status)
  message(FATAL_ERROR "nvcc: ${status}\n${report}")
endif()
math(EXPR seconds "${ended} - ${began}")
string(REGEX MATCHALL "Used [0-9]+ registers" registers "${report}")
string(REGEX MATCHALL "[0-9]+ bytes spill (stores|loads)" spills "${report}")
list(LENGTH registers kernels)
set(most 0)
foreach(one IN LISTS registers)
  string(REGEX MATCH "[0-9]+" count "${one}")
  if(count GREATER most)
    set(most ${count})
  endif()
endforeach()
message("${kernels_of}, sm_${ARCHITECTURE}: ${kernels} kernels, at most ${most} registers, ${seconds} s")
if(kernels EQUAL 0)
  message(FATAL_ERROR "the assembler reported nothing:\n${report}")
endif()
foreach(one IN LISTS spills)
  if(NOT one MATCHES "^0 bytes")
    message(FATAL_ERROR "a kernel spills (${one}):\n${report}")
  endif()
endforeach()
string(REGEX MATCH "[^\n]*(C75[0-9][0-9]|setmaxnreg ignored|wgmma[^\n]*serialized)[^\n]*" ignored "${report}")
if(ignored)
  message(FATAL_ERROR "the assembler says: ${ignored}")
endif()
