// core/rapidjson.hpp: a program's own RapidJSON, with other settings, and the library's do not meet. Here the program's is
// seen first, in tests/core/json.cpp the library's.

#include "core/own_rapidjson.hpp"

#include <effinfer/core/json.hpp>

#include <doctest/doctest.h>

#include <string>
#include <type_traits>

#ifndef RAPIDJSON_NO_SIZETYPEDEFINE
#error "the library took a setting of the program away"
#endif

namespace rapidjson_tests {

TEST_CASE("the program's RapidJSON before the library's: settings stay the program's") {
  static_assert(!std::is_same_v<rapidjson::Document, effinfer::json::rapid::Document>);
  static_assert(sizeof(rapidjson::SizeType) == 8 && sizeof(effinfer::json::rapid::SizeType) == 4);
  rapidjson::Document own;
  own.Parse(std::string("[1, 2]"));  // only with RAPIDJSON_HAS_STDSTRING
  CHECK(own.Size() == 2);
  CHECK_THROWS_AS(own.GetInt(), std::logic_error);

  const effinfer::json::document ours("[1, 2, 3]", "list.json");
  CHECK(ours.root().size() == 3);
}

TEST_CASE("an assertion inside the library's RapidJSON would be an effinfer::error") {
  const effinfer::json::rapid::Value null;
  CHECK_THROWS_AS(null.Size(), effinfer::error);
}

}  // namespace rapidjson_tests
