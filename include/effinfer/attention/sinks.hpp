#pragma once
// Learned attention sinks: each head has one more score with no value behind it, so that a query can look at nothing.
//
//   p_k = exp(s_k) / (exp(sink_h) + sum_j exp(s_j))
//
// Source: gpt-oss (OpenAI 2025), model card section 2.3; the idea is Miller, "Attention Is Off By One" (2023). For
// keeping the first tokens in sight see streaming_window.hpp.

#include <effinfer/attention/policy.hpp>

namespace effinfer::inline v0::attention {

struct sinks {
  using slot = effinfer::slot::attention_modifier;
  static constexpr bool changes_scores = false;
  static constexpr bool hides_keys = false;

  const float* logits = nullptr;  ///< [H], owned by the caller; not multiplied with the scale

  EFFINFER_HOST_DEVICE softmax_start start(int head) const { return {logits[head], 1.0f}; }
  EFFINFER_HOST_DEVICE constexpr float score(float s, position) const { return s; }
  EFFINFER_HOST_DEVICE constexpr bool visible(position) const { return true; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int, int cached) const { return {0, cached}; }
};

static_assert(attention_variant<sinks>);

}  // namespace effinfer::inline v0::attention
