#pragma once
// A sliding window that keeps the first few tokens in sight: softmax needs somewhere to put its weight, and models
// put it there.
//
// Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (2024), section 3.2. Positions are
// not renumbered here; the paper does that so as to run beyond the trained length.

#include <effinfer/attention/policy.hpp>
#include <effinfer/core/error.hpp>

#include <string>

namespace effinfer::inline v0::attention {

/// Visible: key < first, or query - key < window. Tiles between the two are jumped over, however many they are.
struct streaming_window {
  using slot = effinfer::slot::attention_modifier;
  static constexpr bool changes_scores = false;

  int first = 4;   ///< tokens at the start of the sequence that stay visible, >= 0
  int window = 0;  ///< tokens seen, the query's own among them; >= 1

  EFFINFER_HOST_DEVICE constexpr float score(float s, position) const { return s; }
  EFFINFER_HOST_DEVICE constexpr bool visible(position p) const { return p.key < first || p.query - p.key < window; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int, int cached) const { return {0, cached}; }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(tile t) const {
    return t.key_end <= first || t.query_end - 1 - t.key_begin < window;
  }
  EFFINFER_HOST_DEVICE constexpr bool any_visible(tile t) const {
    return t.key_begin < first || t.query_begin - (t.key_end - 1) < window;
  }

  EFFINFER_HOST_DEVICE constexpr int next_key(tile t) const {
    const int recent = t.query_begin - window + 1;
    return t.key_begin < first || t.key_begin >= recent ? t.key_begin : recent;
  }

  /// Errors: `invalid_argument` (window < 1, or first < 0).
  void validate() const {
    if (window < 1 || first < 0) {
      throw error(error_code::invalid_argument, "attention::streaming_window",
                  "first = " + std::to_string(first) + ", window = " + std::to_string(window),
                  "first >= 0, window >= 1");
    }
  }
};

static_assert(attention_variant<streaming_window>);

}  // namespace effinfer::inline v0::attention
