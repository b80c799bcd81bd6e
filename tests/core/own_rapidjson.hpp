#pragma once
// RapidJSON as a program may have it: with settings of its own, which change the layout of every class.

#include <cstddef>
#include <stdexcept>

#define RAPIDJSON_HAS_STDSTRING 1
#define RAPIDJSON_NO_SIZETYPEDEFINE
namespace rapidjson {
using SizeType = std::size_t;
}
#define RAPIDJSON_ASSERT(condition) \
  if (!(condition)) throw std::logic_error("the program's own assertion")
#define RAPIDJSON_NOEXCEPT_ASSERT(condition) static_cast<void>(condition)
#include <rapidjson/document.h>
