#pragma once
// The conformance suite of decoding: what every strategy, rule and drafter keeps, ours and yours. Needs no test framework: each function
// returns what it found wrong, one sentence each.
//
//   CHECK(effinfer::testing::violations_of_strategy(my_policy{}).empty());

#include <effinfer/core/error.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::testing {

/// One situation in which a policy must behave.
struct decoding_case {
  std::vector<float> logits;
  std::vector<int> history;
  random_stream random;
};

/// Rows of 1 to 1000 logits, narrow and wide, with some tokens taken out (-infinity) and some NaN, behind histories of 0 to 30
/// tokens. Always the same.
inline std::vector<decoding_case> decoding_cases() {
  std::vector<decoding_case> cases;
  for (const int vocabulary : {1, 2, 17, 300, 1000}) {
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
      const random_stream random{seed * 1000 + static_cast<std::uint64_t>(vocabulary)};
      decoding_case c{{}, {}, {seed}};
      const float width = seed % 3 == 0 ? 0.5f : 20.0f;
      for (int i = 0; i < vocabulary; ++i) {
        const float u = random.uniform(static_cast<std::uint64_t>(i), 1);
        float logit = width * (random.uniform(static_cast<std::uint64_t>(i)) - 0.5f);
        if (i > 0 && u < 0.1f) logit = -std::numeric_limits<float>::infinity();
        if (i > 0 && u > 0.97f) logit = std::numeric_limits<float>::quiet_NaN();
        c.logits.push_back(logit);
      }
      for (std::uint64_t i = 0; i < seed * 3; ++i) {
        c.history.push_back(static_cast<int>(random.uniform(i, 2) * static_cast<float>(vocabulary)));
      }
      cases.push_back(c);
    }
  }
  return cases;
}

namespace detail {

inline void add(std::vector<std::string>& found, bool wrong, const std::string& sentence, const decoding_case& c) {
  if (!wrong) return;
  found.push_back(sentence + " (" + std::to_string(c.logits.size()) + " logits, " + std::to_string(c.history.size()) +
                  " tokens of history)");
}

}  // namespace detail

/// A strategy returns an id of the vocabulary whose logit is not -infinity or NaN, the same one for the same arguments whatever its
/// scratch was used for, and throws effinfer::error where there is no such token.
template <class Strategy>
std::vector<std::string> violations_of_strategy(const Strategy& strategy) {
  static_assert(decoding::check_strategy<Strategy>::complete);
  std::vector<std::string> found;
  strategy.validate();
  decoding::workspace used;
  for (const auto& c : decoding_cases()) {
    decoding::workspace fresh;
    auto first = c.logits, second = c.logits;
    const auto position = static_cast<std::uint64_t>(c.history.size());
    const int token = strategy(first, c.history, c.random, position, used);
    detail::add(found, token != strategy(second, c.history, c.random, position, fresh),
                "the same arguments give two tokens: the choice must not depend on the workspace", c);
    const bool known = token >= 0 && static_cast<std::size_t>(token) < c.logits.size();
    detail::add(found, !known, "token " + std::to_string(token) + " is outside the vocabulary", c);
    detail::add(found, known && !(c.logits[static_cast<std::size_t>(token)] > -std::numeric_limits<float>::infinity()),
                "token " + std::to_string(token) + " was chosen though its logit is -infinity or NaN", c);
    bool refused = false;
    try {
      std::vector<float> none(c.logits.size(), -std::numeric_limits<float>::infinity());
      (void)strategy(none, c.history, c.random, position, used);
    } catch (const error&) {
      refused = true;
    }
    detail::add(found, !refused, "logits that are all -infinity must be an effinfer::error", c);
  }
  return found;
}

/// A rule gives the same logits for the same arguments whatever its scratch was used for, takes no token back in that was out, and
/// makes no NaN. (It may take all out: the draw that follows then throws.)
template <class Rule>
std::vector<std::string> violations_of_rule(const Rule& rule) {
  static_assert(decoding::check_rule<Rule>::complete);
  std::vector<std::string> found;
  rule.validate();
  decoding::workspace used;
  for (const auto& c : decoding_cases()) {
    decoding::workspace fresh;
    auto first = c.logits, second = c.logits;
    rule.apply(first, c.history, used);
    rule.apply(second, c.history, fresh);
    bool same = true, none_back = true, no_new_nan = true;
    for (std::size_t i = 0; i < first.size(); ++i) {
      const bool was_in = c.logits[i] > -std::numeric_limits<float>::infinity();
      same = same && (first[i] == second[i] || (std::isnan(first[i]) && std::isnan(second[i])));
      none_back = none_back && (was_in || !(first[i] > -std::numeric_limits<float>::infinity()));
      no_new_nan = no_new_nan && !(std::isnan(first[i]) && !std::isnan(c.logits[i]));
    }
    detail::add(found, !same, "the same arguments give other logits: the rule must not depend on the workspace", c);
    detail::add(found, !none_back, "a token that was out (-infinity or NaN) is back in", c);
    detail::add(found, !no_new_nan, "a logit became NaN", c);
  }
  return found;
}

/// A drafter proposes at most as many tokens as it is asked for, and the same ones each time.
template <class Drafter>
std::vector<std::string> violations_of_drafter(const Drafter& drafter) {
  static_assert(decoding::check_drafter<Drafter>::complete);
  std::vector<std::string> found;
  drafter.validate();
  for (const auto& c : decoding_cases()) {
    for (const int most : {0, 1, 5}) {
      const auto draft = drafter.propose(c.history, most);
      detail::add(found, static_cast<int>(draft.size()) > most,
                  std::to_string(draft.size()) + " tokens were drafted where " + std::to_string(most) + " may be", c);
      detail::add(found, draft != drafter.propose(c.history, most), "the same history gives two drafts", c);
    }
  }
  return found;
}

}  // namespace effinfer::inline v0::testing
