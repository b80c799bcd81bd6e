#pragma once
// Which guesses stay. An acceptance looks at one row: the model's logits, the guesses in that place, and what they were drawn from;
// it returns the token for the place, and verification goes on where that is one of the guesses.
//
// There are
//   acceptance::sample_and_match   the rule's own token, whatever was guessed: the text is the rule's, token for token
//   acceptance::rejection          accepts more where guesses are drawn; exact in distribution, other tokens
//   acceptance::k_sequential       the same for guesses of one place that were drawn independently
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

/// The random numbers that are used besides the rules' own, which are 0 and 1; each takes two. Those of the j-th guess at a place
/// are `next_guess` j further on.
inline constexpr std::uint32_t accept_draw = 2, residual_draw = 4, draft_draw = 6, next_guess = 8;

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
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history,
                 std::span<const int> /*guesses*/, std::span<const float> /*drawn_from*/, random_stream random,
                 std::uint64_t position, workspace& scratch) const {
    return rule(logits, history, random, position, scratch);
  }
};

/// Speculative sampling. With p the rule's distribution after its filters and q what the guess x was drawn from (where it wasn't
/// drawn: all of it on x): x stays with probability min(1, p(x) / q(x)), else p becomes max(0, p - q), scaled to add up to 1, and
/// the next guess for the place is tried, drawn from q without those before it. Behind the last the token is drawn from p.
///
/// Exact in distribution: each token is one of p. The text is another one than the rule's alone for the same seed, and depends
/// on the drafts. Sources: Leviathan et al. (2023), Algorithm 1; Chen et al., "Accelerating Large Language Model Decoding with
/// Speculative Sampling" (2023), Algorithm 2; for several guesses Miao et al., "SpecInfer" (2024), Algorithm 2, and drawn without
/// replacement Jeon et al., "Recursive Speculative Decoding" (2024), section 3. The rule must be one that chain takes (it has `apply`).
struct rejection {
  static constexpr bool exact = true;
  static constexpr bool same_text = false;
  void validate() const {}
  template <logit_rule Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, std::span<const int> guesses,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    if (guesses.empty()) return rule(logits, history, random, position, scratch);
    rule.apply(logits, history, scratch);
    std::vector<double> p, q(drawn_from.begin(), drawn_from.end());
    probabilities_of(logits, 1, p);
    std::uint32_t at = accept_draw;
    for (std::size_t j = 0; j < guesses.size(); ++j, at += next_guess) {
      const auto x = static_cast<std::size_t>(guesses[j]);
      if (uniform(random, position, at) * (q.empty() ? 1.0 : q[x]) < p[x]) return guesses[j];
      for (std::size_t i = 0; i < q.size(); ++i) p[i] = std::max(0.0, p[i] - q[i]);
      p[x] = 0;
      if (j + 1 == guesses.size()) break;
      scale(p);
      if (q.empty()) continue;
      q[x] = 0;
      scale(q);
    }
    return draw(p, random, position, residual_draw);
  }

 private:
  static void scale(std::vector<double>& shares) {
    double sum = 0;
    for (const double share : shares) sum += share;
    for (double& share : shares) share /= sum > 0 ? sum : 1;
  }
};

/// Speculative sampling with k guesses for a place, drawn from q independently, so that some may be equal. The first x with
/// u < p(x) / (rho q(x)), u uniform, stays; rho is the root of 1 - (1 - b)^k = rho b with b = sum min(q, p / rho). Behind the last
/// the token is drawn from p - min(q, p / rho) (1 - (1 - b)^k) / b. With one guess it is `rejection`, as it is for guesses that
/// weren't drawn.
///
/// Exact in distribution, as rejection is. Source: Sun et al., "SpecTr" (2023), Algorithm 3 (k-SEQ) and section 4.
struct k_sequential {
  static constexpr bool exact = true;
  static constexpr bool same_text = false;
  void validate() const {}
  template <logit_rule Rule>
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, std::span<const int> guesses,
                 std::span<const float> drawn_from, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    if (guesses.size() < 2 || drawn_from.empty())
      return rejection{}(rule, logits, history, guesses, drawn_from, random, position, scratch);
    rule.apply(logits, history, scratch);
    std::vector<double> p;
    probabilities_of(logits, 1, p);
    const auto k = static_cast<double>(guesses.size());
    const auto overlap = [&](double rho) {
      double sum = 0;
      for (std::size_t i = 0; i < p.size(); ++i) sum += std::min(double{drawn_from[i]}, p[i] / rho);
      return std::min(sum, 1.0);
    };
    const auto some_stays = [&](double b) { return -std::expm1(k * std::log1p(-b)); };  // 1 - (1 - b)^k
    double rho = k, below = 1;  // from the root on it is exact, at the root it accepts most: the upper end counts
    for (int i = 0; i < 20; ++i) {
      const double middle = (rho + below) / 2, b = overlap(middle);
      (some_stays(b) <= middle * b ? rho : below) = middle;
    }
    std::uint32_t at = accept_draw;
    for (const int guess : guesses) {
      const auto x = static_cast<std::size_t>(guess);
      if (uniform(random, position, at) * rho * double{drawn_from[x]} < p[x]) return guess;
      at += next_guess;
    }
    const double b = overlap(rho), share = b > 0 ? some_stays(b) / b : 0;
    for (std::size_t i = 0; i < p.size(); ++i)
      p[i] = std::max(0.0, p[i] - std::min(double{drawn_from[i]}, p[i] / rho) * share);
    return draw(p, random, position, residual_draw);
  }
};

/// Medusa's: the first guess for a place stays whose probability under the rule is above min(epsilon, delta e^-H), H the entropy of
/// the rule's distribution; else the token is the rule's. LOSSY: what is plausible stays however rarely the rule would have drawn it. With
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
  int operator()(const Rule& rule, std::span<float> logits, std::span<const int> history, std::span<const int> guesses,
                 std::span<const float> /*drawn_from*/, random_stream random, std::uint64_t position,
                 workspace& scratch) const {
    if (guesses.empty()) return rule(logits, history, random, position, scratch);
    rule.apply(logits, history, scratch);
    std::vector<double> p;
    probabilities_of(logits, 1, p);
    double entropy = 0;
    for (const double share : p) entropy -= share > 0 ? share * std::log(share) : 0;
    const double least = std::min(double{epsilon}, double{delta} * std::exp(-entropy));
    for (const int guess : guesses) {
      if (p[static_cast<std::size_t>(guess)] > least) return guess;
    }
    return draw(p, random, position, residual_draw);
  }
};

}  // namespace effinfer::inline v0::decoding::acceptance
