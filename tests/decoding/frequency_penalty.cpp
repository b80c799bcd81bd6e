// decoding/frequency_penalty.hpp

#include <effinfer/decoding/frequency_penalty.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "decoding/reference.hpp"

namespace frequency_penalty_tests {

using namespace effinfer;

TEST_CASE("a token loses its penalty for each time that it was there") {
  decoding::workspace scratch;
  std::vector<float> logits{4, 4, 4};
  const std::vector<int> history{2, 0, 1, 0, 0, 1, -7, 3};
  const decoding::frequency_penalty rule{.penalty = 0.5f, .ignore_first_tokens = 1};
  rule.apply(logits, history, scratch);
  CHECK(logits == std::vector<float>{2.5f, 3, 4});
}

TEST_CASE("a frequency penalty out of range is refused by name") {
  CHECK_THROWS_WITH_AS(decoding::frequency_penalty{.penalty = reference::infinity}.validate(),
                       "decoding::frequency_penalty.penalty: inf is not in (-infinity, infinity)", error);
  CHECK_THROWS_WITH_AS(decoding::frequency_penalty{.ignore_first_tokens = -1}.validate(),
                       "decoding::frequency_penalty.ignore_first_tokens: -1 is not in [0, 2147483647]", error);
  CHECK_NOTHROW(decoding::frequency_penalty{.penalty = -2}.validate());
}

}  // namespace frequency_penalty_tests
