// decoding/grammar/regular_expression.hpp, language.hpp: against std::regex, and what is refused.

#include "walk.hpp"

#include <effinfer/decoding/grammar/language.hpp>
#include <effinfer/decoding/grammar/regular_expression.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <regex>
#include <string>
#include <string_view>
#include <vector>

namespace regular_expression_tests {

using namespace grammar_tests;

namespace {

constexpr const char* patterns[] = {"abc",
                                    "a|b|",
                                    "a*b+c?",
                                    "(ab|ba)*",
                                    "(?:a|ab)(?:c|bcd)(?:d*)",
                                    "[a-c]{2,3}",
                                    "[^a-c]+",
                                    "a{2}",
                                    "a{2,}b",
                                    "^a+$",
                                    "^(?:a|b$)",
                                    "(^a|b)c*",
                                    "\\w+\\d",
                                    "\\D\\S\\W?",
                                    ".+\\.c",
                                    "[\\d\\-_]+",
                                    "a.c",
                                    "(a+)+b",
                                    "(a|b)*a(a|b){5}",
                                    "x*?y+?",
                                    "[.]",
                                    "\\x61\\u0062",
                                    "(?:(?:a)?b)?c",
                                    "^$",
                                    "$",
                                    "a$|^b",
                                    "[b-]+",
                                    "[\\b]?a",
                                    "(?:a{1,2}){2}",
                                    "a(?:b|)c",
                                    "\\(\\)\\[\\]\\{\\}\\/\\\\"};

std::string random_string(const ei::random_stream& random, std::uint64_t i) {
  constexpr std::string_view letters = "aaabbbccd-_.1 xy\\(){}[]/,2";
  std::string text(static_cast<std::size_t>(random.uniform(i, 0) * 9), ' ');
  for (std::size_t k = 0; k < text.size(); ++k) {
    text[k] = letters[static_cast<std::size_t>(random.uniform(i, static_cast<std::uint32_t>(k + 1)) *
                                               static_cast<float>(letters.size()))];
  }
  return text;
}

}  // namespace

TEST_CASE("the texts that std::regex matches, and no others") {
  const ei::random_stream random{11};
  std::size_t matched = 0;
  for (const char* pattern : patterns) {
    const std::regex reference(pattern, std::regex::ECMAScript);
    const compiled_pointer g = compile(grammar::read_regular_expression(pattern));
    grammar::rule_set scratch;
    const grammar::language whole(scratch, grammar::regular_expression_reader(scratch, pattern, "test").read(), "test");
    const auto check = [&](const std::string& text) {
      const bool expected = std::regex_match(text, reference);
      matched += expected ? 1 : 0;
      CHECK_MESSAGE(matches(g, text) == expected, std::string(pattern), " on \"", text, "\"");
      CHECK_MESSAGE(whole.contains(text) == expected, std::string(pattern), " as a language on \"", text, "\"");
      CHECK(whole.complement().contains(text) == !expected);
    };
    for (std::uint64_t i = 0; i < 300; ++i) check(random_string(random, i));
    for (std::uint64_t seed = 0; seed < 10; ++seed) {  // texts of its own, and those changed by a letter
      bool ended = false;
      std::string text = random_text(g, seed, 12, ended);
      bool is_ascii = true;
      for (const char c : text) is_ascii = is_ascii && c > 0;
      // std::regex takes single bytes and knows other line ends.
      if (!ended || !is_ascii || text.find_first_of("\n\r") != std::string::npos) continue;
      check(text);
      if (!text.empty()) check(text.substr(1));
      check(text + "a");
    }
  }
  CHECK(matched > 500);
}

TEST_CASE("characters beyond ASCII are one letter each") {
  const auto is = [](const char* pattern, std::string_view text) {
    return matches(compile(grammar::read_regular_expression(pattern)), text);
  };
  CHECK(is("^.$", "é"));
  CHECK(is("^.$", "\U0001F600"));
  CHECK(!is("^.$", "éé"));
  CHECK(is("[à-ü]{2}", "éè"));
  CHECK(!is("[à-ü]", "a"));
  CHECK(is("[^a]", "\xEF\xBF\xBF"));
  CHECK(!is("[^a]", "\xED\xA0\x80"));  // half of a surrogate pair
  CHECK(!is("[^a]", "\xC0\x80"));      // not the shortest form
  CHECK(!is(".", "\n"));
  CHECK(!is(".", "\u2028"));
  CHECK(is("a{,2}", "a{,2}"));  // no quantifier
  CHECK(is("\\cA?a", "a"));     // of which std::regex knows only the letter
  CHECK(is("\\cA?a", "\001a"));
  CHECK(is("\\s", "\u00A0"));
  CHECK(is("\\u{1F600}|\\uD83D\\uDE01", "\U0001F600"));
  CHECK(is("\\u{1F600}|\\uD83D\\uDE01", "\U0001F601"));
}

TEST_CASE("a set and its UTF-8 have the same characters") {
  const ei::random_stream random{2};
  for (std::uint64_t i = 0; i < 200; ++i) {
    const int bits = 1 + static_cast<int>(random.uniform(i, 0) * 21);
    const auto first = static_cast<char32_t>(random.uniform(i, 1) * static_cast<float>(1 << bits));
    const auto last =
        static_cast<char32_t>(first + static_cast<char32_t>(random.uniform(i, 2) * static_cast<float>(1 << bits)));
    const grammar::code_point_set set(first, last);
    CHECK(set.complement().complement().ranges() == set.ranges());
    grammar::rule_set rules;
    rules.root = rules.add_rule("root");
    rules.define(rules.root, rules.characters(set));
    if (set.empty()) continue;
    const compiled_pointer g = compile(rules);
    for (std::uint32_t k = 0; k < 40; ++k) {
      const auto near = k % 2 == 0 ? first : last;
      auto c = static_cast<char32_t>(static_cast<std::int64_t>(near) +
                                     static_cast<std::int64_t>(random.uniform(i, 3 + k) * 20) - 10);
      if (k > 30) c = static_cast<char32_t>(random.uniform(i, 3 + k) * 0x110000);
      if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) continue;
      std::string text;
      ei::text::append_utf8(text, c);
      CHECK(matches(g, text) == (c >= first && c <= last));
      CHECK(set.contains(c) == (c >= first && c <= last));
    }
  }
}

TEST_CASE("what isn't regular, isn't read, or is broken is an error that says so") {
  const auto code = [](const std::string& pattern, const char* words) {
    try {
      compile(grammar::read_regular_expression(pattern, "my pattern"));
    } catch (const ei::error& e) {
      CHECK_MESSAGE(std::string_view(e.what()).find(words) != std::string_view::npos, std::string(e.what()));
      CHECK(std::string_view(e.what()).starts_with("my pattern") + std::string_view(e.what()).starts_with("grammar") ==
            1);
      return e.code();
    }
    FAIL("not refused: ", pattern);
    return ei::error_code::io;
  };
  using enum ei::error_code;
  CHECK(code("(a)\\1", "back-reference") == unsupported);
  CHECK(code("\\k<a>", "back-reference") == unsupported);
  CHECK(code("a(?=b)", "look-ahead") == unsupported);
  CHECK(code("a(?!b)", "look-ahead") == unsupported);
  CHECK(code("(?<=a)b", "look-behind") == unsupported);
  CHECK(code("(?>a)", "atomic") == unsupported);
  CHECK(code("\\bfoo", "word boundary") == unsupported);
  CHECK(code("\\p{L}", "\\p") == unsupported);
  CHECK(code("a++", "possessive") == unsupported);
  CHECK(code("[[:alpha:]]", "POSIX") == unsupported);
  CHECK(code("\\A", "\\A") == unsupported);
  CHECK(code("(a", "not closed at byte 2") == malformed);
  CHECK(code("a)", "')'") == malformed);
  CHECK(code("*a", "nothing to repeat") == malformed);
  CHECK(code("^*", "nothing to repeat") == malformed);
  CHECK(code("a**", "nothing to repeat") == malformed);
  CHECK(code("{1}", "nothing to repeat") == malformed);
  CHECK(code("a{2,1}", "m > n") == malformed);
  CHECK(code("[z-a]", "out of order") == malformed);
  CHECK(code("[a", "not closed") == malformed);
  CHECK(code("a\\", "ends in") == malformed);
  CHECK(code("\\uD83D", "surrogate") == malformed);
  CHECK(code("[]", "no text") == malformed);
  CHECK(code("a^b", "no text") == malformed);
  CHECK(code("\xFF", "UTF-8") == invalid_utf8);
  CHECK(code("a{100001}", "100000") == limit);
  CHECK(code("((a{0,1000}){0,1000}){0,1000}", "states") == limit);
  CHECK(code(std::string(1000, '(') + std::string(1000, ')'), "nested") == limit);
}

TEST_CASE("patterns whose subsets explode are matched without making them all") {
  const compiled_pointer g = compile(grammar::read_regular_expression("(?:a|b)*a(?:a|b){40}"));
  CHECK(g->automaton().size() < 200);
  CHECK(matches(g, "bba" + std::string(40, 'b')));
  CHECK(!matches(g, "bbb" + std::string(40, 'b')));
}

}  // namespace regular_expression_tests
