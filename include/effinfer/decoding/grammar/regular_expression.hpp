#pragma once
// Regular expressions in ECMAScript's syntax (what JSON Schema's `pattern` is written in), as far as they describe regular languages.
// Source: ECMA-262, 15th edition, section 22.2.1, with the flag u. Differences: a brace that begins no quantifier stands for
// itself (Annex B); (?<name>...) groups without a back-reference; no \p{...}.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/decoding/grammar/finite_automaton.hpp>
#include <effinfer/decoding/grammar/language.hpp>
#include <effinfer/text/utf8.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Reads one pattern into expressions of a rule set.
///
/// Lazy quantifiers match the same texts as greedy ones. Errors, at `where`: `malformed`, naming the byte; `unsupported`, naming
/// what is not regular or not read (back-references, look-around, \b, \p{}); `limit`; `invalid_utf8`.
class regular_expression_reader {
 public:
  regular_expression_reader(rule_set& rules, std::string_view pattern, std::string where)
      : rules_(rules), in_(pattern), where_(std::move(where)) {}

  /// The expression of the texts that the pattern matches as a whole. It may hold text_begin and text_end.
  index read() {
    if (in_.size() > limits::text_bytes) {
      throw error(error_code::limit, where_,
                  "the pattern has more than " + std::to_string(limits::text_bytes) + " bytes");
    }
    if (const std::size_t bad = text::find_invalid_utf8(in_); bad != std::string::npos) {
      throw error(error_code::invalid_utf8, where_, "the pattern isn't UTF-8 at byte " + std::to_string(bad));
    }
    const index all = disjunction();
    if (!done()) malformed("a ')' too many");
    return all;
  }

  /// \s of ECMAScript: WhiteSpace and LineTerminator.
  static code_point_set white_space() {
    code_point_set s('\t', '\r');
    for (const char32_t c :
         {U' ', U'\u00A0', U'\u1680', U'\u2028', U'\u2029', U'\u202F', U'\u205F', U'\u3000', U'\uFEFF'}) {
      s.add(c, c);
    }
    s.add(0x2000, 0x200A);
    return s;
  }
  static code_point_set digits() { return {'0', '9'}; }
  static code_point_set word() {
    code_point_set s('0', '9');
    s.add('A', 'Z');
    s.add('_', '_');
    s.add('a', 'z');
    return s;
  }

 private:
  [[noreturn]] void malformed(const std::string& problem) const {
    throw error(error_code::malformed, where_, problem + " at byte " + std::to_string(at_) + " of the pattern");
  }
  [[noreturn]] void unsupported(const std::string& what) const {
    throw error(error_code::unsupported, where_,
                "the pattern uses " + what + " at byte " + std::to_string(at_) + ", which no automaton here computes");
  }
  [[nodiscard]] bool done() const { return at_ >= in_.size(); }
  [[nodiscard]] char peek(std::size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  bool take(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t take_character() {
    const text::code_point c = text::first_code_point(in_.substr(at_));
    at_ += static_cast<std::size_t>(c.length);
    return c.value;
  }

  index disjunction() {
    if (++depth_ > limits::nesting) {
      throw error(error_code::limit, where_, "groups nested deeper than " + std::to_string(limits::nesting));
    }
    std::vector<index> branches{alternative()};
    while (take("|")) branches.push_back(alternative());
    --depth_;
    return rules_.choice(branches);
  }

  index alternative() {
    std::vector<index> terms;
    while (!done() && peek() != '|' && peek() != ')') {
      bool is_assertion = false;
      const index what = atom(is_assertion);
      terms.push_back(quantified(what, is_assertion));
    }
    return rules_.sequence(terms);
  }

  index quantified(index what, bool is_assertion) {
    int minimum = 0, maximum = rule_set::unlimited;
    const std::size_t begin = at_;
    if (take("*")) {
    } else if (take("+")) {
      minimum = 1;
    } else if (take("?")) {
      maximum = 1;
    } else if (!braces(minimum, maximum)) {
      return what;
    }
    if (is_assertion) {
      at_ = begin;
      malformed("nothing to repeat");
    }
    take("?");  // lazy
    if (peek() == '+') unsupported("a possessive quantifier");
    if (peek() == '*' || peek() == '?') malformed("nothing to repeat");
    return rules_.repeat(what, minimum, maximum);
  }

  bool braces(int& minimum, int& maximum) {
    const std::size_t begin = at_;
    if (!take("{")) return false;
    const auto low = number();
    if (low) {
      minimum = maximum = *low;
      if (take(",")) {
        const auto high = number();
        maximum = high ? *high : rule_set::unlimited;
        if (high && *high < minimum) malformed("a quantifier {m,n} with m > n");
      }
      if (take("}")) return true;
    }
    at_ = begin;
    return false;
  }

  std::optional<int> number() {
    if (peek() < '0' || peek() > '9') return std::nullopt;
    int value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = 10 * value + (peek() - '0');
      if (value > limits::repetitions) {
        throw error(error_code::limit, where_,
                    "a repetition of more than " + std::to_string(limits::repetitions) + " at byte " +
                        std::to_string(at_) + " of the pattern");
      }
    }
    return value;
  }

  index atom(bool& is_assertion) {
    switch (peek()) {
      case '^':
        ++at_;
        is_assertion = true;
        return rules_.text_begin();
      case '$':
        ++at_;
        is_assertion = true;
        return rules_.text_end();
      case '(': return group();
      case '[': return rules_.characters(character_class());
      case '.': {
        ++at_;
        code_point_set line_ends('\n', '\n');
        line_ends.add('\r', '\r');
        line_ends.add(0x2028, 0x2029);
        return rules_.characters(line_ends.complement());
      }
      case '*':
      case '+':
      case '?': malformed("nothing to repeat");
      case '\\': {
        if (peek(1) == 'b' || peek(1) == 'B') unsupported("a word boundary (\\b)");
        code_point_set set;
        escape(set);
        return rules_.characters(std::move(set));
      }
      default: break;
    }
    std::size_t begin = at_;
    if (int m = 0, n = 0; braces(m, n)) {
      at_ = begin;
      malformed("nothing to repeat");
    }
    const char32_t c = take_character();
    return rules_.characters({c, c});
  }

  index group() {
    ++at_;
    if (take("?")) {
      if (take(":")) {
      } else if (peek() == '=' || peek() == '!') {
        unsupported("look-ahead");
      } else if (peek() == '<' && (peek(1) == '=' || peek(1) == '!')) {
        unsupported("look-behind");
      } else if (peek() == '<' || peek() == 'P') {
        take("P");
        if (!take("<")) unsupported("a group of an unknown kind");
        while (!done() && peek() != '>') ++at_;
        if (!take(">")) malformed("a group's name that does not end");
      } else {
        unsupported(peek() == '>' ? "an atomic group" : "a group of an unknown kind");
      }
    }
    const index inside = disjunction();
    if (!take(")")) malformed("a group that is not closed");
    return inside;
  }

  code_point_set character_class() {
    ++at_;
    const bool is_negated = take("^");
    code_point_set set;
    while (true) {
      if (done()) malformed("a character class that is not closed");
      if (take("]")) break;
      if (peek() == '[' && (peek(1) == ':' || peek(1) == '=' || peek(1) == '.')) unsupported("a POSIX character class");
      const std::optional<char32_t> first = class_member(set);
      if (peek() != '-' || peek(1) == ']' || peek(1) == '\0') continue;
      if (!first) malformed("a range that begins with a class");
      ++at_;
      code_point_set ignored;
      const std::optional<char32_t> last = class_member(ignored);
      if (!last) malformed("a range that ends with a class");
      if (*last < *first) malformed("a range out of order");
      set.add(*first, *last);
    }
    return is_negated ? set.complement() : set;
  }

  /// Adds one member; returns it where it is a single character.
  std::optional<char32_t> class_member(code_point_set& set) {
    if (peek() == '\\') {
      if (peek(1) == 'b') {
        at_ += 2;
        set.add(8, 8);
        return U'\b';
      }
      return escape(set);
    }
    const char32_t c = take_character();
    set.add(c, c);
    return c;
  }

  std::optional<char32_t> escape(code_point_set& set) {
    ++at_;
    if (done()) malformed("a pattern that ends in \\");
    const auto whole = [&](const code_point_set& s) -> std::optional<char32_t> {
      ++at_;
      set.add(s);
      return std::nullopt;
    };
    const auto one = [&](char32_t c) -> std::optional<char32_t> {
      set.add(c, c);
      return c;
    };
    const auto simple = [&](char32_t c) {
      ++at_;
      return one(c);
    };
    switch (peek()) {
      case 'd': return whole(digits());
      case 'D': return whole(digits().complement());
      case 'w': return whole(word());
      case 'W': return whole(word().complement());
      case 's': return whole(white_space());
      case 'S': return whole(white_space().complement());
      case 't': return simple('\t');
      case 'n': return simple('\n');
      case 'v': return simple('\v');
      case 'f': return simple('\f');
      case 'r': return simple('\r');
      case '0':
        if (peek(1) >= '0' && peek(1) <= '9') unsupported("an octal escape");
        return simple(0);
      case 'c': {
        const char letter = peek(1);
        if (!((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z'))) malformed("\\c without a letter");
        at_ += 2;
        return one(static_cast<char32_t>(letter % 32));
      }
      case 'x': ++at_; return one(hexadecimal(2));
      case 'u': ++at_; return one(unicode_escape());
      case 'p':
      case 'P': unsupported("a Unicode property (\\p)");
      case 'k': unsupported("a back-reference");
      default: break;
    }
    const char c = peek();
    if (c >= '1' && c <= '9') unsupported("a back-reference");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) unsupported(std::string("the escape \\") + c);
    return one(take_character());
  }

  char32_t hexadecimal(int count) {
    char32_t value = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      const char c = peek();
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) malformed("a hexadecimal digit is missing");
      value = 16 * value + static_cast<char32_t>(digit);
    }
    return value;
  }

  char32_t unicode_escape() {
    if (take("{")) {
      char32_t value = 0;
      std::size_t count = 0;
      for (; !done() && peek() != '}'; ++count) {
        value = 16 * value + hexadecimal(1);
        if (value > code_point_set::greatest) malformed("\\u{} beyond U+10FFFF");
      }
      if (count == 0 || !take("}")) malformed("\\u{} without digits or end");
      return scalar(value);
    }
    const char32_t high = hexadecimal(4);
    if (high >= 0xD800 && high <= 0xDBFF && take("\\u")) {
      const char32_t low = hexadecimal(4);
      if (low >= 0xDC00 && low <= 0xDFFF) return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
      malformed("half of a surrogate pair");
    }
    return scalar(high);
  }
  char32_t scalar(char32_t c) const {
    if (c >= 0xD800 && c <= 0xDFFF) malformed("half of a surrogate pair");
    return c;
  }

  rule_set& rules_;
  std::string_view in_;
  std::string where_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

/// The texts that `pattern` matches from beginning to end.
inline rule_set read_regular_expression(std::string_view pattern, const std::string& where = "regular expression") {
  rule_set rules;
  rules.root = rules.add_rule(where);
  const index whole = regular_expression_reader(rules, pattern, where).read();
  // Anchors need the automaton over code points; it becomes the rule.
  automaton_builder builder(rules, alphabet::code_points, {});
  const finite_automaton made = without_silent_edges(without_anchors(builder.build(whole)));
  if (made.size() == 0) {
    throw error(error_code::malformed, where, "the pattern matches no text");
  }
  rule_set::graph g;
  g.states = made.size();
  for (index s = 0; s < made.size(); ++s) {
    if (made.accepting[s]) g.accepting.push_back(s);
    for (const auto& e : made.edges[s]) g.edges.push_back({s, e.to, rules.characters({e.low, e.high})});
  }
  rules.define(rules.root, rules.path(std::move(g)));
  return rules;
}

}  // namespace effinfer::inline v0::decoding::grammar
