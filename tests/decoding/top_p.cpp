// decoding/top_p.hpp

#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "decoding/reference.hpp"

namespace top_p_tests {

using namespace effinfer;

TEST_CASE("top_p is temperature, then the nucleus, then a draw") {
  decoding::workspace scratch;
  const decoding::top_p rule{.p = 0.6f, .temperature = 1.4f};
  for (std::uint64_t position = 0; position < 100; ++position) {
    auto logits = reference::logits(900, position, 3);
    auto same = logits, in_chain = logits;
    decoding::candidates left(same, scratch);
    left.divide_by(1.4f);
    left.keep_top_p(0.6f);
    const int expected = left.draw({11}, position);
    CHECK(rule(logits, {}, {11}, position, scratch) == expected);
    rule.apply(in_chain, {}, scratch);
    CHECK(decoding::candidates(in_chain, scratch).draw({11}, position) == expected);
  }
}

TEST_CASE("top_p with temperature 0 is greedy") {
  decoding::workspace scratch;
  auto logits = reference::logits(900, 4, 3);
  const int likeliest = reference::ranking(logits)[0];
  CHECK(decoding::top_p{.temperature = 0}(logits, {}, {1}, 0, scratch) == likeliest);
}

TEST_CASE("top_p names the parameter that is out of range, and its value") {
  constexpr float infinite = std::numeric_limits<float>::infinity();
  constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
  const auto message = [](const decoding::top_p& rule) -> std::string {
    try {
      rule.validate();
    } catch (const error& e) {
      CHECK(e.code() == error_code::invalid_argument);
      return e.what();
    }
    return "";
  };
  CHECK(message({}).empty());
  CHECK(message({.p = 1}).empty());
  CHECK(message({.p = 0}) == "decoding::top_p.p: 0.000000 is not in (0, 1]");
  CHECK(message({.p = 1.5f}) == "decoding::top_p.p: 1.500000 is not in (0, 1]");
  CHECK(message({.p = not_a_number}) == "decoding::top_p.p: nan is not in (0, 1]");
  CHECK(message({.temperature = -1}) == "decoding::top_p.temperature: -1.000000 is not in [0, infinity)");
  CHECK(message({.temperature = infinite}) == "decoding::top_p.temperature: inf is not in [0, infinity)");
  CHECK(message({.temperature = not_a_number}) == "decoding::top_p.temperature: nan is not in [0, infinity)");
}

}  // namespace top_p_tests
