#pragma once
// The compiled form of a grammar: a pushdown automaton over bytes. Each rule is a finite automaton whose edges take a byte or
// a whole rule; rules that don't recurse and are small or used once dissolve in the rules that use them, so that a grammar without
// recursion is mostly one deterministic automaton. Source: recursive transition networks, Woods, "Transition Network Grammars for
// Natural Language Analysis" (CACM 1970); the division into rules follows Dong et al., "XGrammar" (2024), section 3.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/finite_automaton.hpp>

#include <algorithm>
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Immutable once compiled. From every state of it some text ends the rule: nothing that was matched so far is in vain.
class pushdown_automaton {
 public:
  struct byte_edge {
    std::uint8_t low, high;  // both included
    index to;
  };
  struct rule_edge {
    index start;  // of the rule
    index to;  // where to go on behind it; no_index where the rule that refers ends with it (nothing to come back for)
  };
  struct state {
    index first_byte_edge = 0, last_byte_edge = 0;  // half-open
    index first_rule_edge = 0, last_rule_edge = 0;
    index rule = 0;
    bool accepting = false;  ///< the rule may end here
    bool passes = false;     ///< the rule may end here, or behind rules that match the empty text
  };

  /// Errors: `malformed` (no text matches; a rule is undefined, refers to itself on the left, or never ends), `limit`.
  explicit pushdown_automaton(const rule_set& grammar) {
    for (const auto& rule : grammar.rules()) {
      if (rule.expression == no_index) {
        throw error(error_code::malformed, "grammar: rule " + rule.name, "it is used but not defined");
      }
    }
    plan(grammar);
    construct(grammar);
    keep_productive(grammar);
    refuse_left_recursion(grammar);
    flatten();
    find_first_and_follow();
  }

  [[nodiscard]] index start() const { return start_; }
  [[nodiscard]] index size() const { return static_cast<index>(states_.size()); }
  [[nodiscard]] const state& at(index s) const { return states_[s]; }
  [[nodiscard]] const byte_edge* byte_edges() const { return byte_edges_.data(); }
  [[nodiscard]] const rule_edge* rule_edges() const { return rule_edges_.data(); }

  /// Bytes that every state treats alike have the same class.
  [[nodiscard]] std::uint8_t byte_class(std::uint8_t byte) const { return byte_classes_[byte]; }
  [[nodiscard]] std::size_t byte_class_count() const { return byte_class_count_; }
  /// The bytes that may stand behind what a state's rule matched, wherever the rule is used.
  [[nodiscard]] const std::bitset<256>& follow(index s) const { return follow_[states_[s].rule]; }
  /// By state: states of equal numbers can't be told apart by texts of up to `bytes` bytes, whatever stands behind their rule.
  [[nodiscard]] std::vector<index> indistinguishable_states(std::size_t bytes) const {
    std::vector<index> first(states_.size());
    for (index s = 0; s < size(); ++s) first[s] = 2 * states_[s].rule + (states_[s].accepting ? 1 : 0);
    finite_automaton a;
    a.edges.resize(states_.size());
    for (index s = 0; s < size(); ++s) {
      const state& from = states_[s];
      for (index e = from.first_byte_edge; e < from.last_byte_edge; ++e) {
        a.edges[s].push_back({byte_edges_[e].low, byte_edges_[e].high, byte_edges_[e].to});
      }
      for (index e = from.first_rule_edge; e < from.last_rule_edge; ++e) {
        const std::uint32_t symbol = finite_automaton::first_rule_symbol + rule_edges_[e].start;
        // Behind the last thing of a rule all is alike; the start of the same rule stands for that.
        const index to = rule_edges_[e].to == no_index ? rule_starts_[from.rule] : rule_edges_[e].to;
        const std::uint32_t last = rule_edges_[e].to == no_index ? size() : 0;
        a.edges[s].push_back({symbol + last, symbol + last, to});
      }
    }
    return indistinguishable(a, std::move(first), bytes);
  }

 private:
  static constexpr std::size_t small_rule = 40;  // weight up to which a rule is copied into each place that uses it
  static constexpr int deepest_inlining = 24;

  struct rule_facts {
    std::vector<index> uses;  // of rules, with repeats
    std::size_t weight = 0;
    index times_used = 0;
    bool is_reachable = false, is_recursive = false, is_inlined = false;
  };

  /// Which rules there are, and which dissolve.
  void plan(const rule_set& grammar) {
    const auto count = grammar.rules().size();
    facts_.assign(count, {});
    std::vector<index> work{grammar.root};
    facts_[grammar.root].is_reachable = true;
    std::vector<index> expressions;
    // The rules for which an expression was last visited once, and twice: more visits would tell nothing new.
    std::vector<index> once_for(grammar.size(), no_index), twice_for(grammar.size(), no_index);
    while (!work.empty()) {
      const index rule = work.back();
      work.pop_back();
      expressions.assign(1, grammar.rules()[rule].expression);
      rule_facts& f = facts_[rule];
      while (!expressions.empty()) {
        const index expression = expressions.back();
        expressions.pop_back();
        const rule_set::node& n = grammar.at(expression);
        if (twice_for[expression] == rule) continue;
        if (once_for[expression] == rule) twice_for[expression] = rule;
        once_for[expression] = rule;
        f.weight += n.what == rule_set::kind::characters ? weight(grammar.set(n)) : 1;
        if (n.what == rule_set::kind::rule) {
          f.uses.push_back(n.first);
        } else if (n.what == rule_set::kind::graph) {
          f.weight += grammar.graph_of(n).states;
          for (const auto& e : grammar.graph_of(n).edges) expressions.push_back(e.expression);
        } else if (n.count > 0) {
          if (n.what == rule_set::kind::repeat && n.maximum > 1) f.weight += static_cast<std::size_t>(n.maximum) * 8;
          if (n.what == rule_set::kind::repeat && (n.minimum > 1 || n.maximum > 1)) {
            expressions.push_back(grammar.child(n, 0));  // written out more than once
          }
          for (index i = 0; i < n.count; ++i) expressions.push_back(grammar.child(n, i));
        }
      }
      for (const index used : f.uses) {
        ++facts_[used].times_used;
        if (!facts_[used].is_reachable) facts_[used].is_reachable = true, work.push_back(used);
      }
    }
    find_recursion(grammar.root);
    std::vector<int> depth(count, 0);
    for (const index rule : order_) {  // what a rule uses comes before it
      rule_facts& f = facts_[rule];
      for (const index used : f.uses) {
        if (!facts_[used].is_inlined) continue;
        f.weight += facts_[used].weight;
        depth[rule] = std::max(depth[rule], depth[used] + 1);
      }
      f.is_inlined = rule != grammar.root && !grammar.rules()[rule].is_apart && !f.is_recursive &&
                     depth[rule] < deepest_inlining && (f.weight <= small_rule || f.times_used == 1);
    }
  }

  /// How many edges a set takes, about.
  static std::size_t weight(const code_point_set& set) {
    return set.ranges().empty() || set.ranges().back().last < 0x80 ? 1 : 12;
  }

  /// Depth-first numbering; a rule is recursive where it can reach itself. Fills order_ with rules after those that they use.
  /// Source: Tarjan, "Depth-First Search and Linear Graph Algorithms" (1972), written without recursion.
  void find_recursion(index root) {
    std::vector<index> number(facts_.size(), no_index), low(facts_.size(), 0), open;
    std::vector<bool> is_open(facts_.size(), false);
    struct frame {
      index rule;
      std::size_t next;
    };
    std::vector<frame> frames;
    index counter = 0;
    const auto enter = [&](index rule) {
      number[rule] = low[rule] = counter++;
      open.push_back(rule);
      is_open[rule] = true;
      frames.push_back({rule, 0});
    };
    enter(root);
    while (!frames.empty()) {
      const index rule = frames.back().rule;
      const auto& uses = facts_[rule].uses;
      if (frames.back().next < uses.size()) {
        const index used = uses[frames.back().next++];
        if (used == rule) facts_[rule].is_recursive = true;
        if (number[used] == no_index) {
          enter(used);
        } else if (is_open[used]) {
          low[rule] = std::min(low[rule], number[used]);
        }
        continue;
      }
      frames.pop_back();
      if (!frames.empty()) low[frames.back().rule] = std::min(low[frames.back().rule], low[rule]);
      order_.push_back(rule);
      if (low[rule] != number[rule]) continue;
      const bool is_alone = open.back() == rule;
      while (true) {
        const index member = open.back();
        open.pop_back();
        is_open[member] = false;
        if (!is_alone) facts_[member].is_recursive = true;
        if (member == rule) break;
      }
    }
  }

  void construct(const rule_set& grammar) {
    automata_.assign(facts_.size(), {});
    std::size_t total = 0;
    for (index rule = 0; rule < facts_.size(); ++rule) {
      if (!facts_[rule].is_reachable || facts_[rule].is_inlined) continue;
      kept_.push_back(rule);
      automaton_builder builder(grammar, alphabet::bytes, [&](index used) { return facts_[used].is_inlined; });
      const finite_automaton made = builder.build(grammar.rules()[rule].expression);
      // Where subsets explode the automaton stays as it is: sets of its states are then made while matching, one at a time.
      auto deterministic = determinized(made, 2 * made.size() + 1024);
      automata_[rule] = deterministic ? std::move(*deterministic) : without_silent_edges(made);
      total += automata_[rule].size();
      if (total > limits::states) {
        throw error(error_code::limit, "grammar",
                    "its automaton has more than " + std::to_string(limits::states) + " states");
      }
    }
  }

  static bool is_rule(const finite_automaton::edge& e) { return e.low >= finite_automaton::first_rule_symbol; }
  static index rule_of(const finite_automaton::edge& e) { return e.low - finite_automaton::first_rule_symbol; }

  /// Drops what matches no finite text.
  void keep_productive(const rule_set& grammar) {
    std::vector<bool> is_productive(facts_.size(), false);
    const auto counts = [&](const finite_automaton::edge& e) { return !is_rule(e) || is_productive[rule_of(e)]; };
    for (bool is_changed = true; is_changed;) {
      is_changed = false;
      for (const index rule : order_) {
        if (is_productive[rule] || facts_[rule].is_inlined) continue;
        if (trimmed(automata_[rule], counts).size() > 0) is_productive[rule] = is_changed = true;
      }
    }
    if (!is_productive[grammar.root]) {
      throw error(error_code::malformed, "grammar: rule " + grammar.rules()[grammar.root].name,
                  "no finite text matches it");
    }
    for (const index rule : kept_) {
      if (!is_productive[rule] && grammar.refuses_endless_rules) {
        throw error(error_code::malformed, "grammar: rule " + grammar.rules()[rule].name, "no finite text matches it",
                    "a rule that refers to itself needs an alternative that doesn't");
      }
      automata_[rule] = trimmed(automata_[rule], counts);
    }
    std::erase_if(kept_, [&](index rule) { return !is_productive[rule]; });
    root_ = grammar.root;
  }

  void refuse_left_recursion(const rule_set& grammar) {
    std::vector<bool> is_nullable(facts_.size(), false);
    // Rules that a rule can begin with; fills is_nullable on the way.
    const auto begins_with = [&](index rule, std::vector<index>* begins) {
      const finite_automaton& a = automata_[rule];
      std::vector<bool> seen(a.size(), false);
      std::vector<index> work{0};
      seen[0] = true;
      while (!work.empty()) {
        const index s = work.back();
        work.pop_back();
        if (a.accepting[s]) is_nullable[rule] = true;
        for (const auto& e : a.edges[s]) {
          if (!is_rule(e)) continue;
          if (begins) begins->push_back(rule_of(e));
          if (is_nullable[rule_of(e)] && !seen[e.to]) seen[e.to] = true, work.push_back(e.to);
        }
      }
    };
    for (std::size_t before = 1, now = 0; before != now;) {
      before = now;
      for (const index rule : order_) {
        if (automata_[rule].size() > 0) begins_with(rule, nullptr);
      }
      now = static_cast<std::size_t>(std::count(is_nullable.begin(), is_nullable.end(), true)) + 2;
    }
    // Kahn's algorithm: what stays is on a cycle or behind one.
    std::vector<std::vector<index>> begins(facts_.size());
    std::vector<index> waits(facts_.size(), 0), ready;
    std::vector<std::vector<index>> users(facts_.size());
    for (const index rule : kept_) {
      auto& b = begins[rule];
      begins_with(rule, &b);
      std::sort(b.begin(), b.end());
      b.erase(std::unique(b.begin(), b.end()), b.end());
      waits[rule] = static_cast<index>(b.size());
      for (const index used : b) users[used].push_back(rule);
      if (b.empty()) ready.push_back(rule);
    }
    std::size_t done = 0;
    for (; done < ready.size(); ++done) {
      for (const index user : users[ready[done]]) {
        if (--waits[user] == 0) ready.push_back(user);
      }
    }
    if (done == kept_.size()) return;
    // Any rule that waits waits for one that waits: following them ends in a cycle.
    index rule = no_index;
    for (const index r : kept_) {
      if (waits[r] > 0) rule = r;
    }
    std::vector<index> path;
    while (std::find(path.begin(), path.end(), rule) == path.end()) {
      path.push_back(rule);
      rule = *std::find_if(begins[rule].begin(), begins[rule].end(), [&](index b) { return waits[b] > 0; });
    }
    std::string names;
    for (auto it = std::find(path.begin(), path.end(), rule); it != path.end(); ++it) {
      names += grammar.rules()[*it].name + " -> ";
    }
    throw error(error_code::malformed, "grammar: rule " + grammar.rules()[rule].name,
                "left recursion: " + names + grammar.rules()[rule].name,
                "write repetition with * or +, or let the rule refer to itself at its end");
  }

  /// All automata into flat arrays.
  void flatten() {
    std::vector<index> base(facts_.size(), 0), number(facts_.size(), 0);
    index total = 0;
    for (std::size_t i = 0; i < kept_.size(); ++i) {
      base[kept_[i]] = total;
      number[kept_[i]] = static_cast<index>(i);
      total += automata_[kept_[i]].size();
    }
    start_ = base[root_];
    states_.reserve(total);
    for (const index rule : kept_) {
      const finite_automaton& a = automata_[rule];
      rule_starts_.push_back(base[rule]);
      for (index s = 0; s < a.size(); ++s) {
        state made;
        made.rule = number[rule];
        made.accepting = a.accepting[s];
        made.first_byte_edge = static_cast<index>(byte_edges_.size());
        made.first_rule_edge = static_cast<index>(rule_edges_.size());
        for (const auto& e : a.edges[s]) {
          if (is_rule(e)) {
            const bool is_last = a.accepting[e.to] && a.edges[e.to].empty();
            rule_edges_.push_back({base[rule_of(e)], is_last ? no_index : base[rule] + e.to});
          } else {
            byte_edges_.push_back(
                {static_cast<std::uint8_t>(e.low), static_cast<std::uint8_t>(e.high), base[rule] + e.to});
          }
        }
        made.last_byte_edge = static_cast<index>(byte_edges_.size());
        made.last_rule_edge = static_cast<index>(rule_edges_.size());
        states_.push_back(made);
      }
    }
    std::bitset<257> borders;
    borders[0] = true;
    for (const byte_edge& e : byte_edges_) borders[e.low] = true, borders[e.high + std::size_t{1}] = true;
    std::size_t count = 0;
    for (std::size_t b = 0; b < 256; ++b) {
      if (borders[b]) ++count;
      byte_classes_[b] = static_cast<std::uint8_t>(count - 1);
    }
    byte_class_count_ = count;
    facts_.clear();
    automata_.clear();
    order_.clear();
  }

  void find_first_and_follow() {
    // first[s]: bytes that may come next from s inside its rule; passes[s]: the rule may end from s without a byte.
    std::vector<std::bitset<256>> first(states_.size());
    std::vector<bool> passes(states_.size());
    follow_.resize(rule_starts_.size());
    for (bool is_changed = true; is_changed;) {
      is_changed = false;
      for (index s = size(); s-- > 0;) {
        const state& at = states_[s];
        std::bitset<256> bytes = first[s];
        bool ends = passes[s] || at.accepting;
        for (index e = at.first_byte_edge; e < at.last_byte_edge; ++e) {
          for (std::size_t b = byte_edges_[e].low; b <= byte_edges_[e].high; ++b) bytes[b] = true;
        }
        for (index e = at.first_rule_edge; e < at.last_rule_edge; ++e) {
          const rule_edge& r = rule_edges_[e];
          bytes |= first[r.start];
          if (!passes[r.start]) continue;
          if (r.to == no_index) {
            ends = true;
          } else {
            bytes |= first[r.to];
            ends = ends || passes[r.to];
          }
        }
        if (bytes != first[s] || ends != passes[s]) first[s] = bytes, passes[s] = ends, is_changed = true;
      }
    }
    for (index s = 0; s < size(); ++s) states_[s].passes = passes[s];
    for (bool is_changed = true; is_changed;) {
      is_changed = false;
      for (const state& at : states_) {
        for (index e = at.first_rule_edge; e < at.last_rule_edge; ++e) {
          const rule_edge& r = rule_edges_[e];
          std::bitset<256>& bytes = follow_[states_[r.start].rule];
          std::bitset<256> grown = bytes;
          if (r.to != no_index) grown |= first[r.to];
          if (r.to == no_index || passes[r.to]) grown |= follow_[at.rule];
          if (grown != bytes) bytes = grown, is_changed = true;
        }
      }
    }
  }

  index start_ = 0, root_ = 0;
  std::vector<state> states_;
  std::vector<byte_edge> byte_edges_;
  std::vector<rule_edge> rule_edges_;
  std::vector<index> rule_starts_;
  std::array<std::uint8_t, 256> byte_classes_{};
  std::size_t byte_class_count_ = 1;
  std::vector<std::bitset<256>> follow_;
  // Only while compiling:
  std::vector<rule_facts> facts_;
  std::vector<index> order_, kept_;
  std::vector<finite_automaton> automata_;
};

}  // namespace effinfer::inline v0::decoding::grammar
