#pragma once
// Python's numbers: how a float is written and read, floor division and modulo, exact comparison, rounding to decimal
// places. Independent of the locale. Integers have 64 bits; where Python's would grow further there is an error.

#include <effinfer/text/jinja/characters.hpp>
#include <effinfer/text/jinja/value.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace effinfer::inline v0::text::jinja {

/// repr(float): the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16.
inline std::string write_float(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  std::array<char, 64> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, std::chars_format::scientific).ptr;
  std::string_view all(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  std::string out;
  if (all.front() == '-') {
    out = "-";
    all.remove_prefix(1);
  }
  const std::size_t e = all.find('e');
  int exponent = 0;
  std::from_chars(all.data() + e + (all[e + 1] == '+' ? 2 : 1), all.data() + all.size(), exponent);
  std::string digits(1, all[0]);
  if (e > 2) digits += all.substr(2, e - 2);
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    const int size = exponent < 0 ? -exponent : exponent;
    return out + (exponent < 0 ? "e-" : "e+") + (size < 10 ? "0" : "") + std::to_string(size);
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

/// The text of a number without its underscores, if each stands between two digits; as int() and float() take it.
inline std::optional<std::string> without_underscores(std::string_view s) {
  std::string out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const auto is_digit = [&](std::size_t k) {
      return k < s.size() &&
             ((s[k] >= '0' && s[k] <= '9') || (s[k] >= 'a' && s[k] <= 'z') || (s[k] >= 'A' && s[k] <= 'Z'));
    };
    if (s[i] != '_') {
      out.push_back(s[i]);
    } else if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) {
      return std::nullopt;
    }
  }
  return out;
}

inline std::string_view strip_spaces(std::string_view s) {
  return strip_right(strip_left(s, is_python_space), is_python_space);
}

/// What int(s, base) finds in a string.
struct read_integer {
  enum class status { good, no_number, too_large } is = status::no_number;
  std::int64_t number = 0;
};
inline read_integer parse_integer(std::string_view s, int base) {
  s = strip_spaces(s);
  const bool is_negative = !s.empty() && s[0] == '-';
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  if (s.size() > 1 && s[0] == '0') {
    const char letter = static_cast<char>(s[1] | 0x20);
    const int said = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (said != 0 && (base == said || base == 0)) {
      base = said;
      s.remove_prefix(2);
      if (!s.empty() && s[0] == '_') s.remove_prefix(1);
    } else if (base == 0 && s.find_first_not_of("0_") != std::string_view::npos) {
      return {};
    }
  }
  if (base == 0) base = 10;
  const auto digits = without_underscores(s);
  if (!digits || digits->empty() || digits->front() == '-') return {};
  std::uint64_t size = 0;
  const auto [end, problem] = std::from_chars(digits->data(), digits->data() + digits->size(), size, base);
  if (end != digits->data() + digits->size()) return {};
  constexpr std::uint64_t most = std::uint64_t{1} << 63;
  if (problem == std::errc::result_out_of_range || size > most || (size == most && !is_negative)) {
    return {read_integer::status::too_large, 0};
  }
  return {read_integer::status::good, static_cast<std::int64_t>(is_negative ? std::uint64_t{0} - size : size)};
}

/// float(s), or nothing.
inline std::optional<double> parse_float(std::string_view s) {
  s = strip_spaces(s);
  const bool is_negative = !s.empty() && s[0] == '-';
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) s.remove_prefix(1);
  const auto digits = without_underscores(s);
  if (!digits || digits->empty() || digits->front() == '-') return std::nullopt;
  double d = 0;
  const auto [end, problem] = std::from_chars(digits->data(), digits->data() + digits->size(), d);
  if (end != digits->data() + digits->size() || digits->back() == ')') return std::nullopt;  // "nan(...)" is C's alone
  if (problem == std::errc::result_out_of_range) {
    // Too large or too small: which of them, the exponent or else the length says.
    const std::size_t e = digits->find_first_of("eE");
    const bool is_small =
        e != std::string::npos ? (*digits)[e + 1] == '-' : digits->find_first_of("123456789.") == digits->find('.');
    d = is_small ? 0.0 : HUGE_VAL;
  }
  return is_negative ? -d : d;
}

/// a // b and a % b of integers, b != 0: rounded down, and the sign of b. `nothing` where the result has 65 bits.
inline std::optional<std::int64_t> floor_divide(std::int64_t a, std::int64_t b) {
  if (b == -1) {
    if (a == std::numeric_limits<std::int64_t>::min()) return std::nullopt;
    return -a;
  }
  const std::int64_t q = a / b;
  return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}
inline std::int64_t floor_modulo(std::int64_t a, std::int64_t b) {
  if (b == -1) return 0;
  const std::int64_t r = a % b;
  return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}

/// The same of floats, as CPython computes them (Objects/floatobject.c, float_divmod, describes the steps).
struct float_quotient {
  double quotient, remainder;
};
inline float_quotient floor_divide(double a, double b) {
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (quotient == 0) return {std::copysign(0.0, a / b), remainder};
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return {floored, remainder};
}

/// The order of an integer and a float, exact also where the integer has no float.
inline std::partial_ordering compare_numbers(std::int64_t n, double d) {
  if (std::isnan(d)) return std::partial_ordering::unordered;
  if (d >= 0x1p63) return std::partial_ordering::less;
  if (d < -0x1p63) return std::partial_ordering::greater;
  const auto whole = static_cast<std::int64_t>(d);  // towards zero
  if (n != whole) return n < whole ? std::partial_ordering::less : std::partial_ordering::greater;
  const double rest = d - static_cast<double>(whole);
  return rest > 0   ? std::partial_ordering::less
         : rest < 0 ? std::partial_ordering::greater
                    : std::partial_ordering::equivalent;
}
/// Both bools, ints or floats.
inline std::partial_ordering compare_numbers(const value& a, const value& b) {
  const auto m = a.integer(), n = b.integer();
  if (m && n) return *m <=> *n;
  if (m) return compare_numbers(*m, *b.get_if<double>());
  if (n) {
    const auto turned = compare_numbers(*n, *a.get_if<double>());
    return turned == std::partial_ordering::less      ? std::partial_ordering::greater
           : turned == std::partial_ordering::greater ? std::partial_ordering::less
                                                      : turned;
  }
  return *a.get_if<double>() <=> *b.get_if<double>();
}

/// The float of a number.
inline double to_float(const value& v) {
  const auto n = v.integer();
  return n ? static_cast<double>(*n) : *v.get_if<double>();
}

/// round(d, places): to the nearest decimal, ties (exact ones) to the even digit.
inline double round_to(double d, std::int64_t places) {
  if (!std::isfinite(d) || places > 323) return d;
  if (places < -308) return std::copysign(0.0, d);
  if (places >= 0) {
    std::array<char, 1100> buffer;
    const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), d, std::chars_format::fixed,
                                       static_cast<int>(places));
    double rounded = 0;
    std::from_chars(buffer.data(), written.ptr, rounded);
    return rounded;
  }
  const double scale = std::pow(10.0, static_cast<double>(-places));
  const double q = d / scale;
  double whole = std::round(q);
  if (std::fabs(q - whole) == 0.5) whole = 2.0 * std::round(q / 2.0);
  return whole * scale;
}

}  // namespace effinfer::inline v0::text::jinja
