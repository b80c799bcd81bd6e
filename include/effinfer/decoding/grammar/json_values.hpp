#pragma once
// How JSON values are written, as expressions: strings of given letters, integers and decimal numbers of a range, and any one value.
// Source of the syntax: RFC 8259.

#include <effinfer/core/error.hpp>
#include <effinfer/core/json.hpp>
#include <effinfer/decoding/grammar/expression.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Makes expressions in one rule set.
class json_values {
 public:
  static constexpr int integer_digits =
      18;  ///< of integers: the greatest is 10^18 - 1, which every 64-bit reader takes
  static constexpr std::int64_t greatest_integer = 999'999'999'999'999'999;

  explicit json_values(rule_set& rules) : rules_(rules) {}

  /// A character of a set as it is written in a string: itself, or where it must be escaped, its shortest escape.
  index letter(const code_point_set& set) {
    std::vector<index> ways;
    const code_point_set raw = set.without(must_be_escaped());
    if (!raw.empty()) ways.push_back(rules_.characters(raw));
    for (const code_point_range& r : set.without(must_be_escaped().complement()).ranges()) {
      for (char32_t c = r.first; c <= r.last; ++c) {
        std::string text;
        append_escaped(text, static_cast<char>(c));
        ways.push_back(rules_.literal(text));
      }
    }
    return rules_.choice(ways);
  }

  /// Any character in any way that JSON allows to write it, but no half of a surrogate pair.
  index any_letter() {
    if (any_letter_ != no_index) return any_letter_;
    const auto set = [&](std::string_view members) {
      code_point_set s;
      for (const char c : members) s.add(static_cast<unsigned char>(c), static_cast<unsigned char>(c));
      return rules_.characters(s);
    };
    const index hex = set("0123456789abcdefABCDEF");
    const index three = rules_.repeat(hex, 3, 3), two = rules_.repeat(hex, 2, 2), d = set("dD");
    const index plain = rules_.choice(
        {rules_.sequence({set("0123456789abcABCefEF"), three}), rules_.sequence({d, set("01234567"), two})});
    const index pair = rules_.sequence({d, set("89abAB"), two, rules_.literal("\\u"), d, set("cdefCDEF"), two});
    const index escape = rules_.sequence(
        {rules_.literal("\\"),
         rules_.choice({set("\"\\/bfnrt"), rules_.sequence({rules_.literal("u"), rules_.choice({plain, pair})})})});
    return any_letter_ = rules_.choice({rules_.characters(must_be_escaped().complement()), escape});
  }

  /// The text of a string value, quotes included.
  static std::string quoted(std::string_view utf8) {
    std::string out = "\"";
    for (const char c : utf8) append_escaped(out, c);
    return out + "\"";
  }

  /// The text of a value, without white space. Errors: `limit` (nested too deeply).
  static std::string text_of(const json::value& v, int depth = 0) {
    if (depth > limits::nesting) v.fail("it is nested too deeply", error_code::limit);
    if (v.is_null()) return "null";
    if (v.is_boolean()) return v.boolean() ? "true" : "false";
    if (v.is_string()) return quoted(v.string());
    if (v.is_integer()) return std::to_string(v.integer());
    if (v.is_number()) return shortest(v.number());
    std::string out;
    if (v.is_array()) {
      for (const json::value& e : v.elements()) out += (out.empty() ? "" : ",") + text_of(e, depth + 1);
      return "[" + out + "]";
    }
    for (const auto& [key, member] : v.members()) {
      out += (out.empty() ? "" : ",") + quoted(key) + ":" + text_of(member, depth + 1);
    }
    return "{" + out + "}";
  }

  /// Integers from low to high. Precondition: both within greatest_integer of 0.
  index integers(std::int64_t low, std::int64_t high) {
    std::vector<index> ways;
    if (low < 0 && low <= high) {
      ways.push_back(rules_.sequence({rules_.literal("-"), magnitudes(std::max<std::int64_t>(1, -high), -low)}));
    }
    if (high >= 0 && low <= high) ways.push_back(magnitudes(std::max<std::int64_t>(0, low), high));
    return rules_.choice(ways);
  }

  /// Integers that `divisor` divides, of any sign and size. Precondition: 1 <= divisor < limits::pattern_states.
  index multiples(std::int64_t divisor) {
    // State 0: the beginning; 1: behind a sign; 2: behind a leading zero; 3 + r: remainder r so far.
    rule_set::graph g;
    g.states = static_cast<index>(divisor) + 3;
    const auto digit = [&](int d) { return rules_.literal(std::string(1, static_cast<char>('0' + d))); };
    std::array<index, 10> digits{};
    for (int d = 0; d < 10; ++d) digits[static_cast<std::size_t>(d)] = digit(d);
    g.edges.push_back({0, 1, rules_.literal("-")});
    g.edges.push_back({0, 2, digits[0]});
    g.accepting = {2, 3};
    const auto remainder = [&](std::int64_t r) { return static_cast<index>(3 + r % divisor); };
    for (std::int64_t d = 0; d < 10; ++d) {
      const index text = digits[static_cast<std::size_t>(d)];
      if (d > 0) g.edges.push_back({0, remainder(d), text}), g.edges.push_back({1, remainder(d), text});
      for (std::int64_t r = 0; r < divisor; ++r) g.edges.push_back({remainder(r), remainder(10 * r + d), text});
    }
    return rules_.path(std::move(g));
  }

  /// Any number: up to 18 digits in front of the point and 18 behind it, an exponent of up to two digits.
  index any_number() {
    const index digit = rules_.characters({'0', '9'});
    const index whole =
        rules_.choice({rules_.literal("0"),
                       rules_.sequence({rules_.characters({'1', '9'}), rules_.repeat(digit, 0, integer_digits - 1)})});
    const index fraction = rules_.optional(rules_.sequence({rules_.literal("."), rules_.repeat(digit, 1, 18)}));
    const index sign = rules_.choice({rules_.literal("+"), rules_.literal("-"), rules_.empty()});
    const index exponent = rules_.optional(
        rules_.sequence({rules_.choice({rules_.literal("e"), rules_.literal("E")}), sign, rules_.repeat(digit, 1, 2)}));
    return rules_.sequence({rules_.optional(rules_.literal("-")), whole, fraction, exponent});
  }

  /// A bound of a range.
  struct bound {
    double value;  ///< may be infinite
    bool is_included;
  };
  /// Decimal numbers without exponent between two bounds, with as many places as keep different texts different doubles.
  /// Errors, at `where`: `unsupported` (a bound of more than 15 digits, of which a reader's rounding could step).
  index decimals(bound low, bound high, const std::string& where) {
    const decimal a(std::abs(low.value)), b(std::abs(high.value));
    const std::size_t whole =
        std::max(std::isinf(low.value) ? 0 : a.whole.size(), std::isinf(high.value) ? 0 : b.whole.size());
    const std::size_t needed = std::max(a.fraction.size(), b.fraction.size());
    if (whole + needed > 15) {
      throw error(error_code::unsupported, where, "a bound of more than 15 digits can't be kept by texts of decimals");
    }
    const std::size_t places = std::max(needed, std::min<std::size_t>(6, 15 - whole));
    std::vector<index> ways;
    const bound zero{0, true}, above_zero{0, false};
    if (low.value < 0) {
      const bound from = high.value < 0 ? bound{-high.value, high.is_included} : above_zero;
      ways.push_back(rules_.sequence({rules_.literal("-"), magnitudes(from, {-low.value, low.is_included}, places)}));
    }
    if (high.value >= 0) ways.push_back(magnitudes(low.value < 0 ? zero : low, high, places));
    return rules_.choice(ways);
  }

 private:
  /// A non-negative number in decimal; infinity has the greatest whole part that is written.
  struct decimal {
    std::string whole = "0", fraction;

    explicit decimal(double value) {
      if (std::isinf(value)) {
        whole.assign(15, '9');
        return;
      }
      std::array<char, 400> text{};
      const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed).ptr;
      whole.assign(text.data(), end);
      if (const std::size_t point = whole.find('.'); point != std::string::npos) {
        fraction = whole.substr(point + 1);
        whole.resize(point);
      }
    }
  };

  static std::string shortest(double value) {
    std::array<char, 40> text{};
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
  }

  static const code_point_set& must_be_escaped() {
    static const code_point_set set = [] {
      code_point_set s(0, 0x1F);
      s.add('"', '"');
      s.add('\\', '\\');
      return s;
    }();
    return set;
  }
  static void append_escaped(std::string& out, char c) {
    static constexpr std::string_view hex = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '"': out += "\\\""; return;
      case '\\': out += "\\\\"; return;
      case '\b': out += "\\b"; return;
      case '\f': out += "\\f"; return;
      case '\n': out += "\\n"; return;
      case '\r': out += "\\r"; return;
      case '\t': out += "\\t"; return;
      default:
        if (byte >= 0x20) {
          out += c;
        } else {
          out += "\\u00";
          out += hex[byte >> 4];
          out += hex[byte & 15];
        }
    }
  }

  index digit(char low, char high) {
    return rules_.characters({static_cast<char32_t>(low), static_cast<char32_t>(high)});
  }
  index digits(std::size_t count) {
    return rules_.repeat(digit('0', '9'), static_cast<int>(count), static_cast<int>(count));
  }

  /// 0 <= low <= high.
  index magnitudes(std::int64_t low, std::int64_t high) {
    const std::string first = std::to_string(low), last = std::to_string(high);
    std::vector<index> ways;
    for (std::size_t length = first.size(); length <= last.size(); ++length) {
      std::string from = first, to = last;
      if (length > first.size()) from = "1" + std::string(length - 1, '0');
      if (length < last.size()) to = std::string(length, '9');
      ways.push_back(same_length(from, to));
    }
    return rules_.choice(ways);
  }
  /// Digit strings from `from` to `to`, which have one length.
  index same_length(std::string_view from, std::string_view to) {
    if (from.empty()) return rules_.empty();
    const std::size_t rest = from.size() - 1;
    if (from[0] == to[0]) return rules_.sequence({digit(from[0], from[0]), same_length(from.substr(1), to.substr(1))});
    const std::string nines(rest, '9'), zeros(rest, '0');
    if (from.substr(1) == zeros && to.substr(1) == nines) return rules_.sequence({digit(from[0], to[0]), digits(rest)});
    std::vector<index> ways{rules_.sequence({digit(from[0], from[0]), same_length(from.substr(1), nines)}),
                            rules_.sequence({digit(to[0], to[0]), same_length(zeros, to.substr(1))})};
    if (from[0] + 1 < to[0]) {
      ways.push_back(
          rules_.sequence({digit(static_cast<char>(from[0] + 1), static_cast<char>(to[0] - 1)), digits(rest)}));
    }
    return rules_.choice(ways);
  }

  /// Decimals between non-negative bounds with up to `places` places.
  index magnitudes(bound low, bound high, std::size_t places) {
    decimal from(low.value), to(high.value);
    from.fraction.resize(places, '0');
    to.fraction.resize(places, std::isinf(high.value) ? '9' : '0');
    const std::int64_t first = whole_number(from), last = whole_number(to);
    if (first > last) return rules_.nothing();
    fraction_range range{from.fraction, to.fraction, low.is_included, high.is_included || std::isinf(high.value)};
    if (first == last) return rules_.sequence({magnitudes(first, first), fraction(range, true, true)});
    std::vector<index> ways{rules_.sequence({magnitudes(first, first), fraction(range, true, false)}),
                            rules_.sequence({magnitudes(last, last), fraction(range, false, true)})};
    if (first + 1 < last) {
      ways.push_back(rules_.sequence({magnitudes(first + 1, last - 1), fraction(range, false, false)}));
    }
    return rules_.choice(ways);
  }
  static std::int64_t whole_number(const decimal& d) {
    std::int64_t value = 0;
    std::from_chars(d.whole.data(), d.whole.data() + d.whole.size(), value);  // at most 15 digits
    return value;
  }

  struct fraction_range {
    std::string low, high;
    bool includes_low, includes_high;
  };
  /// What may stand behind the whole part; a bound counts where the whole part equals its own.
  index fraction(const fraction_range& r, bool has_low, bool has_high) {
    std::vector<index> ways;
    if (may_end(r, 0, has_low, has_high)) ways.push_back(rules_.empty());
    if (!r.low.empty()) ways.push_back(rules_.sequence({rules_.literal("."), next_digit(r, 0, has_low, has_high)}));
    return rules_.choice(ways);
  }
  /// True where zeros from place `at` on lie in the range.
  static bool may_end(const fraction_range& r, std::size_t at, bool has_low, bool has_high) {
    const auto zeros = [&](const std::string& s) { return s.find_first_not_of('0', at) == std::string::npos; };
    return (!has_low || (zeros(r.low) && r.includes_low)) && (!has_high || !zeros(r.high) || r.includes_high);
  }
  index digits_from(const fraction_range& r, std::size_t at, bool has_low, bool has_high) {
    std::vector<index> ways;
    if (may_end(r, at, has_low, has_high)) ways.push_back(rules_.empty());
    if (at < r.low.size()) ways.push_back(next_digit(r, at, has_low, has_high));
    return rules_.choice(ways);
  }
  index next_digit(const fraction_range& r, std::size_t at, bool has_low, bool has_high) {
    const auto rest = static_cast<int>(r.low.size() - at - 1);
    const index any = digit('0', '9');
    const char low = has_low ? r.low[at] : '0', high = has_high ? r.high[at] : '9';
    if (low > high) return rules_.nothing();
    if (!has_low && !has_high) return rules_.sequence({any, rules_.repeat(any, 0, rest)});
    if (low == high) return rules_.sequence({digit(low, low), digits_from(r, at + 1, has_low, has_high)});
    std::vector<index> ways;
    char first_free = low, last_free = high;
    if (has_low) ways.push_back(rules_.sequence({digit(low, low), digits_from(r, at + 1, true, false)})), ++first_free;
    if (has_high)
      ways.push_back(rules_.sequence({digit(high, high), digits_from(r, at + 1, false, true)})), --last_free;
    if (first_free <= last_free) {
      ways.push_back(rules_.sequence({digit(first_free, last_free), rules_.repeat(any, 0, rest)}));
    }
    return rules_.choice(ways);
  }

  rule_set& rules_;
  index any_letter_ = no_index;
};

}  // namespace effinfer::inline v0::decoding::grammar
