# effinfer::compiled, for programs with several files that hold pipelines: the products are compiled once, in the program's own
# build and with its options, which takes more than half off each of those files. Not built unless something links it.
#
#   target_link_libraries(app PRIVATE effinfer::effinfer effinfer::compiled)
#
# `effinfer_compiled_folder` is where the sources are: in the repository, or installed beside the headers.
if(NOT TARGET effinfer_compiled)
  file(GLOB effinfer_compiled_sources ${effinfer_compiled_folder}/*.cpp)
  add_library(effinfer_compiled STATIC EXCLUDE_FROM_ALL ${effinfer_compiled_sources})
  add_library(effinfer::compiled ALIAS effinfer_compiled)
  target_link_libraries(effinfer_compiled PUBLIC effinfer::kernels)
  target_compile_definitions(effinfer_compiled INTERFACE EFFINFER_COMPILED)
  set_target_properties(effinfer_compiled PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_EXTENSIONS OFF UNITY_BUILD OFF)
endif()
