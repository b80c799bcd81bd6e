#pragma once
// The filters of Jinja by name: `x | trim`, `x | join(", ")`. Those of text and numbers are here, those of sequences in
// sequence_filters.hpp. Names that Jinja has and chat templates don't use (urlize, pprint, random ...) are not known here.

#include <effinfer/text/jinja/attributes.hpp>
#include <effinfer/text/jinja/sequence_filters.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text::jinja {

namespace filters {

/// Jinja's soft_str: a string as it is, and all else as it prints.
inline value as_text(runtime& run, const value& v) { return v.text() ? v : make_text(run, printed(run, v).string()); }

template <std::string (*Change)(std::string_view)>
value change_case(runtime& run, const value& v, const arguments& given) {
  return string_methods::change_case<Change>(run, as_text(run, v), given);
}
inline value trim(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "trim", {"chars"});
  arguments to_strip;
  if (a[0]) to_strip.positional.push_back(*a[0]);
  return string_methods::strip<true, true>(run, as_text(run, v), to_strip);
}
/// Words begin after spaces, hyphens, and opening brackets (unlike str.title).
inline std::string title_words(std::string_view s) {
  const auto is_separator = [](char32_t c) {
    return is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  const std::vector<char32_t> all = to_code_points(s);
  std::string out;
  for (std::size_t i = 0; i < all.size();) {
    std::vector<char32_t> part;  // the rule for sigma looks at one part at a time
    const bool is_gap = is_separator(all[i]);
    while (i < all.size() && is_separator(all[i]) == is_gap) part.push_back(all[i++]);
    append_upper_case(out, part[0]);
    const std::vector<char32_t> rest(part.begin() + 1, part.end());
    for (std::size_t k = 0; k < rest.size(); ++k) append_lower_case_in(out, rest, k);
  }
  return out;
}

inline value replace(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "replace", {"old", "new", "count"}, 2);
  const printed s(run, v), from(run, *a[0]), to(run, *a[1]);
  const std::int64_t most = !a[2] || a[2]->is_none() ? -1 : need_integer(run, *a[2], "count");
  return make_text(run, string_methods::replace_in(run, s.view(), from.view(), to.view(), most));
}
inline value escape(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "escape", {}));
  return make_text(run, escaped(run, v), true);
}
inline value force_escape(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "forceescape", {}));
  return make_text(run, escape_html(run, printed(run, v).view()), true);
}
inline value safe(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "safe", {}));
  if (const text_value* t = v.text()) return text_value{t->bytes, true};
  return make_text(run, printed(run, v).string(), true);
}
inline value string(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "string", {}));
  return as_text(run, v);
}
inline value format(runtime& run, const value& v, const arguments& given) {
  if (!given.named.empty() && !given.positional.empty())
    run.fail("format() can't handle positional and keyword arguments at once");
  const value pattern = as_text(run, v);
  if (given.named.empty()) return percent_formatter(run, pattern, make_tuple(run, given.positional)).format();
  return percent_formatter(run, pattern, value::dict(given.named)).format();
}

/// Each line but the first one begins further right; empty lines stay empty.
inline value indent(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "indent", {"width", "first", "blank"});
  need_defined(run, v);
  const bool is_first = a[1] && is_true(*a[1]), is_blank = a[2] && is_true(*a[2]);
  std::string space(4, ' ');
  if (a[0] && a[0]->text()) {
    space = a[0]->text()->view();
  } else if (a[0]) {
    const std::int64_t width = need_integer(run, *a[0], "indent width");
    run.make_string(width < 0 ? 0 : static_cast<std::uint64_t>(width));
    space.assign(width < 0 ? 0 : static_cast<std::size_t>(width), ' ');
  }
  const std::string s = std::string(need_text(run, v, "indent argument")) + "\n";
  const auto lines = split_lines(s);
  run.make_string(lines.size(), space.size() + 1);
  std::string out = is_first ? space : std::string();
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n");
    if (i > 0 && (is_blank || !lines[i].empty())) out.append(space);
    out.append(lines[i]);
  }
  return make_text(run, std::move(out), v.text()->is_markup);
}
inline value word_count(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "wordcount", {}));
  const printed s(run, v);
  run.look(8 * s.view().size());
  std::int64_t words = 0;
  bool is_inside = false;
  for (const char32_t c : to_code_points(s.view())) {
    const bool is_part = is_letter(c) || is_number(c) || c == '_';  // \w of Python
    words += is_part && !is_inside;
    is_inside = is_part;
  }
  return words;
}
inline value center(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "center", {"width"});
  const printed s(run, v);
  return make_text(run, string_methods::padded(run, s.view(), a[0] ? need_integer(run, *a[0], "width") : 80, " ", 0));
}
inline value url_encode(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind(run, "urlencode", {}));
  if (v.elements() || v.mapping()) run.fail("urlencode of a " + v.type_name(), error_code::unsupported);
  const printed s(run, v);
  run.make_string(3 * s.view().size());
  std::string out;
  for (const char c : s.view()) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          std::string_view("_.-~/").find(c) != std::string_view::npos;
    if (is_plain) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.append({'%', "0123456789ABCDEF"[byte >> 4], "0123456789ABCDEF"[byte & 15]});
    }
  }
  return make_text(run, std::move(out));
}
inline value truncate(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "truncate", {"length", "killwords", "end", "leeway"});
  const std::int64_t length = a[0] ? need_integer(run, *a[0], "length") : 255;
  const std::string_view end = a[2] ? need_text(run, *a[2], "end") : std::string_view("...");
  const std::int64_t leeway = a[3] && !a[3]->is_none() ? need_integer(run, *a[3], "leeway") : 5;
  const auto end_size = static_cast<std::int64_t>(count_characters(end));
  if (length < end_size || leeway < 0 || length > (std::int64_t{1} << 40) || leeway > (std::int64_t{1} << 40)) {
    run.fail("truncate(): length or leeway is out of range");
  }
  const auto size = length_of(run, v);
  if (size && static_cast<std::int64_t>(*size) <= length + leeway) return v;
  const std::string_view s = need_text(run, v, "truncate argument");
  run.look(2 * s.size());
  std::string_view kept = s.substr(0, byte_of_character(s, static_cast<std::size_t>(length - end_size)));
  if (!(a[1] && is_true(*a[1]))) kept = kept.substr(0, kept.rfind(' '));
  return make_text(run, std::string(kept) + std::string(end));
}

/// transformers' tojson: json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False).
inline value to_json(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  json_style style;
  if (a[0]) style.ensure_ascii = is_true(*a[0]);
  if (a[1] && !a[1]->is_none()) {
    if (a[1]->text()) {
      style.indent = std::string(a[1]->text()->view());
    } else {
      const std::int64_t width = need_integer(run, *a[1], "indent");
      run.make_string(width < 0 ? 0 : static_cast<std::uint64_t>(width));
      style.indent = std::string(width < 0 ? 0 : static_cast<std::size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (a[2] && !a[2]->is_none()) {
    const auto pair = collect(run, *a[2]);
    if (pair.size() != 2) run.fail("tojson: separators must be (item_separator, key_separator)");
    style.item_separator = need_text(run, pair[0], "item separator");
    style.key_separator = need_text(run, pair[1], "key separator");
  }
  if (a[3]) style.sort_keys = is_true(*a[3]);
  return make_text(run, json_writer(run, style).write(v));
}

inline value default_value(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "default", {"default_value", "boolean"});
  if (v.is_undefined() || (a[1] && is_true(*a[1]) && !is_true(v))) return a[0] ? *a[0] : value("");
  return v;
}
inline value attr(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "attr", {"name"}, 1);
  need_defined(run, v);
  const std::string_view name = need_text(run, *a[0], "attribute name");
  if (auto found = own_attribute(run, v, name)) return *std::move(found);
  return nothing_there(v, *a[0]);
}

inline value to_integer(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "int", {"default", "base"});
  need_defined(run, v);
  if (const auto n = v.integer()) return *n;
  std::optional<double> d;
  if (const text_value* t = v.text()) {
    const std::int64_t base = a[1] ? need_integer(run, *a[1], "base") : 10;
    run.look(t->view().size());
    if (base == 0 || (base >= 2 && base <= 36)) {
      const read_integer read = parse_integer(t->view(), static_cast<int>(base));
      if (read.is == read_integer::status::too_large)
        run.fail("an integer of more than 64 bits", error_code::unsupported);
      if (read.is == read_integer::status::good) return read.number;
    }
    d = parse_float(t->view());
  } else if (v.get_if<double>()) {
    d = *v.get_if<double>();
    if (std::isinf(*d)) return a[0] ? *a[0] : value(0);
  }
  if (!d || !std::isfinite(*d)) return a[0] ? *a[0] : value(0);
  const double whole = std::trunc(*d);
  if (!(whole >= -0x1p63 && whole < 0x1p63)) run.fail("an integer of more than 64 bits", error_code::unsupported);
  return static_cast<std::int64_t>(whole);
}
inline value to_floating(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "float", {"default"});
  need_defined(run, v);
  if (v.is_number()) return to_float(v);
  if (const text_value* t = v.text()) {
    run.look(t->view().size());
    if (const auto d = parse_float(t->view())) return *d;
  }
  return a[0] ? *a[0] : value(0.0);
}
inline value absolute(runtime& run, const value& v, const arguments& given) {
  static_cast<void>(given.bind_positional(run, "abs", 0));
  need_defined(run, v);
  if (const auto n = v.integer()) return *n < 0 ? with_sign(run, *n, true) : value(*n);
  if (const auto* d = v.get_if<double>()) return std::fabs(*d);
  run.fail("bad operand type for abs(): '" + v.type_name() + "'");
}
inline value round(runtime& run, const value& v, const arguments& given) {
  const auto a = given.bind(run, "round", {"precision", "method"});
  need_defined(run, v);
  const std::string_view how = a[1] ? need_text(run, *a[1], "method") : std::string_view("common");
  if (how != "common" && how != "ceil" && how != "floor") run.fail("method must be common, ceil or floor");
  if (!v.is_number()) run.fail("type " + v.type_name() + " can't be rounded");
  const value places = a[0] ? *a[0] : value(0);
  if (how == "common") {
    const auto n = v.integer();
    if (places.is_none()) {  // to an int
      if (n) return *n;
      const double nearest = round_to(*v.get_if<double>(), 0);
      if (!(std::fabs(nearest) < 0x1p63)) run.fail("an integer of more than 64 bits", error_code::unsupported);
      return static_cast<std::int64_t>(nearest);
    }
    const std::int64_t to = need_integer(run, places, "precision");
    if (!n) return round_to(*v.get_if<double>(), to);
    if (to >= 0) return *n;
    if (to < -18) return std::int64_t{0};
    std::int64_t scale = 1;
    for (std::int64_t i = to; i < 0; ++i) scale *= 10;
    const std::int64_t down = floor_modulo(*n, scale), half = scale / 2;
    const bool is_up = down > half || (down == half && floor_modulo((*n - down) / scale, 2) == 1);
    return compute(run, *n - down, arithmetic::add, is_up ? scale : 0);
  }
  const value scale = compute(run, std::int64_t{10}, arithmetic::power, places);
  const value grown = compute(run, v, arithmetic::multiply, scale);
  if (grown.integer()) return compute(run, grown, arithmetic::divide, scale);
  const double whole = how == "ceil" ? std::ceil(to_float(grown)) : std::floor(to_float(grown));
  if (!std::isfinite(whole)) run.fail("cannot convert infinity or NaN to an integer");
  return compute(run, whole, arithmetic::divide, scale);
}

inline std::span<const filter> of_values() {
  static constexpr filter all[] = {
      {"upper", change_case<to_upper_case>},
      {"lower", change_case<to_lower_case>},
      {"title", change_case<title_words>},
      {"capitalize", change_case<to_capitalized>},
      {"trim", trim},
      {"replace", replace},
      {"escape", escape},
      {"e", escape},
      {"forceescape", force_escape},
      {"safe", safe},
      {"string", string},
      {"format", format},
      {"indent", indent},
      {"wordcount", word_count},
      {"center", center},
      {"urlencode", url_encode},
      {"truncate", truncate},
      {"tojson", to_json},
      {"default", default_value},
      {"d", default_value},
      {"attr", attr},
      {"int", to_integer},
      {"float", to_floating},
      {"abs", absolute},
      {"round", round},
  };
  return all;
}

}  // namespace filters

inline const filter* find_filter(std::string_view name) {
  for (const auto table : {filters::of_values(), filters::of_sequences()}) {
    for (const filter& f : table) {
      if (f.name == name) return &f;
    }
  }
  return nullptr;
}
inline bool is_known_filter(std::string_view name) { return find_filter(name) != nullptr; }

/// v | name(...). Errors: `malformed` for an unknown filter.
inline value apply_filter(runtime& run, std::string_view name, const value& v, const arguments& given) {
  run.step();
  const runtime::level inside(run);
  const filter* f = find_filter(name);
  if (!f) run.fail("no filter named '" + std::string(name.substr(0, 100)) + "'");
  return f->body(run, v, given);
}

}  // namespace effinfer::inline v0::text::jinja
