#pragma once
// Linear attention: a feature map in place of the softmax turns attention into a recurrence with a state of fixed size.
//
//   S_t = g S_{t-1} + phi(k_t) v_t^T      z_t = g z_{t-1} + phi(k_t)
//   o_t = phi(q_t)^T S_t / (phi(q_t)^T z_t + 1e-6)
//
// Source: Katharopoulos et al., "Transformers are RNNs" (2020), eqs. 16-20 (16, 17: the start; 18-20: the step) with
// phi of eq. 7; the decay g a head as in Sun et al., "RetNet" (2023), section 2. There is no softmax scale on q.

#include <effinfer/core/slot.hpp>

#include <concepts>
#include <type_traits>

namespace effinfer::inline v0::attention {

/// phi(x) = elu(x) + 1 (Katharopoulos et al. 2020, eq. 7), written so that one line serves floats and vectors.
struct elu_plus_one {
  EFFINFER_HOST_DEVICE float operator()(float x) const { return x > 0.0f ? x + 1.0f : __builtin_expf(x); }
  /// max(x, 0) + e^min(x, 0), where one term is 0 or 1.
  template <class V>
  EFFINFER_ALWAYS_INLINE V vector(const V& x) const {
    const V zero = V::zero();
    return max(x, zero) + exp(zero - max(zero - x, zero));
  }
};

/// The state forgets nothing.
struct no_decay {
  EFFINFER_HOST_DEVICE constexpr float operator()(int) const { return 1.0f; }
};

/// A fixed decay a head.
struct decay_per_head {
  const float* rates = nullptr;  ///< [H], each in (0, 1], owned by the caller
  EFFINFER_HOST_DEVICE float operator()(int head) const { return rates[head]; }
};

/// phi: a positive function of one number. It may also have `template <class V> V vector(const V& x) const`, the same
/// for 16.
template <class T>
concept feature_map = std::is_trivially_copyable_v<T> && requires(const T& phi) {
  { phi(0.0f) } -> std::same_as<float>;
};
/// g: what a head's state is multiplied with at each token.
template <class T>
concept decay_rule = std::is_trivially_copyable_v<T> && requires(const T& g) {
  { g(0) } -> std::same_as<float>;
};

/// The mixer. Its kernels: cpu/linear.hpp.
template <class FeatureMap = elu_plus_one, class Decay = no_decay>
struct linear {
  static_assert(
      feature_map<FeatureMap>,
      "effinfer: attention::linear needs a feature map with  EFFINFER_HOST_DEVICE float operator()(float x) const;");
  static_assert(
      decay_rule<Decay>,
      "effinfer: attention::linear needs a decay with  EFFINFER_HOST_DEVICE float operator()(int head) const;");
  using slot = effinfer::slot::attention;
  static constexpr float epsilon = 1e-6f;  ///< keeps the denominator from zero

  FeatureMap feature = {};
  Decay decay = {};
};

static_assert(policy_of<linear<>, slot::attention> &&
              std::is_trivially_copyable_v<linear<elu_plus_one, decay_per_head>>);

}  // namespace effinfer::inline v0::attention
