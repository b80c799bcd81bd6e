#pragma once
// Soft-capped scores: s -> cap tanh(s / cap).
//
// Source: Gemma Team, "Gemma 2" (2024), section 2 (logit soft-capping), after Bello et al. (2016).

#include <effinfer/attention/policy.hpp>
#include <effinfer/core/error.hpp>

#include <string>

namespace effinfer::inline v0::attention {

struct soft_cap {
  using slot = effinfer::slot::attention_modifier;
  static constexpr bool hides_keys = false;

  float cap = 50.0f;  ///< > 0

  EFFINFER_HOST_DEVICE float score(float s, position) const { return cap * __builtin_tanhf(s / cap); }
  EFFINFER_HOST_DEVICE constexpr bool visible(position) const { return true; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int, int cached) const { return {0, cached}; }

  /// tanh(x) = 1 - 2 / (e^2x + 1): its absolute error is a rounding of 1 everywhere, and the scores' error is what
  /// counts.
  template <class V>
  EFFINFER_ALWAYS_INLINE V scores(const V& s, position) const {
    const V limit = V::broadcast(cap), one = V::broadcast(1.0f), two = V::broadcast(2.0f);
    return limit * (one - two / (exp(two * s / limit) + one));
  }

  /// Errors: `invalid_argument` (cap not above 0).
  void validate() const {
    if (!(cap > 0.0f)) {
      throw error(error_code::invalid_argument, "attention::soft_cap.cap", std::to_string(cap) + " is not above 0");
    }
  }
};

static_assert(attention_variant<soft_cap>);

}  // namespace effinfer::inline v0::attention
