// decoding/log_probability.hpp

#include <effinfer/decoding/log_probability.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "decoding/reference.hpp"

namespace log_probability_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using reference::infinity;

TEST_CASE("log-probabilities of numbers worked out by hand") {
  const std::vector<float> two{std::log(1.0f), std::log(3.0f)};
  CHECK(log_probability(two, 0) == doctest::Approx(std::log(0.25)).epsilon(1e-7));
  CHECK(log_probability(two, 1) == doctest::Approx(std::log(0.75)).epsilon(1e-7));
  CHECK(log_probability(std::vector<float>(1000, 5.0f), 17) == doctest::Approx(-std::log(1000.0)).epsilon(1e-12));
  CHECK(log_probability(std::vector<float>{42.0f}, 0) == 0);
}

TEST_CASE("great logits neither overflow nor vanish") {
  const std::vector<float> logits{3e38f, -3e38f, 3e38f};
  CHECK(log_probability(logits, 0) == doctest::Approx(-std::log(2.0)));
  CHECK(log_probability(logits, 1) < -5e38);
}

TEST_CASE("all log-probabilities are those of the reference, and belong together") {
  const auto logits = reference::logits(5000, 3, 4);
  const auto probability = reference::probabilities(logits);
  std::vector<float> all(logits.size());
  log_softmax(logits, all);
  double sum = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const double exact = std::log(probability[i]);
    CHECK(std::abs(log_probability(logits, static_cast<int>(i)) - exact) < 1e-12 * 50);
    CHECK(std::abs(double{all[i]} - exact) <= 0x1p-24 * std::abs(exact) + 1e-12 * 50);
    sum += std::exp(log_probability(logits, static_cast<int>(i)));
  }
  CHECK(sum == doctest::Approx(1).epsilon(1e-10));
  auto in_place = logits;
  log_softmax(in_place, in_place);
  CHECK(in_place == all);
}

TEST_CASE("NaN and -infinity have no probability") {
  const float not_a_number = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits{not_a_number, 1, -infinity, 1};
  CHECK(log_probability(logits, 0) == -double{infinity});
  CHECK(log_probability(logits, 2) == -double{infinity});
  CHECK(log_probability(logits, 3) == doctest::Approx(-std::log(2.0)));
  std::vector<float> all(4);
  log_softmax(logits, all);
  CHECK(all[0] == -infinity);
  CHECK(all[2] == -infinity);
}

TEST_CASE("what has no answer is an error") {
  const auto code_of = [](std::vector<float> logits, int id) {
    try {
      (void)log_probability(logits, id);
    } catch (const error& e) {
      return e.code();
    }
    return error_code::io;
  };
  CHECK(code_of({}, 0) == error_code::invalid_argument);
  CHECK(code_of({1, 2}, 2) == error_code::invalid_argument);
  CHECK(code_of({1, 2}, -1) == error_code::invalid_argument);
  CHECK(code_of({-infinity, -infinity}, 0) == error_code::malformed);
  CHECK(code_of({infinity, 0}, 0) == error_code::malformed);
  std::vector<float> out(2);
  CHECK_THROWS_WITH_AS(log_softmax(std::vector<float>{1, 2, 3}, out),
                       "decoding::log_softmax: out: 2 values for 3 logits", error);
}

}  // namespace log_probability_tests
