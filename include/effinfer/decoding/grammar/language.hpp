#pragma once
// Regular languages over code points as deterministic automata: what JSON Schema needs to combine patterns, lengths and formats,
// and to take names out. Source of the constructions: Hopcroft, Motwani, Ullman, "Introduction to Automata Theory, Languages, and
// Computation", 3rd ed., sections 2.3 and 4.2.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/finite_automaton.hpp>
#include <effinfer/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// The automaton of the same texts without edges for anchors: text_begin holds where nothing was read, text_end where nothing more is.
inline finite_automaton without_anchors(const finite_automaton& a) {
  const auto is_anchor = [](const finite_automaton::edge& e) {
    return e.low == finite_automaton::begin_symbol || e.low == finite_automaton::end_symbol;
  };
  const bool has_anchors = std::any_of(a.edges.begin(), a.edges.end(), [&](const auto& edges) {
    return std::any_of(edges.begin(), edges.end(), is_anchor);
  });
  if (!has_anchors) return a;
  // Four copies: nothing read yet; something read; then the same two behind an end anchor, where no letter may follow.
  constexpr index copies = 4;
  constexpr std::array<index, copies> behind_end{2, 3, 2, 3};
  finite_automaton out;
  for (index i = 0; i < copies * a.size(); ++i) out.add_state();
  for (index s = 0; s < a.size(); ++s) {
    for (index copy = 0; copy < copies; ++copy) {
      const index from = copies * s + copy;
      out.accepting[from] = a.accepting[s];
      for (const index to : a.silent[s]) out.silent[from].push_back(copies * to + copy);
      for (const auto& e : a.edges[s]) {
        if (e.low == finite_automaton::begin_symbol) {
          if (copy % 2 == 0) out.silent[from].push_back(copies * e.to + copy);
        } else if (e.low == finite_automaton::end_symbol) {
          out.silent[from].push_back(copies * e.to + behind_end[copy]);
        } else if (copy < 2) {
          out.edges[from].push_back({e.low, e.high, copies * e.to + 1});
        }
      }
    }
  }
  return out;
}

/// A set of texts. A value; an automaton without states is the empty set.
class language {
 public:
  language() = default;
  /// The texts that an expression without rules matches as a whole. Errors: `limit`, naming `where`.
  language(const rule_set& rules, index expression, const std::string& where) {
    automaton_builder builder(rules, alphabet::code_points, {});
    *this = language(without_anchors(builder.build(expression)), where);
  }

  [[nodiscard]] bool empty() const { return automaton_.size() == 0; }
  [[nodiscard]] const finite_automaton& automaton() const { return automaton_; }

  /// True where `utf8` (well-formed) is one of the texts.
  [[nodiscard]] bool contains(std::string_view utf8) const {
    if (empty()) return false;
    index at = 0;
    while (!utf8.empty()) {
      const text::code_point c = text::first_code_point(utf8);
      utf8.remove_prefix(static_cast<std::size_t>(c.length));
      const auto& edges = automaton_.edges[at];
      const auto e = std::find_if(edges.begin(), edges.end(),
                                  [&](const auto& edge) { return edge.low <= c.value && c.value <= edge.high; });
      if (e == edges.end()) return false;
      at = e->to;
    }
    return automaton_.accepting[at];
  }

  /// The texts in both. Errors: `limit`.
  [[nodiscard]] language intersection(const language& other, const std::string& where) const {
    language out;
    if (empty() || other.empty()) return out;
    finite_automaton both;
    std::map<std::pair<index, index>, index> known;
    std::vector<std::pair<index, index>> pairs;
    const auto state_of = [&](index a, index b) {
      const auto [place, is_new] = known.try_emplace({a, b}, static_cast<index>(pairs.size()));
      if (is_new) {
        if (pairs.size() > limits::pattern_states) too_many(where);
        pairs.emplace_back(a, b);
        both.accepting[both.add_state()] = automaton_.accepting[a] && other.automaton_.accepting[b];
      }
      return place->second;
    };
    state_of(0, 0);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const auto [a, b] = pairs[i];
      for (const auto& left : automaton_.edges[a]) {
        for (const auto& right : other.automaton_.edges[b]) {
          const std::uint32_t low = std::max(left.low, right.low), high = std::min(left.high, right.high);
          if (low > high) continue;
          const index to = state_of(left.to, right.to);
          both.edges[i].push_back({low, high, to});
        }
      }
    }
    out.automaton_ = trimmed(both);
    return out;
  }

  /// All other texts.
  [[nodiscard]] language complement() const {
    finite_automaton all = automaton_;
    if (all.size() == 0) all.add_state();
    const index elsewhere = all.add_state();
    for (index s = 0; s < all.size(); ++s) {
      all.accepting[s] = !all.accepting[s];
      code_point_set taken;
      for (const auto& e : all.edges[s]) taken.add(e.low, e.high);
      for (const code_point_range& r : taken.complement().ranges())
        all.edges[s].push_back({r.first, r.last, elsewhere});
    }
    language out;
    out.automaton_ = trimmed(all);
    return out;
  }

  /// The language as an expression: `letters(set)` gives the expression of one letter.
  template <class Letters>
  index expression(rule_set& rules, Letters letters) const {
    if (empty()) return rules.nothing();
    rule_set::graph g;
    g.states = automaton_.size();
    for (index s = 0; s < g.states; ++s) {
      if (automaton_.accepting[s]) g.accepting.push_back(s);
      std::map<index, code_point_set> by_target;
      for (const auto& e : automaton_.edges[s]) by_target[e.to].add(e.low, e.high);
      for (const auto& [to, set] : by_target) g.edges.push_back({s, to, letters(set)});
    }
    return rules.path(std::move(g));
  }

 private:
  language(const finite_automaton& a, const std::string& where) {
    auto deterministic = determinized(a, limits::pattern_states);
    if (!deterministic) too_many(where);
    automaton_ = std::move(*deterministic);
  }
  [[noreturn]] static void too_many(const std::string& where) {
    throw error(error_code::limit, where,
                "its deterministic automaton has more than " + std::to_string(limits::pattern_states) + " states");
  }

  finite_automaton automaton_;  // deterministic and trimmed
};

}  // namespace effinfer::inline v0::decoding::grammar
