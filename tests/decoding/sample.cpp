// decoding/sample.hpp: against the logits processors of transformers (tests/reference/make_decoding_references.py wrote the
// file), and against the same rules in a chain.

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/min_p.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "decoding/reference.hpp"

namespace sample_tests {

using namespace effinfer;
using decoding::sample;
using decoding::workspace;

namespace {

/// The numbers of the next line, which must begin with `name`.
std::vector<double> numbers(std::istream& in, const std::string& name) {
  std::string line, word;
  std::getline(in, line);
  std::istringstream words(line);
  words >> word;
  REQUIRE(word == name);
  std::vector<double> all;
  for (double x; words >> x;) all.push_back(x);
  return all;
}

template <class To>
std::vector<To> as(const std::vector<double>& from) {
  std::vector<To> to;
  for (const double x : from) to.push_back(static_cast<To>(x));
  return to;
}

}  // namespace

TEST_CASE("sample keeps the tokens that transformers keeps, with its probabilities") {
  std::ifstream in(EFFINFER_TEST_DATA "/decoding/transformers.txt");
  REQUIRE(in.good());
  std::string comment;
  std::getline(in, comment);
  workspace scratch;
  int cases = 0;
  while (in.peek() != std::istream::traits_type::eof()) {
    const auto p = numbers(in, "case");
    const auto history = as<int>(numbers(in, "history"));
    auto logits = as<float>(numbers(in, "logits"));
    const auto kept = as<int>(numbers(in, "kept"));
    const auto log_probability = numbers(in, "log_probability");
    CAPTURE(cases);
    const sample rule{.temperature = static_cast<float>(p[0]),
                      .top_k = static_cast<int>(p[1]),
                      .top_p = static_cast<float>(p[2]),
                      .min_p = static_cast<float>(p[3]),
                      .repetition_penalty = static_cast<float>(p[4]),
                      .penalties_ignore_first_tokens = static_cast<int>(p[5])};
    rule.validate();
    rule.apply(logits, history, scratch);
    REQUIRE(reference::kept(logits) == kept);
    const auto probability = reference::probabilities(logits);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      // Both sides round logits below 32 in float: 2 units in the last place of 16.
      CHECK(std::abs(std::log(probability[static_cast<std::size_t>(kept[i])]) - log_probability[i]) < 4e-6);
    }
    ++cases;
  }
  CHECK(cases == 37);
}

TEST_CASE("sample gives the same tokens as its rules in a chain") {
  using namespace effinfer::decoding;
  using rules = chain<repetition_penalty, frequency_penalty, presence_penalty, temperature, top_k, top_p, min_p>;
  workspace scratch;
  const std::vector<int> history{3, 5, 5, 8, 3, 3, 1};
  for (std::uint64_t position = 0; position < 400; ++position) {
    const random_stream random{position * 77};
    const auto pick = [&](std::uint32_t draw, float low, float high) {
      return low + (high - low) * random.uniform(9, draw);
    };
    const sample all{.temperature = pick(0, 0.3f, 2),
                     .top_k = position % 2 ? static_cast<int>(pick(1, 1, 60)) : 0,
                     .top_p = position % 3 ? pick(2, 0.1f, 1) : 1,
                     .min_p = position % 5 ? pick(3, 0, 0.2f) : 0,
                     .repetition_penalty = pick(4, 0.8f, 1.5f),
                     .frequency_penalty = pick(5, -1, 1),
                     .presence_penalty = pick(6, -1, 1),
                     .penalties_ignore_first_tokens = 1};
    const rules one_by_one{{repetition_penalty{.penalty = all.repetition_penalty, .ignore_first_tokens = 1},
                            frequency_penalty{.penalty = all.frequency_penalty, .ignore_first_tokens = 1},
                            presence_penalty{.penalty = all.presence_penalty, .ignore_first_tokens = 1},
                            temperature{.value = all.temperature}, top_k{.k = all.top_k}, top_p{.p = all.top_p},
                            min_p{.p = all.min_p}}};
    auto a = reference::logits(700, position, 3);
    auto b = a, c = a, d = a;
    CHECK(all(a, history, {1}, position, scratch) == one_by_one(b, history, {1}, position, scratch));
    all.apply(c, history, scratch);
    one_by_one.apply(d, history, scratch);
    CHECK(c == d);
  }
}

TEST_CASE("sample without parameters draws from the model's distribution") {
  workspace scratch;
  for (std::uint64_t position = 0; position < 50; ++position) {
    auto a = reference::logits(700, position, 3);
    auto b = a;
    CHECK(sample{}(a, std::vector<int>{1, 2}, {1}, position, scratch) ==
          decoding::temperature{}(b, {}, {1}, position, scratch));
  }
}

TEST_CASE("sample names the parameter that is out of range") {
  const auto where = [](const sample& rule) -> std::string {
    try {
      rule.validate();
    } catch (const error& e) {
      CHECK(e.code() == error_code::invalid_argument);
      return e.where();
    }
    return "";
  };
  CHECK(where({}).empty());
  CHECK(where({.temperature = -1}) == "decoding::sample.temperature");
  CHECK(where({.top_k = -1}) == "decoding::sample.top_k");
  CHECK(where({.top_p = 0}) == "decoding::sample.top_p");
  CHECK(where({.min_p = 1.1f}) == "decoding::sample.min_p");
  CHECK(where({.repetition_penalty = 0}) == "decoding::sample.repetition_penalty");
  CHECK(where({.frequency_penalty = reference::infinity}) == "decoding::sample.frequency_penalty");
  CHECK(where({.presence_penalty = reference::infinity}) == "decoding::sample.presence_penalty");
  CHECK(where({.penalties_ignore_first_tokens = -1}) == "decoding::sample.penalties_ignore_first_tokens");
}

}  // namespace sample_tests
