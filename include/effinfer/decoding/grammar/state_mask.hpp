#pragma once
// Which tokens may come next, as far as one state of the automaton alone can tell. Most tokens end inside the state's rule, or fail
// there, whatever the rule was called from; the few that go on behind its end are kept by what is left of them there, to be
// compared with the stack. Source: Dong et al., "XGrammar" (2024), section 3.1, where these are context-independent and
// context-dependent tokens.

#include <effinfer/decoding/grammar/automaton.hpp>
#include <effinfer/decoding/grammar/byte_trie.hpp>
#include <effinfer/decoding/grammar/configurations.hpp>
#include <effinfer/decoding/grammar/token_vocabulary.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Token `id` is bit id % 64 of word id / 64.
using mask_word = std::uint64_t;
inline constexpr std::size_t mask_words(std::size_t tokens) { return (tokens + 63) / 64; }

/// The tokens of one state. Immutable.
struct state_mask {
  std::vector<mask_word> accepted_bits;  ///< empty where `accepted` lists them
  std::vector<int> accepted;             ///< few tokens, by id
  byte_trie beyond;                      ///< what is left of tokens where the rule ends inside them

  /// Adds the accepted tokens to `mask` [mask_words(vocabulary)].
  void add_to(std::span<mask_word> mask) const {
    for (std::size_t i = 0; i < accepted_bits.size(); ++i) mask[i] |= accepted_bits[i];
    for (const int id : accepted) mask[static_cast<std::size_t>(id) / 64] |= mask_word{1} << (id % 64);
  }
  [[nodiscard]] std::size_t bytes() const {
    return accepted_bits.size() * sizeof(mask_word) + accepted.size() * sizeof(int) + beyond.bytes();
  }
};

/// Tries all tokens at `state`. Cost: a look-up for each node of the vocabulary's trie that matches, and for those next to them.
inline state_mask make_state_mask(const pushdown_automaton& automaton, const token_vocabulary& vocabulary,
                                  index state) {
  configurations sets(automaton);
  const index outside = sets.marker(1);
  // A table of steps that were taken, by set and class of byte, with whether the rule may end behind them.
  constexpr index unknown = no_index;
  const std::size_t classes = automaton.byte_class_count();
  std::vector<index> steps;
  std::vector<char> ends;
  const auto step = [&](index set, std::uint8_t byte) {
    const std::size_t at = set * classes + automaton.byte_class(byte);
    if (at < steps.size() && steps[at] != unknown) return steps[at];
    const index to = sets.step(set, byte);
    const bool may_end = sets.reaches(to, outside);
    steps.resize(sets.size() * classes, unknown);
    ends.resize(sets.size(), 0);
    ends[to] = may_end ? 1 : 0;
    return steps[at] = to;
  };

  const byte_trie& trie = vocabulary.trie();
  std::vector<index> path(vocabulary.longest_bytes() + 1);
  path[0] = sets.single(state, sets.single(outside));
  struct rule_end {
    std::uint16_t depth;
    bool may_go_on;  // the next byte of the path may stand behind the rule
  };
  std::vector<rule_end> rule_ends;
  std::vector<std::pair<std::string_view, int>> beyond;
  state_mask mask;
  for (std::uint32_t n = 0; n < trie.size();) {
    const byte_trie::node& node = trie.at(n);
    while (!rule_ends.empty() && rule_ends.back().depth >= node.depth) rule_ends.pop_back();
    if (!rule_ends.empty() && rule_ends.back().depth + 1 == node.depth) {
      rule_ends.back().may_go_on = automaton.follow(state)[node.byte];
    }
    const index to = step(path[node.depth - 1u], node.byte);
    if (to != configurations::dead) {
      for (const int id : trie.tokens(n)) mask.accepted.push_back(id);
      path[node.depth] = to;
      if (ends[to]) rule_ends.push_back({node.depth, false});
      ++n;
      continue;
    }
    for (const rule_end& end : rule_ends) {
      if (!end.may_go_on) continue;
      for (const int id : trie.tokens_below(n)) beyond.emplace_back(vocabulary.bytes(id).substr(end.depth), id);
    }
    n = node.subtree_end;
  }
  mask.beyond = byte_trie(std::move(beyond));
  if (mask.accepted.size() > vocabulary.size() / 256) {
    mask.accepted_bits.resize(mask_words(vocabulary.size()));
    for (const int id : mask.accepted)
      mask.accepted_bits[static_cast<std::size_t>(id) / 64] |= mask_word{1} << (id % 64);
    mask.accepted.clear();
  }
  mask.accepted.shrink_to_fit();
  return mask;
}

}  // namespace effinfer::inline v0::decoding::grammar
