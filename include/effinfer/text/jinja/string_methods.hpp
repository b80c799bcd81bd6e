#pragma once
// The methods of str. Positions and lengths count code points.

#include <effinfer/text/jinja/calling.hpp>
#include <effinfer/text/jinja/format.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja::string_methods {

inline value made(runtime& run, const value& self, std::string s) {
  return make_text(run, std::move(s), self.text()->is_markup);
}
inline value made(runtime& run, const value& self, std::string_view s) { return made(run, self, std::string(s)); }

/// What str.strip takes off: the characters of `set`, or white space.
struct stripped_set {
  bool is_space;
  std::vector<char32_t> characters;

  stripped_set(runtime& run, const std::optional<value>& set) : is_space(!set || set->is_none()) {
    if (!is_space) characters = to_code_points(need_text(run, *set, "strip argument"));
    if (characters.size() > 1000) run.fail("strip() of more than 1000 characters", error_code::limit);
  }
  bool operator()(char32_t c) const {
    return is_space ? is_python_space(c) : std::find(characters.begin(), characters.end(), c) != characters.end();
  }
};

template <bool Left, bool Right>
value strip(runtime& run, const value& self, const arguments& given) {
  const stripped_set set(run, given.bind_positional(run, "strip", 1)[0]);
  std::string_view s = self.text()->view();
  run.step((1 + set.characters.size() / 8) * (s.size() / 32));
  if (Left) s = strip_left(s, set);
  if (Right) s = strip_right(s, set);
  return made(run, self, s);
}

template <std::string (*Change)(std::string_view)>
value change_case(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "upper", 0));
  run.make_string(8 * self.text()->view().size());
  return made(run, self, Change(self.text()->view()));
}

inline std::string swap_case(std::string_view s) {
  std::string out;
  const std::vector<char32_t> all = to_code_points(s);
  for (std::size_t i = 0; i < all.size(); ++i) {
    is_upper_case(all[i]) ? append_lower_case_in(out, all, i) : append_upper_case(out, all[i]);
  }
  return out;
}

/// The part s[start:end] that find, count, startswith ... look at; nothing where start is behind the end.
struct window {
  std::string_view text;
  std::size_t first_character;
  bool is_valid;
};
inline window window_of(runtime& run, std::string_view s, const std::optional<value>& start,
                        const std::optional<value>& end) {
  run.look(s.size());
  if ((!start || start->is_none()) && (!end || end->is_none())) return {s, 0, true};
  const auto size = static_cast<std::int64_t>(count_characters(s));
  const auto position = [&](const std::optional<value>& v, std::int64_t missing) {
    if (!v || v->is_none()) return missing;
    std::int64_t n = need_integer(run, *v, "slice index");
    if (n < 0) n = n < -size ? 0 : n + size;
    return n;
  };
  const std::int64_t from = position(start, 0), to = std::min(position(end, size), size);
  if (from > to) return {{}, 0, false};
  const std::size_t begin = byte_of_character(s, static_cast<std::size_t>(from));
  const std::size_t stop = byte_of_character(s, static_cast<std::size_t>(to - from), begin);
  return {s.substr(begin, stop - begin), static_cast<std::size_t>(from), true};
}

template <bool AtEnd>
value has_affix(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, AtEnd ? "endswith" : "startswith", 3, 1);
  const window in = window_of(run, self.text()->view(), a[1], a[2]);
  const auto has = [&](const value& affix) {
    const std::string_view s = need_text(run, affix, AtEnd ? "endswith first arg" : "startswith first arg");
    run.look(s.size());
    return in.is_valid && (AtEnd ? in.text.ends_with(s) : in.text.starts_with(s));
  };
  if (const sequence* s = a[0]->elements(); s && s->kind == sequence_kind::tuple) {
    return std::any_of(s->elements.begin(), s->elements.end(), has);
  }
  return has(*a[0]);
}

template <bool FromRight, bool Fails>
value find(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "find", 3, 1);
  const std::string_view wanted = need_text(run, *a[0], "find argument");
  const window in = window_of(run, self.text()->view(), a[1], a[2]);
  const std::size_t at = !in.is_valid ? in.text.npos : FromRight ? in.text.rfind(wanted) : in.text.find(wanted);
  if (at != in.text.npos) return in.first_character + count_characters(in.text.substr(0, at));
  if (Fails) run.fail("substring not found");
  return -1;
}

/// How often `wanted` stands in `s`, without overlap.
inline std::size_t count_in(std::string_view s, std::string_view wanted) {
  if (wanted.empty()) return count_characters(s) + 1;
  std::size_t n = 0;
  for (std::size_t at = s.find(wanted); at != s.npos; at = s.find(wanted, at + wanted.size())) ++n;
  return n;
}
inline value count(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "count", 3, 1);
  const std::string_view wanted = need_text(run, *a[0], "count argument");
  const window in = window_of(run, self.text()->view(), a[1], a[2]);
  return in.is_valid ? count_in(in.text, wanted) : 0;
}

/// str.replace; `most` < 0: all.
inline std::string replace_in(runtime& run, std::string_view s, std::string_view from, std::string_view to,
                              std::int64_t most) {
  run.look(s.size());
  std::uint64_t found = count_in(s, from);
  if (most >= 0) found = std::min(found, static_cast<std::uint64_t>(most));
  run.make_string(found, to.size());
  run.check_string(s.size() + found * to.size());
  std::string out;
  std::size_t at = 0;
  if (from.empty()) {
    for (; found > 0; --found) {
      out.append(to);
      if (at == s.size()) break;
      const auto length = static_cast<std::size_t>(utf8_length(s[at]));
      out.append(s.substr(at, length));
      at += length;
    }
  }
  for (; found > 0 && !from.empty(); --found) {
    const std::size_t next = s.find(from, at);
    out.append(s.substr(at, next - at)).append(to);
    at = next + from.size();
  }
  return out.append(s.substr(at));
}
inline value replace(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "replace", 3, 2);
  const std::string_view from = need_text(run, *a[0], "replace argument 1");
  need_text(run, *a[1], "replace argument 2");
  const std::string to = self.text()->is_markup ? escaped(run, *a[1]) : std::string(a[1]->text()->view());
  return made(run, self, replace_in(run, self.text()->view(), from, to, a[2] ? need_integer(run, *a[2], "count") : -1));
}

/// str.split and str.rsplit.
template <bool FromRight>
value split(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind(run, "split", {"sep", "maxsplit"});
  std::int64_t left = a[1] ? need_integer(run, *a[1], "maxsplit") : -1;
  std::string_view s = self.text()->view();
  run.look(4 * s.size());
  std::vector<value> parts;
  const auto add = [&](std::string_view part) { parts.push_back(made(run, self, part)); };
  if (!a[0] || a[0]->is_none()) {
    const auto is_other = [](char32_t c) { return !is_python_space(c); };
    while (true) {
      s = FromRight ? strip_right(s, is_python_space) : strip_left(s, is_python_space);
      if (s.empty()) break;
      if (left-- == 0) {
        add(s);
        break;
      }
      const std::string_view rest = FromRight ? strip_right(s, is_other) : strip_left(s, is_other);
      add(FromRight ? s.substr(rest.size()) : s.substr(0, s.size() - rest.size()));
      s = rest;
    }
  } else {
    const std::string_view by = need_text(run, *a[0], "separator");
    if (by.empty()) run.fail("empty separator");
    while (left-- != 0) {
      const std::size_t at = FromRight ? s.rfind(by) : s.find(by);
      if (at == s.npos) break;
      add(FromRight ? s.substr(at + by.size()) : s.substr(0, at));
      s = FromRight ? s.substr(0, at) : s.substr(at + by.size());
    }
    add(s);
  }
  if (FromRight) std::reverse(parts.begin(), parts.end());
  return make_list(run, std::move(parts));
}

inline value split_into_lines(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind(run, "splitlines", {"keepends"});
  run.look(4 * self.text()->view().size());
  std::vector<value> lines;
  for (const std::string_view line : split_lines(self.text()->view(), a[0] && is_true(*a[0])))
    lines.push_back(made(run, self, line));
  return make_list(run, std::move(lines));
}

template <bool FromRight>
value partition(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "partition", 1, 1);
  const std::string_view by = need_text(run, *a[0], "separator");
  const std::string_view s = self.text()->view();
  if (by.empty()) run.fail("empty separator");
  run.look(4 * s.size());
  const std::size_t at = FromRight ? s.rfind(by) : s.find(by);
  const value whole = made(run, self, s), none = made(run, self, std::string());
  if (at == s.npos)
    return make_tuple(run, FromRight ? std::vector<value>{none, none, whole} : std::vector<value>{whole, none, none});
  return make_tuple(run,
                    {made(run, self, s.substr(0, at)), made(run, self, by), made(run, self, s.substr(at + by.size()))});
}

inline value join(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "join", 1, 1);
  std::string out;
  bool is_first = true;
  value v;
  need_defined(run, *a[0]);
  for (const auto all = iterate(run, *a[0]); all->next(run, v);) {
    const std::string_view s = need_text(run, v, "sequence item");
    run.grow_string(out.size(), s.size() + self.text()->view().size());
    if (!is_first) out.append(self.text()->view());
    is_first = false;
    self.text()->is_markup ? out.append(escaped(run, v)) : out.append(s);
  }
  return made(run, self, std::move(out));
}

template <bool AtEnd>
value remove_affix(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "removeprefix", 1, 1);
  const std::string_view affix = need_text(run, *a[0], "affix");
  std::string_view s = self.text()->view();
  if (AtEnd && s.ends_with(affix)) s.remove_suffix(affix.size());
  if (!AtEnd && s.starts_with(affix)) s.remove_prefix(affix.size());
  return made(run, self, s);
}

/// center, ljust, rjust: -1 puts the text to the left, 1 to the right.
inline std::string padded(runtime& run, std::string_view s, std::int64_t width, std::string_view fill, int side) {
  run.look(s.size());
  const auto size = static_cast<std::int64_t>(count_characters(s));
  if (width <= size) return std::string(s);
  run.make_string(static_cast<std::uint64_t>(width), 4);
  const std::int64_t extra = width - size;
  const std::int64_t left = side < 0 ? 0 : side > 0 ? extra : extra / 2 + (extra & width & 1);
  std::string out;
  for (std::int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(s);
  for (std::int64_t i = left; i < extra; ++i) out.append(fill);
  return out;
}
template <int Side>
value pad(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "center", 2, 1);
  const std::string_view fill = a[1] ? need_text(run, *a[1], "fill character") : std::string_view(" ");
  if (count_characters(fill) != 1) run.fail("the fill character must be exactly one character long");
  return made(run, self, padded(run, self.text()->view(), need_integer(run, *a[0], "width"), fill, Side));
}
inline value zero_fill(runtime& run, const value& self, const arguments& given) {
  const auto a = given.bind_positional(run, "zfill", 1, 1);
  std::string_view s = self.text()->view();
  std::string sign;
  std::int64_t width = need_integer(run, *a[0], "width");
  if (!s.empty() && (s[0] == '-' || s[0] == '+')) {
    sign = s.substr(0, 1);
    s.remove_prefix(1);
    if (width > 0) --width;
  }
  return made(run, self, sign + padded(run, s, width, "0", 1));
}

/// True where there are characters, and all are so.
template <bool (*Is)(char32_t)>
value all_are(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "is...", 0));
  run.look(8 * self.text()->view().size());
  const auto all = to_code_points(self.text()->view());
  return !all.empty() && std::all_of(all.begin(), all.end(), Is);
}
/// str.islower, str.isupper: there are cased letters, and all of those are so.
inline bool all_cased_are(runtime& run, std::string_view s, bool (*is)(char32_t)) {
  run.look(8 * s.size());
  bool has_cased = false;
  for (const char32_t c : to_code_points(s)) {
    if (!is_cased(c)) continue;
    if (!is(c)) return false;
    has_cased = true;
  }
  return has_cased;
}
template <bool (*Is)(char32_t)>
value cased_are(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "is...", 0));
  return all_cased_are(run, self.text()->view(), Is);
}
inline bool is_decimal(char32_t c) { return general_category(c) == UTF8PROC_CATEGORY_ND; }
inline bool is_letter_or_number(char32_t c) { return is_letter(c) || is_number(c); }
inline bool is_space_character(char32_t c) { return is_python_space(c); }
inline value is_ascii(runtime& run, const value& self, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "isascii", 0));
  const std::string_view s = self.text()->view();
  run.look(s.size());
  return std::none_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

inline value format(runtime& run, const value& self, const arguments& given) {
  return format_braces(run, *self.text(), given);
}

/// All that str has in Python 3.11, sorted by nothing; null: not here.
inline std::span<const method> table() {
  static constexpr method methods[] = {
      {"strip", strip<true, true>},
      {"lstrip", strip<true, false>},
      {"rstrip", strip<false, true>},
      {"split", split<false>},
      {"rsplit", split<true>},
      {"splitlines", split_into_lines},
      {"startswith", has_affix<false>},
      {"endswith", has_affix<true>},
      {"upper", change_case<to_upper_case>},
      {"lower", change_case<to_lower_case>},
      {"title", change_case<to_title_case>},
      {"capitalize", change_case<to_capitalized>},
      {"swapcase", change_case<swap_case>},
      {"replace", replace},
      {"join", join},
      {"count", count},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"center", pad<0>},
      {"ljust", pad<-1>},
      {"rjust", pad<1>},
      {"zfill", zero_fill},
      {"format", format},
      {"islower", cased_are<is_lower_case>},
      {"isupper", cased_are<is_upper_case>},
      {"isascii", is_ascii},
      {"isalpha", all_are<is_letter>},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_decimal>},
      {"isnumeric", all_are<is_number>},
      {"isalnum", all_are<is_letter_or_number>},
      {"isspace", all_are<is_space_character>},
      {"casefold", nullptr},
      {"encode", nullptr},
      {"expandtabs", nullptr},
      {"format_map", nullptr},
      {"isidentifier", nullptr},
      {"isprintable", nullptr},
      {"istitle", nullptr},
      {"maketrans", nullptr},
      {"translate", nullptr},
  };
  return methods;
}

}  // namespace effinfer::inline v0::text::jinja::string_methods
