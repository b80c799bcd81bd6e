// decoding/chain.hpp

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/min_p.hpp>
#include <effinfer/decoding/repetition_penalty.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "decoding/reference.hpp"

namespace chain_tests {

using namespace effinfer;
using namespace effinfer::decoding;

namespace {

/// A rule of a user's own.
struct ban_token {
  int id = 0;
  void validate() const {}
  void apply(std::span<float> logits, std::span<const int>, workspace&) const {
    logits[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
};

}  // namespace

TEST_CASE("the order of a chain is the order of its types") {
  workspace scratch;
  // softmax: 0.64, 0.24, 0.09, 0.03. Nucleus of 0.7: two tokens; of what top_k<2> leaves (0.73, 0.27): one.
  const std::vector<float> logits{3, 2, 1, 0};
  auto a = logits, b = logits;
  chain<top_p, top_k>{{top_p{.p = 0.7f}, top_k{.k = 2}}}.apply(a, {}, scratch);
  chain<top_k, top_p>{{top_k{.k = 2}, top_p{.p = 0.7f}}}.apply(b, {}, scratch);
  CHECK(reference::kept(a) == std::vector<int>{0, 1});
  CHECK(reference::kept(b) == std::vector<int>{0});
}

TEST_CASE("chains hold rules of a user's own, and chains") {
  workspace scratch;
  const chain<ban_token, chain<top_k>, greedy> rule{{ban_token{.id = 1}, chain<top_k>{{top_k{.k = 2}}}, greedy{}}};
  for (std::uint64_t position = 0; position < 20; ++position) {
    std::vector<float> logits{1, 9, 2, 0};
    CHECK(rule(logits, {}, {position}, position, scratch) == 2);
  }
}

TEST_CASE("an empty chain draws from the logits as they are") {
  workspace scratch;
  for (std::uint64_t position = 0; position < 50; ++position) {
    auto a = reference::logits(500, position, 2);
    auto b = a;
    CHECK(chain<>{}(a, {}, {4}, position, scratch) == temperature{}(b, {}, {4}, position, scratch));
  }
}

TEST_CASE("a chain validates each of its rules") {
  CHECK_THROWS_WITH_AS((chain<repetition_penalty, min_p>{{repetition_penalty{}, min_p{.p = 2}}}.validate()),
                       "decoding::min_p.p: 2.000000 is not in [0, 1]", error);
  CHECK_NOTHROW((chain<repetition_penalty, min_p>{}.validate()));
}

}  // namespace chain_tests
