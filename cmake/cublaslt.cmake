# effinfer::cublaslt: effinfer::kernels and what <effinfer/quantization/cuda/cublaslt.cuh> needs, CUDA's headers and cuBLASLt.
find_package(CUDAToolkit 12 REQUIRED)
if(NOT TARGET effinfer::cublaslt)
  add_library(effinfer::cublaslt INTERFACE IMPORTED GLOBAL)
  target_link_libraries(effinfer::cublaslt INTERFACE effinfer::kernels CUDA::cublasLt CUDA::cudart)
endif()
