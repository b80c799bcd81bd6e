// decoding/greedy.hpp

#include <effinfer/decoding/greedy.hpp>

#include <doctest/doctest.h>

#include <vector>

#include "decoding/reference.hpp"

namespace greedy_tests {

using namespace effinfer;

TEST_CASE("greedy takes the likeliest token, of equals the lowest id, whatever the seed") {
  decoding::workspace scratch;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    auto logits = reference::logits(777, seed, 3);
    CHECK(decoding::greedy{}(logits, {}, {seed}, seed, scratch) == reference::ranking(logits)[0]);
  }
  std::vector<float> logits{0, 2, 1, 2, 2};
  CHECK(decoding::greedy{}(logits, {}, {1}, 0, scratch) == 1);
}

TEST_CASE("greedy as a rule leaves one token") {
  decoding::workspace scratch;
  std::vector<float> logits{0, 2, 1, 2, 2};
  decoding::greedy{}.apply(logits, {}, scratch);
  CHECK(reference::kept(logits) == std::vector<int>{1});
  CHECK(logits[1] == 2);
}

}  // namespace greedy_tests
