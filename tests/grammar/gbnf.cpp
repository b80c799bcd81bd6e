// decoding/grammar/gbnf.hpp, automaton.hpp: llama.cpp's notation, and grammars that can't work.

#include "walk.hpp"

#include <effinfer/decoding/grammar/gbnf.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <string_view>

namespace gbnf_tests {

using namespace grammar_tests;

namespace {
bool is(const std::string& text_of_grammar, std::string_view text) {
  return matches(compile(grammar::read_gbnf(text_of_grammar)), text);
}
}  // namespace

TEST_CASE("the notation") {
  CHECK(is("root ::= \"a\" \"b\"", "ab"));
  CHECK(is("# a comment\n\nroot ::= a | # another\n  b\na ::= \"x\"\nb ::= \"y\" # third", "y"));
  CHECK(is("root ::= (\n  \"a\"\n  | \"b\"\n)+ \"c\"\n", "abbac"));
  CHECK(is("root ::= \"abc\"*", "abcabc"));  // the whole literal repeats
  CHECK(!is("root ::= \"abc\"*", "abcc"));
  CHECK(is("root ::= [a-cx_-]{2,3}", "x-"));
  CHECK(!is("root ::= [a-cx_-]{2,3}", "xxxx"));
  CHECK(is("root ::= \"a\"{2} \"b\"{1,} \"c\"?", "aabbb"));
  CHECK(is("root ::= [^\\n\"]+", "é\U0001F600 x"));
  CHECK(!is("root ::= [^\\n\"]+", "a\"b"));
  CHECK(is("root ::= \"\\x41\\u00e9\\U0001F600\\t\\\\\\\"\\[\"", "Aé\U0001F600\t\\\"["));
  CHECK(is("root ::= . .", "\n\xE6\x88\x91"));
  CHECK(is("root ::= \"\"", ""));
  CHECK(is("root ::= a-b_1\na-b_1 ::= \"q\"", "q"));
}

TEST_CASE("recursion: what brackets, and only them, need a stack for") {
  const compiled_pointer g = compile(grammar::read_gbnf("root ::= (\"(\" root \")\" | \"[\" root \"]\" | \"x\")*"));
  CHECK(matches(g, "([x][[]])x"));
  CHECK(!matches(g, "([)]"));
  CHECK(!matches(g, "(("));
  const std::string deep(400, '(');
  CHECK(matches(g, deep + "x" + std::string(400, ')')));
  CHECK(!matches(g, deep + "x" + std::string(399, ')') + "]"));
}

TEST_CASE("lists by recursion on the right don't pile up") {
  const compiled_pointer g =
      compile(grammar::read_gbnf("root ::= item | item \",\" root\nitem ::= [0-9]+ | \"(\" root \")\"\n"));
  std::string list = "1";
  for (int i = 0; i < 5000; ++i) list += ",23";
  CHECK(matches(g, list));
}

TEST_CASE("ambiguity doubles nothing") {
  // Each a may be read in two ways: 2^200 stacks.
  const compiled_pointer g = compile(grammar::read_gbnf(
      "root ::= a\na ::= \"x\" b \"c\" | \"x\" d \"c\" \"e\"? | \"y\"\nb ::= a | \"z\"\nd ::= a | \"w\"\n"));
  CHECK(matches(g, std::string(200, 'x') + "y" + std::string(200, 'c')));
  CHECK(matches(g, "xxycece"));
  CHECK(!matches(g,
                 "xxycc"
                 "ee"));
}

TEST_CASE("the JSON grammar of llama.cpp") {
  const compiled_pointer g = compile(grammar::read_gbnf(R"(root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
)"));
  CHECK(matches(g, R"({"a": [1, 2.5e+1, {"b": null}], "cé\n": "x\u00e9"})"));
  CHECK(matches(g, "{\n  \"a\":true}\n"));
  CHECK(!matches(g, R"({"a": [1, 2.5e+1, {"b": nul}]})"));
  CHECK(!matches(g, R"({"a":})"));
  CHECK(!matches(g, R"([1])"));
}

TEST_CASE("grammars that can't work are refused, saying what and where, in bounded time") {
  const auto code = [](const std::string& text, const char* words) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      compile(grammar::read_gbnf(text, "my.gbnf"));
      FAIL("not refused: ", text.substr(0, 200));
    } catch (const ei::error& e) {
      CHECK_MESSAGE(std::string_view(e.what()).find(words) != std::string_view::npos, std::string(e.what()));
      CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < 60);
      return e.code();
    }
    return ei::error_code::io;
  };
  using enum ei::error_code;
  CHECK(code("root ::= root \"a\" | \"b\"", "left recursion: root -> root") == malformed);
  CHECK(code("root ::= a\na ::= b \"x\" | \"z\"\nb ::= c? a\nc ::= \"q\"", "left recursion: ") == malformed);
  CHECK(code("root ::= \"a\" root", "no finite text matches it") == malformed);
  CHECK(code("root ::= \"a\" | b\nb ::= \"x\" c\nc ::= b | b \"y\"", "no finite text matches it") == malformed);
  CHECK(code("root ::= []", "no finite text") == malformed);
  CHECK(code("root ::= x", "rule x is used but not defined") == malformed);
  CHECK(code("a ::= \"x\"", "no rule called root") == malformed);
  CHECK(code("root ::= \"a\"\nroot ::= \"b\"", "line 2: rule root is defined twice") == malformed);
  CHECK(code("root ::= \"a\n\"", "line 1: a literal that is not closed") == malformed);
  CHECK(code("root ::= [a", "not closed") == malformed);
  CHECK(code("root ::= (\"a\"", "not closed") == malformed);
  CHECK(code("root ::= \"a\")", "unexpected )") == malformed);
  CHECK(code("root ::= *", "nothing to repeat") == malformed);
  CHECK(code("root ::= \"a\"{3,2}", "m > n") == malformed);
  CHECK(code("root ::= \"a\"{x}", "a number is missing") == malformed);
  CHECK(code("root ::= \"\\q\"", "unknown escape") == malformed);
  CHECK(code("root ::= \"\\uD800\"", "no Unicode character") == malformed);
  CHECK(code("root = \"a\"", "::= is missing") == malformed);
  CHECK(code("", "no rule called root") == malformed);
  CHECK(code("root ::= <[12]>", "angle brackets") == unsupported);
  CHECK(code("root ::= \"\xFF\"", "UTF-8") == invalid_utf8);
  CHECK(code("root ::= \"a\"{100001}", "100000") == limit);
  CHECK(code("root ::= (((\"a\"{0,1000}){0,1000}){0,1000})", "states") == limit);
  CHECK(code("root ::= ((((\"\"{0,1000}){0,1000}){0,1000}){0,1000})", "grammar") == limit);
  CHECK(code("root ::= " + std::string(500, '(') + "\"a\"" + std::string(500, ')'), "nested") == limit);
  CHECK(code("root ::= " + std::string(2 << 20, ' '), "bytes") == limit);
  std::string doubling = "root ::= r0\n";  // 2^200 letters
  for (int i = 0; i < 200; ++i)
    doubling += "r" + std::to_string(i) + " ::= r" + std::to_string(i + 1) + " r" + std::to_string(i + 1) + "\n";
  CHECK_NOTHROW(compile(grammar::read_gbnf(doubling + "r200 ::= \"a\"\n")));  // rules that are used twice stay rules
  std::string many;
  for (int i = 0; i < 60'000; ++i) many += "r" + std::to_string(i) + " ::= \"a\"\n";
  CHECK(code(many, "50000 rules") == limit);
}

TEST_CASE("long chains of rules, each used once") {
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 20'000; ++i)
    chain += "r" + std::to_string(i) + " ::= \"(\" r" + std::to_string(i + 1) + " | \"x\"\n";
  const compiled_pointer g = compile(grammar::read_gbnf(chain + "r20000 ::= \"a\"\n"));
  CHECK(matches(g, std::string(20'000, '(') + "a"));
  CHECK(matches(g, "(((x"));
}

}  // namespace gbnf_tests
