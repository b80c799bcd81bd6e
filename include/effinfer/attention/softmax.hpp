#pragma once
// softmax<modifiers...>: attention with a softmax, and what changes it. Scores go through the modifiers in order, a
// key is visible if all of them say so, and the keys visited are those that all of them visit. `full` is softmax<>.
//
//   attend(exec, attention::full{}, heads, sequences);
//   const attention::softmax<attention::sliding_window<4096>, attention::soft_cap> mixer{{}, {.cap = 50}};
//   attend(exec, mixer, heads, sequences);

#include <effinfer/attention/policy.hpp>

#include <type_traits>

namespace effinfer::inline v0::attention {

template <class... Modifiers>
struct softmax;

/// Every key up to the query's own (Vaswani et al. 2017, eq. 1, with the decoder's mask).
template <>
struct softmax<> {
  using slot = effinfer::slot::attention;
  static constexpr bool changes_scores = false;  ///< some modifier has its own `score`
  static constexpr bool hides_keys = false;      ///< some modifier has its own `visible`

  EFFINFER_HOST_DEVICE constexpr float score(float s, position) const { return s; }
  EFFINFER_HOST_DEVICE constexpr bool visible(position) const { return true; }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int, int cached) const { return {0, cached}; }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(tile) const { return true; }
  EFFINFER_HOST_DEVICE constexpr bool any_visible(tile) const { return true; }
  EFFINFER_HOST_DEVICE constexpr int next_key(tile t) const { return t.key_begin; }
  EFFINFER_HOST_DEVICE constexpr softmax_start start(int) const { return {}; }
  constexpr void validate() const {}
};

using full = softmax<>;

/// The modifiers one after another; each must be an attention_variant. Plain members, as a kernel parameter with
/// [[no_unique_address]] is more than nvcc can take.
template <class First, class... Rest>
struct softmax<First, Rest...> {
  static_assert(check_attention_variant<First>::complete);
  using slot = effinfer::slot::attention;
  static constexpr bool changes_scores = overrides_score<First> || softmax<Rest...>::changes_scores;
  static constexpr bool hides_keys = overrides_visible<First> || softmax<Rest...>::hides_keys;

  First first;
  softmax<Rest...> rest;

  softmax() = default;
  EFFINFER_HOST_DEVICE constexpr softmax(const First& f, const Rest&... r) : first(f), rest(r...) {}

  /// The modifier of type M.
  template <class M>
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr const M& get() const {
    if constexpr (std::is_same_v<M, First>) {
      return first;
    } else {
      return rest.template get<M>();
    }
  }

  EFFINFER_HOST_DEVICE constexpr float score(float s, position p) const { return rest.score(first.score(s, p), p); }
  EFFINFER_HOST_DEVICE constexpr bool visible(position p) const { return first.visible(p) && rest.visible(p); }
  EFFINFER_HOST_DEVICE constexpr key_range keys(int query, int cached) const {
    const key_range a = first.keys(query, cached), b = rest.keys(query, cached);
    return {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
  }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(tile t) const { return first_all_visible(t) && rest.all_visible(t); }
  EFFINFER_HOST_DEVICE constexpr bool any_visible(tile t) const {
    if constexpr (has_any_visible<First>) {
      if (!first.any_visible(t)) return false;
    }
    return rest.any_visible(t);
  }
  EFFINFER_HOST_DEVICE constexpr int next_key(tile t) const {
    const int behind = rest.next_key(t);
    if constexpr (has_next_key<First>) {
      const int own = first.next_key(t);
      return own > behind ? own : behind;
    } else {
      return behind;
    }
  }
  /// Several starts are as if all their scores had been seen.
  EFFINFER_HOST_DEVICE softmax_start start(int head) const {
    if constexpr (has_start<First>) {
      const softmax_start a = first.start(head), b = rest.start(head);
      if (b.sum == 0.0f) return a;
      const float max = a.max > b.max ? a.max : b.max;
      return {max, a.sum * __builtin_expf(a.max - max) + b.sum * __builtin_expf(b.max - max)};
    } else {
      return rest.start(head);
    }
  }
  /// Errors: those of the modifiers.
  constexpr void validate() const {
    if constexpr (requires { first.validate(); }) first.validate();
    rest.validate();
  }

  /// True if the first modifier hides nothing in the tile.
  EFFINFER_HOST_DEVICE constexpr bool first_all_visible(tile t) const {
    if constexpr (!overrides_visible<First>) {
      return true;
    } else if constexpr (has_all_visible<First>) {
      return first.all_visible(t);
    } else {
      return false;
    }
  }
};

/// True of softmax<...>: what the softmax kernels take.
template <class T>
inline constexpr bool is_softmax = false;
template <class... Modifiers>
inline constexpr bool is_softmax<softmax<Modifiers...>> = true;

static_assert(policy_of<full, slot::attention> && std::is_trivially_copyable_v<full>);

}  // namespace effinfer::inline v0::attention
