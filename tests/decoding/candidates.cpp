// decoding/candidates.hpp against a full sort in double, on every instruction set of this machine.

#include <effinfer/decoding/candidates.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "decoding/reference.hpp"

namespace candidates_tests {

using namespace effinfer;
using decoding::candidates;
using decoding::workspace;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
using reference::infinity;

// e^x in float to 1.5 units in the last place, and weights cut at 2^-42.
constexpr double probability_tolerance = 4e-7;

const std::size_t sizes[] = {1, 2, 15, 16, 17, 127, 128, 129, 1000, 5003, 20011};
const float spreads[] = {0.0f, 0.1f, 2.0f, 10.0f};

}  // namespace

TEST_CASE("top-k keeps the k greatest, and all that equal the last of them") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : sizes) {
      for (const int k : {1, 2, 5, 40, 128, 999, 4000, 6000}) {
        auto logits = reference::logits(size, size + static_cast<std::size_t>(k), 3);
        for (float& l : logits) l = std::round(l * 8) / 8;  // many equals
        const auto rank = reference::ranking(logits);
        std::vector<int> expected;
        const float least = logits[static_cast<std::size_t>(rank[std::min(static_cast<std::size_t>(k), size) - 1])];
        for (std::size_t i = 0; i < size; ++i) {
          if (logits[i] >= least) expected.push_back(static_cast<int>(i));
        }
        candidates left(logits, scratch);
        left.keep_top_k(k);
        left.write_back();
        CHECK(reference::kept(logits) == expected);
      }
    }
  }
}

TEST_CASE("top-p keeps the shortest run of the ranking that reaches p") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : sizes) {
      for (const float spread : spreads) {
        for (const float p : {1e-6f, 0.1f, 0.5f, 0.9f, 0.99f, 0.99999f}) {
          for (const int k : {0, 30}) {
            auto logits = reference::logits(size, size, spread);
            auto before = logits;
            if (k > 0) {
              candidates only_k(before, scratch);
              only_k.keep_top_k(k);
              only_k.write_back();
            }
            const auto probability = reference::probabilities(before);
            const auto rank = reference::ranking(before);
            candidates left(logits, scratch);
            left.keep_top_k(k);
            left.keep_top_p(p);
            left.write_back();
            auto ids = reference::kept(logits);
            const std::size_t n = ids.size();
            REQUIRE(n >= 1);
            std::vector<int> prefix(rank.begin(), rank.begin() + static_cast<std::ptrdiff_t>(n));
            double mass = 0;
            for (const int id : prefix) mass += probability[static_cast<std::size_t>(id)];
            CHECK(mass >= double{p} - probability_tolerance);
            CHECK(mass - probability[static_cast<std::size_t>(prefix.back())] < double{p} + probability_tolerance);
            std::sort(prefix.begin(), prefix.end());
            CHECK(ids == prefix);
          }
        }
      }
    }
  }
}

TEST_CASE("top-p of a large vocabulary, where a nucleus of many tokens is bracketed by a sample") {
  // Every fourth token is sampled here (20011 / 4096). Raised or lowered by themselves they mislead: the bracket then misses.
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const float sampled_raise : {0.0f, -30.0f, -2.0f, 2.0f, 30.0f}) {
      for (const float step : {0.0f, 0.25f}) {
        for (const float p : {0.03f, 0.5f, 0.9f, 0.9999f}) {
          auto logits = reference::logits(20011, 3, 0.7f);
          for (std::size_t i = 0; i < logits.size(); ++i) {
            if (step > 0) logits[i] = step * std::round(logits[i] / step);  // thousands of equals at the edge
            if (i % 4 == 0) logits[i] += sampled_raise;
          }
          const auto probability = reference::probabilities(logits);
          const auto rank = reference::ranking(logits);
          auto drawn = logits;
          candidates left(logits, scratch);
          left.keep_top_p(p);
          left.write_back();
          const auto ids = reference::kept(logits);
          double mass = 0;
          for (const int id : ids) mass += probability[static_cast<std::size_t>(id)];
          CAPTURE(sampled_raise);
          CAPTURE(p);
          REQUIRE(!ids.empty());
          std::vector<int> prefix(rank.begin(), rank.begin() + static_cast<std::ptrdiff_t>(ids.size()));
          CHECK(mass >= double{p} - probability_tolerance);
          CHECK(mass - probability[static_cast<std::size_t>(prefix.back())] < double{p} + probability_tolerance);
          std::sort(prefix.begin(), prefix.end());
          CHECK(ids == prefix);
          // The draw is that from the row with all others at -infinity.
          for (std::uint64_t position = 0; position < 10; ++position) {
            auto again = drawn, written = logits;
            candidates from_row(again, scratch);
            from_row.keep_top_p(p);
            const int token = from_row.draw({8}, position);
            CHECK(token == candidates(written, scratch).draw({8}, position));
          }
        }
      }
    }
  }
}

TEST_CASE("filters narrow what a large nucleus left") {
  workspace scratch;
  for (const int filter : {0, 1, 2}) {
    auto logits = reference::logits(20011, 3, 0.7f);
    auto one_by_one = logits;
    const auto apply = [&](candidates& c) {
      if (filter == 0) c.keep_top_k(5000);
      if (filter == 1) c.keep_top_p(0.8f);
      if (filter == 2) c.keep_min_p(0.05f);
    };
    candidates left(logits, scratch);
    left.keep_top_p(0.9f);
    apply(left);
    left.write_back();
    {
      candidates first(one_by_one, scratch);
      first.keep_top_p(0.9f);
      first.write_back();
    }
    candidates second(one_by_one, scratch);
    apply(second);
    second.write_back();
    CHECK(logits == one_by_one);
    CHECK(reference::kept(logits).size() > 1000);
    CHECK(reference::kept(logits).size() < 19000);
  }
}

TEST_CASE("min-p keeps what is at least p times as likely as the likeliest") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : sizes) {
      for (const float spread : spreads) {
        for (const float p : {1e-9f, 0.01f, 0.3f, 1.0f}) {
          auto logits = reference::logits(size, size + 7, spread);
          const auto before = logits;
          const float greatest = *std::max_element(before.begin(), before.end());
          candidates left(logits, scratch);
          left.keep_min_p(p);
          left.write_back();
          int wrong = 0;
          for (std::size_t i = 0; i < size; ++i) {
            const double ratio = std::exp(double{before[i]} - double{greatest}) / double{p};
            if (ratio > 1 + 1e-3) wrong += logits[i] != before[i];
            if (ratio < 1 - 1e-3) wrong += logits[i] != -infinity;
          }
          CHECK(wrong == 0);
          CHECK(logits[static_cast<std::size_t>(reference::ranking(before)[0])] == greatest);
        }
      }
    }
  }
}

TEST_CASE("min-p lets exact ties with its bound stay") {
  workspace scratch;
  std::vector<float> logits{0.0f, -1.0f, 0.0f, -0.5f};
  candidates left(logits, scratch);
  left.keep_min_p(1.0f);
  left.write_back();
  CHECK(reference::kept(logits) == std::vector<int>{0, 2});
}

TEST_CASE("the draw takes the token in whose share of [0, 1) the random number falls") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : sizes) {
      for (const float spread : spreads) {
        for (const int filter : {0, 1, 2, 3}) {
          for (std::uint64_t position = 0; position < 20; ++position) {
            auto logits = reference::logits(size, size + 3, spread);
            auto filtered = logits;
            const auto apply = [&](candidates& c) {
              if (filter == 1) c.keep_top_k(7);
              if (filter == 2) c.keep_top_p(0.8f);
              if (filter == 3) c.keep_min_p(0.05f);
            };
            {
              candidates c(filtered, scratch);
              apply(c);
              c.write_back();
            }
            const auto probability = reference::probabilities(filtered);
            const random_stream random{99};
            candidates left(logits, scratch);
            apply(left);
            const int token = left.draw(random, position);
            double below = 0;
            for (int i = 0; i < token; ++i) below += probability[static_cast<std::size_t>(i)];
            const double u = double{random.uniform(position, 0)} + double{random.uniform(position, 1)} * 0x1p-24;
            REQUIRE(u >= below - probability_tolerance);
            REQUIRE(u <= below + probability[static_cast<std::size_t>(token)] + probability_tolerance);
          }
        }
      }
    }
  }
}

TEST_CASE("of a million equally likely tokens the draw takes number floor(u V): all 48 bits of u count") {
  workspace scratch;
  std::vector<float> logits(1000003, -3.0f);
  for (std::uint64_t position = 0; position < 30; ++position) {
    const random_stream random{17};
    const double u = double{random.uniform(position, 0)} + double{random.uniform(position, 1)} * 0x1p-24;
    CHECK(candidates(logits, scratch).draw(random, position) == static_cast<int>(u * 1000003));
  }
}

TEST_CASE("draws follow the exact distribution, whatever the filter") {
  const std::size_t size = 300;
  const auto logits = reference::logits(size, 5, 2);
  const int draws = 40000;
  for (const int filter : {0, 1, 2, 3, 4}) {
    const auto apply = [&](candidates& c) {
      if (filter == 1) c.keep_top_k(20);
      if (filter == 2) c.keep_top_p(0.7f);
      if (filter == 3) c.keep_min_p(0.02f);
      if (filter == 4) c.divide_by(1.7f);
    };
    workspace scratch;
    auto filtered = logits;
    candidates c(filtered, scratch);
    apply(c);
    c.write_back();
    const auto probability = reference::probabilities(filtered);
    std::vector<int> observed(size, 0);
    for (int i = 0; i < draws; ++i) {
      auto row = logits;
      candidates left(row, scratch);
      apply(left);
      ++observed[static_cast<std::size_t>(left.draw({1234}, static_cast<std::uint64_t>(i)))];
    }
    CAPTURE(filter);
    CHECK(reference::chi_square(observed, probability, draws) < 1);
    // The test can tell: a probability off by half is found out.
    auto other = probability;
    const auto top = static_cast<std::size_t>(reference::ranking(logits)[0]);
    other[top] *= 1.5;
    CHECK(reference::chi_square(observed, other, draws) > 1);
  }
}

TEST_CASE("temperature divides the logits, and 0 leaves the likeliest") {
  workspace scratch;
  for (const float temperature : {0.3f, 1.0f, 2.5f}) {
    auto logits = reference::logits(700, 8, 4);
    const auto expected = reference::probabilities(logits, double{temperature});
    candidates left(logits, scratch);
    left.divide_by(temperature);
    left.write_back();
    const auto found = reference::probabilities(logits);
    for (std::size_t i = 0; i < found.size(); ++i) {
      // Rounding of (logit - maximum) / temperature: two units in the last place of up to 100, so relative to e^x.
      CHECK(found[i] == doctest::Approx(expected[i]).epsilon(3e-5));
    }
  }
  for (const float temperature : {0.0f, 1e-30f}) {
    std::vector<float> logits{1, 3, 2, 3, 0};
    candidates left(logits, scratch);
    left.divide_by(temperature);
    CHECK(left.draw({0}, 0) == 1);
    left.write_back();
    CHECK(reference::kept(logits) == std::vector<int>{1});
  }
}

TEST_CASE("the likeliest token is the first of equals") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : sizes) {
      std::vector<float> logits(size, -2.0f);
      CHECK(candidates(logits, scratch).likeliest() == 0);
      for (std::size_t at = 0; at < size; at += 37) {
        logits.assign(size, -2.0f);
        logits[at] = logits[size - 1] = 5;
        CHECK(candidates(logits, scratch).likeliest() == static_cast<int>(at));
      }
    }
  }
}

TEST_CASE("NaN is never chosen, +infinity always") {
  for (const auto set : instruction_sets::supported_bases()) {
    workspace scratch(set);
    for (const std::size_t size : {3u, 130u, 400u}) {
      for (int filter = 0; filter < 4; ++filter) {
        const auto draw = [&](std::vector<float> logits, std::uint64_t position) {
          candidates left(logits, scratch);
          if (filter == 1) left.keep_top_k(static_cast<int>(size) - 1);
          if (filter == 2) left.keep_top_p(0.999f);
          if (filter == 3) left.keep_min_p(1e-3f);
          return left.draw({5}, position);
        };
        for (std::uint64_t position = 0; position < 50; ++position) {
          std::vector<float> logits(size, not_a_number);
          logits[size - 1] = -1e30f;
          CHECK(draw(logits, position) == static_cast<int>(size) - 1);
          logits.assign(size, not_a_number);
          logits[1] = infinity;
          logits[0] = 7;
          CHECK(draw(logits, position) == 1);
          logits.assign(size, -infinity);
          logits[2] = -std::numeric_limits<float>::max();
          CHECK(draw(logits, position) == 2);
          logits.assign(size, -std::numeric_limits<float>::max());
          logits[0] = std::numeric_limits<float>::max();
          CHECK(draw(logits, position) == 0);
        }
      }
    }
  }
}

TEST_CASE("logits without a choice are an error") {
  workspace scratch;
  const auto code_of = [&](std::vector<float> logits) {
    try {
      (void)candidates(logits, scratch).likeliest();
    } catch (const error& e) {
      CHECK(e.where() == "decoding: logits");
      return e.code();
    }
    return error_code::io;
  };
  CHECK(code_of({}) == error_code::invalid_argument);
  CHECK(code_of({not_a_number, not_a_number, not_a_number}) == error_code::malformed);
  CHECK(code_of({-infinity, not_a_number}) == error_code::malformed);
  CHECK(code_of(std::vector<float>((std::size_t{1} << 21) + 1, 0.0f)) == error_code::limit);
}

TEST_CASE("AVX2 and AVX-512 draw the same tokens") {
  const auto sets = instruction_sets::supported_bases();
  if (sets.size() < 3) return;  // Arm has one
  workspace narrow(sets[1]), wide(sets[2]);
  for (std::uint64_t position = 0; position < 300; ++position) {
    auto a = reference::logits(3001, position, 3);
    auto b = a;
    candidates left(a, narrow), right(b, wide);
    for (auto* c : {&left, &right}) {
      if (position % 3 == 1) c->divide_by(0.9f);
      if (position % 3 == 2) c->keep_top_p(0.9f);
    }
    REQUIRE(left.draw({3}, position) == right.draw({3}, position));
  }
}

}  // namespace candidates_tests
