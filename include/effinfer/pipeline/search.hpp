#pragma once
// Runs a search (decoding/search.hpp) on a model: every sequence is a fork of the session that read the prompt, and all of them
// read their next token in one pass. A sequence that is given up becomes the fork of another, which copies only what the two
// don't share.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/search.hpp>
#include <effinfer/pipeline/session.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0 {

/// What a search came to.
struct search_outcome {
  std::vector<decoding::hypothesis> hypotheses;  ///< best first
  int forward_passes = 0;
};

/// Searches behind the tokens of `start`, which stays as it is.
///
/// Shapes: logits [V] behind its last token; states [P, E] of its last P tokens, behind the final norm, for a search that wants
/// them (else empty). request.max_tokens must fit start.room(), see longest_search. Works on caches and recurrent states alike.
/// Memory: a session's state for each sequence. Errors: `cancelled`, `invalid_argument` (the search goes on with a row that
/// isn't there).
template <decoding::search_policy Policy, class Decoder>
search_outcome run_search(const Policy& policy, const session<Decoder>& start, std::span<const float> logits,
                          matrix_view<const float> states, const decoding::search_request& request,
                          const std::stop_token& cancel = {}) {
  using member = session<Decoder>;
  constexpr bool wants_states = decoding::searches_states<Policy>;
  const auto& model = start.model();
  const std::ptrdiff_t width = model.config().width;
  auto search = policy.begin(request);
  const auto advance = [&](matrix_view<const float> rows, [[maybe_unused]] matrix_view<const float> of) {
    if constexpr (wants_states) {
      return search.advance(rows, of);
    } else {
      return search.advance(rows);
    }
  };
  batch<Decoder> together(start, policy.sequences());
  std::vector<float> raw, normed;
  std::deque<member> members;
  std::vector<member*> rows, next_rows, unused;  // rows[r]: the sequence of logit row r
  std::vector<int> tokens;
  search_outcome outcome;
  auto next = advance({logits.data(), 1, static_cast<std::ptrdiff_t>(logits.size())}, states);
  while (!next.empty()) {
    if (cancel.stop_requested()) throw error(error_code::cancelled, "search", "stopped by the caller");
    const std::size_t parents = std::max<std::size_t>(1, rows.size());
    for (const decoding::continuation& c : next) {
      if (c.parent < 0 || static_cast<std::size_t>(c.parent) >= parents) {
        throw error(error_code::invalid_argument, "search: continuation.parent",
                    std::to_string(c.parent) + " is not in [0, " + std::to_string(parents) + ")");
      }
    }
    // The first child of a sequence goes on with its session, the others with those of sequences that have none.
    next_rows.assign(next.size(), nullptr);
    unused.clear();
    for (member& m : members) unused.push_back(&m);
    for (std::size_t i = 0; i < next.size() && !rows.empty(); ++i) {
      member* const parent = rows[static_cast<std::size_t>(next[i].parent)];
      const auto at = std::find(unused.begin(), unused.end(), parent);
      if (at == unused.end()) continue;
      next_rows[i] = parent;
      unused.erase(at);
    }
    tokens.clear();
    for (std::size_t i = 0; i < next.size(); ++i) {
      tokens.push_back(next[i].token);
      if (next_rows[i] != nullptr) continue;
      const member& parent = rows.empty() ? start : *rows[static_cast<std::size_t>(next[i].parent)];
      if (unused.empty()) {
        next_rows[i] = &members.emplace_back(parent);
      } else {
        next_rows[i] = unused.back();
        unused.pop_back();
        next_rows[i]->become(parent);
      }
    }
    std::swap(rows, next_rows);
    const auto count = static_cast<std::ptrdiff_t>(rows.size());
    matrix_view<float> behind;
    if constexpr (wants_states) {
      raw.resize(static_cast<std::size_t>(count * width));
      normed.resize(raw.size());
      const typename Decoder::tap tap{model.config().layers, {raw.data(), count, width}};
      const auto out = together.step(rows, tokens, std::span(&tap, 1));
      behind = {normed.data(), count, width};
      model.features(tap.out, behind);
      next = advance(out, behind);
    } else {
      next = advance(together.step(rows, tokens), behind);
    }
    ++outcome.forward_passes;
  }
  outcome.hypotheses = search.hypotheses();
  return outcome;
}

/// The longest hypothesis that a search behind `start` has room for: only one that wants states reads the last token of a text.
template <decoding::search_policy Policy, class Decoder>
int longest_search(const session<Decoder>& start) {
  return start.room() + (decoding::searches_states<Policy> ? 0 : 1);
}

}  // namespace effinfer::inline v0
