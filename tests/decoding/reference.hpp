#pragma once
// The decoding rules once more, written for reading: sort everything, all in double. And logits to try them on.

#include "execution/instruction_sets.hpp"

#include <effinfer/core/random.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace reference {

inline constexpr float infinity = std::numeric_limits<float>::infinity();

/// Normal deviates times `spread`, the same for the same seed (Box and Muller 1958).
inline std::vector<float> logits(std::size_t count, std::uint64_t seed, float spread) {
  const effinfer::random_stream random{seed};
  std::vector<float> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double radius = std::sqrt(-2 * std::log(1 - double{random.uniform(i, 0)}));
    out[i] = spread * static_cast<float>(radius * std::cos(6.283185307179586 * double{random.uniform(i, 1)}));
  }
  return out;
}

/// softmax(logits / temperature); NaN counts as -infinity.
inline std::vector<double> probabilities(std::span<const float> logits, double temperature = 1) {
  double greatest = -std::numeric_limits<double>::infinity();
  for (const float l : logits) {
    if (l > greatest) greatest = l;
  }
  std::vector<double> p(logits.size());
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    p[i] = std::isnan(logits[i]) ? 0 : std::exp((double{logits[i]} - greatest) / temperature);
    sum += p[i];
  }
  for (double& x : p) x /= sum;
  return p;
}

/// Ids by falling logit, equals by rising id.
inline std::vector<int> ranking(std::span<const float> logits) {
  std::vector<int> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  return ids;
}

/// The ids whose logit isn't -infinity.
inline std::vector<int> kept(std::span<const float> logits) {
  std::vector<int> ids;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > -infinity) ids.push_back(static_cast<int>(i));
  }
  return ids;
}

/// sum (observed - expected)^2 / expected over the ids expected at least five times, the rest as one class; divided by what it would
/// exceed once in 10^6 (Wilson and Hilferty 1931): a value above 1 means another distribution.
inline double chi_square(const std::vector<int>& observed, const std::vector<double>& p, int draws) {
  double statistic = 0, rest_expected = 0, rest_observed = 0;
  int classes = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * draws;
    if (expected < 5) {
      rest_expected += expected;
      rest_observed += observed[i];
      if (p[i] == 0 && observed[i] > 0) return std::numeric_limits<double>::infinity();
      continue;
    }
    statistic += (observed[i] - expected) * (observed[i] - expected) / expected;
    ++classes;
  }
  if (rest_expected >= 5) {
    statistic += (rest_observed - rest_expected) * (rest_observed - rest_expected) / rest_expected;
    ++classes;
  }
  const double freedom = std::max(1, classes - 1);
  const double root = 1 - 2 / (9 * freedom) + 4.75 * std::sqrt(2 / (9 * freedom));
  return statistic / (freedom * root * root * root);
}

}  // namespace reference
