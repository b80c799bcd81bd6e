#pragma once
// Sliding-window attention: a token sees itself and the W - 1 tokens before it.
//
// Source: Beltagy et al., "Longformer" (2020), section 3.1; as in Mistral 7B (Jiang et al. 2023), section 2.

#include <effinfer/attention/policy.hpp>
#include <effinfer/core/error.hpp>

#include <string>

namespace effinfer::inline v0::attention {

template <int Window = at_run_time>
struct sliding_window;

/// The width is given when the program runs: `sliding_window<>{.window = 4096}`.
template <>
struct sliding_window<at_run_time> {
  using slot = effinfer::slot::attention_modifier;
  static constexpr bool changes_scores = false;

  int window = 0;  ///< tokens seen, the query's own among them; >= 1

  EFFINFER_HOST_DEVICE constexpr float score(float s, position) const { return s; }
  EFFINFER_HOST_DEVICE constexpr bool visible(position p) const { return p.query - p.key < window; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int query, int cached) const {
    return {query >= window ? query - window + 1 : 0, cached};
  }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(tile t) const { return t.query_end - 1 - t.key_begin < window; }

  /// Errors: `invalid_argument` (window < 1).
  void validate() const {
    if (window < 1) {
      throw error(error_code::invalid_argument, "attention::sliding_window.window",
                  std::to_string(window) + " is below 1", "the window counts the token itself");
    }
  }
};

/// The width is part of the type: `sliding_window<4096>`.
template <int Window>
struct sliding_window : no_hooks {
  static_assert(
      Window >= 1,
      "effinfer: attention::sliding_window<W> needs W >= 1: the window counts the token itself (for a width known "
      "only at run time write sliding_window<>{.window = w})");
  static constexpr int window = Window;

  EFFINFER_HOST_DEVICE constexpr bool visible(position p) const { return p.query - p.key < window; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int query, int cached) const {
    return {query >= window ? query - window + 1 : 0, cached};
  }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(tile t) const { return t.query_end - 1 - t.key_begin < window; }
};

static_assert(attention_variant<sliding_window<4>> && attention_variant<sliding_window<>>);

}  // namespace effinfer::inline v0::attention
