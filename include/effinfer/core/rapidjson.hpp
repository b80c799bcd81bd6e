#pragma once
// RapidJSON in a namespace of our own, effinfer::json::rapid, with settings of our own. A program that uses RapidJSON too,
// with whatever settings, before or after this header, keeps its own: no macro of either reaches the other, and the linker
// never takes one's function for the other's. RapidJSON's assertions throw instead of ending the program.
//
// Each of its macros that one could have set, and each include guard, is put aside first and put back at the end.

#pragma GCC system_header  // warnings in RapidJSON are not the user's, wherever it is installed

#include <effinfer/core/error.hpp>

#pragma push_macro("RAPIDJSON_NAMESPACE")
#pragma push_macro("RAPIDJSON_NAMESPACE_BEGIN")
#pragma push_macro("RAPIDJSON_NAMESPACE_END")
#pragma push_macro("RAPIDJSON_ASSERT")
#pragma push_macro("RAPIDJSON_ASSERT_THROWS")
#pragma push_macro("RAPIDJSON_NOEXCEPT_ASSERT")
#pragma push_macro("RAPIDJSON_STATIC_ASSERT")
#pragma push_macro("RAPIDJSON_NOEXCEPT")
#pragma push_macro("RAPIDJSON_HAS_CXX11")
#pragma push_macro("RAPIDJSON_HAS_CXX11_NOEXCEPT")
#pragma push_macro("RAPIDJSON_HAS_CXX11_RANGE_FOR")
#pragma push_macro("RAPIDJSON_HAS_CXX11_RVALUE_REFS")
#pragma push_macro("RAPIDJSON_HAS_CXX11_TYPETRAITS")
#pragma push_macro("RAPIDJSON_HAS_CXX17")
#pragma push_macro("RAPIDJSON_HAS_STDSTRING")
#pragma push_macro("RAPIDJSON_NO_SIZETYPEDEFINE")
#pragma push_macro("RAPIDJSON_NOMEMBERITERATORCLASS")
#pragma push_macro("RAPIDJSON_48BITPOINTER_OPTIMIZATION")
#pragma push_macro("RAPIDJSON_SETPOINTER")
#pragma push_macro("RAPIDJSON_GETPOINTER")
#pragma push_macro("RAPIDJSON_ALIGN")
#pragma push_macro("RAPIDJSON_SSE2")
#pragma push_macro("RAPIDJSON_SSE42")
#pragma push_macro("RAPIDJSON_NEON")
#pragma push_macro("RAPIDJSON_SIMD")
#pragma push_macro("RAPIDJSON_NEW")
#pragma push_macro("RAPIDJSON_DELETE")
#pragma push_macro("RAPIDJSON_MALLOC")
#pragma push_macro("RAPIDJSON_REALLOC")
#pragma push_macro("RAPIDJSON_FREE")
#pragma push_macro("RAPIDJSON_USE_MEMBERSMAP")
#pragma push_macro("RAPIDJSON_ALLOCATOR_DEFAULT_CHUNK_CAPACITY")
#pragma push_macro("RAPIDJSON_VALUE_DEFAULT_OBJECT_CAPACITY")
#pragma push_macro("RAPIDJSON_VALUE_DEFAULT_ARRAY_CAPACITY")
#pragma push_macro("RAPIDJSON_DEFAULT_ALLOCATOR")
#pragma push_macro("RAPIDJSON_DEFAULT_STACK_ALLOCATOR")
#pragma push_macro("RAPIDJSON_PARSE_DEFAULT_FLAGS")
#pragma push_macro("RAPIDJSON_PARSE_ERROR")
#pragma push_macro("RAPIDJSON_PARSE_ERROR_NORETURN")
#pragma push_macro("RAPIDJSON_ERROR_CHARTYPE")
#pragma push_macro("RAPIDJSON_ERROR_STRING")
#pragma push_macro("RAPIDJSON_RAPIDJSON_H_")
#pragma push_macro("RAPIDJSON_ALLOCATORS_H_")
#pragma push_macro("RAPIDJSON_CURSORSTREAMWRAPPER_H_")
#pragma push_macro("RAPIDJSON_DOCUMENT_H_")
#pragma push_macro("RAPIDJSON_ENCODEDSTREAM_H_")
#pragma push_macro("RAPIDJSON_ENCODINGS_H_")
#pragma push_macro("RAPIDJSON_FWD_H_")
#pragma push_macro("RAPIDJSON_MEMORYSTREAM_H_")
#pragma push_macro("RAPIDJSON_READER_H_")
#pragma push_macro("RAPIDJSON_STREAM_H_")
#pragma push_macro("RAPIDJSON_ERROR_ERROR_H_")
#pragma push_macro("RAPIDJSON_ERROR_EN_H_")
#pragma push_macro("RAPIDJSON_BIGINTEGER_H_")
#pragma push_macro("RAPIDJSON_CLZLL_H_")
#pragma push_macro("RAPIDJSON_DIYFP_H_")
#pragma push_macro("RAPIDJSON_DTOA_")
#pragma push_macro("RAPIDJSON_IEEE754_")
#pragma push_macro("RAPIDJSON_ITOA_")
#pragma push_macro("RAPIDJSON_INTERNAL_META_H_")
#pragma push_macro("RAPIDJSON_INTERNAL_STACK_H_")
#pragma push_macro("RAPIDJSON_INTERNAL_STRFUNC_H_")
#pragma push_macro("RAPIDJSON_INTERNAL_SWAP_H_")
#pragma push_macro("RAPIDJSON_POW10_")
#pragma push_macro("RAPIDJSON_STRTOD_")

#undef RAPIDJSON_NAMESPACE
#undef RAPIDJSON_NAMESPACE_BEGIN
#undef RAPIDJSON_NAMESPACE_END
#undef RAPIDJSON_ASSERT
#undef RAPIDJSON_ASSERT_THROWS
#undef RAPIDJSON_NOEXCEPT_ASSERT
#undef RAPIDJSON_STATIC_ASSERT
#undef RAPIDJSON_NOEXCEPT
#undef RAPIDJSON_HAS_CXX11
#undef RAPIDJSON_HAS_CXX11_NOEXCEPT
#undef RAPIDJSON_HAS_CXX11_RANGE_FOR
#undef RAPIDJSON_HAS_CXX11_RVALUE_REFS
#undef RAPIDJSON_HAS_CXX11_TYPETRAITS
#undef RAPIDJSON_HAS_CXX17
#undef RAPIDJSON_HAS_STDSTRING
#undef RAPIDJSON_NO_SIZETYPEDEFINE
#undef RAPIDJSON_NOMEMBERITERATORCLASS
#undef RAPIDJSON_48BITPOINTER_OPTIMIZATION
#undef RAPIDJSON_SETPOINTER
#undef RAPIDJSON_GETPOINTER
#undef RAPIDJSON_ALIGN
#undef RAPIDJSON_SSE2
#undef RAPIDJSON_SSE42
#undef RAPIDJSON_NEON
#undef RAPIDJSON_SIMD
#undef RAPIDJSON_NEW
#undef RAPIDJSON_DELETE
#undef RAPIDJSON_MALLOC
#undef RAPIDJSON_REALLOC
#undef RAPIDJSON_FREE
#undef RAPIDJSON_USE_MEMBERSMAP
#undef RAPIDJSON_ALLOCATOR_DEFAULT_CHUNK_CAPACITY
#undef RAPIDJSON_VALUE_DEFAULT_OBJECT_CAPACITY
#undef RAPIDJSON_VALUE_DEFAULT_ARRAY_CAPACITY
#undef RAPIDJSON_DEFAULT_ALLOCATOR
#undef RAPIDJSON_DEFAULT_STACK_ALLOCATOR
#undef RAPIDJSON_PARSE_DEFAULT_FLAGS
#undef RAPIDJSON_PARSE_ERROR
#undef RAPIDJSON_PARSE_ERROR_NORETURN
#undef RAPIDJSON_ERROR_CHARTYPE
#undef RAPIDJSON_ERROR_STRING
#undef RAPIDJSON_RAPIDJSON_H_
#undef RAPIDJSON_ALLOCATORS_H_
#undef RAPIDJSON_CURSORSTREAMWRAPPER_H_
#undef RAPIDJSON_DOCUMENT_H_
#undef RAPIDJSON_ENCODEDSTREAM_H_
#undef RAPIDJSON_ENCODINGS_H_
#undef RAPIDJSON_FWD_H_
#undef RAPIDJSON_MEMORYSTREAM_H_
#undef RAPIDJSON_READER_H_
#undef RAPIDJSON_STREAM_H_
#undef RAPIDJSON_ERROR_ERROR_H_
#undef RAPIDJSON_ERROR_EN_H_
#undef RAPIDJSON_BIGINTEGER_H_
#undef RAPIDJSON_CLZLL_H_
#undef RAPIDJSON_DIYFP_H_
#undef RAPIDJSON_DTOA_
#undef RAPIDJSON_IEEE754_
#undef RAPIDJSON_ITOA_
#undef RAPIDJSON_INTERNAL_META_H_
#undef RAPIDJSON_INTERNAL_STACK_H_
#undef RAPIDJSON_INTERNAL_STRFUNC_H_
#undef RAPIDJSON_INTERNAL_SWAP_H_
#undef RAPIDJSON_POW10_
#undef RAPIDJSON_STRTOD_

#define RAPIDJSON_NAMESPACE effinfer::json::rapid
#define RAPIDJSON_NAMESPACE_BEGIN \
  namespace effinfer {            \
  inline namespace v0 {           \
  namespace json {                \
  namespace rapid {
#define RAPIDJSON_NAMESPACE_END \
  }                             \
  }                             \
  }                             \
  }
// Nothing in json.hpp can make one fail; should one, it is an error as every other.
#define RAPIDJSON_ASSERT(condition) \
  ((condition) ? void(0)            \
               : throw ::effinfer::error(::effinfer::error_code::malformed, "JSON", "RapidJSON asserts " #condition))
#define RAPIDJSON_STATIC_ASSERT(condition) static_assert(condition)

#include <rapidjson/document.h>
#include <rapidjson/encodedstream.h>
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#pragma pop_macro("RAPIDJSON_NAMESPACE")
#pragma pop_macro("RAPIDJSON_NAMESPACE_BEGIN")
#pragma pop_macro("RAPIDJSON_NAMESPACE_END")
#pragma pop_macro("RAPIDJSON_ASSERT")
#pragma pop_macro("RAPIDJSON_ASSERT_THROWS")
#pragma pop_macro("RAPIDJSON_NOEXCEPT_ASSERT")
#pragma pop_macro("RAPIDJSON_STATIC_ASSERT")
#pragma pop_macro("RAPIDJSON_NOEXCEPT")
#pragma pop_macro("RAPIDJSON_HAS_CXX11")
#pragma pop_macro("RAPIDJSON_HAS_CXX11_NOEXCEPT")
#pragma pop_macro("RAPIDJSON_HAS_CXX11_RANGE_FOR")
#pragma pop_macro("RAPIDJSON_HAS_CXX11_RVALUE_REFS")
#pragma pop_macro("RAPIDJSON_HAS_CXX11_TYPETRAITS")
#pragma pop_macro("RAPIDJSON_HAS_CXX17")
#pragma pop_macro("RAPIDJSON_HAS_STDSTRING")
#pragma pop_macro("RAPIDJSON_NO_SIZETYPEDEFINE")
#pragma pop_macro("RAPIDJSON_NOMEMBERITERATORCLASS")
#pragma pop_macro("RAPIDJSON_48BITPOINTER_OPTIMIZATION")
#pragma pop_macro("RAPIDJSON_SETPOINTER")
#pragma pop_macro("RAPIDJSON_GETPOINTER")
#pragma pop_macro("RAPIDJSON_ALIGN")
#pragma pop_macro("RAPIDJSON_SSE2")
#pragma pop_macro("RAPIDJSON_SSE42")
#pragma pop_macro("RAPIDJSON_NEON")
#pragma pop_macro("RAPIDJSON_SIMD")
#pragma pop_macro("RAPIDJSON_NEW")
#pragma pop_macro("RAPIDJSON_DELETE")
#pragma pop_macro("RAPIDJSON_MALLOC")
#pragma pop_macro("RAPIDJSON_REALLOC")
#pragma pop_macro("RAPIDJSON_FREE")
#pragma pop_macro("RAPIDJSON_USE_MEMBERSMAP")
#pragma pop_macro("RAPIDJSON_ALLOCATOR_DEFAULT_CHUNK_CAPACITY")
#pragma pop_macro("RAPIDJSON_VALUE_DEFAULT_OBJECT_CAPACITY")
#pragma pop_macro("RAPIDJSON_VALUE_DEFAULT_ARRAY_CAPACITY")
#pragma pop_macro("RAPIDJSON_DEFAULT_ALLOCATOR")
#pragma pop_macro("RAPIDJSON_DEFAULT_STACK_ALLOCATOR")
#pragma pop_macro("RAPIDJSON_PARSE_DEFAULT_FLAGS")
#pragma pop_macro("RAPIDJSON_PARSE_ERROR")
#pragma pop_macro("RAPIDJSON_PARSE_ERROR_NORETURN")
#pragma pop_macro("RAPIDJSON_ERROR_CHARTYPE")
#pragma pop_macro("RAPIDJSON_ERROR_STRING")
#pragma pop_macro("RAPIDJSON_RAPIDJSON_H_")
#pragma pop_macro("RAPIDJSON_ALLOCATORS_H_")
#pragma pop_macro("RAPIDJSON_CURSORSTREAMWRAPPER_H_")
#pragma pop_macro("RAPIDJSON_DOCUMENT_H_")
#pragma pop_macro("RAPIDJSON_ENCODEDSTREAM_H_")
#pragma pop_macro("RAPIDJSON_ENCODINGS_H_")
#pragma pop_macro("RAPIDJSON_FWD_H_")
#pragma pop_macro("RAPIDJSON_MEMORYSTREAM_H_")
#pragma pop_macro("RAPIDJSON_READER_H_")
#pragma pop_macro("RAPIDJSON_STREAM_H_")
#pragma pop_macro("RAPIDJSON_ERROR_ERROR_H_")
#pragma pop_macro("RAPIDJSON_ERROR_EN_H_")
#pragma pop_macro("RAPIDJSON_BIGINTEGER_H_")
#pragma pop_macro("RAPIDJSON_CLZLL_H_")
#pragma pop_macro("RAPIDJSON_DIYFP_H_")
#pragma pop_macro("RAPIDJSON_DTOA_")
#pragma pop_macro("RAPIDJSON_IEEE754_")
#pragma pop_macro("RAPIDJSON_ITOA_")
#pragma pop_macro("RAPIDJSON_INTERNAL_META_H_")
#pragma pop_macro("RAPIDJSON_INTERNAL_STACK_H_")
#pragma pop_macro("RAPIDJSON_INTERNAL_STRFUNC_H_")
#pragma pop_macro("RAPIDJSON_INTERNAL_SWAP_H_")
#pragma pop_macro("RAPIDJSON_POW10_")
#pragma pop_macro("RAPIDJSON_STRTOD_")
