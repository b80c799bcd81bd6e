#pragma once
// Where matching may stand: a set of (state, what to go on with when the state's rule ends). What to go on with is again such a set,
// so all stacks of a nondeterministic pushdown automaton are kept as one graph with shared tails, and equal sets have equal numbers.
// Source: graph-structured stacks, Tomita, "An Efficient Augmented-Context-Free Parsing Algorithm" (1987), made canonical by hashing.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/automaton.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// All sets met in one course of matching. Grows with what is new only; copying copies flat arrays.
///
/// Errors of all members: `limit` (deeper than limits::stack, wider than limits::alternatives).
class configurations {
 public:
  struct item {
    index state;
    index next;  // the set to go on with when the state's rule ends
    friend bool operator==(const item&, const item&) = default;
  };
  static constexpr index dead = 0;  ///< the empty set: nothing can follow

  explicit configurations(const pushdown_automaton& automaton) : automaton_(&automaton), slots_(64, no_index) {
    sets_.push_back({0, 0, 0, dead, dead});
  }

  /// A state beside the automaton's own that takes no byte: to be found again once a rule has ended. `number` < 16.
  [[nodiscard]] index marker(index number) const { return automaton_->size() + number; }
  [[nodiscard]] bool is_marker(index state) const { return state >= automaton_->size(); }

  /// The set of one item.
  index single(index state, index next = dead) {
    const item one{state, next};
    return intern({&one, 1});
  }

  /// The items of a set, by rising state, each state once. Valid until the next call that makes a set.
  [[nodiscard]] std::span<const item> items(index set) const {
    return {items_.data() + sets_[set].first, sets_[set].count};
  }

  /// Where matching stands behind one more byte; `dead` where the byte doesn't match.
  index step(index set, std::uint8_t byte) {
    const index closed = closure(set);
    reached_.clear();
    const pushdown_automaton::byte_edge* edges = automaton_->byte_edges();
    for (index i = 0; i < sets_[closed].count; ++i) {
      const item at = items_[sets_[closed].first + i];
      if (is_marker(at.state)) continue;
      const pushdown_automaton::state& s = automaton_->at(at.state);
      for (index e = s.first_byte_edge; e < s.last_byte_edge && edges[e].low <= byte; ++e) {
        if (edges[e].high >= byte) reached_.push_back({edges[e].to, at.next});
      }
    }
    if (reached_.empty()) return dead;
    return merged(reached_);
  }

  /// A set without rule edges to follow: states that take bytes, and markers.
  index closure(index set) {
    if (sets_[set].closed == no_index) {
      const index closed = close(set, true);
      sets_[set].closed = closed;
    }
    return sets_[set].closed;
  }
  /// The set with what follows where its rules end here, but rule edges not followed: all states that its stacks may stand at.
  index ended(index set) {
    if (sets_[set].ended == no_index) {
      const index with = close(set, false);
      sets_[set].ended = with;
    }
    return sets_[set].ended;
  }

  /// True where the marker is among the states that may be reached without a byte.
  bool reaches(index set, index marker_state) {
    for (const item& i : items(closure(set))) {
      if (i.state == marker_state) return true;
    }
    return false;
  }

  [[nodiscard]] std::size_t size() const { return sets_.size(); }

 private:
  struct set_entry {
    index first, count;   // in items_
    index depth;          // of the longest stack
    index closed, ended;  // no_index: not computed yet
  };

  /// `items` must be sorted, each state once.
  index intern(std::span<const item> all) {
    if (all.empty()) return dead;
    std::uint64_t hash = all.size();
    for (const item& i : all) {
      hash = (hash ^ (std::uint64_t{i.state} << 32 | i.next)) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    }
    for (std::size_t at = hash & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at] == no_index) {
        index depth = 0;
        for (const item& i : all) depth = std::max(depth, sets_[i.next].depth);
        if (depth >= limits::stack) {
          throw error(error_code::limit, "grammar",
                      "the text nests deeper than " + std::to_string(limits::stack) + " rules");
        }
        const auto made = static_cast<index>(sets_.size());
        sets_.push_back(
            {static_cast<index>(items_.size()), static_cast<index>(all.size()), depth + 1, no_index, no_index});
        items_.insert(items_.end(), all.begin(), all.end());
        slots_[at] = made;
        hashes_.resize(sets_.size());
        hashes_[made] = hash;
        if (2 * sets_.size() > slots_.size()) grow();
        return made;
      }
      const index known = slots_[at];
      if (hashes_[known] == hash && std::ranges::equal(items(known), all)) return known;
    }
  }
  void grow() {
    slots_.assign(4 * slots_.size(), no_index);
    for (index set = 1; set < sets_.size(); ++set) {
      std::size_t at = hashes_[set] & (slots_.size() - 1);
      while (slots_[at] != no_index) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = set;
    }
  }

  /// Interns items in any order; those of one state become one that goes on with both.
  index merged(std::vector<item>& all) {
    if (all.size() > 1) {
      std::sort(all.begin(), all.end(),
                [](const item& a, const item& b) { return a.state != b.state ? a.state < b.state : a.next < b.next; });
      std::size_t kept = 0;
      for (std::size_t i = 1; i < all.size(); ++i) {
        if (all[i].state != all[kept].state) {
          all[++kept] = all[i];
        } else if (all[i].next != all[kept].next) {
          all[kept].next = unite(all[kept].next, all[i].next);
        }
      }
      all.resize(kept + 1);
    }
    return intern(all);
  }

  /// The union of two sets. Recursion ends with the stacks, at limits::stack.
  index unite(index a, index b) {
    if (a == b || b == dead) return a;
    if (a == dead) return b;
    if (const auto known = united_.find({a, b}); known != united_.end()) return known->second;
    std::vector<item> all;
    all.reserve(sets_[a].count + sets_[b].count);
    index i = sets_[a].first, j = sets_[b].first;
    const index a_end = i + sets_[a].count, b_end = j + sets_[b].count;
    while (i < a_end || j < b_end) {
      if (j == b_end || (i < a_end && items_[i].state < items_[j].state)) {
        all.push_back(items_[i++]);
      } else if (i == a_end || items_[j].state < items_[i].state) {
        all.push_back(items_[j++]);
      } else {
        const item left = items_[i++], right = items_[j++];
        all.push_back({left.state, unite(left.next, right.next)});
      }
    }
    const index both = intern(all);
    united_.emplace(std::pair{a, b}, both);
    return both;
  }

  index close(index set, bool follows_rules) {
    std::vector<item> seen(items_.begin() + sets_[set].first, items_.begin() + sets_[set].first + sets_[set].count);
    std::vector<std::size_t> work(seen.size());
    for (std::size_t i = 0; i < work.size(); ++i) work[i] = i;
    std::size_t steps = 0;
    const auto visit = [&](item i) {
      const auto known = std::find_if(seen.begin(), seen.end(), [&](const item& s) { return s.state == i.state; });
      if (known == seen.end()) {
        work.push_back(seen.size());
        seen.push_back(i);
        return;
      }
      const index both = unite(known->next, i.next);
      if (both == known->next) return;
      known->next = both;  // what was reached through it is reached again, with more to go on with
      work.push_back(static_cast<std::size_t>(known - seen.begin()));
    };
    while (!work.empty()) {
      const item at = seen[work.back()];
      work.pop_back();
      if (is_marker(at.state)) continue;
      if (++steps > limits::alternatives || seen.size() > limits::alternatives) {
        throw error(error_code::limit, "grammar",
                    "more than " + std::to_string(limits::alternatives) + " alternatives are open at one place");
      }
      const pushdown_automaton::state& s = automaton_->at(at.state);
      if (follows_rules ? s.accepting : s.passes) {
        for (index i = 0; i < sets_[at.next].count; ++i) visit(items_[sets_[at.next].first + i]);
      }
      if (!follows_rules) continue;
      for (index e = s.first_rule_edge; e < s.last_rule_edge; ++e) {
        const pushdown_automaton::rule_edge& r = automaton_->rule_edges()[e];
        visit({r.start, r.to == no_index ? at.next : single(r.to, at.next)});
      }
    }
    if (follows_rules) {
      std::erase_if(seen, [&](const item& i) {
        return !is_marker(i.state) && automaton_->at(i.state).first_byte_edge == automaton_->at(i.state).last_byte_edge;
      });
    }
    std::sort(seen.begin(), seen.end(), [](const item& a, const item& b) { return a.state < b.state; });
    return intern(seen);
  }

  const pushdown_automaton* automaton_;
  std::vector<set_entry> sets_;
  std::vector<item> items_;
  std::vector<std::uint64_t> hashes_{0};
  std::vector<index> slots_;                         // open addressing, at most half full
  std::map<std::pair<index, index>, index> united_;  // empty for unambiguous grammars
  std::vector<item> reached_;
};

}  // namespace effinfer::inline v0::decoding::grammar
