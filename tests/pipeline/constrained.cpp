// decoding/constrained.hpp on a model that ships: texts of the grammar with every rule, and the same ones when forced text is drafted.

#include <effinfer/decoding/constrained.hpp>
#include <effinfer/decoding/grammar/tokenizer_vocabulary.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/pipeline.hpp>

#include <doctest/doctest.h>

#include <regex>
#include <string>
#include <vector>

namespace constrained_tests {

namespace ei = effinfer;
namespace decoding = ei::decoding;
namespace grammar = ei::decoding::grammar;

namespace {

const std::string model = std::string(EFFINFER_SHIPPED_MODELS) + "/shakespeare-draft";

constexpr const char* schema = R"({"type":"object","properties":{"speaker":{"enum":["ROMEO","JULIET","NURSE"]},
  "line":{"type":"string","minLength":3,"maxLength":30},"act":{"type":"integer","minimum":1,"maximum":5},
  "to":{"type":"array","items":{"type":"string","pattern":"^[A-Z][a-z]{2,8}$"},"maxItems":2}},
  "required":["speaker","line","act"],"additionalProperties":false})";

template <class Rule, class Grammar>
void check(const std::string& prompt, const Grammar& g, const auto& is_valid) {
  using constrained = decoding::constrained<Grammar, Rule>;
  using drafted = decoding::speculative<decoding::forced_text<Grammar>, constrained>;
  const auto plain = ei::pipeline<constrained>::load(model);
  const auto jumping = ei::pipeline<drafted>::load(model);
  int passes = 0, tokens = 0;
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    auto expected = plain.generate(prompt, {.max_tokens = 250, .seed = seed, .decoding = {.grammar = g}});
    const std::string text = expected.text();
    CHECK(expected.finished() == ei::finish_reason::stop_token);
    CHECK_MESSAGE(is_valid(text), text);
    auto got =
        jumping.generate(prompt, {.max_tokens = 250,
                                  .seed = seed,
                                  .decoding = {.drafter = {.grammar = g}, .rule = {.grammar = g}, .row_cost = 0.0F}});
    CHECK(got.text() == text);
    CHECK(std::vector<int>(got.tokens().begin(), got.tokens().end()) ==
          std::vector<int>(expected.tokens().begin(), expected.tokens().end()));
    CHECK(got.finished() == expected.finished());
    passes += got.statistics().forward_passes;
    tokens += got.statistics().generated_tokens;
  }
  CHECK(passes < tokens);
}

grammar::json_schema compiled_schema() {
  static const grammar::json_schema g(schema, grammar::vocabulary_of(ei::pipeline<>::load(model).tokenizer()));
  return g;
}

}  // namespace

TEST_CASE_TEMPLATE("JSON under a schema, whatever the rule; jumping over forced text changes nothing", Rule,
                   decoding::greedy, decoding::sample, decoding::top_p) {
  check<Rule>("ROMEO:\n", compiled_schema(), [](const std::string& text) {
    grammar::json_schema_document under(schema, "schema");
    const ei::json::document value(text, "text");
    return under.holds(under.root(), value.root());
  });
}

TEST_CASE("regular expressions and GBNF") {
  const auto vocabulary = grammar::vocabulary_of(ei::pipeline<>::load(model).tokenizer());
  constexpr const char* pattern = "(?:To be|Not to be), [a-z ]{4,20}[.!] \\(Act [1-5], scene \\d\\)";
  check<decoding::sample>("HAMLET:\n", grammar::regular_expression(pattern, vocabulary),
                          [&](const std::string& text) { return std::regex_match(text, std::regex(pattern)); });
  check<decoding::top_p>(
      "HAMLET:\n",
      grammar::gbnf(
          "root ::= \"The answer is \" (\"yes\" | \"no\") \", \" word{2,4} \"for \" word\nword ::= [a-z]{2,6} \" \"\n",
          vocabulary),
      [](const std::string& text) {
        return std::regex_match(text, std::regex("The answer is (yes|no), ([a-z]{2,6} ){2,4}for [a-z]{2,6} "));
      });
}

TEST_CASE("the history may go back, and a policy without a grammar or with a foreign history is refused") {
  const auto llm = ei::pipeline<>::load(model);
  const auto vocabulary = grammar::vocabulary_of(llm.tokenizer());
  const decoding::constrained<grammar::regular_expression, decoding::greedy> policy{
      .grammar = {"abc|abd|xy", vocabulary}};
  const auto id = [&](const char* text) { return llm.tokenizer().encode(text, {.add_special_tokens = false}).at(0); };
  decoding::workspace scratch(ei::execution::instruction_set::portable);
  std::vector<int> history{1, 2, 3};
  const auto choose = [&](const char* favourite) {
    std::vector<float> logits(static_cast<std::size_t>(llm.tokenizer().size()), 0.0F);
    logits[static_cast<std::size_t>(id(favourite))] = 5;
    return policy(logits, history, ei::random_stream{1}, history.size(), scratch);
  };
  CHECK(choose("x") == id("x"));
  CHECK(choose("z") != id("z"));
  history.push_back(id("x"));
  CHECK(choose("a") == id("y"));
  history.back() = id("a");
  CHECK(choose("y") == id("b"));
  history.push_back(id("b"));
  CHECK(choose("d") == id("d"));
  history.push_back(id("x"));
  CHECK_THROWS_AS(choose("c"), ei::error);
  history.resize(2);  // shorter than the prompt
  CHECK_THROWS_AS(choose("c"), ei::error);
  using unset = decoding::constrained<grammar::gbnf>;
  CHECK_THROWS_AS(unset{}.validate(), ei::error);
  CHECK_THROWS_AS(ei::pipeline<unset>::load(model).generate("a").text(), ei::error);
}

}  // namespace constrained_tests
