#pragma once
// The suffix automaton of a text of tokens: all its substrings in at most 2 n states, built token by token.
// Source: Blumer et al., "The smallest automaton recognizing the subwords of a text" (1985), whose construction is on-line.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Cost: O(1) amortised a token (states only gain edges, and there are at most 3 n of them), however large the alphabet.
/// Memory: at most some 130 bytes a token.
class token_automaton {
 public:
  static constexpr int none = -1;
  /// A set of substrings that end at the same places.
  struct state {
    int length = 0;         ///< of the longest
    int link = none;        ///< the state of its longest suffix that ends at more places
    int end = 0;            ///< the number of tokens up to the end of one of the places, the first
    int first_edge = none;  ///< its edges are a list
  };
  struct edge {
    int token, target, next;
  };

  token_automaton() : states_(1), slots_(16, none) {}

  [[nodiscard]] const std::vector<state>& states() const { return states_; }
  [[nodiscard]] const std::vector<edge>& edges() const { return edges_; }
  /// How many tokens were added.
  [[nodiscard]] int size() const { return states_[at(last_)].length; }
  /// The state of the longest suffix of the text that stands in it earlier too; 0 where there is none.
  [[nodiscard]] int repeated() const { return last_ == 0 ? 0 : states_[at(last_)].link; }
  /// Where `token` leads from state `from`; `none` where the text has no such substring.
  [[nodiscard]] int next(int from, int token) const {
    const int e = slots_[slot(from, token)];
    return e == none ? none : edges_[at(e)].target;
  }
  /// From a suffix of length `length` in `from`: that of the longest suffix that `token` can follow, with the token.
  void walk(int& from, int& length, int token) const {
    while (from != 0 && next(from, token) == none) {
      from = states_[at(from)].link;
      length = states_[at(from)].length;
    }
    const int to = next(from, token);
    from = to == none ? 0 : to;
    length = to == none ? 0 : length + 1;
  }

  void push_back(int token) {
    const int added = add_state({size() + 1, 0, size() + 1, none});
    int p = last_;
    for (; p != none && next(p, token) == none; p = states_[at(p)].link) add_edge(p, token, added);
    if (p != none) {
      const int q = next(p, token);
      if (states_[at(p)].length + 1 == states_[at(q)].length) {
        states_[at(added)].link = q;
      } else {
        state copy = states_[at(q)];
        copy.length = states_[at(p)].length + 1;
        copy.first_edge = none;
        const int split = add_state(copy);
        for (int e = states_[at(q)].first_edge; e != none; e = edges_[at(e)].next)
          add_edge(split, edges_[at(e)].token, edges_[at(e)].target);
        for (; p != none && next(p, token) == q; p = states_[at(p)].link)
          edges_[at(slots_[slot(p, token)])].target = split;
        states_[at(q)].link = states_[at(added)].link = split;
      }
    }
    last_ = added;
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  int add_state(const state& s) {
    states_.push_back(s);
    return static_cast<int>(states_.size()) - 1;
  }
  void add_edge(int from, int token, int target) {
    if (edges_.size() * 2 >= slots_.size()) {
      slots_.assign(slots_.size() * 2, none);
      for (std::size_t e = 0; e < edges_.size(); ++e) slots_[slot(from_[e], edges_[e].token)] = static_cast<int>(e);
    }
    slots_[slot(from, token)] = static_cast<int>(edges_.size());
    edges_.push_back({token, target, states_[at(from)].first_edge});
    from_.push_back(from);
    states_[at(from)].first_edge = static_cast<int>(edges_.size()) - 1;
  }
  /// Where the edge stands or would stand in the hash table, by linear probing.
  [[nodiscard]] std::size_t slot(int from, int token) const {
    std::uint64_t key = (std::uint64_t{static_cast<std::uint32_t>(from)} << 32) | static_cast<std::uint32_t>(token);
    key = (key ^ (key >> 29)) * 0x9E3779B97F4A7C15U;
    std::size_t i = static_cast<std::size_t>(key >> 24) & (slots_.size() - 1);
    while (slots_[i] != none && (from_[at(slots_[i])] != from || edges_[at(slots_[i])].token != token))
      i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  std::vector<state> states_;
  std::vector<edge> edges_;
  std::vector<int> from_;   // the state that edge e leaves
  std::vector<int> slots_;  // edges by (state, token)
  int last_ = 0;
};

}  // namespace effinfer::inline v0::decoding
