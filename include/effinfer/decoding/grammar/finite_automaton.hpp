#pragma once
// Finite automata over symbols, and how an expression becomes one. A symbol is a byte or a code point, the reference to a rule,
// or an anchor. Construction: Thompson, "Regular Expression Search Algorithm" (CACM 1968); determinization by subsets: Rabin, Scott,
// "Finite Automata and Their Decision Problems" (1959).

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/expression.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// State 0 is the start. `silent` edges take no symbol; automata that are passed around have none.
struct finite_automaton {
  struct edge {
    std::uint32_t low, high;  // symbols, both ends included
    index to;
    friend bool operator==(const edge&, const edge&) = default;
    friend bool operator<(const edge& a, const edge& b) {
      return std::tie(a.low, a.high, a.to) < std::tie(b.low, b.high, b.to);
    }
  };
  static constexpr std::uint32_t begin_symbol = 0x110000, end_symbol = 0x110001, first_rule_symbol = 0x200000;

  std::vector<std::vector<edge>> edges;
  std::vector<std::vector<index>> silent;
  std::vector<bool> accepting;

  [[nodiscard]] index size() const { return static_cast<index>(edges.size()); }
  index add_state() {
    if (edges.size() >= limits::states) {
      throw error(error_code::limit, "grammar",
                  "its automaton has more than " + std::to_string(limits::states) + " states",
                  "large repetition counts multiply where they are nested");
    }
    edges.emplace_back();
    silent.emplace_back();
    accepting.push_back(false);
    return size() - 1;
  }
};

/// What a character of an expression becomes: code points, bytes of UTF-8.
enum class alphabet { code_points, bytes };

/// Makes the automaton of an expression, with silent edges. `is_inlined(rule)`: its expression takes the place of the reference.
class automaton_builder {
 public:
  automaton_builder(const rule_set& rules, alphabet letters, std::function<bool(index)> is_inlined)
      : rules_(rules), letters_(letters), is_inlined_(std::move(is_inlined)) {}

  finite_automaton build(index expression) {
    out_ = {};
    const index start = out_.add_state(), end = out_.add_state();
    out_.accepting[end] = true;
    add(expression, start, end);
    return std::move(out_);
  }

 private:
  using kind = rule_set::kind;

  /// Adds ways from one state to another. Adds none into `from` or out of `to` but those of this expression.
  void add(index expression, index from, index to) {
    if (++steps_ > 16 * limits::states) {
      throw error(error_code::limit, "grammar", "it takes too many steps to write out",
                  "large repetition counts multiply where they are nested");
    }
    const rule_set::node n = rules_.at(expression);
    switch (n.what) {
      case kind::nothing: return;
      case kind::empty: return silent(from, to);
      case kind::text_begin:
      case kind::text_end: {
        const auto s = n.what == kind::text_begin ? finite_automaton::begin_symbol : finite_automaton::end_symbol;
        return edge(from, s, s, to);
      }
      case kind::characters: return add_characters(rules_.set(n), from, to);
      case kind::sequence:
        for (index i = 0; i < n.count; ++i) {
          const index next = i + 1 == n.count ? to : out_.add_state();
          add(rules_.child(n, i), from, next);
          from = next;
        }
        return;
      case kind::choice:
        for (index i = 0; i < n.count; ++i) add(rules_.child(n, i), from, to);
        return;
      case kind::repeat: return add_repeat(n, from, to);
      case kind::rule: {
        if (is_inlined_ && is_inlined_(n.first)) return add(rules_.rules()[n.first].expression, from, to);
        return edge(from, finite_automaton::first_rule_symbol + n.first, finite_automaton::first_rule_symbol + n.first,
                    to);
      }
      case kind::graph: {
        const rule_set::graph& g = rules_.graph_of(n);
        const index base = out_.add_state();
        for (index i = 1; i < g.states; ++i) out_.add_state();
        silent(from, base);
        for (const rule_set::graph_edge& e : g.edges) add(e.expression, base + e.from, base + e.to);
        for (const index state : g.accepting) silent(base + state, to);
        return;
      }
    }
  }

  void add_repeat(const rule_set::node& n, index from, index to) {
    const index what = rules_.child(n, 0);
    for (int i = 0; i < n.minimum; ++i) {
      const index next = out_.add_state();
      add(what, from, next);
      from = next;
    }
    if (n.maximum == rule_set::unlimited) {
      const index loop = out_.add_state();
      silent(from, loop);
      add(what, loop, loop);
      from = loop;
    }
    for (int i = n.minimum; i < n.maximum; ++i) {
      silent(from, to);
      const index next = out_.add_state();
      add(what, from, next);
      from = next;
    }
    silent(from, to);
  }

  void add_characters(const code_point_set& set, index from, index to) {
    // Continuation bytes from one state to another are shared among the sequences of this set.
    std::map<std::tuple<index, int, int>, index>
        before;  // (state, low, high) -> the state from which that edge goes there
    for (const code_point_range& r : set.ranges()) {
      if (letters_ == alphabet::code_points) {
        edge(from, r.first, r.last, to);
        continue;
      }
      for_each_utf8_sequence(r.first, r.last, [&](const byte_sequence& s) {
        index next = to;
        for (auto i = static_cast<std::size_t>(s.length); i-- > 1;) {
          const auto [place, is_new] = before.try_emplace({next, s.low[i], s.high[i]}, 0);
          if (is_new) {
            place->second = out_.add_state();
            edge(place->second, s.low[i], s.high[i], next);
          }
          next = place->second;
        }
        edge(from, s.low[0], s.high[0], next);
      });
    }
  }

  void silent(index from, index to) {
    if (from != to) out_.silent[from].push_back(to);
  }
  void edge(index from, std::uint32_t low, std::uint32_t high, index to) {
    out_.edges[from].push_back({low, high, to});
  }

  const rule_set& rules_;
  alphabet letters_;
  std::function<bool(index)> is_inlined_;
  finite_automaton out_;
  std::size_t steps_ = 0;
};

/// States that can be reached from the start and from which `accepting` can be reached, renumbered; `counts(edge)` says which edges
/// do. No states are left where nothing matches. Precondition: no silent edges.
template <class Counts>
finite_automaton trimmed(const finite_automaton& a, Counts counts) {
  std::vector<std::vector<index>> back(a.size());
  std::vector<bool> is_reached(a.size()), is_live(a.size());
  std::vector<index> work;
  const auto visit = [&](std::vector<bool>& seen, index s) {
    if (!seen[s]) seen[s] = true, work.push_back(s);
  };
  if (a.size() > 0) visit(is_reached, 0);
  while (!work.empty()) {
    const index s = work.back();
    work.pop_back();
    for (const auto& e : a.edges[s]) {
      if (!counts(e)) continue;
      back[e.to].push_back(s);
      visit(is_reached, e.to);
    }
  }
  for (index s = 0; s < a.size(); ++s) {
    if (is_reached[s] && a.accepting[s]) visit(is_live, s);
  }
  while (!work.empty()) {
    const index s = work.back();
    work.pop_back();
    for (const index p : back[s]) visit(is_live, p);
  }
  finite_automaton out;
  std::vector<index> renumbered(a.size(), no_index);
  for (index s = 0; s < a.size(); ++s) {
    if (!is_live[s]) continue;
    renumbered[s] = out.add_state();
    out.accepting[renumbered[s]] = a.accepting[s];
  }
  if (a.size() == 0 || !is_live[0]) return {};
  for (index s = 0; s < a.size(); ++s) {
    if (!is_live[s]) continue;
    auto& edges = out.edges[renumbered[s]];
    for (const auto& e : a.edges[s]) {
      if (counts(e) && is_live[e.to]) edges.push_back({e.low, e.high, renumbered[e.to]});
    }
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  }
  return out;
}

/// The same with all edges.
inline finite_automaton trimmed(const finite_automaton& a) {
  return trimmed(a, [](const finite_automaton::edge&) { return true; });
}

namespace detail {
/// The states that silent edges lead to from `from`, itself included, sorted. `marks` is all zero between calls.
inline void close_silently(const finite_automaton& a, std::vector<index>& states, std::vector<char>& marks) {
  for (const index s : states) marks[s] = 1;
  for (std::size_t i = 0; i < states.size(); ++i) {
    for (const index to : a.silent[states[i]]) {
      if (!marks[to]) marks[to] = 1, states.push_back(to);
    }
  }
  for (const index s : states) marks[s] = 0;
  std::sort(states.begin(), states.end());
}
}  // namespace detail

/// The same language without silent edges, trimmed. Errors: `limit`.
inline finite_automaton without_silent_edges(const finite_automaton& a) {
  finite_automaton out;
  std::vector<char> marks(a.size());
  std::size_t edges = 0;
  for (index s = 0; s < a.size(); ++s) {
    std::vector<index> states{s};
    detail::close_silently(a, states, marks);
    out.add_state();
    for (const index member : states) {
      if (a.accepting[member]) out.accepting[s] = true;
      out.edges[s].insert(out.edges[s].end(), a.edges[member].begin(), a.edges[member].end());
    }
    edges += out.edges[s].size() + states.size() / 8;
    if (edges > 64 * limits::states) throw error(error_code::limit, "grammar", "its automaton has too many edges");
  }
  return trimmed(out);
}

/// The deterministic automaton of the same language over the same symbols, trimmed; nothing where it has more than `most_states`
/// states or takes more than 64 x limits::states steps. Silent edges are followed.
inline std::optional<finite_automaton> determinized(const finite_automaton& a, std::size_t most_states) {
  if (a.size() == 0) return finite_automaton{};
  std::map<std::vector<index>, index> known;
  std::vector<const std::vector<index>*> subsets;
  finite_automaton out;
  std::vector<char> marks(a.size());
  std::size_t steps = 0;
  const auto state_of = [&](std::vector<index>&& members) {
    detail::close_silently(a, members, marks);
    steps += members.size();
    const auto [place, is_new] = known.try_emplace(std::move(members), static_cast<index>(subsets.size()));
    if (is_new) {
      subsets.push_back(&place->first);
      const index state = out.add_state();
      for (const index m : place->first) {
        if (a.accepting[m]) out.accepting[state] = true;
      }
    }
    return place->second;
  };
  state_of({0});
  std::vector<finite_automaton::edge> edges;
  std::vector<std::uint32_t> borders;
  std::vector<index> targets;
  for (std::size_t at = 0; at < subsets.size(); ++at) {
    edges.clear();
    borders.clear();
    for (const index m : *subsets[at]) edges.insert(edges.end(), a.edges[m].begin(), a.edges[m].end());
    std::sort(edges.begin(), edges.end());
    for (const auto& e : edges) {
      borders.push_back(e.low);
      borders.push_back(e.high + 1);
    }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    std::vector<finite_automaton::edge> made;
    std::vector<finite_automaton::edge> open;  // edges that reach into the interval at hand
    std::size_t next = 0;
    for (std::size_t b = 0; b + 1 < borders.size(); ++b) {
      std::erase_if(open, [&](const auto& e) { return e.high < borders[b]; });
      while (next < edges.size() && edges[next].low == borders[b]) open.push_back(edges[next++]);
      steps += open.size() + 1;
      if (open.empty()) continue;
      targets.clear();
      for (const auto& e : open) targets.push_back(e.to);
      std::sort(targets.begin(), targets.end());
      targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
      const index to = state_of(std::vector<index>(targets));
      const bool is_letter =
          borders[b] < finite_automaton::begin_symbol;  // references to two rules never become one edge
      if (is_letter && !made.empty() && made.back().to == to && made.back().high + 1 == borders[b]) {
        made.back().high = borders[b + 1] - 1;
      } else {
        made.push_back({borders[b], borders[b + 1] - 1, to});
      }
      if (subsets.size() > most_states || steps > 64 * limits::states) return std::nullopt;
    }
    out.edges[at] = std::move(made);
  }
  return trimmed(out);
}

/// Classes of states that no text of up to `rounds` symbols tells apart, by state; `first` says what tells them apart without a
/// symbol. Of an automaton that is not deterministic some such states may stay apart.
/// Source: Moore, "Gedanken-experiments on Sequential Machines" (1956).
inline std::vector<index> indistinguishable(const finite_automaton& a, std::vector<index> first, std::size_t rounds) {
  std::vector<index> classes = std::move(first);
  std::size_t count = 0;
  for (std::size_t round = 0; round < rounds; ++round) {
    std::map<std::vector<std::uint32_t>, index> known;
    std::vector<index> refined(a.size());
    for (index s = 0; s < a.size(); ++s) {
      std::vector<std::uint32_t> signature{classes[s]};
      for (const auto& e : a.edges[s]) {
        const index to = classes[e.to];
        if (signature.size() > 1 && e.low < finite_automaton::begin_symbol && signature.back() == to &&
            signature[signature.size() - 2] + 1 == e.low) {
          signature[signature.size() - 2] = e.high;
        } else {
          signature.insert(signature.end(), {e.low, e.high, to});
        }
      }
      refined[s] = known.try_emplace(std::move(signature), static_cast<index>(known.size())).first->second;
    }
    classes = std::move(refined);
    if (known.size() == count) break;
    count = known.size();
  }
  return classes;
}

}  // namespace effinfer::inline v0::decoding::grammar
