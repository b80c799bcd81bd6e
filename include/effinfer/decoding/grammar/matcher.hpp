#pragma once
// One text being matched against a grammar, token by token.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/compiled_grammar.hpp>
#include <effinfer/decoding/grammar/configurations.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Belongs to one thread. A copy goes on by itself; copying costs a few kilobytes (of what was met so far), taking tokens back nothing.
///
/// Errors of all members: `limit`, where the text nests deeper, or leaves more open, than grammar::limits says.
class matcher {
 public:
  /// `grammar` must not be null.
  explicit matcher(std::shared_ptr<const compiled_grammar> grammar)
      : grammar_(std::move(grammar)), sets_(grammar_->automaton()) {
    path_.push_back(sets_.single(grammar_->automaton().start(), sets_.single(sets_.marker(at_end))));
  }

  /// Takes one token. False, and nothing changes, where it may not come next.
  bool advance(int token) {
    const token_vocabulary& vocabulary = grammar_->vocabulary();
    if (token < 0 || static_cast<std::size_t>(token) >= vocabulary.size()) return false;
    if (vocabulary.is_end(token)) {
      if (!may_end()) return false;
      path_.push_back(sets_.single(sets_.marker(over)));
      return true;
    }
    const std::string_view bytes = vocabulary.bytes(token);
    return !bytes.empty() && advance_text(bytes);
  }

  /// Takes any bytes as if they were one token.
  bool advance_text(std::string_view bytes) {
    const index to = walk(path_.back(), bytes);
    if (to == configurations::dead) return false;
    path_.push_back(to);
    return true;
  }

  /// How many tokens were taken.
  [[nodiscard]] std::size_t tokens() const { return path_.size() - 1; }
  /// Goes back to where it was after `tokens` tokens. Precondition: tokens <= this->tokens().
  void rollback(std::size_t tokens) { path_.resize(tokens + 1); }

  /// True where the text may end here (or has ended).
  [[nodiscard]] bool may_end() {
    return sets_.reaches(path_.back(), sets_.marker(at_end)) || sets_.reaches(path_.back(), sets_.marker(over));
  }
  /// True behind an end token.
  [[nodiscard]] bool has_ended() { return sets_.reaches(path_.back(), sets_.marker(over)); }

  /// Writes which tokens may come next into `mask` [mask_words(vocabulary)]; returns whether any may.
  ///
  /// Exact: a token is in the mask if and only if `advance` takes it.
  bool allowed(std::span<mask_word> mask) {
    std::fill(mask.begin(), mask.end(), mask_word{0});
    const index here = sets_.ended(path_.back());
    for (std::size_t i = 0; i < sets_.items(here).size(); ++i) {
      const configurations::item at = sets_.items(here)[i];
      if (sets_.is_marker(at.state)) {
        for (const int id : grammar_->vocabulary().end_tokens()) set(mask, id);
        continue;
      }
      const state_mask& known = grammar_->mask(at.state);
      known.add_to(mask);
      add_beyond(known.beyond, at.next, mask);
    }
    return std::any_of(mask.begin(), mask.end(), [](mask_word w) { return w != 0; });
  }

  /// The text that must come next, up to `most_bytes`: what follows while there is only one byte to choose and the text can't end.
  [[nodiscard]] std::string forced_text(std::size_t most_bytes) {
    std::string text;
    for (index at = path_.back(); text.size() < most_bytes;) {
      const int byte = only_byte(at);
      if (byte < 0) break;
      text.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
      at = sets_.step(at, static_cast<std::uint8_t>(byte));
    }
    return text;
  }

  [[nodiscard]] const compiled_grammar& grammar() const { return *grammar_; }

 private:
  // Markers: at_end stands under the start rule; 1 is make_state_mask's; over is where an end token was taken.
  static constexpr index at_end = 0, over = 2;

  static void set(std::span<mask_word> mask, int id) {
    mask[static_cast<std::size_t>(id) / 64] |= mask_word{1} << (id % 64);
  }

  index walk(index from, std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size() && from != configurations::dead; ++i) {
      from = sets_.step(from, static_cast<std::uint8_t>(bytes[i]));
    }
    return from;
  }

  void add_beyond(const byte_trie& beyond, index from, std::span<mask_word> mask) {
    beyond_path_.assign(1, from);
    for (std::uint32_t n = 0; n < beyond.size();) {
      const byte_trie::node& node = beyond.at(n);
      const index to = sets_.step(beyond_path_[node.depth - 1u], node.byte);
      if (to == configurations::dead) {
        n = node.subtree_end;
        continue;
      }
      for (const int id : beyond.tokens(n)) set(mask, id);
      beyond_path_.resize(node.depth);
      beyond_path_.push_back(to);
      ++n;
    }
  }

  int only_byte(index set) {
    int only = -1;
    const pushdown_automaton& automaton = grammar_->automaton();
    for (const configurations::item& i : sets_.items(sets_.closure(set))) {
      if (sets_.is_marker(i.state)) return -1;
      const pushdown_automaton::state& s = automaton.at(i.state);
      for (index e = s.first_byte_edge; e < s.last_byte_edge; ++e) {
        const pushdown_automaton::byte_edge& edge = automaton.byte_edges()[e];
        if (edge.low != edge.high || (only >= 0 && only != edge.low)) return -1;
        only = edge.low;
      }
    }
    return only;
  }

  std::shared_ptr<const compiled_grammar> grammar_;
  configurations sets_;
  std::vector<index> path_;  // the set behind each token, and the one in front of the first
  std::vector<index> beyond_path_;
};

}  // namespace effinfer::inline v0::decoding::grammar
