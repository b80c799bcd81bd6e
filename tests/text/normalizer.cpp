// Normalizer steps, and what they say about where the text begins.

#include <effinfer/text/normalizer.hpp>

#include <doctest/doctest.h>

#include <string>

namespace normalizer_tests {

namespace text = effinfer::text;
namespace normalizers = effinfer::text::normalizers;

namespace {

struct result {
  std::string text;
  std::size_t front;
  friend bool operator==(const result&, const result&) = default;
};

// Runs one step on a text that begins where the user's text begins.
result run(const text::normalizer_step& step, const std::string& input) {
  text::aligned_text t{input, input.empty() ? 0 : static_cast<std::size_t>(text::utf8_length(input[0]))};
  text::normalizer{{step}}.apply(t);
  return {t.text, t.front};
}

}  // namespace

TEST_CASE("what the steps do") {
  CHECK(run(normalizers::unicode_form{text::normal_form::nfc}, "e\u0301x") == result{"\u00E9x", 2});
  CHECK(run(normalizers::lower_case{}, "\u0130AB") == result{"i\u0307ab", 3});
  CHECK(run(normalizers::strip_accents{}, "e\u0301\u0308x") == result{"ex", 1});
  CHECK(run(normalizers::strip_accents{}, "\u0301x") == result{"x", 0});
  CHECK(run(normalizers::strip{true, true}, " \u3000a b\n") == result{"a b", 0});
  CHECK(run(normalizers::strip{false, true}, " a ") == result{" a", 1});
  CHECK(run(normalizers::strip{true, false}, " a ") == result{"a ", 0});
  CHECK(run(normalizers::strip{true, true}, "   ") == result{"", 0});
  CHECK(run(normalizers::prepend{"__"}, "ab") == result{"__ab", 3});
  CHECK(run(normalizers::prepend{"__"}, "") == result{"", 0});
  CHECK(run(normalizers::byte_level{}, " \u00E9") == result{"\u0120\u00C3\u00A9", 2});
}

TEST_CASE("replacements") {
  CHECK(run(normalizers::replace_text{" ", "\u2581"}, " a b ") == result{"\u2581a\u2581b\u2581", 3});
  CHECK(run(normalizers::replace_text{"aaa", "b"}, "aaaab") == result{"bab", 0});
  CHECK(run(normalizers::replace_text{"x", "y"}, "abc") == result{"abc", 1});
  CHECK(run(normalizers::replace_text{"a", ""}, "abc") == result{"bc", 0});
  CHECK(run(normalizers::replace_regex{text::regex(R"(\s+)", "test"), "_"}, " Hello   friend ") ==
        result{"_Hello_friend_", 1});
  CHECK(run(normalizers::replace_regex{text::regex("", "test"), "-"}, "ab") == result{"-a-b-", 3});
}

TEST_CASE("text from further on stays from further on") {
  text::aligned_text t{"a b", 0};
  text::normalizer{{normalizers::prepend{"\u2581"}, normalizers::replace_text{" ", "\u2581"}}}.apply(t);
  CHECK(t.text == "\u2581a\u2581b");
  CHECK(t.front == 0);
}

}  // namespace normalizer_tests
