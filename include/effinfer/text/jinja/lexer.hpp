#pragma once
// A template's text as tokens: text between the tags, and inside of them names, numbers, strings and operators. White space
// is dropped as Jinja does with trim_blocks and lstrip_blocks: a newline after a block or comment, spaces before one at the
// beginning of a line, and all white space on the side of a tag that has a `-` (a `+` keeps it).

#include <effinfer/core/error.hpp>
#include <effinfer/text/jinja/characters.hpp>
#include <effinfer/text/jinja/numbers.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

enum class token_kind {
  data,
  block_begin,
  block_end,
  variable_begin,
  variable_end,
  name,
  string,
  integer,
  floating,
  sign,
  end
};

struct token {
  token_kind kind = token_kind::end;
  int line = 1;
  std::string text;  ///< of data, names and signs as written, of strings what they mean
  std::int64_t integer = 0;
  double floating = 0;
};

/// Errors: `malformed` with the line; `unsupported` for integers of more than 64 bits.
class lexer {
 public:
  lexer(std::string_view source, const std::string& template_name)
      : name_(template_name), source_(with_newlines(source)) {
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();  // as Jinja: one newline at the very end
  }

  std::vector<token> tokens() {
    while (at_ < source_.size()) outside();
    add(token_kind::end);
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& problem, error_code code = error_code::malformed) const {
    throw error(code, name_ + ": line " + std::to_string(line_), problem);
  }

  /// \r\n and \r become \n.
  static std::string with_newlines(std::string_view s) {
    std::string out;
    out.reserve(s.size());
    for (std::size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\r') {
        out.push_back(s[i]);
      } else if (i + 1 == s.size() || s[i + 1] != '\n') {
        out.push_back('\n');
      }
    }
    return out;
  }

  [[nodiscard]] std::string_view rest() const { return std::string_view(source_).substr(at_); }
  [[nodiscard]] bool has(std::string_view s, std::size_t offset = 0) const {
    return at_ + offset <= source_.size() && rest().substr(offset).starts_with(s);
  }
  void skip(std::size_t bytes) {
    for (const std::size_t end = at_ + bytes; at_ < end; ++at_) line_ += source_[at_] == '\n';
    is_line_begin_ = bytes > 0 && source_[at_ - 1] == '\n';
  }
  void skip_spaces() { skip(rest().size() - strip_left(rest(), is_python_space).size()); }
  token& add(token_kind kind) {
    tokens_.emplace_back();
    tokens_.back().kind = kind;
    tokens_.back().line = line_;
    return tokens_.back();
  }
  /// The sign behind a tag's opening: '-', '+' or none (0).
  [[nodiscard]] char control_at(std::size_t offset) const {
    return has("-", offset) ? '-' : has("+", offset) ? '+' : '\0';
  }

  /// Text up to `tag_at`, less the white space that the tag there takes.
  void add_data(std::size_t tag_at, char control, bool is_variable) {
    std::string_view data = std::string_view(source_).substr(at_, tag_at - at_);
    if (control == '-') {
      data = strip_right(data, is_python_space);
    } else if (control != '+' && !is_variable) {
      const std::size_t newline = data.rfind('\n');
      const std::size_t line = newline == data.npos ? 0 : newline + 1;
      if ((line > 0 || is_line_begin_) && strip_left(data.substr(line), is_python_space).empty())
        data = data.substr(0, line);
    }
    if (!data.empty()) add(token_kind::data).text = data;
    skip(tag_at - at_);
  }

  /// Text, then one tag.
  void outside() {
    std::size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(token_kind::data).text = rest();
        skip(rest().size());
        return;
      }
      const char c = source_[tag + 1];
      if (c == '{' || c == '%' || c == '#') break;
      ++tag;
    }
    const char c = source_[tag + 1];
    const char control = control_at(tag - at_ + 2);
    add_data(tag, control, c == '{');
    if (c == '%' && raw()) return;
    if (c != '#') add(c == '%' ? token_kind::block_begin : token_kind::variable_begin);
    skip(control == '\0' ? 2 : 3);
    c == '#' ? comment() : inside(c == '%');
  }

  void comment() {
    const std::size_t end = rest().find("#}");
    if (end == std::string_view::npos) fail("Missing end of comment tag");
    // The signs may stand before the end; a comment of nothing but a sign has taken it for its beginning.
    const char control = end > 0 ? rest()[end - 1] : '\0';
    skip(end + 2);
    after_block(control == '-' ? '-' : control == '+' ? '+' : '\0');
  }
  void after_block(char control) {
    if (control == '-') {
      skip_spaces();
    } else if (control != '+' && has("\n")) {
      skip(1);
    }
  }

  /// {% raw %} ... {% endraw %}, if that is what stands here.
  bool raw() {
    const std::size_t begin = match_word(0, "raw", true);
    if (begin == 0) return false;
    skip(begin);
    for (std::size_t tag = rest().find("{%"); tag != std::string_view::npos; tag = rest().find("{%", tag + 1)) {
      const char control = control_at(tag + 2);
      const std::size_t length = match_word(tag, "endraw", false);
      if (length == 0) continue;
      add_data(at_ + tag, control, false);
      skip(length);
      return true;
    }
    fail("Missing end of raw directive");
  }
  /// Bytes of a tag {%- word -%} at `offset` with the white space that it takes, or 0.
  [[nodiscard]] std::size_t match_word(std::size_t offset, std::string_view word, bool is_begin) const {
    std::string_view s = rest().substr(offset + 2);
    if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
    s = strip_left(s, is_python_space);
    if (!s.starts_with(word)) return 0;
    s = strip_left(s.substr(word.size()), is_python_space);
    if (s.starts_with("-%}")) {
      s = strip_left(s.substr(3), is_python_space);
    } else if (s.starts_with("%}")) {
      s.remove_prefix(2);
      if (!is_begin && s.starts_with("\n")) s.remove_prefix(1);
    } else if (!is_begin && s.starts_with("+%}")) {
      s.remove_prefix(3);
    } else {
      return 0;
    }
    return rest().size() - offset - s.size();
  }

  /// Tokens up to the end of the tag.
  void inside(bool is_block) {
    std::string open;  // brackets that wait to be closed; inside of them }} is two of those
    while (at_ < source_.size()) {
      if (open.empty()) {
        const std::string_view end = is_block ? "%}" : "}}";
        const bool has_minus = has("-") && has(end, 1);
        const bool has_plus = is_block && has("+") && has(end, 1);
        if (has_minus || has_plus || has(end)) {
          add(is_block ? token_kind::block_end : token_kind::variable_end);
          skip(has_minus || has_plus ? 3 : 2);
          if (has_minus) {
            after_block('-');
          } else if (is_block) {
            after_block(has_plus ? '+' : '\0');
          }
          return;
        }
      }
      const code_point c = first_code_point(rest());
      if (is_python_space(c.value)) {
        skip(static_cast<std::size_t>(c.length));
      } else if (c.value >= '0' && c.value <= '9') {
        number();
      } else if (is_word(c.value) && c.value != 0x200C && c.value != 0x200D) {
        name();
      } else if (c.value == '\'' || c.value == '"') {
        string(static_cast<char>(c.value));
      } else {
        sign(open);
      }
    }
    // The end of the template inside of a tag: the parser says what is missing.
  }

  void name() {
    std::string_view s = strip_left(rest(), [](char32_t c) { return is_word(c); });
    const std::size_t size = rest().size() - s.size();
    add(token_kind::name).text = rest().substr(0, size);
    skip(size);
  }

  void number() {
    const std::string_view s = rest();
    const auto digits = [&](std::size_t from) {  // \d(_?\d)*
      std::size_t i = from;
      while (i < s.size() && ((s[i] >= '0' && s[i] <= '9') ||
                              (s[i] == '_' && i > from && i + 1 < s.size() && s[i + 1] >= '0' && s[i + 1] <= '9'))) {
        ++i;
      }
      return i;
    };
    std::size_t end = digits(0);
    std::size_t point = end;
    if (point + 1 < s.size() && s[point] == '.' && digits(point + 1) > point + 1) point = digits(point + 1);
    std::size_t whole = point;
    if (whole < s.size() && (s[whole] == 'e' || s[whole] == 'E')) {
      std::size_t exponent = whole + 1;
      if (exponent < s.size() && (s[exponent] == '+' || s[exponent] == '-')) ++exponent;
      if (digits(exponent) > exponent) whole = digits(exponent);
    }
    const bool is_after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (whole > end && !is_after_dot) {
      add(token_kind::floating).floating = parse_float(s.substr(0, whole)).value_or(0);
      skip(whole);
      return;
    }
    if (s[0] == '0') {  // 0x1F, 0b1, 0o7, or zeros
      const char letter = s.size() > 1 ? static_cast<char>(s[1] | 0x20) : '\0';
      const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
      const auto is_digit = [&](char c) {
        const int d = c >= '0' && c <= '9'                     ? c - '0'
                      : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                               : 99;
        return d < (base == 0 ? 1 : base);
      };
      const std::size_t first = base == 0 ? 0 : 2;
      std::size_t i = first;
      while (i < s.size() && (is_digit(s[i]) || (s[i] == '_' && i + 1 < s.size() && is_digit(s[i + 1])))) ++i;
      end = i > first ? i : 1;
    }
    const read_integer read = parse_integer(s.substr(0, end), 0);
    if (read.is != read_integer::status::good) fail("an integer of more than 64 bits", error_code::unsupported);
    add(token_kind::integer).integer = read.number;
    skip(end);
  }

  void string(char quote) {
    std::size_t end = 1;
    const std::string_view s = rest();
    while (end < s.size() && s[end] != quote) end += s[end] == '\\' ? 2 : 1;
    if (end >= s.size()) fail(std::string("a string that begins with ") + quote + " has no end");
    token& t = add(token_kind::string);
    t.text = unescaped(s.substr(1, end - 1));
    skip(end + 1);
  }

  /// The escapes of Python's string literals. (What Jinja makes of a backslash before a character beyond ASCII, too: \xe9.)
  [[nodiscard]] std::string unescaped(std::string_view s) const {
    std::string out;
    while (!s.empty()) {
      if (s[0] != '\\') {
        out.push_back(s[0]);
        s.remove_prefix(1);
        continue;
      }
      const code_point c = first_code_point(s.substr(1));
      s.remove_prefix(1 + static_cast<std::size_t>(c.length));
      switch (c.value) {
        case '\n': break;
        case '\\': out.push_back('\\'); break;
        case '\'': out.push_back('\''); break;
        case '"': out.push_back('"'); break;
        case 'a': out.push_back('\a'); break;
        case 'b': out.push_back('\b'); break;
        case 'f': out.push_back('\f'); break;
        case 'n': out.push_back('\n'); break;
        case 'r': out.push_back('\r'); break;
        case 't': out.push_back('\t'); break;
        case 'v': out.push_back('\v'); break;
        case 'x': append_escape(out, s, 2); break;
        case 'u': append_escape(out, s, 4); break;
        case 'U': append_escape(out, s, 8); break;
        case 'N': fail("\\N{...} in a string", error_code::unsupported);
        default:
          if (c.value >= '0' && c.value <= '7') {
            char32_t octal = c.value - '0';
            for (int i = 0; i < 2 && !s.empty() && s[0] >= '0' && s[0] <= '7'; ++i, s.remove_prefix(1)) {
              octal = octal * 8 + static_cast<char32_t>(s[0] - '0');
            }
            append_utf8(out, octal);
          } else if (c.value < 0x80) {
            out.push_back('\\');
            append_utf8(out, c.value);
          } else {
            char digits[16];
            const auto end = std::to_chars(digits, digits + sizeof digits, static_cast<std::uint32_t>(c.value), 16).ptr;
            const std::string hex(digits, end);
            const std::size_t width = c.value < 0x100 ? 2 : c.value < 0x10000 ? 4 : 8;
            out.append(width == 2 ? "\\x" : width == 4 ? "\\u" : "\\U").append(width - hex.size(), '0').append(hex);
          }
      }
    }
    return out;
  }
  void append_escape(std::string& out, std::string_view& s, std::size_t digits) const {
    std::uint32_t point = 0;
    const auto [end, problem] = std::from_chars(s.data(), s.data() + std::min(digits, s.size()), point, 16);
    if (s.size() < digits || problem != std::errc() || end != s.data() + digits || point > 0x10FFFF ||
        (point >= 0xD800 && point < 0xE000)) {
      fail("a string holds an escape that is no character");
    }
    append_utf8(out, point);
    s.remove_prefix(digits);
  }

  void sign(std::string& open) {
    constexpr std::string_view signs[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                          "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view s : signs) {
      if (!has(s)) continue;
      if (s == "(" || s == "[" || s == "{") {
        open.push_back(s == "(" ? ')' : s == "[" ? ']' : '}');
      } else if (s == ")" || s == "]" || s == "}") {
        if (open.empty()) fail("unexpected '" + std::string(s) + "'");
        if (open.back() != s[0]) fail("unexpected '" + std::string(s) + "', expected '" + open.back() + "'");
        open.pop_back();
      }
      add(token_kind::sign).text = s;
      skip(s.size());
      return;
    }
    fail("unexpected character '" + std::string(rest().substr(0, static_cast<std::size_t>(utf8_length(rest()[0])))) +
         "'");
  }

  std::string name_;
  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool is_line_begin_ = true;  // what stands before is a newline that belongs to a tag, or nothing
  std::vector<token> tokens_;
};

}  // namespace effinfer::inline v0::text::jinja
