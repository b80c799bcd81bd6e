#pragma once
// ALiBi: each head subtracts from a score its slope times the distance, in place of position embeddings.
//
// Source: Press et al., "Train Short, Test Long" (2022), section 3; slopes for head counts that are no power of two
// as in its released code.

#include <effinfer/attention/policy.hpp>

#include <cmath>
#include <vector>

namespace effinfer::inline v0::attention {

struct alibi {
  using slot = effinfer::slot::attention_modifier;
  static constexpr bool hides_keys = false;

  const float* slopes = nullptr;  ///< [H], owned by the caller

  EFFINFER_HOST_DEVICE float score(float s, position p) const {
    return s + slopes[p.head] * static_cast<float>(p.key - p.query);
  }
  EFFINFER_HOST_DEVICE constexpr bool visible(position) const { return true; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int, int cached) const { return {0, cached}; }
};

/// The paper's slopes [heads]: for n heads, a power of two, 2^(-8i/n) with i = 1..n; else those of the largest power
/// of two n below it, and then every other one of 2n heads: 2^(-8i/2n) with i = 1, 3, 5...
inline std::vector<float> alibi_slopes(int heads) {
  int n = 1;
  while (2 * n <= heads) n *= 2;
  std::vector<float> slopes;
  for (int i = 1; i <= heads; ++i) {
    const double exponent = i <= n ? 8.0 * i / n : 8.0 * (2 * (i - n) - 1) / (2.0 * n);
    slopes.push_back(static_cast<float>(std::exp2(-exponent)));
  }
  return slopes;
}

static_assert(attention_variant<alibi>);

}  // namespace effinfer::inline v0::attention
