// Pre-tokenizer steps on the examples that Hugging Face's documentation gives, and at the edges.

#include <effinfer/text/pre_tokenizer.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pre_tokenizer_tests {

namespace text = effinfer::text;
namespace pre_tokenizers = effinfer::text::pre_tokenizers;
using text::split_behavior;

namespace {

using list = std::vector<std::string>;

list run(const std::vector<text::pre_tokenizer_step>& steps, const std::string& input, std::size_t front = 1) {
  const text::pre_tokenizer splitting{steps};
  text::pre_tokenizer::searches searches = splitting.make_searches();
  list out;
  splitting.run({input, front}, searches, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

}  // namespace

TEST_CASE("the behaviors of a split") {
  const auto split = [](split_behavior behavior, bool invert = false) {
    const list by_text = run({pre_tokenizers::split_text{"-", behavior, invert}}, "The-final--countdown");
    const list by_regex =
        run({pre_tokenizers::split_regex{text::regex("-", "test"), behavior, invert}}, "The-final--countdown");
    CHECK(by_text == by_regex);
    return by_text;
  };
  CHECK(split(split_behavior::removed) == list{"The", "final", "countdown"});
  CHECK(split(split_behavior::isolated) == list{"The", "-", "final", "-", "-", "countdown"});
  CHECK(split(split_behavior::merged_with_previous) == list{"The-", "final-", "-", "countdown"});
  CHECK(split(split_behavior::merged_with_next) == list{"The", "-final", "-", "-countdown"});
  CHECK(split(split_behavior::contiguous) == list{"The", "-", "final", "--", "countdown"});
  CHECK(split(split_behavior::removed, true) == list{"-", "-", "-"});
  CHECK(run({pre_tokenizers::split_text{"-", split_behavior::merged_with_next, false}}, "--") == list{"-", "-"});
}

TEST_CASE("classes of characters") {
  CHECK(run({pre_tokenizers::split_class{text::is_number, split_behavior::isolated}}, "ab12\u00BDc") ==
        list{"ab", "1", "2", "\u00BD", "c"});
  CHECK(run({pre_tokenizers::split_class{text::is_number, split_behavior::contiguous}}, "ab12\u00BDc") ==
        list{"ab", "12\u00BD", "c"});
  CHECK(run({pre_tokenizers::split_class{text::is_white_space, split_behavior::removed}}, " a\u3000\tb ") ==
        list{"a", "b"});
  CHECK(run({pre_tokenizers::words{}}, "Hey, man! e\u0301_1  ") == list{"Hey", ",", "man", "!", "e\u0301_1"});
}

TEST_CASE("metaspace") {
  using pre_tokenizers::prepend_scheme;
  const auto pieces = [](prepend_scheme scheme, bool split, const std::string& input, std::size_t front) {
    return run({pre_tokenizers::metaspace{"\u2581", scheme, split}}, input, front);
  };
  CHECK(pieces(prepend_scheme::always, true, "Hey  you", 1) == list{"\u2581Hey", "\u2581", "\u2581you"});
  CHECK(pieces(prepend_scheme::always, true, " Hey", 1) == list{"\u2581Hey"});
  CHECK(pieces(prepend_scheme::never, true, "Hey you", 1) == list{"Hey", "\u2581you"});
  CHECK(pieces(prepend_scheme::first, false, "Hey you", 1) == list{"\u2581Hey\u2581you"});
  CHECK(pieces(prepend_scheme::first, false, "Hey you", 0) == list{"Hey\u2581you"});
  // Of the parts of a text only the first is at its beginning.
  CHECK(run({pre_tokenizers::split_text{"-", split_behavior::removed, false},
             pre_tokenizers::metaspace{"\u2581", prepend_scheme::first, true}},
            "a-b") == list{"\u2581a", "b"});
}

TEST_CASE("byte level, with bytes kept and written") {
  const std::optional<text::regex> words(text::regex(R"( ?\p{L}+|\s+)", "test"));
  CHECK(run({pre_tokenizers::byte_level{true, words, false}}, "h\u00E9 x") == list{"\u0120h\u00C3\u00A9", "\u0120x"});
  CHECK(run({pre_tokenizers::byte_level{true, words, true}}, "h\u00E9 x") == list{" h\u00E9", " x"});
  CHECK(run({pre_tokenizers::byte_level{false, std::nullopt, false}}, "a b") == list{"a\u0120"
                                                                                     "b"});
  CHECK(run({}, "as it is") == list{"as it is"});
  CHECK(run({pre_tokenizers::words{}}, "").empty());
}

}  // namespace pre_tokenizer_tests
