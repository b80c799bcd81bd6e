// decoding/logit_bias.hpp, min_length.hpp, no_repeat_ngram.hpp, dry.hpp, rule.hpp; and all rules that transformers has too against its
// (tests/reference/make_decoding_references.py wrote the file).

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/dry.hpp>
#include <effinfer/decoding/epsilon_cutoff.hpp>
#include <effinfer/decoding/eta_cutoff.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/locally_typical.hpp>
#include <effinfer/decoding/logit_bias.hpp>
#include <effinfer/decoding/min_length.hpp>
#include <effinfer/decoding/no_repeat_ngram.hpp>
#include <effinfer/decoding/rule.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "decoding/reference.hpp"

namespace token_rules_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using reference::infinity;

namespace {

/// The words of the next line behind its first, which must be `name`.
std::vector<std::string> words(std::istream& in, const std::string& name) {
  std::string line, word;
  std::getline(in, line);
  std::istringstream all(line);
  all >> word;
  REQUIRE(word == name);
  std::vector<std::string> rest;
  while (all >> word) rest.push_back(word);
  return rest;
}

template <class To>
std::vector<To> numbers(const std::vector<std::string>& texts) {
  std::vector<To> to;
  for (const auto& text : texts) to.push_back(static_cast<To>(std::strtod(text.c_str(), nullptr)));
  return to;
}

/// The penalty by trying every earlier place and every length.
std::vector<double> dry_penalties(const dry& rule, std::span<const int> text, std::size_t vocabulary) {
  const auto breaks = [&](int id) {
    return std::find(rule.breakers.begin(), rule.breakers.end(), id) != rule.breakers.end();
  };
  std::vector<double> penalty(vocabulary, 0);
  for (std::size_t next = 1; next < text.size(); ++next) {
    std::size_t n = 0;
    while (n < next && text[next - 1 - n] == text[text.size() - 1 - n] && !breaks(text[next - 1 - n])) ++n;
    if (breaks(text[next]) || n < static_cast<std::size_t>(rule.allowed)) continue;
    double& p = penalty[static_cast<std::size_t>(text[next])];
    p = std::max(p, double{rule.multiplier} * std::pow(double{rule.base}, static_cast<double>(n) - rule.allowed));
  }
  return penalty;
}

struct at_most {  // a stateful rule of one's own: so many calls, then the end token only
  int calls = 0, most = 2;
  void operator()(std::span<float> logits, std::span<const int>) {
    if (++calls > most) std::fill(logits.begin() + 1, logits.end(), -infinity);
  }
};

}  // namespace

TEST_CASE("rules keep the tokens that transformers keeps, with its probabilities") {
  std::ifstream in(EFFINFER_TEST_DATA "/decoding/transformers_rules.txt");
  REQUIRE(in.good());
  std::string comment;
  std::getline(in, comment);
  workspace scratch;
  int cases = 0;
  while (in.peek() != std::istream::traits_type::eof()) {
    const auto head = words(in, "case");
    const auto p = numbers<float>({head.begin() + 1, head.end()});
    const auto history = numbers<int>(words(in, "history"));
    auto logits = numbers<float>(words(in, "logits"));
    const auto kept = numbers<int>(words(in, "kept"));
    const auto log_probability = numbers<double>(words(in, "log_probability"));
    CAPTURE(cases);
    CAPTURE(head[0]);
    const auto integer = [&](std::size_t i) { return static_cast<int>(p.at(i)); };
    const auto apply = [&](const auto& rule) {
      rule.validate();
      rule.apply(logits, history, scratch);
    };
    if (head[0] == "locally_typical") {
      apply(locally_typical{.mass = p[0]});
    } else if (head[0] == "epsilon_cutoff") {
      apply(epsilon_cutoff{.epsilon = p[0]});
    } else if (head[0] == "eta_cutoff") {
      apply(eta_cutoff{.epsilon = p[0]});
    } else if (head[0] == "no_repeat_ngram") {
      apply(no_repeat_ngram{.size = integer(0)});
    } else if (head[0] == "logit_bias") {
      apply(logit_bias{.biases = {{integer(0), p.at(1)}, {integer(2), p.at(3)}, {integer(4), p.at(5)}}});
    } else if (head[0] == "min_length") {
      apply(min_length{.tokens = integer(0), .prompt_tokens = integer(1), .ends = {integer(2), integer(3)}});
    } else {
      FAIL("no such rule");
    }
    REQUIRE(reference::kept(logits) == kept);
    const auto probability = reference::probabilities(logits);
    for (std::size_t i = 0; i < kept.size(); ++i) {
      // Both sides round logits below 16 in float: 2 units in the last place.
      CHECK(std::abs(std::log(probability[static_cast<std::size_t>(kept[i])]) - log_probability[i]) < 2e-6);
    }
    ++cases;
  }
  CHECK(cases == 44);
}

TEST_CASE("dry is the penalty that trying every place and length gives") {
  workspace scratch;
  const random_stream random{5};
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    CAPTURE(seed);
    const int vocabulary = 2 + static_cast<int>(seed % 4);  // few tokens: much repetition
    std::vector<int> text;
    for (std::uint32_t i = 0; i < seed % 70; ++i) {
      text.push_back(static_cast<int>(random.uniform(seed, i) * static_cast<float>(vocabulary)));
    }
    const dry rule{.multiplier = 0.5f + 0.01f * static_cast<float>(seed % 7),
                   .base = 1.3f,
                   .allowed = 1 + static_cast<int>(seed % 3),
                   .ignore_first_tokens = static_cast<int>(seed % 2) * 4,
                   .breakers = seed % 3 == 0 ? std::vector<int>{1} : std::vector<int>{}};
    rule.validate();
    auto logits = reference::logits(static_cast<std::size_t>(vocabulary), seed, 2);
    const auto before = logits;
    rule.apply(logits, text, scratch);
    const auto penalty = dry_penalties(rule, without_first(text, rule.ignore_first_tokens), logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      CHECK(double{logits[i]} == doctest::Approx(double{before[i]} - penalty[i]).epsilon(1e-6));
    }
    for (const auto count : scratch.counts) CHECK(count == 0);
  }
  // One token ten thousand times: linear, and no infinity on the way to one.
  const std::vector<int> stuck(10000, 0);
  std::vector<float> logits{1, 2};
  dry{}.apply(logits, stuck, scratch);
  CHECK(logits == std::vector<float>{-std::numeric_limits<float>::max(), 2});
}

TEST_CASE("no_repeat_ngram, min_length and logit_bias where there is little to go by") {
  workspace scratch;
  const auto after = [&](const auto& rule, std::vector<float> logits, const std::vector<int>& history) {
    rule.validate();
    rule.apply(logits, history, scratch);
    return reference::kept(logits);
  };
  const std::vector<float> three{1, 2, 3};
  CHECK(after(no_repeat_ngram{.size = 0}, three, {0, 0, 0}) == std::vector<int>{0, 1, 2});
  CHECK(after(no_repeat_ngram{.size = 3}, three, {0, 1}) == std::vector<int>{0, 1, 2});
  CHECK(after(no_repeat_ngram{.size = 2}, three, {0, 1, 0, 2, 0}) == std::vector<int>{0});
  CHECK(after(no_repeat_ngram{.size = 2, .ignore_first_tokens = 2}, three, {0, 1, 0, 2, 0}) == std::vector<int>{0, 1});
  CHECK(after(no_repeat_ngram{.size = 1}, {5}, {0}).empty());  // nothing left: the draw says so
  CHECK(after(no_repeat_ngram{.size = 1}, three, {7, -1}) == std::vector<int>{0, 1, 2});
  CHECK(after(min_length{.tokens = 2, .prompt_tokens = 1, .ends = {1}}, three, {0, 0}) == std::vector<int>{0, 2});
  CHECK(after(min_length{.tokens = 2, .prompt_tokens = 1, .ends = {1}}, three, {0, 0, 0}) == std::vector<int>{0, 1, 2});
  CHECK(after(logit_bias{.biases = {{2, -infinity}}}, three, {}) == std::vector<int>{0, 1});
  CHECK(after(logit_bias{.biases = {{0, 9}}}, {-infinity, 1}, {}) == std::vector<int>{1});
}

TEST_CASE("rules chain in any order, with one from a lambda and one with a state") {
  workspace scratch;
  auto no_sevens = rule([](std::span<float> logits, std::span<const int>) { logits[7] = -infinity; });
  using first = chain<decltype(no_sevens), logit_bias, greedy>;
  using last = chain<logit_bias, top_p, decltype(no_sevens)>;
  const logit_bias likes_seven{.biases = {{7, 100}, {4, 50}}};
  std::vector<float> a(10, 0), b(10, 0);
  CHECK(first{{no_sevens, likes_seven, greedy{}}}(a, {}, {1}, 0, scratch) == 4);
  CHECK(last{{likes_seven, top_p{.p = 1}, no_sevens}}(b, {}, {1}, 0, scratch) == 4);

  const chain<rule<at_most>, greedy> limited{{at_most{.most = 3}, greedy{}}};
  const auto copy = limited;  // as each generation has one
  for (int call = 0; call < 6; ++call) {
    std::vector<float> logits{0, 1, 2};
    CHECK(limited(logits, {}, {1}, 0, scratch) == (call < 3 ? 2 : 0));
  }
  std::vector<float> logits{0, 1, 2};
  CHECK(copy(logits, {}, {1}, 0, scratch) == 2);
}

TEST_CASE("rules' parameters out of range are named") {
  const auto where = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const error& e) {
      CHECK(e.code() == error_code::invalid_argument);
      return e.where();
    }
    return "";
  };
  const auto of = [&](const auto& rule) { return where([&] { rule.validate(); }); };
  CHECK(of(dry{.multiplier = -1}) == "decoding::dry.multiplier");
  CHECK(of(dry{.base = 0.5f}) == "decoding::dry.base");
  CHECK(of(dry{.allowed = 0}) == "decoding::dry.allowed");
  CHECK(of(no_repeat_ngram{.size = -1}) == "decoding::no_repeat_ngram.size");
  CHECK(of(min_length{.tokens = -1}) == "decoding::min_length.tokens");
  CHECK(of(min_length{.ends = {-1}}) == "decoding::min_length.ends");
  CHECK(of(logit_bias{.biases = {{3, infinity}}}) == "decoding::logit_bias.biases[3]");
  CHECK(of(logit_bias{.biases = {{-1, 1}}}) == "decoding::logit_bias.biases: id");
  workspace scratch;
  std::vector<float> logits(4, 0);
  CHECK(where([&] { logit_bias{.biases = {{4, 1}}}.apply(logits, {}, scratch); }) == "decoding::logit_bias.biases: id");
  CHECK(where([&] { min_length{.tokens = 1, .ends = {4}}.apply(logits, {}, scratch); }) == "decoding::min_length.ends");
}

}  // namespace token_rules_tests
