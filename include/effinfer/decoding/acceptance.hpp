#pragma once
// Which guesses stay. An acceptance looks at one row: the model's logits, the guess in that place if there is one, and what the
// guess was drawn from; it returns the token for the place, and verification goes on where that is the guess.
//
// There are
//   acceptance::sample_and_match   the rule's own token, whatever was guessed: the text is the rule's, token for token
//   acceptance::rejection          accepts more where guesses are drawn; exact in distribution, other tokens
//   acceptance::typical            accepts what the model finds plausible; LOSSY: another distribution than the rule's

#include <effinfer/core/error.hpp>
#include <effinfer/core/random.hpp>
#include <effinfer/decoding/parameter.hpp>
#include <effinfer/decoding/policy.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding::acceptance {

/// The random numbers that are used besides the rules' own, which are 0 and 1; each takes two.
inline constexpr std::uint32_t accept_draw = 2, residual_draw = 4, draft_draw = 6;

/// Uniform in [0, 1), 48 bits.
inline double uniform(random_stream random, std::uint64_t position, std::uint32_t draw) {
  return double{random.uniform(position, draw)} + double{random.uniform(position, draw + 1)} * 0x1p-24;
}

/// out = softmax(logits / temperature), temperature > 0; NaN counts as -infinity. Shapes: logits [V], out becomes [V].
/// Errors: `malformed` (all are -infinity or NaN).
inline void probabilities_of(std::span<const float> logits, float temperature, std::vector<double>& out) {
  float greatest = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) greatest = logit > greatest ? logit : greatest;
  greatest = std::min(greatest, std::numeric_limits<float>::max());
  if (!(greatest >= std::numeric_limits<float>::lowest())) {
    throw error(error_code::malformed, "decoding: logits", "all are -infinity or NaN, so no token can be chosen",
                "the checkpoint's weights may be damaged");
  }
  out.resize(logits.size());
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float logit = std::min(logits[i], std::numeric_limits<float>::max());
    out[i] = std::isnan(logits[i]) ? 0 : std::exp((double{logit} - double{greatest}) / double{temperature});
    sum += out[i];
  }
  for (double& p : out) p /= sum;
}

/// A token at random, each by its share of `weights` [V], which needn't add up to 1.
inline int draw(std::span<const double> weights, random_stream random, std::uint64_t position, std::uint32_t draws) {
  double sum = 0;
  for (const double w : weights) sum += w;
  double rest = uniform(random, position, draws) * sum;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = i;
    rest -= weights[i];
    if (rest < 0) break;
  }
  return static_cast<int>(last);
}

/// The token of the rule: a guess stays where it is that. Works with any strategy, for greedy and sampled text.
struct sample_and_match {
  static constexpr bool exact = true;
  static constexpr bool same_text = true;  ///< whatever is drafted
  void validate() const {}
  template <class Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, int /*guess*/,
                 std::span<const float> /*drawn_from*/, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }
};

/// Speculative sampling. With p the rule's distribution after its filters and q what the guess x was drawn from (where it wasn't
/// drawn: all of it on x): x stays with probability min(1, p(x) / q(x)), else the token is drawn from max(0, p - q).
///
/// Exact in distribution: each token is one of p. The text is another one than the rule's alone for the same seed, and depends
/// on the drafts. Sources: Leviathan et al. (2023), Algorithm 1; Chen et al., "Accelerating Large Language Model Decoding with
/// Speculative Sampling" (2023), Algorithm 2. The rule must be one that chain takes (it has `apply`).
struct rejection {
  static constexpr bool exact = true;
  static constexpr bool same_text = false;
  void validate() const {}
  template <logit_rule Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, int guess,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    if (guess < 0) return rule(logits, history, random, position, scratch);
    rule.apply(logits, history, scratch);
    std::vector<double> p;
    probabilities_of(logits, 1, p);
    const auto x = static_cast<std::size_t>(guess);
    const double q = drawn_from.empty() ? 1.0 : double{drawn_from[x]};
    if (uniform(random, position, accept_draw) * q < p[x]) return guess;
    if (drawn_from.empty()) {
      p[x] = 0;
    } else {
      for (std::size_t i = 0; i < p.size(); ++i) p[i] = std::max(0.0, p[i] - double{drawn_from[i]});
    }
    return draw(p, random, position, residual_draw);
  }
};

/// Medusa's: a guess stays where its probability under the rule is above min(epsilon, delta e^-H), H the entropy of the rule's
/// distribution; else the token is the rule's. LOSSY: what is plausible stays however rarely the rule would have drawn it. With
/// epsilon = 0 all guesses of some probability stay; at a temperature of 0 it is exact.
/// Source: Cai et al., "Medusa" (2024), section 2.3.1.
struct typical {
  static constexpr bool exact = false;
  static constexpr bool same_text = false;
  float epsilon = 0.09F;  ///< Medusa's own
  float delta = 0.3F;     ///< sqrt(epsilon)
  void validate() const {
    check_parameter(epsilon >= 0 && epsilon <= 1, "acceptance::typical.epsilon", epsilon, "[0, 1]");
    check_parameter(delta >= 0 && delta <= 1, "acceptance::typical.delta", delta, "[0, 1]");
  }
  template <logit_rule Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, int guess,
                 std::span<const float> /*drawn_from*/, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    if (guess < 0) return rule(logits, history, random, position, scratch);
    rule.apply(logits, history, scratch);
    std::vector<double> p;
    probabilities_of(logits, 1, p);
    double entropy = 0;
    for (const double share : p) entropy -= share > 0 ? share * std::log(share) : 0;
    const double least = std::min(double{epsilon}, double{delta} * std::exp(-entropy));
    if (p[static_cast<std::size_t>(guess)] > least) return guess;
    return draw(p, random, position, residual_draw);
  }
};

}  // namespace effinfer::inline v0::decoding::acceptance
