// decoding/grammar/matcher.hpp, state_mask.hpp, configurations.hpp: masks against trying every token; going back; copies.

#include "walk.hpp"

#include <effinfer/decoding/grammar/gbnf.hpp>
#include <effinfer/decoding/grammar/json_schema.hpp>
#include <effinfer/decoding/grammar/regular_expression.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace masks_tests {

using namespace grammar_tests;

namespace {

std::vector<grammar::rule_set> grammars() {
  return {
      grammar::read_json_schema("true"),
      grammar::read_json_schema("true", {.white_space = grammar::json_white_space::limited}),
      grammar::read_json_schema(
          R"({"type":"object","properties":{"a":{"type":"string","maxLength":9},"b":{"type":"array",
        "items":{"enum":["x","xy","y\""]}},"c":{"type":"string","pattern":"^[a-z]+ [a-z]*$"}},"required":["b"]})"),
      grammar::read_json_schema(R"({"$defs":{"n":{"type":"object","properties":{"v":{"type":"integer","minimum":-5},
        "next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["next"],"additionalProperties":false}},"$ref":"#/$defs/n"})"),
      grammar::read_gbnf("root ::= word (\" \" word)* \".\"\nword ::= [a-zA-Z]+ | \"é\" | \"(\" root \")\"\n"),
      // Ambiguous, and with a rule that may be empty in front of a recursion that isn't on the left.
      grammar::read_gbnf("root ::= a+ \"\\n\"?\na ::= \"x\" b \"c\" | \"x\" d \"e\" | \"y\" s\nb ::= a\nd ::= a\ns ::= "
                         "\"\" | \"th\" s s\n"),
      grammar::read_regular_expression("(?:the |he r|[a-f]+\\w?)*e{2,5}(?:a|b)*a(?:a|b){12}|\\d{3}-[^x-z]*"),
  };
}

}  // namespace

TEST_CASE("a mask holds exactly the tokens that the matcher takes, whatever the text so far") {
  std::size_t compared = 0, beyond = 0;
  for (const grammar::rule_set& rules : grammars()) {
    const compiled_pointer g = compile(rules);
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      bool ended = false;
      random_text(g, seed, 25, ended, [&](grammar::matcher& m, const std::vector<grammar::mask_word>& mask) {
        const std::size_t before = m.tokens();
        for (int id = 0; id < static_cast<int>(g->vocabulary().size()); ++id) {
          const bool taken = m.advance(id);
          if (taken) m.rollback(before);
          const bool allowed = (mask[static_cast<std::size_t>(id) / 64] >> (id % 64) & 1) != 0;
          if (taken != allowed)
            REQUIRE_MESSAGE(taken == allowed, "token ", id, " behind ", before, " tokens, seed ", seed);
          ++compared;
        }
      });
    }
    for (grammar::index s = 0; s < g->automaton().size(); ++s) beyond += g->mask(s).beyond.size();
  }
  CHECK(compared > 1'000'000);
  CHECK(beyond > 100);  // tokens that reach over the end of a rule came up
}

TEST_CASE("going back and copying lead where matching anew leads") {
  const ei::random_stream random{8};
  for (const grammar::rule_set& rules : grammars()) {
    const compiled_pointer g = compile(rules);
    const std::size_t words = grammar::mask_words(g->vocabulary().size());
    std::vector<grammar::mask_word> mask(words), expected(words);
    grammar::matcher m(g), kept(g);
    std::vector<int> tokens, kept_tokens;
    for (std::uint64_t step = 0; step < 150; ++step) {
      REQUIRE(m.allowed(mask));
      const std::vector<int> ids = ids_of(mask);
      tokens.push_back(ids[static_cast<std::size_t>(random.uniform(step, 0) * static_cast<float>(ids.size()))]);
      REQUIRE(m.advance(tokens.back()));
      if (random.uniform(step, 1) < 0.2f) {
        tokens.resize(static_cast<std::size_t>(random.uniform(step, 2) * static_cast<float>(tokens.size())));
        m.rollback(tokens.size());
      }
      if (random.uniform(step, 3) < 0.1f) kept = m, kept_tokens = tokens;
      if (random.uniform(step, 3) > 0.9f) m = kept, tokens = kept_tokens;
      grammar::matcher anew(g);
      for (const int id : tokens) REQUIRE(anew.advance(id));
      CHECK(m.allowed(mask) == anew.allowed(expected));
      CHECK(mask == expected);
    }
  }
}

TEST_CASE("threads that meet the same states at the same time get the same masks") {
  const compiled_pointer g = compile(grammars()[2]), alone = compile(grammars()[2]);
  std::vector<std::string> texts(4);
  std::vector<std::thread> threads;
  for (auto& text : texts) {
    threads.emplace_back([&] {
      bool ended = false;
      for (std::uint64_t seed = 0; seed < 10; ++seed) text += random_text(g, seed, 20, ended);
    });
  }
  for (auto& t : threads) t.join();
  std::string expected;
  bool ended = false;
  for (std::uint64_t seed = 0; seed < 10; ++seed) expected += random_text(alone, seed, 20, ended);
  for (const auto& text : texts) CHECK(text == expected);
}

TEST_CASE("special tokens never match as text, end tokens match where the text may end") {
  // 0: "a", 1: a special token (no bytes), 2 and 3: end tokens, of which one has bytes in the file.
  const auto v = std::make_shared<const grammar::token_vocabulary>(std::vector<std::string>{"a", "", "a", ""},
                                                                   std::vector<int>{2, 3});
  grammar::matcher m(compile(grammar::read_regular_expression("a{1,2}"), v));
  std::vector<grammar::mask_word> mask(1);
  CHECK(m.allowed(mask));
  CHECK(mask[0] == 0b0001);
  CHECK(!m.advance(1));
  CHECK(!m.advance(2));
  CHECK(!m.advance(-1));
  CHECK(!m.advance(4));
  CHECK(m.advance(0));
  CHECK(m.allowed(mask));
  CHECK(mask[0] == 0b1101);
  CHECK(m.advance(0));
  CHECK(m.allowed(mask));
  CHECK(mask[0] == 0b1100);
  CHECK(m.advance(3));
  CHECK(m.has_ended());
  CHECK(m.allowed(mask));
  CHECK(mask[0] == 0b1100);  // behind the end only the end
}

TEST_CASE("a vocabulary without the bytes that are needed leaves an empty mask; a bad one is refused") {
  const auto v =
      std::make_shared<const grammar::token_vocabulary>(std::vector<std::string>{"a", ""}, std::vector<int>{1});
  grammar::matcher m(compile(grammar::read_regular_expression("ab"), v));
  std::vector<grammar::mask_word> mask(1);
  CHECK(m.allowed(mask));
  CHECK(m.advance(0));
  CHECK(!m.allowed(mask));
  CHECK_THROWS_AS(grammar::token_vocabulary({"a"}, {}), ei::error);
  CHECK_THROWS_AS(grammar::token_vocabulary({"a"}, {1}), ei::error);
  CHECK_THROWS_AS(grammar::token_vocabulary({std::string(70'000, 'a'), ""}, {1}), ei::error);
  CHECK_THROWS_AS(grammar::compiled_grammar(grammar::read_regular_expression("a"), nullptr), ei::error);
}

TEST_CASE("forced text is what every continuation has in common") {
  const compiled_pointer g = compile(grammar::read_json_schema(
      R"({"type":"object","properties":{"name":{"type":"string"},"kind":{"const":"x\ny"}},"required":["name","kind"],"additionalProperties":false})"));
  grammar::matcher m(g);
  CHECK(m.forced_text(100) == R"({"name":")");
  CHECK(m.forced_text(4) == R"({"na)");
  CHECK(m.advance_text(R"({"name":"a)"));
  CHECK(m.forced_text(100).empty());
  CHECK(m.advance_text(R"(")"));
  CHECK(m.forced_text(100) == R"(,"kind":"x\ny"})");
  CHECK(m.advance_text(R"(,"kind":"x\ny"})"));
  CHECK(m.forced_text(100).empty());
  CHECK(m.may_end());
}

TEST_CASE("text that nests deeper than the limit is refused while it comes") {
  grammar::matcher m(compile(grammar::read_json_schema("true")));
  const std::string open(4 * grammar::limits::stack, '[');
  try {
    m.advance_text(open);
    FAIL("not refused");
  } catch (const ei::error& e) {
    CHECK(e.code() == ei::error_code::limit);
  }
  CHECK(m.advance_text(open.substr(0, 500) + std::string(500, ']')));
  CHECK(m.may_end());
}

}  // namespace masks_tests
