#pragma once
// Grammars in GBNF, the notation of llama.cpp (grammars/README.md there): rules `name ::= ...`, of which `root` matches the whole text;
// "literals", [classes], ., groups, |, * + ? {m} {m,} {m,n}, and # comments.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/expression.hpp>
#include <effinfer/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Reads one grammar.
///
/// Names are letters, digits, - and _. A rule ends with its line, but inside of parentheses, and behind ::= and |, line breaks are
/// white space. Escapes: \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH. Errors, at `where`: `malformed`, naming the line; `unsupported`
/// (tokens in angle brackets); `limit`; `invalid_utf8`.
class gbnf_reader {
 public:
  gbnf_reader(std::string_view grammar, std::string where) : in_(grammar), where_(std::move(where)) {}

  rule_set read() {
    if (in_.size() > limits::text_bytes) {
      throw error(error_code::limit, where_,
                  "the grammar has more than " + std::to_string(limits::text_bytes) + " bytes");
    }
    if (const std::size_t bad = text::find_invalid_utf8(in_); bad != std::string::npos) {
      throw error(error_code::invalid_utf8, where_, "the grammar isn't UTF-8 at byte " + std::to_string(bad));
    }
    rules_.refuses_endless_rules = true;
    for (skip(true); !done(); skip(true)) rule();
    const auto root = names_.find("root");
    if (root == names_.end()) throw error(error_code::malformed, where_, "there is no rule called root");
    for (const auto& r : rules_.rules()) {
      if (r.expression == no_index)
        throw error(error_code::malformed, where_, "rule " + r.name + " is used but not defined");
    }
    rules_.root = root->second;
    return std::move(rules_);
  }

 private:
  [[nodiscard]] std::string line() const {
    return std::to_string(1 + std::count(in_.begin(), in_.begin() + static_cast<std::ptrdiff_t>(at_), '\n'));
  }
  [[noreturn]] void malformed(const std::string& problem) const {
    throw error(error_code::malformed, where_, "line " + line() + ": " + problem);
  }
  [[nodiscard]] bool done() const { return at_ >= in_.size(); }
  [[nodiscard]] char peek() const { return done() ? '\0' : in_[at_]; }
  bool take(std::string_view text) {
    if (!in_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  void skip(bool over_lines) {
    while (!done()) {
      const char c = peek();
      if (c == '#') {
        while (!done() && peek() != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (over_lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  }
  index named_rule() {
    const std::size_t begin = at_;
    while (is_name(peek())) ++at_;
    const std::string name(in_.substr(begin, at_ - begin));
    const auto known = names_.find(name);
    if (known != names_.end()) return known->second;
    const index made = rules_.add_rule(name);
    names_.emplace(name, made);
    return made;
  }

  void rule() {
    if (!is_name(peek())) malformed("a rule begins with its name");
    const index which = named_rule();
    skip(false);
    if (!take("::=")) malformed("::= is missing behind the rule's name");
    if (rules_.rules()[which].expression != no_index)
      malformed("rule " + rules_.rules()[which].name + " is defined twice");
    skip(true);
    rules_.define(which, alternatives(false));
    if (!done() && peek() != '\n' && peek() != '\r') malformed(std::string("unexpected ") + peek());
  }

  index alternatives(bool is_nested) {
    if (++depth_ > limits::nesting) {
      throw error(error_code::limit, where_, "groups nested deeper than " + std::to_string(limits::nesting));
    }
    std::vector<index> branches{sequence(is_nested)};
    while (take("|")) {
      skip(true);
      branches.push_back(sequence(is_nested));
    }
    --depth_;
    return rules_.choice(branches);
  }

  index sequence(bool is_nested) {
    std::vector<index> items;
    for (;; skip(is_nested)) {
      const char c = peek();
      if (c == '"') {
        items.push_back(literal());
      } else if (c == '[') {
        items.push_back(character_class());
      } else if (c == '.') {
        ++at_;
        items.push_back(rules_.characters(code_point_set::all()));
      } else if (c == '(') {
        ++at_;
        skip(true);
        items.push_back(alternatives(true));
        if (!take(")")) malformed("a group that is not closed");
      } else if (is_name(c)) {
        items.push_back(rules_.reference(named_rule()));
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        if (items.empty()) malformed("nothing to repeat");
        items.back() = repeated(items.back());
      } else if (c == '<' || c == '!') {
        throw error(error_code::unsupported, where_, "line " + line() + ": tokens in angle brackets are not read here");
      } else {
        return rules_.sequence(items);
      }
    }
  }

  index repeated(index what) {
    if (take("*")) return rules_.repeat(what, 0, rule_set::unlimited);
    if (take("+")) return rules_.repeat(what, 1, rule_set::unlimited);
    if (take("?")) return rules_.repeat(what, 0, 1);
    take("{");
    skip(false);
    const int minimum = number();
    int maximum = minimum;
    skip(false);
    if (take(",")) {
      skip(false);
      maximum = peek() == '}' ? rule_set::unlimited : number();
      skip(false);
    }
    if (!take("}")) malformed("a repetition {m,n} that is not closed");
    if (maximum != rule_set::unlimited && maximum < minimum) malformed("a repetition {m,n} with m > n");
    return rules_.repeat(what, minimum, maximum);
  }
  int number() {
    if (peek() < '0' || peek() > '9') malformed("a number is missing in {m,n}");
    int value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_) {
      value = 10 * value + (peek() - '0');
      if (value > limits::repetitions) {
        throw error(error_code::limit, where_,
                    "line " + line() + ": a repetition of more than " + std::to_string(limits::repetitions));
      }
    }
    return value;
  }

  index literal() {
    ++at_;
    std::vector<index> characters;
    while (!take("\"")) {
      if (done() || peek() == '\n') malformed("a literal that is not closed");
      const char32_t c = character();
      characters.push_back(rules_.characters({c, c}));
    }
    return rules_.sequence(characters);
  }

  index character_class() {
    ++at_;
    const bool is_negated = take("^");
    code_point_set set;
    while (!take("]")) {
      if (done() || peek() == '\n') malformed("a character class that is not closed");
      const char32_t first = character();
      char32_t last = first;
      if (peek() == '-' && !in_.substr(at_).starts_with("-]")) {
        ++at_;
        if (done()) malformed("a character class that is not closed");
        last = character();
      }
      if (last < first) malformed("a range out of order");
      set.add(first, last);
    }
    return rules_.characters(is_negated ? set.complement() : set);
  }

  char32_t character() {
    if (peek() != '\\') {
      const text::code_point c = text::first_code_point(in_.substr(at_));
      at_ += static_cast<std::size_t>(c.length);
      return c.value;
    }
    ++at_;
    const char c = peek();
    ++at_;
    switch (c) {
      case 'n': return '\n';
      case 'r': return '\r';
      case 't': return '\t';
      case '\\':
      case '"':
      case '[':
      case ']': return static_cast<char32_t>(c);
      case 'x': return hexadecimal(2);
      case 'u': return hexadecimal(4);
      case 'U': return hexadecimal(8);
      default: --at_; malformed("an unknown escape");
    }
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
    if (value > code_point_set::greatest || (value >= 0xD800 && value <= 0xDFFF)) malformed("no Unicode character");
    return value;
  }

  rule_set rules_;
  std::map<std::string, index, std::less<>> names_;
  std::string_view in_;
  std::string where_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

/// The rules of a grammar in GBNF.
inline rule_set read_gbnf(std::string_view grammar, const std::string& where = "GBNF grammar") {
  return gbnf_reader(grammar, where).read();
}

}  // namespace effinfer::inline v0::decoding::grammar
