// decoding/acceptance.hpp: what rejection gives is distributed as the rule's own text, by chi-square over 200,000 texts of three
// tokens; and the test can tell, as it finds two planted bugs.

#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "decoding/reference.hpp"

using namespace effinfer;
using namespace effinfer::decoding;
using tokens = std::vector<int>;

namespace {

constexpr int v = 5, length = 3, texts = 200000;
constexpr int cells = v * v * v;

/// The model's logits behind `history`, and the drafter's, which are something like them.
std::vector<float> model(std::span<const int> history) {
  std::uint64_t key = 5;
  for (const int token : history) key = key * 31 + static_cast<std::uint64_t>(token) + 1;
  return reference::logits(v, key, 1.2F);
}
std::vector<float> drafter(std::span<const int> history) {
  std::vector<float> logits = model(history);
  const auto other = reference::logits(v, history.size() + 77, 1.0F);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] += other[i];
  return logits;
}

/// The residual is forgotten: a refused guess is drawn anew from p.
struct without_residual : acceptance::rejection {
  template <class Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, int guess,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position, workspace& s) const {
    std::vector<float> again(logits.begin(), logits.end());
    const int token = acceptance::rejection::operator()(rule, logits, history, guess, drawn_from, random, position, s);
    if (token == guess) return token;
    std::vector<double> p;
    rule.apply(again, history, s);
    acceptance::probabilities_of(again, 1, p);
    return acceptance::draw(p, random, position, acceptance::residual_draw);
  }
};

enum class guesses { drawn, likeliest };

/// Texts by cell. `Rows`: how many of the logits' rows are given right; the last one may be the first's (a planted bug).
template <class Rule, class Acceptance>
std::vector<double> speculated(const Rule& rule, const Acceptance& accept, guesses kind,
                               bool bonus_from_first = false) {
  std::vector<double> counts(cells, 0.0);
  workspace scratch;
  for (int n = 0; n < texts; ++n) {
    const random_stream random{static_cast<std::uint64_t>(n)};
    tokens text;
    while (text.size() < length) {
      tokens drafts, assumed = text;
      std::vector<float> rows, q;
      for (int i = 0; i < 2; ++i) {
        const auto logits = drafter(assumed);
        std::vector<double> share;
        acceptance::probabilities_of(logits, 1, share);
        if (kind == guesses::drawn) {
          q.insert(q.end(), share.begin(), share.end());
          drafts.push_back(acceptance::draw(share, random, assumed.size(), acceptance::draft_draw));
        } else {
          drafts.push_back(static_cast<int>(std::max_element(share.begin(), share.end()) - share.begin()));
        }
        assumed.push_back(drafts.back());
      }
      for (std::size_t i = 0; i <= drafts.size(); ++i) {
        const auto behind = bonus_from_first && i == drafts.size() ? 0 : i;
        assumed.resize(text.size());
        assumed.insert(assumed.end(), drafts.begin(), drafts.begin() + static_cast<std::ptrdiff_t>(behind));
        const auto row = model(assumed);
        rows.insert(rows.end(), row.begin(), row.end());
      }
      verification<Rule, Acceptance> verify(rule, drafts, text, random, text.size(), scratch, accept,
                                            {q.data(), static_cast<std::ptrdiff_t>(q.size()) / v, v});
      for (std::size_t i = 0; verify.next({rows.data() + i * v, v});) ++i;
      text.insert(text.end(), verify.accepted().begin(), verify.accepted().end());
    }
    ++counts[static_cast<std::size_t>((text[0] * v + text[1]) * v + text[2])];
  }
  return counts;
}

/// By how many standard deviations the chi-square of `counts` against the rule's own probabilities is off (Wilson and Hilferty 1931).
template <class Rule>
double surprise(const Rule& rule, const std::vector<double>& counts) {
  workspace scratch;
  double chi = 0, kinds = -1;
  const auto share = [&](const tokens& history) {
    auto logits = model(history);
    rule.apply(logits, history, scratch);
    return reference::probabilities(logits);
  };
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  for (int a = 0; a < v; ++a) {
    for (int b = 0; b < v; ++b) {
      for (int c = 0; c < v; ++c) {
        const double expected = texts * share({})[at(a)] * share({a})[at(b)] * share({a, b})[at(c)];
        const double seen = counts[at((a * v + b) * v + c)];
        if (expected == 0) {
          CHECK(seen == 0);
          continue;
        }
        chi += (seen - expected) * (seen - expected) / expected;
        kinds += 1;
      }
    }
  }
  const double part = 2 / (9 * kinds);
  return (std::cbrt(chi / kinds) - (1 - part)) / std::sqrt(part);
}

}  // namespace

TEST_CASE("speculative sampling gives the rule's distribution, and the test finds planted bugs") {
  const temperature whole{.value = 0.9F};
  CHECK(std::abs(surprise(whole, speculated(whole, acceptance::rejection{}, guesses::drawn))) < 4);
  CHECK(std::abs(surprise(whole, speculated(whole, acceptance::rejection{}, guesses::likeliest))) < 4);
  CHECK(std::abs(surprise(whole, speculated(whole, acceptance::sample_and_match{}, guesses::likeliest))) < 4);
  const top_k filtered{.k = 3};
  CHECK(std::abs(surprise(filtered, speculated(filtered, acceptance::rejection{}, guesses::drawn))) < 4);

  CHECK(surprise(whole, speculated(whole, without_residual{}, guesses::drawn)) > 20);
  CHECK(surprise(whole, speculated(whole, acceptance::rejection{}, guesses::drawn, true)) > 20);
  CHECK(surprise(whole, speculated(whole, acceptance::typical{}, guesses::likeliest)) >
        20);  // it says that it is lossy
}

TEST_CASE("rejection under greedy keeps greedy's token, whatever was guessed") {
  workspace scratch;
  for (int guess = 0; guess < v; ++guess) {
    auto logits = model({}), again = logits;
    const int best = greedy{}(again, {}, {1}, 0, scratch);
    CHECK(acceptance::rejection{}(greedy{}, logits, {}, guess, {}, {1}, 0, scratch) == best);
    logits = model({});
    CHECK(acceptance::typical{}(greedy{}, logits, {}, guess, {}, {1}, 0, scratch) == best);
  }
}

TEST_CASE("typical acceptance is the paper's threshold") {
  workspace scratch;
  std::vector<float> even(v, 0.0F);  // H = ln 5: the threshold is min(0.09, 0.3 / 5)
  CHECK(acceptance::typical{}(temperature{}, even, {}, 3, {}, {1}, 0, scratch) == 3);
  std::vector<float> sure{0, 0, 9, 0, 0};
  CHECK(acceptance::typical{}(temperature{}, sure, {}, 1, {}, {1}, 0, scratch) == 2);
  CHECK_THROWS_AS(acceptance::typical{.epsilon = -1}.validate(), error);
}
