#pragma once
// Python's view of a string: code points, its idea of white space, lines and letters, upper and lower case.
// Tables: utf8proc. Known difference: of the characters whose upper case is several characters, those of polytonic Greek, the
// Armenian ligatures, and a few that only transliterations use, become no more than one.

#include <effinfer/text/unicode.hpp>
#include <effinfer/text/utf8.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::text::jinja {

/// str.isspace() of one character.
constexpr bool is_python_space(char32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

/// Where str.splitlines() ends a line.
constexpr bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

inline std::size_t count_characters(std::string_view s) {
  std::size_t count = 0;
  for (const char c : s) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

/// The byte at which character `index` begins; `index` may be the number of characters.
inline std::size_t byte_of_character(std::string_view s, std::size_t index, std::size_t from = 0) {
  std::size_t at = from;
  while (index-- > 0) at += static_cast<std::size_t>(utf8_length(s[at]));
  return at;
}

inline std::vector<char32_t> to_code_points(std::string_view s) {
  std::vector<char32_t> all;
  all.reserve(s.size());
  while (!s.empty()) {
    const code_point c = first_code_point(s);
    all.push_back(c.value);
    s.remove_prefix(static_cast<std::size_t>(c.length));
  }
  return all;
}

/// str.lstrip() and str.rstrip(), by a predicate on code points.
template <class Predicate>
std::string_view strip_left(std::string_view s, Predicate is_stripped) {
  while (!s.empty()) {
    const code_point c = first_code_point(s);
    if (!is_stripped(c.value)) break;
    s.remove_prefix(static_cast<std::size_t>(c.length));
  }
  return s;
}
template <class Predicate>
std::string_view strip_right(std::string_view s, Predicate is_stripped) {
  while (!s.empty()) {
    const code_point c = last_code_point(s);
    if (!is_stripped(c.value)) break;
    s.remove_suffix(static_cast<std::size_t>(c.length));
  }
  return s;
}

/// str.splitlines(). Cost: linear.
inline std::vector<std::string_view> split_lines(std::string_view s, bool keep_ends = false) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0, at = 0;
  while (at < s.size()) {
    const code_point c = first_code_point(s.substr(at));
    const std::size_t end = at;
    at += static_cast<std::size_t>(c.length);
    if (!is_line_end(c.value)) continue;
    if (c.value == '\r' && at < s.size() && s[at] == '\n') ++at;
    lines.push_back(s.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < s.size()) lines.push_back(s.substr(begin));
  return lines;
}

inline bool is_letter(char32_t c) {
  const auto category = general_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}
inline bool is_lower_case(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  return general_category(c) == UTF8PROC_CATEGORY_LL || utf8proc_islower(static_cast<utf8proc_int32_t>(c)) != 0;
}
inline bool is_upper_case(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  return general_category(c) == UTF8PROC_CATEGORY_LU || utf8proc_isupper(static_cast<utf8proc_int32_t>(c)) != 0;
}
inline bool is_cased(char32_t c) {
  return is_lower_case(c) || is_upper_case(c) || general_category(c) == UTF8PROC_CATEGORY_LT;
}
/// str.isprintable() of one character; repr() escapes the others.
inline bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  const auto category = general_category(c);
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}

inline void append_upper_case(std::string& out, char32_t c, bool as_title = false) {
  struct special {
    char32_t from;
    const char* upper;
    const char* title;
  };
  constexpr special specials[] = {
      {0xDF, "SS", "Ss"},
      {0x149, "\xCA\xBCN", "\xCA\xBCN"},
      {0x1F0, "J\xCC\x8C", "J\xCC\x8C"},
      {0xFB00, "FF", "Ff"},
      {0xFB01, "FI", "Fi"},
      {0xFB02, "FL", "Fl"},
      {0xFB03, "FFI", "Ffi"},
      {0xFB04, "FFL", "Ffl"},
      {0xFB05, "ST", "St"},
      {0xFB06, "ST", "St"},
  };
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c));
    return;
  }
  for (const special& s : specials) {
    if (s.from == c) {
      out.append(as_title ? s.title : s.upper);
      return;
    }
  }
  const auto point = static_cast<utf8proc_int32_t>(c);
  append_utf8(out, static_cast<char32_t>(as_title ? utf8proc_totitle(point) : utf8proc_toupper(point)));
}

/// The lower case of character `at`; a capital sigma at the end of a word is a final one.
inline void append_lower_case_in(std::string& out, const std::vector<char32_t>& all, std::size_t at) {
  if (all[at] != 0x3A3) {
    append_lower_case(out, all[at]);
    return;
  }
  // Unicode 15, table 3-17, Final_Sigma: a cased letter before, none after; case-ignorable characters are passed over.
  const auto is_ignorable = [](char32_t c) {
    const auto category = general_category(c);
    return is_mark(c) || category == UTF8PROC_CATEGORY_LM || category == UTF8PROC_CATEGORY_SK ||
           category == UTF8PROC_CATEGORY_CF || c == '\'' || c == '.' || c == ':' || c == 0xB7 || c == 0x2019;
  };
  std::size_t before = at, after = at + 1;
  while (before > 0 && is_ignorable(all[before - 1])) --before;
  while (after < all.size() && is_ignorable(all[after])) ++after;
  const bool is_final = before > 0 && is_cased(all[before - 1]) && !(after < all.size() && is_cased(all[after]));
  append_utf8(out, is_final ? 0x3C2 : 0x3C3);
}

inline std::string to_upper_case(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (const char32_t c : to_code_points(s)) append_upper_case(out, c);
  return out;
}
inline std::string to_lower_case(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  const std::vector<char32_t> all = to_code_points(s);
  for (std::size_t i = 0; i < all.size(); ++i) append_lower_case_in(out, all, i);
  return out;
}
/// str.capitalize().
inline std::string to_capitalized(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  const std::vector<char32_t> all = to_code_points(s);
  for (std::size_t i = 0; i < all.size(); ++i) {
    i == 0 ? append_upper_case(out, all[0], true) : append_lower_case_in(out, all, i);
  }
  return out;
}
/// str.title(): the first letter of each run of letters is a capital. (The filter `title` has another rule.)
inline std::string to_title_case(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  const std::vector<char32_t> all = to_code_points(s);
  for (std::size_t i = 0; i < all.size(); ++i) {
    i == 0 || !is_cased(all[i - 1]) ? append_upper_case(out, all[i], true) : append_lower_case_in(out, all, i);
  }
  return out;
}

}  // namespace effinfer::inline v0::text::jinja
