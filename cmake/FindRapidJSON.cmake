# Finds the headers of RapidJSON and defines RapidJSON::RapidJSON. (Its own config file, where it ships one, defines
# variables only.)
find_path(RapidJSON_INCLUDE_DIR rapidjson/document.h)
mark_as_advanced(RapidJSON_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  RapidJSON
  REQUIRED_VARS RapidJSON_INCLUDE_DIR
  REASON_FAILURE_MESSAGE
    "effinfer::effinfer reads JSON with it. Debian, Ubuntu: apt-get install rapidjson-dev. Elsewhere: \
-DRapidJSON_INCLUDE_DIR=<folder that holds rapidjson/>. effinfer::kernels alone does not need it: \
-DEFFINFER_KERNELS_ONLY=ON, or find_package(effinfer COMPONENTS kernels).")

if(RapidJSON_FOUND AND NOT TARGET RapidJSON::RapidJSON)
  add_library(RapidJSON::RapidJSON INTERFACE IMPORTED)
  target_include_directories(RapidJSON::RapidJSON INTERFACE ${RapidJSON_INCLUDE_DIR})
endif()
