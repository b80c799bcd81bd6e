#pragma once
// Scratch memory for choosing tokens. A generation loop owns one and passes it to every call.

#include <effinfer/core/config.hpp>
#include <effinfer/execution/instruction_set.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace effinfer::inline v0::decoding {

/// What a rule needs besides the logits. It grows to the vocabulary at the first token; after that no call allocates.
///
/// It carries nothing from one call to the next, so which one is passed never changes the token. One thread at a time.
/// Memory: at most 36 bytes a vocabulary entry and 4 a token of the history.
struct workspace {
  workspace() = default;
  /// With the kernels of `set`, which this machine must run.
  explicit workspace(execution::instruction_set set) : instructions(set) {}

  execution::instruction_set instructions = execution::best_instruction_set();

  std::vector<float> group_maxima;           ///< the greatest logit of each group of tokens
  std::vector<float> block_maxima;           ///< and of each block
  std::vector<std::uint64_t> block_weights;  ///< the sum of each block's weights
  std::vector<int> ids;                      ///< candidates, by rising id
  std::vector<float> values;                 ///< their logits
  std::vector<std::uint64_t> weights;        ///< their weights
  std::vector<float> pool;                   ///< values to select from
  std::vector<int> order;                    ///< candidates to sort
  std::vector<double> distances;             ///< by which tokens are ranked where it isn't their logit
  std::array<std::uint64_t, 512> bin_weights{};
  std::vector<std::uint32_t> counts;  ///< how often the history holds each token; zero between calls
  std::vector<int> history;           ///< the history with drafts that were accepted

  /// Calls `each(id, times)` once for every token of `history`, in the order of first appearance. Ids outside [0, vocabulary)
  /// are passed over.
  template <class Each>
  void count(std::span<const int> history_tokens, std::size_t vocabulary, Each&& each) {
    if (counts.size() < vocabulary) counts.resize(vocabulary, 0);
    const auto known = [&](int id) { return id >= 0 && static_cast<std::size_t>(id) < vocabulary; };
    for (const int id : history_tokens) {
      if (known(id)) ++counts[static_cast<std::size_t>(id)];
    }
    for (const int id : history_tokens) {
      if (!known(id) || counts[static_cast<std::size_t>(id)] == 0) continue;
      each(id, counts[static_cast<std::size_t>(id)]);
      counts[static_cast<std::size_t>(id)] = 0;
    }
  }
};

/// `history` from its token number `ignored` on; empty where it isn't that long.
inline std::span<const int> without_first(std::span<const int> history, int ignored) {
  return history.subspan(std::min(static_cast<std::size_t>(ignored), history.size()));
}

}  // namespace effinfer::inline v0::decoding
