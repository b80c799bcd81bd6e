// decoding/repetition_penalty.hpp; against transformers in sample.cpp.

#include <effinfer/decoding/repetition_penalty.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "decoding/reference.hpp"

namespace repetition_penalty_tests {

using namespace effinfer;

TEST_CASE("each token of the history is made less likely, once, whatever its sign") {
  decoding::workspace scratch;
  std::vector<float> logits{4, -4, 0, 4, -4, 7};
  const std::vector<int> history{0, 1, 1, 0, 2, 0};
  decoding::repetition_penalty{.penalty = 2}.apply(logits, history, scratch);
  CHECK(logits == std::vector<float>{2, -8, 0, 4, -4, 7});
  // Nothing of that call is left in the scratch.
  decoding::repetition_penalty{.penalty = 2}.apply(logits, std::vector<int>{5}, scratch);
  CHECK(logits == std::vector<float>{2, -8, 0, 4, -4, 3.5f});
}

TEST_CASE("the prompt may be left out, and ids outside the vocabulary are passed over") {
  decoding::workspace scratch;
  std::vector<float> logits{4, 4, 4};
  decoding::repetition_penalty{.penalty = 2, .ignore_first_tokens = 2}.apply(
      logits, std::vector<int>{0, 1, 2, -1, 3, 1000000}, scratch);
  CHECK(logits == std::vector<float>{4, 4, 2});
  decoding::repetition_penalty{.penalty = 2, .ignore_first_tokens = 99}.apply(logits, std::vector<int>{0}, scratch);
  CHECK(logits == std::vector<float>{4, 4, 2});
}

TEST_CASE("a repetition penalty out of range is refused by name") {
  CHECK_THROWS_WITH_AS(decoding::repetition_penalty{.penalty = 0}.validate(),
                       "decoding::repetition_penalty.penalty: 0.000000 is not in (0, infinity)", error);
  CHECK_THROWS_WITH_AS(decoding::repetition_penalty{.penalty = reference::infinity}.validate(),
                       "decoding::repetition_penalty.penalty: inf is not in (0, infinity)", error);
  CHECK_THROWS_WITH_AS(decoding::repetition_penalty{.ignore_first_tokens = -1}.validate(),
                       "decoding::repetition_penalty.ignore_first_tokens: -1 is not in [0, 2147483647]", error);
  CHECK_NOTHROW(decoding::repetition_penalty{}.validate());
}

}  // namespace repetition_penalty_tests
