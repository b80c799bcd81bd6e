// core/json.hpp: what JSON says is read exactly, and every mistake in it is told with file and field.

#include <effinfer/core/json.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

// After the library's.
#include "core/own_rapidjson.hpp"

namespace json_tests {

using effinfer::error;
using effinfer::error_code;
namespace json = effinfer::json;

namespace {

/// `f` throws effinfer::error with this code and a message that holds each of the words.
template <class F>
void refused(error_code code, std::initializer_list<std::string_view> words, const F& f) {
  try {
    static_cast<void>(f());
  } catch (const error& e) {
    const std::string message = e.what();
    CAPTURE(message);
    CHECK(e.code() == code);
    for (const std::string_view word : words) CHECK_MESSAGE(message.find(word) != std::string::npos, std::string(word));
    return;
  }
  CHECK_MESSAGE(false, "nothing was thrown");
}

/// `text` is no JSON, and the message names the file and the place.
void malformed(std::string_view text, std::string_view place) {
  const std::string shown(text.substr(0, 60));
  CAPTURE(shown);
  refused(error_code::malformed, {"x.json: invalid JSON", place},
          [&] { return json::document(text, "x.json").root(); });
}

double number(std::string_view text) { return json::document(text, "x.json").root().number(); }

}  // namespace

TEST_CASE("values of every type") {
  const json::document d(
      R"({"null": null, "yes": true, "no": false, "n": -7, "x": 0.5, "s": "aé\n\u20ac\ud83d\ude00", "list": [1, [2], {"k": 3}], "": 4})",
      "x.json");
  const json::value root = d.root();
  CHECK(d.name() == "x.json");
  REQUIRE(root.is_object());
  CHECK(root.at("null").is_null());
  CHECK(root.at("yes").boolean());
  CHECK_FALSE(root.at("no").boolean());
  CHECK(root.at("n").integer() == -7);
  CHECK(root.at("n").number() == -7.0);
  CHECK(root.at("x").number() == 0.5);
  CHECK_FALSE(root.at("x").is_integer());
  CHECK(root.at("s").string() == "a\xC3\xA9\n\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(root.at("").integer() == 4);
  const json::value list = root.at("list");
  REQUIRE(list.size() == 3);
  CHECK(list[1][0].integer() == 2);
  CHECK(list.elements()[2].at("k").integer() == 3);
  CHECK(root.members().size() == 8);
  CHECK(root.members()[4].first == "x");
  CHECK_FALSE(root.find("absent"));
  CHECK(root.find("null"));
  CHECK_FALSE(root.find_set("null"));
  CHECK(root.find_set("yes"));
  CHECK(json::document("\xEF\xBB\xBF 1 ", "x.json").root().integer() == 1);  // a byte order mark is passed over
}

TEST_CASE("strings may hold an escaped NUL, keys too") {
  const json::document d(R"({"a\u0000b": "c\u0000d"})", "x.json");
  CHECK(d.root().at(std::string_view("a\0b", 3)).string() == std::string_view("c\0d", 3));
  CHECK_FALSE(d.root().find("a"));
}

TEST_CASE("integers of 64 bits are exact, other numbers the nearest double") {
  const json::document d("[9223372036854775807, -9223372036854775808, 9007199254740993]", "x.json");
  CHECK(d.root()[0].integer() == std::numeric_limits<std::int64_t>::max());
  CHECK(d.root()[1].integer() == std::numeric_limits<std::int64_t>::min());
  CHECK(d.root()[2].integer() == 9007199254740993);
  CHECK(number("0.1") == 0.1);
  CHECK(number("2.2250738585072011e-308") == 2.2250738585072011e-308);  // the number that once hung parsers
  CHECK(number("1.7976931348623157e308") == std::numeric_limits<double>::max());
  CHECK(number("9007199254740993.0") == 9007199254740992.0);
  CHECK(number("8.5e-05") == 8.5e-05);
  CHECK(number("123456789012345678901234567890") == 123456789012345678901234567890.0);
  CHECK(number("0e-25") == 0.0);
  CHECK(number("-0.0") == 0.0);
  CHECK(std::signbit(number("-0.0")));
  CHECK(number("1e-400") == 0.0);
  CHECK(std::signbit(number("-1e-400")));
  CHECK(number("1e-99999999999999999999") == 0.0);
  CHECK(number("4.9406564584124654e-324") == std::numeric_limits<double>::denorm_min());
  CHECK(number("0." + std::string(400, '0') + "1e300") > 0.0);
  CHECK(number("0." + std::string(780, '1') + "e-500") == 0.0);
  CHECK(number("0." + std::string(780, '1') + "e-100") == 1.0 / 9 * 1e-100);
  CHECK(number(std::string(300, '1')) == 1e300 / 9);
  // Beyond 63 bits, or with a fraction written out: no integer.
  for (const char* text : {"9223372036854775808", "18446744073709551615", "1.0", "1e3"}) {
    CAPTURE(text);
    refused(error_code::mismatch, {"x.json", "no 64-bit integer"},
            [&] { return json::document(text, "x.json").root().integer(); });
  }
  refused(error_code::mismatch, {"x.json: field n", "7 is not in [1, 6]"},
          [] { return json::document(R"({"n": 7})", "x.json").root().at("n").integer(1, 6); });
}

TEST_CASE("of equal keys the last counts") {
  const json::document d(R"({"a": 1, "b": 2, "a": 3})", "x.json");
  CHECK(d.root().at("a").integer() == 3);
  CHECK(d.root().members().size() == 3);  // a walk sees them all
}

TEST_CASE("a wrong type is told with file and path, and what stands there") {
  const json::document d(R"({"model": {"vocab": [1, {"name": "x"}, null]}, "n": 3})", "t.json");
  const json::value root = d.root();
  const json::value vocab = root.at("model").at("vocab");
  refused(error_code::mismatch, {"t.json: field model.vocab: it is an array, not a string"},
          [&] { return vocab.string(); });
  refused(error_code::mismatch, {"t.json: field model.vocab[1].name: it is a string, not an integer"},
          [&] { return vocab[1].at("name").integer(); });
  refused(error_code::mismatch, {"field model.vocab[2]: it is null, not a number"}, [&] { return vocab[2].number(); });
  refused(error_code::mismatch, {"field n: it is a number, not true or false"}, [&] { return root.at("n").boolean(); });
  refused(error_code::mismatch, {"field model.vocab[0]: it is a number, not an object"},
          [&] { return vocab[0].find("k"); });
  refused(error_code::mismatch, {"it is a number, not an object"}, [&] { return vocab[0].members().size(); });
  refused(error_code::mismatch, {"field model: it is an object, not an array"},
          [&] { return root.at("model").size(); });
  refused(error_code::mismatch, {"it is an object, not an array"}, [&] { return root.at("model").elements().size(); });
  refused(error_code::mismatch, {"field model.vocab: it has no element 3"}, [&] { return vocab[3]; });
  refused(error_code::missing, {"t.json: field model.vocab[1].id: it isn't there"}, [&] { return vocab[1].at("id"); });
  refused(error_code::missing, {"t.json: field config: it isn't there"}, [&] { return root.at("config"); });
  CHECK(root.where() == "t.json");
  CHECK(vocab[1].at("name").where() == "t.json: field model.vocab[1].name");
  refused(error_code::unsupported, {"t.json: field n: too new (wait)"},
          [&]() -> int { root.at("n").fail("too new", error_code::unsupported, "wait"); });
}

TEST_CASE("texts that are no JSON") {
  malformed("", "line 1, at byte 0");
  malformed("   ", "line 1");
  malformed("{\n\"a\": 1,\n}", "line 3, at byte 10");
  malformed("{\"a\" 1}", "at byte 5");
  malformed("[1 2]", "at byte 3");
  malformed("[1, 2", "at byte 5");
  malformed("{\"a\": tru}", "at byte");
  malformed("[01]", "at byte");
  malformed("[1.]", "at byte");
  malformed("[+1]", "at byte");
  malformed("[NaN]", "at byte");
  malformed("[Infinity]", "at byte");
  malformed("[1e400]", "at byte");
  malformed("[1.8e308]", "at byte");
  malformed("[-1.8e308]", "too big");
  malformed("[10000e306]", "too big");
  malformed("[1e99999999999999999999]", "too big");
  malformed("[" + std::string(310, '9') + "]", "too big");
  malformed("[" + std::string(310, '9') + ".0e-0]", "too big");
  malformed("'a'", "at byte");
  malformed("[1] // no comments", "at byte");
  malformed("[1] [2]", "at byte 4");
  malformed("\"abc", "at byte");
  malformed("\"a\nb\"", "at byte");
  malformed("\"\\x\"", "at byte");
  malformed("\"\\ud800\"", "at byte");  // half a surrogate pair
  malformed(std::string_view("[1]\0[2]", 7), "NUL byte");
  malformed(std::string_view("[\"a\0\"]", 6), "NUL byte");
  malformed(std::string_view("\0", 1), "NUL byte");
}

TEST_CASE("strings that are not UTF-8") {
  for (const std::string bad :
       {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80"}) {
    malformed("{\"a\": \"" + bad + "\"}", "at byte");
    malformed("{\"" + bad + "\": 1}", "at byte");
  }
}

TEST_CASE("a text cut short anywhere is an error") {
  const std::string text = R"({"a": [1, -2.5e3, "x\u00e9y", true, null], "b": {"c": false}})";
  static_cast<void>(json::document(text, "x.json"));
  for (std::size_t size = 0; size < text.size(); ++size) malformed(std::string_view(text).substr(0, size), "line 1");
}

TEST_CASE("limits of size and depth") {
  const auto nested = [](int depth, const char* open, const char* close) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += open;
    text += "1";
    for (int i = 0; i < depth; ++i) text += close;
    return text;
  };
  static_cast<void>(json::document(nested(64, "[", "]"), "x.json"));
  static_cast<void>(json::document(nested(64, "{\"k\":", "}"), "x.json"));
  for (const int depth : {65, 100'000}) {
    refused(error_code::limit, {"x.json", "nested deeper than 64"},
            [&] { return json::document(nested(depth, "[", "]"), "x.json").root(); });
    refused(error_code::limit, {"x.json", "nested deeper than 64"},
            [&] { return json::document(nested(depth, "{\"k\":", "}"), "x.json").root(); });
  }
  refused(error_code::limit, {"nested deeper than 64"},
          [] { return json::document(std::string(1'000'000, '['), "x.json").root(); });
  // Depth is as deep as asked for, with no stack of ours to run out of.
  static_cast<void>(json::document(nested(200'000, "[", "]"), "x.json", {.depth = 200'000}));
  // Brackets in strings are no depth.
  CHECK(json::document("\"[[[[ \\\" [[[[\"", "x.json", {.depth = 1}).root().is_string());
  refused(error_code::limit, {"x.json", "4 bytes, more than 3"},
          [] { return json::document("[10]", "x.json", {.bytes = 3}).root(); });
}

TEST_CASE("the program's RapidJSON after the library's: its settings count") {
  rapidjson::Document own;
  own.Parse(std::string("[1]"));  // only with RAPIDJSON_HAS_STDSTRING
  CHECK(own.Size() == 1);
  CHECK_THROWS_AS(own.GetInt(), std::logic_error);
  static_assert(!std::is_same_v<rapidjson::Document, json::rapid::Document>);
  static_assert(sizeof(rapidjson::SizeType) == 8 && sizeof(json::rapid::SizeType) == 4);
}

}  // namespace json_tests
