#pragma once
// Searches: strategies that follow several sequences at once and answer with the best. A search is two things: a policy of the
// decoding slot (`beam`, `best_of`, `contrastive`), and what it begins, which chooses the sequences to go on with and knows no
// model; pipeline/search.hpp runs the model for it, all sequences in one batch.
//
// To add one: a policy with `begin` and `sequences`, as `best_of` (the shortest) has them; pipeline<your_search> then works.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/policy.hpp>

#include <concepts>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// A text that a search found.
struct hypothesis {
  std::vector<int> tokens;     ///< behind the prompt; the token that ended it among them
  double log_probability = 0;  ///< of all of them together, natural logarithm
  double score = 0;            ///< what the search ranks by; more is better
};

/// Go on with the sequence of logit row `parent` and this token.
struct continuation {
  int parent = 0;
  int token = 0;
};

/// What a search is to find.
struct search_request {
  std::span<const int> prompt = {};  ///< must outlive the search
  int max_tokens = 0;                ///< of a hypothesis; >= 1
  std::uint64_t seed = 0;
  int end_tokens = 1;  ///< how many different tokens may end a text
  /// True where the tokens behind the prompt, the last of them new, are a whole text. Empty: nothing is before max_tokens.
  std::function<bool(std::span<const int> generated)> ends = {};
};

/// A search under way.
///
/// advance(logits [N, V]) -> the sequences to go on with, valid until the next call: none at the end, else at most
/// policy.sequences(). Row r is behind the r-th of those returned before; the first call has one row, behind the prompt.
/// hypotheses() -> those found, best first, at any time.
template <class S>
concept logit_search = requires(S& s, matrix_view<const float> logits) {
  { s.advance(logits) } -> std::same_as<std::span<const continuation>>;
  { s.hypotheses() } -> std::same_as<std::vector<hypothesis>>;
};

/// The same for a search that also wants what the model's output head reads: advance(logits [N, V], states [N, E]); in the
/// first call the states are those of all tokens of the prompt that were just read.
template <class S>
concept state_search = requires(S& s, matrix_view<const float> logits, matrix_view<const float> states) {
  { s.advance(logits, states) } -> std::same_as<std::span<const continuation>>;
  { s.hypotheses() } -> std::same_as<std::vector<hypothesis>>;
};

template <class S>
concept token_search = logit_search<S> || state_search<S>;

/// A strategy that searches: `begin(request)` gives a token_search, `sequences()` how many it follows at most. Its call
/// operator, which every strategy has, chooses as a search of one sequence would.
template <class P>
concept search_policy = decoding_strategy<P> && requires(const P& p, const search_request& request) {
  { p.begin(request) } -> token_search;
  { p.sequences() } -> std::same_as<int>;
};

/// True of a search_policy whose searches want states.
template <class P>
inline constexpr bool searches_states = false;
template <search_policy P>
inline constexpr bool searches_states<P> =
    state_search<decltype(std::declval<const P&>().begin(std::declval<const search_request&>()))>;

/// True of a strategy around a rule that is a search.
template <class P>
inline constexpr bool searches_inside = false;
template <class P>
  requires requires { typename P::rule_type; }
inline constexpr bool searches_inside<P> = search_policy<typename P::rule_type>;

}  // namespace effinfer::inline v0::decoding
