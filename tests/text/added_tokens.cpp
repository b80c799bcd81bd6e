// Added tokens in text: which match, and what they take along.

#include <effinfer/text/added_tokens.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace added_tokens_tests {

namespace text = effinfer::text;

namespace {

using list = std::vector<std::string>;

// The parts of a text, tokens as "[id:text]"; checks that offsets are true.
list run(const std::vector<text::added_token>& tokens, const std::string& input, bool finds_special = true) {
  list out;
  text::added_token_set(tokens).split(
      input, finds_special, [&](std::string_view part, const text::added_token* token, std::size_t offset) {
        CHECK(part.data() == input.data() + offset);
        out.push_back(token ? "[" + std::to_string(token->id) + ":" + std::string(part) + "]" : std::string(part));
      });
  return out;
}

}  // namespace

TEST_CASE("leftmost, and there the longest") {
  const std::vector<text::added_token> tokens = {{.content = "<x>", .id = 1},
                                                 {.content = "<x><x>", .id = 2},
                                                 {.content = "x>y", .id = 3},
                                                 {.content = "", .id = 4},
                                                 {.content = "<", .id = 5}};
  CHECK(run(tokens, "a<x>b<x><x>y<") == list{"a", "[1:<x>]", "b", "[2:<x><x>]", "y", "[5:<]"});
  CHECK(run(tokens, "<x>y x>y") == list{"[1:<x>]", "y ", "[3:x>y]"});
  CHECK(run(tokens, "").empty());
  CHECK(run({}, "plain") == list{"plain"});
  std::vector<text::added_token> many;
  for (int i = 0; i < 1000; ++i) many.push_back({.content = "t" + std::to_string(i), .id = i});
  CHECK(run(many, "t1t12t123t1234") == list{"[1:t1]", "[12:t12]", "[123:t123]", "[123:t123]", "4"});
}

TEST_CASE("flags") {
  const std::vector<text::added_token> tokens = {{.content = "<s>", .id = 1, .special = true},
                                                 {.content = "foo", .id = 2, .single_word = true},
                                                 {.content = "<L>", .id = 3, .left_strip = true},
                                                 {.content = "<R>", .id = 4, .right_strip = true}};
  CHECK(run(tokens, "a<s>b") == list{"a", "[1:<s>]", "b"});
  CHECK(run(tokens, "a<s>b<L>", false) == list{"a<s>b", "[3:<L>]"});
  CHECK(run(tokens, "foo food \u00E9foo foo.") == list{"[2:foo]", " food \u00E9foo ", "[2:foo]", "."});
  CHECK(run(tokens, "a \u3000<L> b") == list{"a", "[3: \u3000<L>]", " b"});
  CHECK(run(tokens, "a <R> \n b") == list{"a ", "[4:<R> \n ]", "b"});
  CHECK(run(tokens, "<R>  <L>") == list{"[4:<R>  ]", "[3:<L>]"});
}

}  // namespace added_tokens_tests
