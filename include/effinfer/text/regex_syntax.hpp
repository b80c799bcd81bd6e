#pragma once
// Hugging Face writes the patterns of a tokenizer.json for Oniguruma, we run them with PCRE2. Most of the two
// syntaxes is the same text with the same meaning; this file rewrites what isn't, and refuses what it doesn't know,
// so that no pattern silently splits differently. The differences (Oniguruma doc/RE; pcre2pattern(3)):
//   \s \S   Oniguruma: White_Space. PCRE2 adds U+180E.
//   \w \b   Oniguruma: letters, marks, digits, connectors. PCRE2 10.42: letters, numbers, underscore.
//   \h \v   Oniguruma: a hexadecimal digit, U+000B. PCRE2: classes of white space.
//   \p{Han} Oniguruma: by Script. PCRE2: by Script_Extensions.
//   {n,m}+  Oniguruma: the repeat repeated. PCRE2: possessive.  {n}? Oniguruma: optional. PCRE2: lazy.  {,m}: {0,m}.
//   (?m)    Oniguruma: dot matches newlines, and ^ $ match at lines always.
//   [a[b]] [a&&b]  sets in sets, which PCRE2 lacks: refused.

#include <effinfer/core/error.hpp>
#include <effinfer/text/utf8.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

/// The PCRE2 spelling (for PCRE2_UTF, PCRE2_UCP, PCRE2_MULTILINE) of a pattern in Oniguruma's syntax.
/// Errors, at `where`: unsupported, naming the construct.
class regex_translation {
 public:
  regex_translation(std::string_view pattern, std::string where) : in_(pattern), where_(std::move(where)) {
    while (!done()) item();
    if (!groups_.empty()) refuse("a group that is not closed");
  }
  [[nodiscard]] const std::string& text() const { return out_; }

 private:
  static constexpr std::size_t none = std::string::npos;
  static constexpr std::string_view word_set = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

  [[noreturn]] void refuse(const std::string& what) const {
    throw error(error_code::unsupported, where_, "the pattern uses " + what + ", which isn't read here",
                "patterns are in Oniguruma's syntax, less nested character sets, recursion and code");
  }
  [[nodiscard]] bool done() const { return at_ >= in_.size(); }
  [[nodiscard]] char peek(std::size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }
  [[nodiscard]] bool follows(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  void copy(std::size_t bytes) {
    out_.append(in_.substr(at_, bytes));
    at_ += bytes;
  }

  void item() {
    switch (peek()) {
      case '(': return open_group();
      case ')':
        if (groups_.empty()) refuse("a ')' too many");
        atom_ = groups_.back();
        groups_.pop_back();
        return copy(1);
      case '*':
      case '+':
      case '?': return quantifier();
      case '{': return interval();
      case '|':
      case '^':
      case '$': atom_ = none; return copy(1);
      default: break;
    }
    atom_ = out_.size();
    if (peek() == '[') return set();
    if (peek() == '\\') return escape(false);
    copy(static_cast<std::size_t>(utf8_length(peek())));
  }

  void open_group() {
    groups_.push_back(out_.size());
    if (groups_.size() > 200) refuse("groups nested deeper than 200");
    atom_ = none;
    if (follows("(*")) refuse("a '(*' verb");
    if (!follows("(?")) return copy(1);
    for (const std::string_view opener : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (follows(opener)) return copy(opener.size());
    }
    if (follows("(?<")) {
      const std::size_t end = in_.find('>', at_);
      if (end == none) refuse("a group name without its end");
      return copy(end + 1 - at_);
    }
    // Options, for the rest of the group or for a group of their own. Oniguruma's m is PCRE2's s.
    std::size_t end = at_ + 2;
    while (end < in_.size() && (in_[end] == 'i' || in_[end] == 'm' || in_[end] == '-')) ++end;
    if (end >= in_.size() || (in_[end] != ':' && in_[end] != ')')) refuse("'" + std::string(in_.substr(at_, 4)) + "'");
    for (; at_ < end; ++at_) out_.push_back(peek() == 'm' ? 's' : peek());
    if (peek() == ')') groups_.pop_back();
    copy(1);
  }

  void quantifier() {
    atom_ = none;
    copy(1);
    if (peek() == '+' || peek() == '?') copy(1);
  }

  void interval() {
    std::size_t i = at_ + 1;
    const auto digits = [&] {
      const std::size_t begin = i;
      while (i < in_.size() && in_[i] >= '0' && in_[i] <= '9') ++i;
      return in_.substr(begin, i - begin);
    };
    const std::string_view low = digits();
    const bool has_comma = i < in_.size() && in_[i] == ',';
    if (has_comma) ++i;
    const std::string_view high = has_comma ? digits() : low;
    const bool is_interval = i < in_.size() && in_[i] == '}' && !(low.empty() && high.empty());
    if (!is_interval) {  // a brace that stands for itself
      atom_ = out_.size();
      out_.append("\\{");
      ++at_;
      return;
    }
    at_ = i + 1;
    if (atom_ == none) refuse("an interval that repeats nothing");
    out_.append("{").append(low.empty() ? "0" : low);
    if (has_comma) out_.append(",").append(high);
    out_.append("}");
    if (peek() == '+' || (peek() == '?' && !has_comma)) {
      out_.insert(atom_, "(?:");
      out_.append(")").push_back(peek());
      ++at_;
    } else if (peek() == '?') {
      copy(1);
    }
    atom_ = none;
  }

  void set() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') copy(1);  // first in a set it stands for itself, in both syntaxes
    while (!done() && peek() != ']') {
      if (follows("[:")) {
        const std::size_t end = in_.find(":]", at_);
        if (end == none) refuse("a '[:' without its end");
        copy(end + 2 - at_);
      } else if (peek() == '[') {
        refuse("a character set inside a character set");
      } else if (follows("&&")) {
        refuse("an intersection of character sets");
      } else if (peek() == '\\') {
        escape(true);
      } else {
        copy(static_cast<std::size_t>(utf8_length(peek())));
      }
    }
    if (done()) refuse("a character set that is not closed");
    copy(1);
  }

  void escape(bool in_set) {
    if (at_ + 1 >= in_.size()) refuse("a backslash at its end");
    const char letter = peek(1);
    const auto put = [&](std::string_view text) {
      out_.append(text);
      at_ += 2;
    };
    const auto put_set = [&](std::string_view members) {
      if (in_set) return put(members);
      out_.push_back('[');
      put(members);
      out_.push_back(']');
    };
    switch (letter) {
      case 's': return put(R"(\p{White_Space})");
      case 'S': return put(R"(\P{White_Space})");
      case 'd': return put(R"(\p{Nd})");
      case 'D': return put(R"(\P{Nd})");
      case 'w': return put_set(word_set);
      case 'h': return put_set("0-9A-Fa-f");
      case 'v': return put("\\x0b");
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e': return copy(2);
      case 'p':
      case 'P': return property();
      case 'x': return hexadecimal();
      case 'u': {
        if (in_.size() < at_ + 6) refuse("a '\\u' without four digits");
        out_.append("\\x{").append(in_.substr(at_ + 2, 4)).append("}");
        at_ += 6;
        return;
      }
      default: break;
    }
    const auto byte = static_cast<unsigned char>(letter);
    const bool is_letter_or_digit =
        (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z');
    if (!is_letter_or_digit) {
      if (byte < 0x80) return copy(2);
      ++at_;  // an escaped character outside ASCII is the character
      return copy(static_cast<std::size_t>(utf8_length(letter)));
    }
    if (in_set) {
      if (letter == 'b') return put("\\x08");
      refuse("'\\" + std::string(1, letter) + "' inside a set");
    }
    const std::string w(word_set);
    switch (letter) {
      case 'W': return put("[^" + w + "]");
      case 'H': return put("[^0-9A-Fa-f]");
      case 'b': return put("(?:(?<=[" + w + "])(?![" + w + "])|(?<![" + w + "])(?=[" + w + "]))");
      case 'B': return put("(?:(?<=[" + w + "])(?=[" + w + "])|(?<![" + w + "])(?![" + w + "]))");
      case 'A':
      case 'z':
      case 'Z':
      case 'G':
      case 'R':
      case 'X': return copy(2);
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7':
      case '8':
      case '9': return copy(2);
      default: refuse("'\\" + std::string(1, letter) + "'");
    }
  }

  void hexadecimal() {
    if (peek(2) == '{') {
      const std::size_t end = in_.find('}', at_);
      if (end == none) refuse("a '\\x{' without its end");
      return copy(end + 1 - at_);
    }
    // Two digits are a byte to Oniguruma and a character to PCRE2: the same below 0x80 only.
    if (peek(2) < '0' || peek(2) > '7' || at_ + 4 > in_.size()) refuse("a '\\x' that isn't ASCII");
    copy(4);
  }

  void property() {
    if (peek(2) != '{') return copy(3 <= in_.size() - at_ ? 3 : in_.size() - at_);
    const std::size_t end = in_.find('}', at_);
    if (end == none) refuse("a property name without its end");
    std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    bool is_negated = peek(1) == 'P';
    if (name.starts_with('^')) {
      is_negated = !is_negated;
      name.remove_prefix(1);
    }
    out_.append(is_negated ? "\\P{" : "\\p{").append(pcre2_property(name)).append("}");
    at_ = end + 1;
  }

  /// Categories by their short names, a few binary properties, and everything else as a script.
  static std::string pcre2_property(std::string_view name) {
    std::string key;
    for (const char c : name) {
      if (c != ' ' && c != '_' && c != '-') key.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
    }
    struct spelling {
      std::string_view oniguruma, pcre2;
    };
    static constexpr std::array<spelling, 24> spellings = {{
        {"letter", "L"},
        {"mark", "M"},
        {"number", "N"},
        {"punctuation", "P"},
        {"symbol", "S"},
        {"separator", "Z"},
        {"other", "C"},
        {"uppercaseletter", "Lu"},
        {"lowercaseletter", "Ll"},
        {"titlecaseletter", "Lt"},
        {"modifierletter", "Lm"},
        {"otherletter", "Lo"},
        {"decimalnumber", "Nd"},
        {"alpha", "Alphabetic"},
        {"alphabetic", "Alphabetic"},
        {"digit", "Nd"},
        {"space", "White_Space"},
        {"whitespace", "White_Space"},
        {"upper", "Uppercase"},
        {"uppercase", "Uppercase"},
        {"lower", "Lowercase"},
        {"lowercase", "Lowercase"},
        {"any", "Any"},
        {"emoji", "Emoji"},
    }};
    for (const spelling& s : spellings) {
      if (s.oniguruma == key) return std::string(s.pcre2);
    }
    return key.size() <= 2 ? std::string(name) : "sc:" + std::string(name);
  }

  std::string_view in_;
  std::string where_;
  std::string out_;
  std::size_t at_ = 0;
  std::size_t atom_ = none;          // where in out_ the item begins that a quantifier here would repeat
  std::vector<std::size_t> groups_;  // where in out_ the open groups begin
};

}  // namespace effinfer::inline v0::text
