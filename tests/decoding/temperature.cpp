// decoding/temperature.hpp

#include <effinfer/decoding/temperature.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "decoding/reference.hpp"

namespace temperature_tests {

using namespace effinfer;

TEST_CASE("temperature is the logits divided, then a draw") {
  decoding::workspace scratch;
  const decoding::temperature rule{.value = 0.7f};
  for (std::uint64_t position = 0; position < 100; ++position) {
    auto logits = reference::logits(900, position, 3);
    auto same = logits, in_chain = logits;
    decoding::candidates left(same, scratch);
    left.divide_by(0.7f);
    const int expected = left.draw({11}, position);
    CHECK(rule(logits, {}, {11}, position, scratch) == expected);
    rule.apply(in_chain, {}, scratch);
    CHECK(decoding::candidates(in_chain, scratch).draw({11}, position) == expected);
  }
}

TEST_CASE("temperature with temperature 0 is greedy") {
  decoding::workspace scratch;
  auto logits = reference::logits(900, 4, 3);
  const int likeliest = reference::ranking(logits)[0];
  CHECK(decoding::temperature{.value = 0}(logits, {}, {1}, 0, scratch) == likeliest);
}

TEST_CASE("temperature names the parameter that is out of range, and its value") {
  constexpr float infinite = std::numeric_limits<float>::infinity();
  constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
  const auto message = [](const decoding::temperature& rule) -> std::string {
    try {
      rule.validate();
    } catch (const error& e) {
      CHECK(e.code() == error_code::invalid_argument);
      return e.what();
    }
    return "";
  };
  CHECK(message({}).empty());
  CHECK(message({.value = 100}).empty());
  CHECK(message({.value = -1}) == "decoding::temperature.value: -1.000000 is not in [0, infinity)");
  CHECK(message({.value = infinite}) == "decoding::temperature.value: inf is not in [0, infinity)");
  CHECK(message({.value = not_a_number}) == "decoding::temperature.value: nan is not in [0, infinity)");
}

}  // namespace temperature_tests
