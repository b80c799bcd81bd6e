// decoding/locally_typical.hpp, epsilon_cutoff.hpp, eta_cutoff.hpp, top_n_sigma.hpp, mirostat.hpp: against the same in double, written
// for reading. (Against transformers: token_rules.cpp.)

#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/epsilon_cutoff.hpp>
#include <effinfer/decoding/eta_cutoff.hpp>
#include <effinfer/decoding/locally_typical.hpp>
#include <effinfer/decoding/mirostat.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/top_n_sigma.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "decoding/reference.hpp"

namespace cutoffs_tests {

using namespace effinfer;
using namespace effinfer::decoding;
using reference::infinity;

namespace {

std::vector<double> surprises(const std::vector<float>& logits, double temperature = 1) {
  auto s = reference::probabilities(logits, temperature);
  for (double& x : s) x = -std::log(x);
  return s;
}

double entropy_of(const std::vector<float>& logits, double temperature = 1) {
  double sum = 0;
  for (const double s : surprises(logits, temperature)) sum += std::isinf(s) ? 0 : s * std::exp(-s);
  return sum;
}

double greatest(const std::vector<float>& logits) { return double{*std::max_element(logits.begin(), logits.end())}; }

std::vector<int> typical(const std::vector<float>& logits, double mass, double temperature) {
  const auto s = surprises(logits, temperature);
  const double expected = entropy_of(logits, temperature);
  std::vector<int> ids;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (!std::isinf(s[i])) ids.push_back(static_cast<int>(i));
  }
  const auto distance = [&](int id) { return std::abs(s[static_cast<std::size_t>(id)] - expected); };
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return distance(a) < distance(b); });
  double sum = 0;
  std::size_t n = 0;
  while (n < ids.size() && sum < mass) sum += std::exp(-s[static_cast<std::size_t>(ids[n++])]);
  ids.resize(n);
  std::sort(ids.begin(), ids.end());
  return ids;
}

template <class Keep>
std::vector<int> those(const std::vector<float>& logits, Keep keep) {
  std::vector<int> ids;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -infinity && (keep(i) || double{logits[i]} == greatest(logits))) ids.push_back(static_cast<int>(i));
  }
  return ids;
}

template <class Rule>
std::vector<int> kept_by(const Rule& rule, std::vector<float> logits) {
  workspace scratch;
  rule.validate();
  rule.apply(logits, {}, scratch);
  return reference::kept(logits);
}

/// Rows without a token on the edge: wide and narrow ones, some tokens out.
std::vector<float> row(std::uint64_t seed) {
  auto logits = reference::logits(seed % 3 == 0 ? 40 : 700, seed, seed % 2 == 0 ? 0.8f : 4.0f);
  if (seed % 5 == 0) {
    for (std::size_t i = 0; i < logits.size(); i += 3) logits[i] = -infinity;
  }
  return logits;
}

}  // namespace

TEST_CASE("locally_typical, epsilon_cutoff, eta_cutoff and top_n_sigma keep what their formulas say") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    CAPTURE(seed);
    const auto logits = row(seed);
    for (const float t : {0.6f, 1.0f, 1.7f}) {
      const auto s = surprises(logits, double{t});
      for (const float mass : {0.05f, 0.3f, 0.8f, 0.97f}) {
        CHECK(kept_by(locally_typical{.mass = mass, .temperature = t}, logits) ==
              typical(logits, double{mass}, double{t}));
      }
      for (const float epsilon : {0.0f, 3e-4f, 0.004f, 0.2f}) {
        CHECK(kept_by(epsilon_cutoff{.epsilon = epsilon, .temperature = t}, logits) ==
              those(logits, [&](std::size_t i) { return std::exp(-s[i]) >= double{epsilon}; }));
        const double eta =
            std::min(double{epsilon}, std::sqrt(double{epsilon}) * std::exp(-entropy_of(logits, double{t})));
        CHECK(kept_by(eta_cutoff{.epsilon = epsilon, .temperature = t}, logits) ==
              those(logits, [&](std::size_t i) { return std::exp(-s[i]) >= eta; }));
      }
      for (const float n : {0.0f, 0.5f, 1.0f, 3.0f}) {
        double sum = 0, squares = 0, count = 0;
        for (const float l : logits) {
          if (l == -infinity) continue;
          sum += double{l};
          squares += double{l} * double{l};
          count += 1;
        }
        const double sigma = std::sqrt(squares / count - sum / count * (sum / count));
        CHECK(kept_by(top_n_sigma{.n = n, .temperature = t}, logits) ==
              those(logits, [&](std::size_t i) { return double{logits[i]} >= greatest(logits) - double{n} * sigma; }));
      }
    }
  }
}

TEST_CASE("ties, one token, one token left, temperature 0") {
  const std::vector<float> equal(9, 1.5f), one{-3}, left{-infinity, -infinity, 4, -infinity};
  const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7, 8};
  CHECK(kept_by(locally_typical{.mass = 0.3f}, equal) == all);  // all equally typical: the edge has them all
  CHECK(kept_by(epsilon_cutoff{.epsilon = 0.5f}, equal) == all);
  CHECK(kept_by(eta_cutoff{.epsilon = 0.5f}, equal) == all);
  CHECK(kept_by(top_n_sigma{.n = 0}, equal) == all);
  CHECK(kept_by(mirostat{.target = 0.1f}, equal) == all);
  const auto check = [&](const auto& rule, const std::vector<float>& logits, int id) {
    CHECK(kept_by(rule, logits) == std::vector<int>{id});
  };
  for (const float t : {0.0f, 1.0f}) {
    const auto check_all = [&](const std::vector<float>& logits, int id) {
      check(locally_typical{.mass = 0.2f, .temperature = t}, logits, id);
      check(epsilon_cutoff{.epsilon = 0.9f, .temperature = t}, logits, id);
      check(eta_cutoff{.epsilon = 0.9f, .temperature = t}, logits, id);
      check(top_n_sigma{.n = 2, .temperature = t}, logits, id);
      check(mirostat{.temperature = t}, logits, id);
    };
    check_all(one, 0);
    check_all(left, 2);
    if (t == 0) check_all({1, 5, 2, 5}, 1);
  }
  workspace scratch;
  std::vector<float> none(5, -infinity);
  CHECK_THROWS_AS(locally_typical{}.apply(none, {}, scratch), error);
  CHECK_THROWS_AS(top_n_sigma{}.apply(none, {}, scratch), error);
}

TEST_CASE("as a strategy each draws from what it keeps") {
  workspace scratch;
  const auto check = [&](const auto& rule) {
    for (std::uint64_t position = 0; position < 50; ++position) {
      auto a = row(position), b = a;
      const std::vector<int> history(position, 1);
      rule.apply(b, history, scratch);
      CHECK(rule(a, history, {3}, position, scratch) == candidates(b, scratch).draw({3}, position));
    }
  };
  check(locally_typical{.mass = 0.5f});
  check(epsilon_cutoff{.epsilon = 0.01f});
  check(eta_cutoff{.epsilon = 0.01f});
  check(top_n_sigma{});
}

TEST_CASE("mirostat's mu follows the surprise of what was drawn") {
  workspace scratch;
  const mirostat rule{.target = 3, .rate = 0.2f};
  std::vector<int> history{5, 6, 7};
  double mu = 6, surprise_of_all = 0;
  for (std::uint64_t step = 0; step < 300; ++step) {
    auto logits = reference::logits(500, step + 1, 2.5f);
    const auto p = reference::probabilities(logits);
    double sum = 0;
    const auto expected = those(logits, [&](std::size_t i) { return -std::log2(p[i]) <= mu; });
    for (const int id : expected) sum += p[static_cast<std::size_t>(id)];
    const int token = rule(logits, history, {9}, history.size(), scratch);
    REQUIRE(reference::kept(logits) == expected);
    const double surprise = -std::log2(p[static_cast<std::size_t>(token)] / sum);
    mu -= static_cast<double>(0.2f) * (surprise - 3);
    surprise_of_all += surprise;
    history.push_back(token);
  }
  CHECK(surprise_of_all / 300 == doctest::Approx(3).epsilon(0.02));  // what mirostat is for
}

TEST_CASE("mirostat goes back with the history, in a chain too, and a draft changes nothing") {
  workspace scratch;
  const auto logits_at = [](std::size_t position) { return reference::logits(200, 77 + position, 2); };
  const auto plain = [&](const auto& rule) {
    std::vector<int> history{1, 2};
    while (history.size() < 60) {
      auto logits = logits_at(history.size());
      history.push_back(rule(logits, history, {4}, history.size(), scratch));
    }
    return history;
  };
  const auto expected = plain(mirostat{.target = 2});
  CHECK(plain(chain<mirostat>{{mirostat{.target = 2}}}) == expected);
  CHECK(expected != plain(mirostat{.target = 2, .rate = 0}));

  // Drafts, some right: rows behind the first wrong one are never asked for.
  const mirostat rule{.target = 2};
  std::vector<int> history{1, 2};
  while (history.size() < 60) {
    std::vector<int> drafts(
        expected.begin() + static_cast<std::ptrdiff_t>(history.size()),
        expected.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(history.size() + 3, 60)));
    drafts.back() = history.size() % 2 == 0 ? drafts.back() : 199 - drafts.back();
    const draft_tree tree = draft_tree::chain(drafts);
    verification<mirostat> verify(rule, tree, history, {4}, history.size(), scratch);
    std::size_t row = history.size();
    for (bool more = true; more; ++row) {
      auto logits = logits_at(row);
      more = verify.next(logits);
    }
    const auto accepted = verify.accepted();
    history.insert(history.end(), accepted.begin(), accepted.end());
  }
  history.resize(60);
  CHECK(history == expected);

  // Back to a shorter history, the same call twice, and another prompt.
  history.resize(31);
  for (int twice = 0; twice < 2; ++twice) {
    auto logits = logits_at(31);
    CHECK(rule(logits, history, {4}, 31, scratch) == expected[31]);
  }
  history.assign({7, 7});
  auto logits = logits_at(2);
  rule.apply(logits, history, scratch);
  CHECK(rule.seen.mu == std::vector<double>{4});
}

TEST_CASE("parameters out of range are named") {
  const auto where = [](const auto& rule) -> std::string {
    try {
      rule.validate();
    } catch (const error& e) {
      CHECK(e.code() == error_code::invalid_argument);
      return e.where();
    }
    return "";
  };
  CHECK(where(locally_typical{.mass = 0}) == "decoding::locally_typical.mass");
  CHECK(where(locally_typical{.temperature = -1}) == "decoding::locally_typical.temperature");
  CHECK(where(epsilon_cutoff{.epsilon = 1}) == "decoding::epsilon_cutoff.epsilon");
  CHECK(where(eta_cutoff{.epsilon = -1}) == "decoding::eta_cutoff.epsilon");
  CHECK(where(top_n_sigma{.n = infinity}) == "decoding::top_n_sigma.n");
  CHECK(where(mirostat{.target = -1}) == "decoding::mirostat.target");
  CHECK(where(mirostat{.rate = infinity}) == "decoding::mirostat.rate");
  CHECK(where(mirostat{}).empty());
}

}  // namespace cutoffs_tests
