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

namespace acceptance_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using tokens = std::vector<int>;

namespace {

constexpr int v = 5, length = 3, texts = 200000;
constexpr int cells = v * v * v;

std::size_t index_of(std::span<const int> history) {
  std::size_t index = 0;
  for (const int token : history) index = index * (v + 1) + static_cast<std::size_t>(token) + 1;
  return index;
}
/// The model's logits behind `history`, of up to four tokens, and the drafter's, which are something like them.
const std::vector<float>& model(std::span<const int> history) {
  static const auto all = [] {
    std::vector<std::vector<float>> rows;
    for (std::uint64_t i = 0; i < 1296; ++i) rows.push_back(reference::logits(v, 5 + 31 * i, 1.2F));
    return rows;
  }();
  return all[index_of(history)];
}
const std::vector<float>& drafter(std::span<const int> history) {
  static const auto all = [] {
    std::vector<std::vector<float>> rows;
    for (std::uint64_t i = 0; i < 1296; ++i) {
      rows.push_back(reference::logits(v, 5 + 31 * i, 1.2F));
      const auto other = reference::logits(v, i % 7 + 77, 1.0F);
      for (std::size_t t = 0; t < rows.back().size(); ++t) rows.back()[t] += other[t];
    }
    return rows;
  }();
  return all[index_of(history)];
}

/// The residual is forgotten: a refused guess is drawn anew from p.
struct without_residual : acceptance::rejection {
  template <class Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, std::span<const int> guesses,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position, workspace& s) const {
    std::vector<float> again(logits.begin(), logits.end());
    const int token =
        acceptance::rejection::operator()(rule, logits, history, guesses, drawn_from, random, position, s);
    if (std::find(guesses.begin(), guesses.end(), token) != guesses.end()) return token;
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
      const draft_tree chain = draft_tree::chain(drafts);
      verification<Rule, Acceptance> verify(rule, chain, text, random, text.size(), scratch, accept,
                                            {q.data(), static_cast<std::ptrdiff_t>(q.size()) / v, v});
      while (verify.next({rows.data() + verify.row() * v, v})) continue;
      text.insert(text.end(), verify.accepted().begin(), verify.accepted().end());
    }
    ++counts[static_cast<std::size_t>((text[0] * v + text[1]) * v + text[2])];
  }
  return counts;
}

/// The second guess is judged by what the first one was: q isn't what it was drawn from.
struct forgets_what_was_drawn : acceptance::rejection {
  template <class Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, std::span<const int> guesses,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position, workspace& s) const {
    const std::vector<float> again(logits.begin(), logits.end());
    for (std::size_t i = 0; i < guesses.size(); ++i) {
      std::copy(again.begin(), again.end(), logits.begin());
      const auto one = guesses.subspan(i, 1);
      const int token = acceptance::rejection::operator()(rule, logits, history, one, drawn_from,
                                                          {random.seed + 1000003 * i}, position, s);
      if (token == one[0] || i + 1 == guesses.size()) return token;
    }
    return rule(logits, history, random, position, s);
  }
};

enum class siblings { drawn, replaced, likeliest };

/// Texts by cell, as above, with trees: three guesses for the next token, two for the one behind the first of them.
template <class Rule, class Acceptance>
std::vector<double> speculated_by_trees(const Rule& rule, const Acceptance& accept, siblings kind) {
  std::vector<double> counts(cells, 0.0), share;
  workspace scratch;
  for (int n = 0; n < texts; ++n) {
    const random_stream random{static_cast<std::uint64_t>(n)};
    tokens text;
    while (text.size() < length) {
      draft_tree tree;
      std::vector<float> q;
      const auto guess = [&](int parent, int count) {
        tokens assumed = text;
        if (parent >= 0) assumed.push_back(tree.tokens[static_cast<std::size_t>(parent)]);
        acceptance::probabilities_of(drafter(assumed), 1, share);
        std::vector<float> row(share.begin(), share.end());
        std::uint32_t at = acceptance::draft_draw;
        for (int i = 0; i < count; ++i, at += acceptance::next_guess) {
          const int token = kind == siblings::likeliest
                                ? static_cast<int>(std::max_element(share.begin(), share.end()) - share.begin())
                                : acceptance::draw(share, random, assumed.size(), at);
          tree.add(token, parent, 1);
          if (kind != siblings::likeliest) q.insert(q.end(), row.begin(), row.end());
          if (kind != siblings::replaced) share[static_cast<std::size_t>(token)] = 0;
        }
      };
      guess(-1, 3);
      guess(0, 2);
      verification<Rule, Acceptance> walk(rule, tree, text, random, text.size(), scratch, accept,
                                          {q.data(), static_cast<std::ptrdiff_t>(q.size()) / v, v});
      while (walk.row() >= 0) {
        tokens read = text;
        read.insert(read.end(), walk.accepted().begin(), walk.accepted().end());
        auto logits = model(read);
        walk.next(logits);
      }
      REQUIRE(walk.rows().size() == walk.accepted().size());
      text.insert(text.end(), walk.accepted().begin(), walk.accepted().end());
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

TEST_CASE("trees of guesses give the rule's distribution, and the test finds planted bugs") {
  const temperature whole{.value = 0.9F};
  const auto off = [&](const auto& accept, siblings kind) {
    return surprise(whole, speculated_by_trees(whole, accept, kind));
  };
  CHECK(std::abs(off(acceptance::rejection{}, siblings::drawn)) < 4);
  CHECK(std::abs(off(acceptance::rejection{}, siblings::likeliest)) < 4);
  CHECK(std::abs(off(acceptance::k_sequential{}, siblings::replaced)) < 4);
  const top_k filtered{.k = 3};
  CHECK(std::abs(surprise(filtered, speculated_by_trees(filtered, acceptance::k_sequential{}, siblings::replaced))) <
        4);

  CHECK(off(forgets_what_was_drawn{}, siblings::drawn) > 20);
  CHECK(off(acceptance::k_sequential{}, siblings::drawn) > 20);  // these weren't drawn independently
}

TEST_CASE("several guesses for a place: more of them stay, by as much as the papers say") {
  // p = (0.5, 0.5), q = (1, 0): k-SEQ with k guesses accepts by the root of 1 - (1 - b)^k = rho b, b = min(1, 0.5 / rho): rho = 1, a half.
  const auto rate = [](const auto& accept, const std::vector<float>& p, const std::vector<float>& q, int k,
                       bool replaced) {
    workspace scratch;
    int stayed = 0;
    constexpr int draws = 20000;
    for (int n = 0; n < draws; ++n) {
      const random_stream random{static_cast<std::uint64_t>(n)};
      std::vector<double> share(q.begin(), q.end());
      tokens guesses;
      std::uint32_t at = acceptance::draft_draw;
      for (int i = 0; i < k; ++i, at += acceptance::next_guess) {
        guesses.push_back(acceptance::draw(share, random, 0, at));
        if (!replaced) share[static_cast<std::size_t>(guesses.back())] = 0;
      }
      std::vector<float> logits;
      for (const float x : p) logits.push_back(std::log(x));
      const int token = accept(temperature{.value = 1}, logits, {}, guesses, q, random, 0, scratch);
      stayed += std::find(guesses.begin(), guesses.end(), token) != guesses.end() ? 1 : 0;
    }
    return static_cast<double>(stayed) / draws;
  };
  const std::vector<float> p{0.5F, 0.5F}, one_sided{1, 0};
  CHECK(rate(acceptance::k_sequential{}, p, one_sided, 2, true) == doctest::Approx(0.5).epsilon(0.05));
  CHECK(rate(acceptance::k_sequential{}, p, p, 2, true) == 1);
  CHECK(rate(acceptance::rejection{}, p, {0.9F, 0.1F}, 2, false) == 1);  // there is no third token
  // p = (0.2, 0.8), q = (0.8, 0.2): one guess stays with probability 0.4. Of two, b = 0.2 / rho + 0.2, and the root of
  // 2 b - b^2 = rho b is rho = 1.68102: some guess stays with probability rho b = 0.53620.
  CHECK(rate(acceptance::k_sequential{}, {0.2F, 0.8F}, {0.8F, 0.2F}, 1, true) == doctest::Approx(0.4).epsilon(0.05));
  CHECK(rate(acceptance::k_sequential{}, {0.2F, 0.8F}, {0.8F, 0.2F}, 2, true) == doctest::Approx(0.5362).epsilon(0.03));
}

TEST_CASE("rejection under greedy keeps greedy's token, whatever was guessed") {
  workspace scratch;
  for (int guess = 0; guess < v; ++guess) {
    auto logits = model({}), again = logits;
    const int best = greedy{}(again, {}, {1}, 0, scratch);
    CHECK(acceptance::rejection{}(greedy{}, logits, {}, std::span(&guess, 1), {}, {1}, 0, scratch) == best);
    logits = model({});
    CHECK(acceptance::typical{}(greedy{}, logits, {}, std::span(&guess, 1), {}, {1}, 0, scratch) == best);
  }
}

TEST_CASE("typical acceptance is the paper's threshold") {
  workspace scratch;
  std::vector<float> even(v, 0.0F);  // H = ln 5: the threshold is min(0.09, 0.3 / 5)
  CHECK(acceptance::typical{}(temperature{}, even, {}, tokens{3}, {}, {1}, 0, scratch) == 3);
  std::vector<float> sure{0, 0, 9, 0, 0};
  CHECK(acceptance::typical{}(temperature{}, sure, {}, tokens{1}, {}, {1}, 0, scratch) == 2);
  CHECK_THROWS_AS(acceptance::typical{.epsilon = -1}.validate(), error);
}

}  // namespace acceptance_tests
