#pragma once
// Drafts by copying: finds the last few tokens earlier in the history and proposes what followed them there. Needs no second
// model; good where the answer repeats its prompt (summaries, edits, code).
// Source: Saxena, "Prompt Lookup Decoding" (2023), https://github.com/apoorvumang/prompt-lookup-decoding.

#include <effinfer/decoding/drafter.hpp>
#include <effinfer/decoding/parameter.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// The longest of the last N ... shortest_match tokens that came up before; of equally long matches the most recent.
///
/// A copy that reaches the end of the history goes on in itself, as in LZ77, so that a loop of any period fills the draft.
/// Cost: O(history) comparisons, a fraction of a millisecond at 128k tokens.
template <int N = 3>
struct prompt_lookup {
  static_assert(N >= 1, "effinfer: prompt_lookup<N> needs N >= 1: the number of tokens to look up.");
  int shortest_match = 1;  ///< matches of fewer tokens are not used

  void validate() const {
    check_parameter(shortest_match >= 1 && shortest_match <= N, "prompt_lookup.shortest_match", shortest_match,
                    "[1, N]");
  }

  [[nodiscard]] std::vector<int> propose(std::span<const int> history, int most_tokens) const {
    const std::size_t size = history.size();
    std::size_t best = 0, best_end = 0;  // length of the match, and where it ends
    for (std::size_t end = size > 0 ? size - 1 : 0; end > 0 && best < N; --end) {
      std::size_t length = 0;
      while (length < N && length < end && history[end - 1 - length] == history[size - 1 - length]) ++length;
      if (length > best) best = length, best_end = end;
    }
    std::vector<int> draft;
    if (best < static_cast<std::size_t>(shortest_match) || best == 0) return draft;
    draft.reserve(static_cast<std::size_t>(std::max(most_tokens, 0)));
    for (std::size_t i = best_end; static_cast<int>(draft.size()) < most_tokens; ++i) {
      draft.push_back(i < size ? history[i] : draft[i - size]);
    }
    return draft;
  }
};

static_assert(check_drafter<prompt_lookup<3>>::complete);

}  // namespace effinfer::inline v0::decoding
