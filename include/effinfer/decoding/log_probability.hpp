#pragma once
// How likely a model finds a token: log-probabilities from logits, for perplexity and scoring. All sums in double.

#include <effinfer/core/error.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::decoding {

/// What softmax divides by, in two parts: a log-probability is (logit - greatest) - log_sum. Kept apart because a sum of the two
/// would lose the smaller one for great logits.
struct softmax_scale {
  double greatest;  ///< the greatest logit
  double log_sum;   ///< log sum_j e^(logit_j - greatest)
};

/// Shapes: logits [V]. NaN counts as -infinity.
/// Errors: `invalid_argument` (no logits), `malformed` (all -infinity or NaN, or one +infinity).
inline softmax_scale find_softmax_scale(std::span<const float> logits) {
  if (logits.empty()) throw error(error_code::invalid_argument, "decoding: logits", "there are none");
  double greatest = -std::numeric_limits<double>::infinity();
  for (const float logit : logits) {
    if (double{logit} > greatest) greatest = double{logit};
  }
  if (!std::isfinite(greatest)) {
    throw error(error_code::malformed, "decoding: logits",
                "the greatest of " + std::to_string(logits.size()) + " is not finite, so there are no probabilities",
                "the checkpoint's weights may be damaged");
  }
  double sum = 0;
  for (const float logit : logits) {
    if (!std::isnan(logit)) sum += std::exp(double{logit} - greatest);
  }
  return {greatest, std::log(sum)};
}

/// The entropy of softmax(logits [V]) in nats: -sum_i p_i ln p_i. `scale` is find_softmax_scale(logits).
inline double entropy(std::span<const float> logits, const softmax_scale& scale) {
  double mean = 0;  // of logit - greatest
  for (const float logit : logits) {
    const double behind = double{logit} - scale.greatest;
    if (std::isfinite(behind)) mean += behind * std::exp(behind - scale.log_sum);
  }
  return scale.log_sum - mean;
}

/// The natural logarithm of the probability of token `id` under softmax(logits [V]); -infinity where its logit is that or NaN.
///
/// Perplexity of a text is e^(-mean of these). Errors: `invalid_argument` (id outside [0, V)), and those of `find_softmax_scale`.
inline double log_probability(std::span<const float> logits, int id) {
  if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) {
    throw error(error_code::invalid_argument, "decoding::log_probability: id",
                std::to_string(id) + " is not in [0, " + std::to_string(logits.size()) + ")");
  }
  const softmax_scale scale = find_softmax_scale(logits);
  const float logit = logits[static_cast<std::size_t>(id)];
  return std::isnan(logit) ? -std::numeric_limits<double>::infinity() : double{logit} - scale.greatest - scale.log_sum;
}

/// out[i] = log softmax(logits)_i. Shapes: logits [V], out [V]; they may be the same memory. NaN becomes -infinity.
///
/// Errors: `invalid_argument` (different lengths), and those of `find_softmax_scale`.
inline void log_softmax(std::span<const float> logits, std::span<float> out) {
  if (out.size() != logits.size()) {
    throw error(error_code::invalid_argument, "decoding::log_softmax: out",
                std::to_string(out.size()) + " values for " + std::to_string(logits.size()) + " logits");
  }
  const softmax_scale scale = find_softmax_scale(logits);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    out[i] = std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity()
                                   : static_cast<float>(double{logits[i]} - scale.greatest - scale.log_sum);
  }
}

/// A token and the natural logarithm of its probability.
struct token_log_probability {
  int id = 0;
  double log_probability = 0;
};

/// What a model thought of the token that was chosen.
struct token_log_probabilities {
  token_log_probability chosen;
  std::vector<token_log_probability> best;  ///< the n likeliest, falling; the chosen one may be among them
};

/// The n likeliest tokens, falling, equals by rising id; fewer where fewer are neither -infinity nor NaN. A row of log-probabilities
/// has the scale {0, 0}. Cost: one pass, and n log n for each time the list changes.
inline std::vector<token_log_probability> top_log_probabilities(std::span<const float> logits, int n,
                                                                const softmax_scale& scale) {
  const auto better = [](const token_log_probability& a, const token_log_probability& b) {
    return a.log_probability > b.log_probability || (a.log_probability == b.log_probability && a.id < b.id);
  };
  std::vector<token_log_probability> best;  // a heap with the worst on top; logits until the end
  if (n <= 0) return best;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > -std::numeric_limits<float>::infinity())) continue;
    if (best.size() >= static_cast<std::size_t>(n)) {
      if (double{logits[i]} <= best.front().log_probability) continue;
      std::pop_heap(best.begin(), best.end(), better);
      best.pop_back();
    }
    best.push_back({static_cast<int>(i), double{logits[i]}});
    std::push_heap(best.begin(), best.end(), better);
  }
  std::sort_heap(best.begin(), best.end(), better);
  for (auto& token : best) token.log_probability = token.log_probability - scale.greatest - scale.log_sum;
  return best;
}
/// The same of softmax(logits [V]). Errors: those of `find_softmax_scale`.
inline std::vector<token_log_probability> top_log_probabilities(std::span<const float> logits, int n) {
  return top_log_probabilities(logits, n, find_softmax_scale(logits));
}

/// The chosen token's log-probability under softmax(logits [V]) and the n best. Errors: as log_probability.
inline token_log_probabilities find_log_probabilities(std::span<const float> logits, int chosen, int n) {
  return {{chosen, log_probability(logits, chosen)}, top_log_probabilities(logits, n)};
}

}  // namespace effinfer::inline v0::decoding
