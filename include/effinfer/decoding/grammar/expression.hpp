#pragma once
// What every grammar is read into: rules, each an expression over code points. GBNF, regular expressions and JSON Schema are
// only notations for it; automaton.hpp compiles it.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/code_points.hpp>
#include <effinfer/text/utf8.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// What a grammar may ask for. Each is refused beyond its limit with `error_code::limit`, before it takes time or memory.
struct limits {
  static constexpr std::size_t text_bytes = 1 << 20;  ///< of a grammar, a pattern or a schema
  static constexpr int nesting = 128;                 ///< of groups in a pattern, of schemas in a schema
  static constexpr int repetitions = 100'000;         ///< a bound in {m,n}, minLength, maxItems ...
  static constexpr std::size_t rules = 50'000;        ///< in one grammar
  static constexpr std::size_t states = 1 << 18;      ///< of an automaton, after repetitions are written out
  static constexpr std::size_t pattern_states =
      20'000;                                          ///< of a pattern's deterministic automaton, where one is needed
  static constexpr std::size_t stack = 2'000;          ///< open rules while matching: how deep an output may nest
  static constexpr std::size_t alternatives = 20'000;  ///< open at one place of the text while matching
};

using index = std::uint32_t;
inline constexpr index no_index = 0xFFFFFFFFu;

/// A set of rules, each a regular expression over code points that may refer to rules. A value; immutable once compiled.
///
/// Expressions are numbers that the making functions return; each may be used in several places.
class rule_set {
 public:
  enum class kind : std::uint8_t {
    nothing,     // matches no text, not even the empty one
    empty,       // matches the empty text
    characters,  // one code point of a set
    sequence,    // children one after another
    choice,      // one of the children
    repeat,      // the child, minimum to maximum times
    rule,        // what a rule matches
    graph,       // a path from state 0 to an accepting state
    text_begin,  // the empty text where nothing stands before it; only in patterns
    text_end     // the empty text where nothing follows
  };
  struct node {
    kind what = kind::nothing;
    index first = 0, count = 0;  // children; or first is the set, the rule or the graph
    int minimum = 0, maximum = 0;
  };
  static constexpr int unlimited = -1;

  struct graph_edge {
    index from, to, expression;
  };
  /// An automaton whose edges are expressions. State 0 is the start.
  struct graph {
    index states = 1;
    std::vector<graph_edge> edges;
    std::vector<index> accepting;
  };
  struct rule {
    std::string name;
    index expression = no_index;  // no_index: not defined yet
    bool is_apart = false;
  };

  index nothing() { return add({kind::nothing}); }
  index empty() { return add({kind::empty}); }
  index text_begin() { return add({kind::text_begin}); }
  index text_end() { return add({kind::text_end}); }
  index characters(code_point_set set) {
    sets_.push_back(std::move(set));
    return add({kind::characters, static_cast<index>(sets_.size() - 1)});
  }
  /// `utf8` must be well-formed.
  index literal(std::string_view utf8) {
    std::vector<index> parts;
    while (!utf8.empty()) {
      const text::code_point c = text::first_code_point(utf8);
      parts.push_back(characters({c.value, c.value}));
      utf8.remove_prefix(static_cast<std::size_t>(c.length));
    }
    return sequence(parts);
  }
  index sequence(const std::vector<index>& parts) {
    if (parts.size() == 1) return parts[0];
    return parts.empty() ? empty() : with_children(kind::sequence, parts);
  }
  index choice(const std::vector<index>& branches) {
    if (branches.size() == 1) return branches[0];
    return branches.empty() ? nothing() : with_children(kind::choice, branches);
  }
  /// Precondition: 0 <= minimum, and minimum <= maximum or maximum == unlimited.
  index repeat(index what, int minimum, int maximum) {
    children_.push_back(what);
    return add({kind::repeat, static_cast<index>(children_.size() - 1), 1, minimum, maximum});
  }
  index optional(index what) { return repeat(what, 0, 1); }
  index path(graph g) {
    graphs_.push_back(std::move(g));
    return add({kind::graph, static_cast<index>(graphs_.size() - 1)});
  }
  index reference(index to_rule) { return add({kind::rule, to_rule}); }

  /// A rule to be defined; the name stands in errors.
  index add_rule(std::string name) {
    if (rules_.size() >= limits::rules) {
      throw error(error_code::limit, "grammar", "more than " + std::to_string(limits::rules) + " rules");
    }
    rules_.push_back({std::move(name), no_index, false});
    return static_cast<index>(rules_.size() - 1);
  }
  void define(index which, index expression) { rules_[which].expression = expression; }
  /// The rule is compiled once and never copied into those that use it: token masks of its states are then shared.
  void keep_apart(index which) { rules_[which].is_apart = true; }

  [[nodiscard]] const node& at(index expression) const { return nodes_[expression]; }
  [[nodiscard]] index child(const node& of, index i) const { return children_[of.first + i]; }
  [[nodiscard]] const code_point_set& set(const node& of) const { return sets_[of.first]; }
  [[nodiscard]] const graph& graph_of(const node& of) const { return graphs_[of.first]; }
  [[nodiscard]] const std::vector<rule>& rules() const { return rules_; }
  [[nodiscard]] std::size_t size() const { return nodes_.size(); }

  index root = 0;                      ///< the rule that the whole text matches
  bool refuses_endless_rules = false;  ///< a rule that matches no finite text is an error, not just never used

 private:
  index add(node n) {
    if (nodes_.size() >= 16 * limits::states) {
      throw error(error_code::limit, "grammar", "more than " + std::to_string(16 * limits::states) + " expressions");
    }
    nodes_.push_back(n);
    return static_cast<index>(nodes_.size() - 1);
  }
  index with_children(kind what, const std::vector<index>& all) {
    const auto first = static_cast<index>(children_.size());
    children_.insert(children_.end(), all.begin(), all.end());
    return add({what, first, static_cast<index>(all.size())});
  }

  std::vector<node> nodes_;
  std::vector<index> children_;
  std::vector<code_point_set> sets_;
  std::vector<graph> graphs_;
  std::vector<rule> rules_;
};

}  // namespace effinfer::inline v0::decoding::grammar
