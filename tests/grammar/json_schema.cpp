// decoding/grammar/json_schema.hpp: every keyword, texts of the grammar against the evaluator of json_schema_document.hpp, and what is
// refused. tests/reference/check_json_schema.py asks another implementation about thousands of random schemas.

#include "walk.hpp"

#include <effinfer/decoding/grammar/json_schema.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace json_schema_tests {

using namespace grammar_tests;

namespace {

struct example {
  const char* schema;
  std::vector<const char*> valid, invalid;
};

// Schema, texts that the grammar has, texts that it hasn't: the latter are invalid JSON, invalid under the schema, or (marked) spelt or
// ordered in another way than the grammar's.
std::vector<example> examples() {
  return {
      {"true",
       {"1", "{}", "[[],\"\\u00e9\\n\"]", "-0.5e-3", "null", R"({"a":{"b":[true]}})"},
       {"", "01", "[1,]", "{\"a\"}", "tru", "1 "}},
      {R"({"type":"null"})", {"null"}, {"0", "false", "nul"}},
      {R"({"type":"boolean"})", {"true", "false"}, {"1", "null", "\"true\""}},
      {R"({"type":["integer","null"]})", {"5", "-12", "0", "null"}, {"1.5", "-", "\"\"", "00", "-0"}},
      {R"({"type":"number"})", {"1.5", "-3", "0", "2e10", "1E-2"}, {".5", "1.", "+1", "01", "\"1\"", "NaN"}},
      {R"({"type":"string"})",
       {R"("")", R"("a\"b")", R"("\ud83d\ude00")", "\"é\U0001F600\""},
       {"a", "\"a", R"("\x")", R"("\ud83d")", "\"\n\""}},
      {R"({"enum":[1,"a b",null,{"x":[true]}]})",
       {"1", "\"a b\"", "null", R"({"x":[true]})"},
       {"2", "\"a\"", "{}", "[1]"}},
      {R"({"enum":[1,"x",3.5],"type":"string"})", {"\"x\""}, {"1", "3.5"}},
      {R"({"const":"q\"\n"})", {R"("q\"\n")"}, {"\"q\"", "null"}},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"],"additionalProperties":false})",
       {R"({"a":1})", R"({"a":1,"b":"x"})"},
       {"{}", R"({"b":"x"})", R"({"a":1,"c":2})", R"({"a":1,})", R"({"b":"x","a":1})" /* another order */}},
      {R"({"type":"object","additionalProperties":{"type":"integer"},"required":["k"]})",
       {R"({"k":1})", R"({"k":1,"z":2,"y":3})"},
       {"{}", R"({"k":"1"})", R"({"z":1})", R"({"k":1,"z":true})"}},
      {R"({"type":"object","patternProperties":{"^x_":{"type":"integer"}},"additionalProperties":false})",
       {"{}", R"({"x_":1,"x_a":2})"},
       {R"({"a":1})", R"({"x_":"1"})"}},
      {R"({"type":"object","patternProperties":{"a":{"minimum":3}},"properties":{"ab":{"type":"integer"}}})",
       {R"({"ab":3})", R"({"b":0})"},
       {R"({"ab":2})", R"({"ca":1})"}},
      {R"({"type":"object","propertyNames":{"maxLength":2},"additionalProperties":{"type":"null"}})",
       {"{}", R"({"ab":null})"},
       {R"({"abc":null})"}},
      {R"({"type":"object","properties":{"a":true,"b":true},"minProperties":1,"maxProperties":1,"additionalProperties":false})",
       {R"({"a":1})", R"({"b":1})"},
       {"{}", R"({"a":1,"b":2})"}},
      {R"({"type":"array","items":{"type":"integer"}})",
       {"[]", "[1]", "[1,2,3]"},
       {"[1,]", "[\"a\"]", "[,1]", "[1 2]"}},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false})",
       {"[]", "[1]", "[1,\"a\"]"},
       {"[\"a\"]", "[1,\"a\",2]"}},
      {R"({"type":"array","prefixItems":[{"type":"null"}],"items":{"type":"boolean"},"minItems":2,"maxItems":3})",
       {"[null,true]", "[null,true,false]"},
       {"[null]", "[null,true,true,true]", "[true,true]"}},
      {R"({"type":"array","uniqueItems":true,"maxItems":1})", {"[]", "[1]"}, {"[1,1]"}},
      {R"({"type":"string","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"é\\n\\u0041\"", R"("\ud83d\ude00a")"},
       {"\"a\"", "\"abcd\""}},
      {R"({"type":"string","minLength":300,"maxLength":300})", {}, {"\"a\"", "\"\""}},
      {R"({"type":"string","pattern":"^[a-z]+-\\d{2}$"})", {"\"ab-12\""}, {"\"ab-1\"", "\"Ab-12\"", "\"ab-123\""}},
      {R"({"type":"string","pattern":"b"})", {"\"abc\"", "\"b\""}, {"\"ac\"", "\"\""}},
      {R"({"type":"string","pattern":"^a","maxLength":2})", {"\"a\"", "\"ab\""}, {"\"abc\"", "\"b\""}},
      {R"({"type":"integer","minimum":-5,"maximum":120})", {"-5", "0", "7", "99", "120"}, {"-6", "121", "1000", "1.0"}},
      {R"({"type":"integer","exclusiveMinimum":9,"exclusiveMaximum":12})", {"10", "11"}, {"9", "12", "1"}},
      {R"({"type":"integer","multipleOf":7,"minimum":1})", {"7", "49", "700"}, {"0", "1", "50", "-7"}},
      {R"({"type":"number","minimum":-1.5,"exclusiveMaximum":2.25})",
       {"-1.5", "0", "2.2499", "1", "-0.75"},
       {"-1.51", "2.25", "3", "-2"}},
      {R"({"type":"number","exclusiveMinimum":0,"maximum":1})",
       {"1", "0.5", "0.000001", "1.0"},
       {"0", "0.0", "1.1", "-0.5"}},
      {R"({"type":"string","format":"date"})",
       {"\"2024-02-29\"", "\"1999-12-31\""},
       {"\"2023-02-29\"", "\"2023-13-01\"", "\"1900-02-29\""}},
      {R"({"type":"string","format":"date-time"})",
       {"\"2024-02-29T23:59:59Z\"", "\"2024-02-29T23:59:59.5+01:30\""},
       {"\"2024-02-29 23:59:59Z\"", "\"2024-02-29T24:00:00Z\""}},
      {R"({"type":"string","format":"time"})", {"\"00:00:00Z\""}, {"\"00:00Z\"", "\"00:00:00\""}},
      {R"({"type":"string","format":"uuid"})",
       {"\"0f8fad5b-d9cb-469f-a165-70867728950e\""},
       {"\"0f8fad5bd9cb469fa16570867728950e\""}},
      {R"({"type":"string","format":"email"})", {"\"a.b@example.com\""}, {"\"a@\"", "\".a@b\"", "\"a..b@c\""}},
      {R"({"type":"string","format":"ipv4"})", {"\"127.0.0.1\""}, {"\"256.0.0.1\"", "\"1.2.3\"", "\"01.2.3.4\""}},
      {R"({"type":"string","format":"ipv6"})",
       {"\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"::ffff:1.2.3.4\"", "\"1::\""},
       {"\"1:2:3\"", "\"1::2::3\"", "\"12345::\""}},
      {R"({"type":"string","format":"hostname"})", {"\"www.example.com\""}, {"\"-a\"", "\"a..b\"", "\"a-\""}},
      {R"({"type":"string","format":"uri"})", {"\"http://a.b/c?d#e\""}, {"\"a.b/c\"", "\"http:// a\""}},
      {R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]})", {"1", "\"a\""}, {"\"ab\"", "null"}},
      {R"({"anyOf":[{"minimum":3},{"maximum":-3}],"type":"integer"})", {"3", "-3"}, {"0", "2"}},
      {R"({"oneOf":[{"type":"object","properties":{"k":{"const":1}},"required":["k"],"additionalProperties":false},
         {"type":"object","properties":{"k":{"const":2},"v":true},"required":["k"],"additionalProperties":false}]})",
       {R"({"k":1})", R"({"k":2})", R"({"k":2,"v":3})"},
       {"{}", R"({"k":3})", R"({"k":1,"v":3})"}},
      {R"({"oneOf":[{"type":"string","pattern":"^a"},{"type":"string","pattern":"^b"},{"type":"integer"}]})",
       {"\"ax\"", "\"b\"", "7"},
       {"\"c\"", "1.5"}},
      {R"({"allOf":[{"type":"integer","minimum":0},{"maximum":9}],"multipleOf":3})",
       {"0", "3", "9"},
       {"1", "12", "-3"}},
      {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"minimum":5}}}]})",
       {R"({"a":5})"},
       {R"({"a":4})", "{}"}},
      {R"({"$defs":{"node":{"type":"object","properties":{"v":{"type":"integer"},"next":{"$ref":"#/$defs/node"}},"required":["v"],"additionalProperties":false}},"$ref":"#/$defs/node"})",
       {R"({"v":1})", R"({"v":1,"next":{"v":2,"next":{"v":3}}})"},
       {"{}", R"({"v":1,"next":{}})", R"({"v":1,"next":{"v":2})"}},
      {R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]", "[[]"}},
      {R"({"$defs":{"a~b/c%":{"type":"null"}},"$ref":"#/$defs/a~0b~1c%25"})", {"null"}, {"1"}},
      {R"({"definitions":{"s":{"type":"string"}},"type":"object","properties":{"x":{"$ref":"#/definitions/s","maxLength":1}},"required":["x"],"additionalProperties":false})",
       {R"({"x":"a"})"},
       {R"({"x":"ab"})", "{}"}},
      {R"({"type":"object","properties":{"a":false,"b":{"type":"null"}},"additionalProperties":false})",
       {"{}", R"({"b":null})"},
       {R"({"a":1})"}},
      {R"({"type":"integer","allOf":[{"anyOf":[{"minimum":5},{"maximum":-5}]},{"anyOf":[{"multipleOf":2},{"multipleOf":3}]}]})",
       {"6", "8", "9", "-6"},
       {"0", "4", "7", "-5"}},
      {R"({"$defs":{"a":{"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#/$defs/a","maxItems":1}}]}},"$ref":"#/$defs/a","maxItems":2})",
       {"null", "[null,[]]", "[[[null]]]"},
       {"[[],[],[]]", "[[null,null]]"}},
      {R"({"title":"t","description":"d","default":3,"examples":[1],"$comment":"c","deprecated":true,"type":"integer"})",
       {"1"},
       {"null"}},
  };
}

}  // namespace

TEST_CASE("every keyword lets its texts through and no others") {
  for (const example& e : examples()) {
    const compiled_pointer g = compile(grammar::read_json_schema(e.schema));
    for (const char* text : e.valid)
      CHECK_MESSAGE(matches(g, text), std::string(e.schema), " has not ", std::string(text));
    for (const char* text : e.invalid)
      CHECK_MESSAGE(!matches(g, text), std::string(e.schema), " has ", std::string(text));
  }
}

TEST_CASE("what comes out parses, and is valid under the schema") {
  std::size_t ended_texts = 0;
  for (const example& e : examples()) {
    grammar::json_schema_document schema(e.schema, "schema");
    for (const auto space : {grammar::json_white_space::none, grammar::json_white_space::limited}) {
      const compiled_pointer g = compile(grammar::read_json_schema(e.schema, {.white_space = space}));
      for (std::uint64_t seed = 0; seed < 6; ++seed) {
        bool ended = false;
        const std::string text = random_text(g, seed, 40, ended);
        if (!ended) continue;
        ++ended_texts;
        const ei::json::document document(text, "text");
        CHECK_MESSAGE(schema.holds(schema.root(), document.root()), std::string(e.schema), " wrote ", text);
      }
    }
  }
  CHECK(ended_texts > 500);
}

TEST_CASE("white space: none, or a bounded amount in the places for it") {
  constexpr const char* schema =
      R"({"type":"object","properties":{"a":{"type":"array","items":{"type":"null"}}},"required":["a"],"additionalProperties":false})";
  const compiled_pointer none = compile(grammar::read_json_schema(schema));
  const compiled_pointer some =
      compile(grammar::read_json_schema(schema, {.white_space = grammar::json_white_space::limited}));
  constexpr const char* spaced = "{\n  \"a\": [null, null]\n}";
  CHECK(matches(some, spaced));
  CHECK(matches(some, R"({"a":[null,null]})"));
  CHECK(!matches(none, spaced));
  CHECK(!matches(some, "{\n" + std::string(21, ' ') + "\"a\":[]}"));
  CHECK(!matches(some, " {\"a\":[]}"));
}

TEST_CASE("a keyword that is not supported is an error that names it and its place, never ignored") {
  const auto refused = [](const std::string& schema, const char* words, ei::error_code code) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      compile(grammar::read_json_schema(schema));
      FAIL("not refused: ", schema.substr(0, 200));
    } catch (const ei::error& e) {
      CHECK_MESSAGE(std::string_view(e.what()).find(words) != std::string_view::npos, std::string(e.what()));
      CHECK(e.code() == code);
    }
    CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < 60);
  };
  using enum ei::error_code;
  for (const char* keyword : {"not", "if", "then", "else", "contains", "minContains", "dependentRequired",
                              "dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef",
                              "$recursiveRef", "dependencies", "additionalItems", "disallow", "mistyped"}) {
    refused("{\"" + std::string(keyword) + "\":true}", keyword, unsupported);
    refused(R"({"type":"array","items":{"type":"object","properties":{"a":{")" + std::string(keyword) + "\":1}}}}",
            ("#/items/properties/a/" + std::string(keyword)).c_str(), unsupported);
  }
  refused(R"({"type":"string","format":"iri"})", "iri", unsupported);
  refused(R"({"$ref":"other.json"})", "$ref", unsupported);
  refused(R"({"$ref":"#anchor"})", "$ref", unsupported);
  refused(R"({"uniqueItems":true})", "uniqueItems", unsupported);
  refused(R"({"multipleOf":0.1})", "multipleOf", unsupported);
  refused(R"({"items":[{}]})", "prefixItems", unsupported);
  refused(R"({"oneOf":[{"type":"integer"},{"minimum":2}]})", "oneOf", unsupported);
  refused(R"({"pattern":"(a)\\1"})", "back-reference", unsupported);
  refused(R"({"properties":{"a":{"$id":"x"}}})", "$id", unsupported);
  // What has no values, leads nowhere or makes no sense.
  refused("false", "no finite text", malformed);
  refused(R"({"type":"integer","minimum":3,"maximum":2})", "no finite text", malformed);
  refused(R"({"type":"string","minLength":3,"maxLength":2})", "no finite text", malformed);
  refused(R"({"allOf":[{"type":"string"},{"type":"null"}]})", "no finite text", malformed);
  refused(R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no finite text", malformed);
  refused(R"({"$ref":"#/$defs/nothing"})", "#/$defs/nothing", malformed);
  refused(R"({"$ref":"#"})", "refers to itself", malformed);
  refused(R"({"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"allOf":[{"$ref":"#/$defs/a"}]}},"$ref":"#/$defs/a"})",
          "refers to itself", malformed);
  refused(R"({"type":"text"})", "type", malformed);
  refused(R"({"minLength":-1})", "minLength", malformed);
  refused(R"({"required":"a"})", "required", malformed);
  refused("[]", "a schema is", malformed);
  refused("{", "JSON", malformed);
  refused(R"({"type":"string","maxLength":100001})", "maxLength", limit);
  // Bounded time and memory.
  std::string deep, expansion = "{";
  for (int i = 0; i < 400; ++i) deep += R"({"items":)";
  refused(deep + "true" + std::string(400, '}'), "nested", limit);
  for (int i = 0; i < 24; ++i) {  // 2^24 combinations of branches
    const std::string n = std::to_string(i);
    expansion += (i ? "," : "\"type\":\"object\",\"allOf\":[");
    expansion += R"({"anyOf":[{"properties":{"a)" + n + R"(":{"type":"null"}}},{"properties":{"b)" + n +
                 R"(":{"type":"null"}}}]})";
  }
  refused(expansion + "]}", "", limit);
}

}  // namespace json_schema_tests
