// Searches without a model: a chain of tokens whose best texts are known, because all of them can be counted.

#include <effinfer/core/random.hpp>
#include <effinfer/decoding/beam.hpp>
#include <effinfer/decoding/best_of.hpp>
#include <effinfer/decoding/contrastive.hpp>
#include <effinfer/testing/decoding_conformance.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace search_tests {

namespace ei = effinfer;
using namespace effinfer::decoding;

namespace {

constexpr int vocabulary = 5, stop = 0;

/// Logits behind a text: a function of its last two tokens.
std::vector<float> logits_behind(std::span<const int> text) {
  std::uint64_t key = 7;
  for (const int token : text.last(std::min<std::size_t>(2, text.size())))
    key = key * 31 + static_cast<unsigned>(token);
  std::vector<float> row;
  for (std::uint64_t i = 0; i < vocabulary; ++i) row.push_back(4 * ei::random_stream{key}.uniform(i));
  return row;
}

template <class Policy>
std::vector<hypothesis> search(const Policy& policy, int max_tokens, bool stops = true) {
  policy.validate();
  const std::vector<int> prompt = {3, 1};
  search_request request{.prompt = prompt, .max_tokens = max_tokens, .seed = 2};
  if (stops) request.ends = [](std::span<const int> text) { return text.back() == stop; };
  auto run = policy.begin(request);
  std::vector<std::vector<int>> texts = {prompt};
  for (;;) {
    std::vector<float> logits;
    for (const auto& text : texts) {
      const auto row = logits_behind(text);
      logits.insert(logits.end(), row.begin(), row.end());
    }
    const auto next = run.advance({logits.data(), static_cast<std::ptrdiff_t>(texts.size()), vocabulary});
    if (next.empty()) return run.hypotheses();
    CHECK(static_cast<int>(next.size()) <= policy.sequences());
    std::vector<std::vector<int>> children;
    for (const auto& c : next) {
      REQUIRE(c.parent < static_cast<int>(texts.size()));
      children.push_back(texts[static_cast<std::size_t>(c.parent)]);
      children.back().push_back(c.token);
    }
    texts = std::move(children);
  }
}

double log_probability_of(const std::vector<int>& tokens) {
  std::vector<int> text = {3, 1};
  double sum = 0;
  for (const int token : tokens) {
    sum += log_probability(logits_behind(text), token);
    text.push_back(token);
  }
  return sum;
}

/// All whole texts of at most `max_tokens`.
void enumerate(std::vector<int>& text, int max_tokens, std::vector<std::vector<int>>& all) {
  if (!text.empty() && (text.back() == stop || static_cast<int>(text.size()) == max_tokens)) {
    all.push_back(text);
    return;
  }
  for (int token = 0; token < vocabulary; ++token) {
    text.push_back(token);
    enumerate(text, max_tokens, all);
    text.pop_back();
  }
}

}  // namespace

TEST_CASE("with a beam for every text, beam search finds the best of all") {
  for (const float penalty : {0.0F, 1.0F, 2.0F, -1.0F}) {
    CAPTURE(penalty);
    std::vector<std::vector<int>> all;
    std::vector<int> text;
    enumerate(text, 4, all);
    const auto score = [&](const std::vector<int>& t) {
      return log_probability_of(t) / std::pow(static_cast<double>(t.size()), double{penalty});
    };
    std::sort(all.begin(), all.end(), [&](const auto& a, const auto& b) { return score(a) > score(b); });
    const auto found = search(beam<>{.beams = 400, .length_penalty = penalty, .stop = early_stopping::never}, 4);
    REQUIRE(found.size() == all.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].score == doctest::Approx(score(all[i])).epsilon(1e-12));
      CHECK(found[i].log_probability == doctest::Approx(log_probability_of(found[i].tokens)).epsilon(1e-12));
    }
    CHECK(found[0].tokens == all[0]);
  }
}

TEST_CASE("groups without diversity are the same beams, with much of it they begin differently") {
  const auto alone = search(beam<2>{}, 8, false);
  const auto same = search(beam<4>{.groups = 2}, 8, false);
  REQUIRE(same.size() == 4);
  CHECK(same[0].tokens == alone[0].tokens);
  CHECK(same[1].tokens == alone[0].tokens);
  const auto apart = search(beam<4>{.groups = 4, .diversity = 50}, 8, false);
  REQUIRE(apart.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      for (std::size_t t = 0; t < 8; ++t) CHECK(apart[i].tokens[t] != apart[j].tokens[t]);
    }
  }
}

TEST_CASE("a rule changes what beams are ranked by") {
  struct no_threes {
    void validate() const {}
    void apply(std::span<float> logits, std::span<const int>, workspace&) const { logits[3] = -INFINITY; }
  };
  for (const auto& h : search(beam<4, no_threes>{}, 8)) CHECK(std::count(h.tokens.begin(), h.tokens.end(), 3) == 0);
}

TEST_CASE("best_of ranks by the mean or by the sum, and draws text i with the seed plus i") {
  const auto by_mean = search(best_of<8>{}, 6), by_sum = search(best_of<8>{.score = score_by::sum}, 6);
  REQUIRE(by_mean.size() == 8);
  for (std::size_t i = 0; i < 8; ++i) {
    const double sum = log_probability_of(by_mean[i].tokens);
    CHECK(by_mean[i].log_probability == doctest::Approx(sum).epsilon(1e-12));
    CHECK(by_mean[i].score == doctest::Approx(sum / static_cast<double>(by_mean[i].tokens.size())).epsilon(1e-12));
    CHECK(by_sum[i].score == by_sum[i].log_probability);
    if (i > 0) CHECK(by_mean[i].score <= by_mean[i - 1].score);
    if (i > 0) CHECK(by_sum[i].score <= by_sum[i - 1].score);
  }
}

TEST_CASE("contrastive search takes the token whose state is unlike") {
  // Two tokens that are almost equally likely: the likelier one's state was there before.
  const std::vector<int> prompt = {1};
  contrastive_search run = contrastive{.k = 2, .penalty = 0.5F}.begin({.prompt = prompt, .max_tokens = 1});
  const std::vector<float> logits = {1.0F, 0.9F, -9.0F}, state = {3.0F, 4.0F};
  const auto next = run.advance({logits.data(), 1, 3}, {state.data(), 1, 2});
  REQUIRE(next.size() == 2);
  CHECK(next[0].token == 0);
  CHECK(next[1].token == 1);
  const std::vector<float> both(6, 0.0F), states = {6.0F, 8.0F, -4.0F, 3.0F};
  CHECK(run.advance({both.data(), 2, 3}, {states.data(), 2, 2}).empty());
  CHECK(run.hypotheses().front().tokens == std::vector<int>{1});
  CHECK(run.hypotheses().front().log_probability == doctest::Approx(log_probability(logits, 1)));
}

TEST_CASE("the likeliest few, falling, equals by rising id") {
  const std::vector<float> logits = {1, 3, NAN, 3, -INFINITY, 2};
  const auto best = top_log_probabilities(logits, 3);
  REQUIRE(best.size() == 3);
  CHECK((best[0].id == 1 && best[1].id == 3 && best[2].id == 5));
  CHECK(best[2].log_probability == log_probability(logits, 5));
  CHECK(top_log_probabilities(logits, 99).size() == 4);
  CHECK(top_log_probabilities(logits, 0).empty());
  CHECK(find_log_probabilities(logits, 0, 1).chosen.log_probability == log_probability(logits, 0));
}

TEST_CASE("searches keep what every strategy keeps, and refuse what can't be") {
  CHECK(ei::testing::violations_of_strategy(beam<>{}).empty());
  CHECK(ei::testing::violations_of_strategy(best_of<>{}).empty());
  CHECK(ei::testing::violations_of_strategy(contrastive{}).empty());
  const auto refused = [](const auto& policy) { CHECK_THROWS_AS(policy.validate(), ei::error); };
  refused(beam<>{.beams = 0});
  refused(beam<>{.beams = 4, .groups = 3});
  refused(beam<>{.length_penalty = NAN});
  refused(beam<>{.diversity = -1});
  refused(best_of<>{.n = 0});
  refused(contrastive{.k = 0});
  refused(contrastive{.penalty = 2});
}

}  // namespace search_tests
