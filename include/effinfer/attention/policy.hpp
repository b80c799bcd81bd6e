#pragma once
// Attention policies: which key a query sees, and how its score is changed on the way to the softmax.
//
//   o = sum_k p_k v_k,   p = softmax over the visible keys k <= q of score(scale q.k)     (Vaswani et al. 2017, eq. 1)
//
// There are
//   softmax<modifiers...>     the mixer that all of the following go into; full = softmax<>       softmax.hpp
//   sliding_window<W>         the last W keys                          (Beltagy et al. 2020)       sliding_window.hpp
//   streaming_window          the first few keys and the last W        (Xiao et al. 2024)          streaming_window.hpp
//   soft_cap                  scores bent below a cap                  (Gemma 2, 2024)             soft_cap.hpp
//   alibi                     a penalty that grows with the distance   (Press et al. 2022)         alibi.hpp
//   sinks                     a learned share that goes to no key      (gpt-oss, 2025)             sinks.hpp
//   grouped_query<H, KV>      how many query heads share a key head    (Ainslie et al. 2023)       grouped_query.hpp
//   linear<phi, decay>        a recurrence in place of the softmax     (Katharopoulos et al. 2020) linear.hpp
//
// README.md in this folder adds one in ten lines. A policy states its mathematics once, as functions that every backend
// calls. That a query sees no key behind itself is the kernels' own rule: no policy need say it, none can undo it.

#include <effinfer/core/slot.hpp>

#include <concepts>
#include <limits>
#include <type_traits>

namespace effinfer::inline v0::attention {

/// As a template argument: the value is given when the program runs, `sliding_window<>{.window = w}`.
inline constexpr int at_run_time = std::numeric_limits<int>::min();

/// One score: positions of tokens count from the start of the sequence.
struct position {
  int query;     ///< token that looks
  int key;       ///< token that is looked at, <= query
  int head;      ///< query head, in [0, H)
  int kv_head;   ///< the key head that it shares, in [0, K)
  int sequence;  ///< `index` of the sequence in the call
};

/// Keys [begin, end).
struct key_range {
  int begin;
  int end;
  friend constexpr bool operator==(const key_range&, const key_range&) = default;
};

/// Queries [query_begin, query_end) against keys [key_begin, key_end), of any head and sequence.
struct tile {
  int query_begin, query_end;
  int key_begin, key_end;
};

/// What a softmax begins with, as if a score `max` had been seen `sum` times with a zero value behind it.
struct softmax_start {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

/// Inherit, then write only the hooks that the variant needs; at least one.
///
/// Besides these three a policy may have
///   EFFINFER_HOST_DEVICE bool all_visible(tile t) const;     true: no pair of the tile is hidden, `visible` isn't asked
///   EFFINFER_HOST_DEVICE bool any_visible(tile t) const;     false: all pairs of the tile are hidden, it is skipped
///   EFFINFER_HOST_DEVICE int next_key(tile t) const;         the first key from t.key_begin on that one of the tile's queries may
///                                                            see: kernels jump there (t.key_end has no meaning)
///   EFFINFER_HOST_DEVICE softmax_start start(int head) const;   attention sinks
///   template <class V> V scores(V s, position first) const;  `score` of 16 keys from first.key on, for a `score` that
///                                                            calls what no compiler vectorises (tanh, exp)
///   void validate() const;                                   throws effinfer::error for a parameter out of range
/// A policy whose parameters users name, `soft_cap{.cap = 30}`, is better written without this base: g++ takes the
/// base for a forgotten initialiser (-Wextra). It then has all three hooks, and where score or visible do nothing
///   static constexpr bool changes_scores = false;  static constexpr bool hides_keys = false;
struct no_hooks {
  using slot = effinfer::slot::attention_modifier;

  /// The score s = scale q.k of one pair, changed.
  EFFINFER_HOST_DEVICE constexpr float score(float s, position) const { return s; }
  /// Does this query see this key?
  EFFINFER_HOST_DEVICE constexpr bool visible(position) const { return true; }
  /// The keys worth a visit out of [0, cached), where `cached` > query: all that are visible, and no end may fall as
  /// `query` rises.
  EFFINFER_HOST_DEVICE constexpr key_range keys(int query, int cached) const {
    return (void)query, key_range{0, cached};
  }
};

// Which hooks a policy has. A hook that the base's own pointer type shows is the base's, so nothing was overridden; a
// policy without the base may say so itself.
template <class P>
concept overrides_score = (requires { requires P::changes_scores; }) ||
                          (
                              !requires { P::changes_scores; } &&
                              !requires { requires std::same_as<decltype(&P::score), decltype(&no_hooks::score)>; });
template <class P>
concept overrides_visible = (requires { requires P::hides_keys; }) ||
                            (
                                !requires { P::hides_keys; } &&
                                !requires {
                                  requires std::same_as<decltype(&P::visible), decltype(&no_hooks::visible)>;
                                });
template <class P>
concept overrides_keys = !requires {
  requires std::same_as<decltype(&P::keys), decltype(&no_hooks::keys)>;
};
template <class P>
concept has_start = requires(const P& p) {
  { p.start(0) } -> std::same_as<softmax_start>;
};
template <class P>
concept has_all_visible = requires(const P& p, tile t) {
  { p.all_visible(t) } -> std::same_as<bool>;
};
template <class P>
concept has_any_visible = requires(const P& p, tile t) {
  { p.any_visible(t) } -> std::same_as<bool>;
};

template <class P>
concept has_next_key = requires(const P& p, tile t) {
  { p.next_key(t) } -> std::same_as<int>;
};

namespace detail {
template <class P>
concept hooks_score = requires(const P& p, position at) {
  { p.score(0.0f, at) } -> std::same_as<float>;
};
template <class P>
concept hooks_visible = requires(const P& p, position at) {
  { p.visible(at) } -> std::same_as<bool>;
};
template <class P>
concept hooks_keys = requires(const P& p) {
  { p.keys(0, 0) } -> std::same_as<key_range>;
};
template <class P>
concept overrides_a_hook = overrides_score<P> || overrides_visible<P> || overrides_keys<P> || has_start<P>;
// A member of that name, whatever its type: a hook with a wrong signature must not be passed over in silence.
template <class P>
concept names_start = requires {
  &P::start;
};
template <class P>
concept names_all_visible = requires {
  &P::all_visible;
};
template <class P>
concept names_any_visible = requires {
  &P::any_visible;
};
template <class P>
concept names_next_key = requires {
  &P::next_key;
};
}  // namespace detail

/// A policy for softmax<...> with all of its members, at least one of them its own.
template <class P>
concept attention_variant = policy_of<P, slot::attention_modifier> && std::is_trivially_copyable_v<P> &&
    detail::hooks_score<P> && detail::hooks_visible<P> && detail::hooks_keys<P> && detail::overrides_a_hook<P>;

/// `check_attention_variant<P>::complete` is true, or the compiler says which line P lacks.
template <class P>
struct check_attention_variant {
  static_assert(
      policy_of<P, slot::attention_modifier>,
      "effinfer: attention policy needs  using slot = effinfer::slot::attention_modifier;  (or the base class "
      "effinfer::attention::no_hooks)");
  static_assert(detail::hooks_score<P>,
                "effinfer: attention policy needs  EFFINFER_HOST_DEVICE float score(float s, position p) const;");
  static_assert(detail::hooks_visible<P>,
                "effinfer: attention policy needs  EFFINFER_HOST_DEVICE bool visible(position p) const;");
  static_assert(detail::hooks_keys<P>,
                "effinfer: attention policy needs  EFFINFER_HOST_DEVICE key_range keys(int query, int cached) const;");
  static_assert(
      !detail::names_start<P> || has_start<P>,
      "effinfer: attention policy needs  EFFINFER_HOST_DEVICE softmax_start start(int head) const;  or no member "
      "of that name");
  static_assert(
      !detail::names_all_visible<P> || has_all_visible<P>,
      "effinfer: attention policy needs  EFFINFER_HOST_DEVICE bool all_visible(tile t) const;  or no member of "
      "that name");
  static_assert(
      !detail::names_any_visible<P> || has_any_visible<P>,
      "effinfer: attention policy needs  EFFINFER_HOST_DEVICE bool any_visible(tile t) const;  or no member of "
      "that name");
  static_assert(
      !detail::names_next_key<P> || has_next_key<P>,
      "effinfer: attention policy needs  EFFINFER_HOST_DEVICE int next_key(tile t) const;  or no member of that name");
  static_assert(detail::overrides_a_hook<P>,
                "effinfer: attention policy overrides no hook: write at least one of score, visible, keys or start (a "
                "misspelt name overrides nothing)");
  static_assert(
      std::is_trivially_copyable_v<P>,
      "effinfer: attention policy must be trivially copyable: hold numbers and pointers only, as it is copied "
      "into kernels");
  static constexpr bool complete = true;
};

}  // namespace effinfer::inline v0::attention
