#pragma once
// str() and repr() of values, and the JSON that transformers' `tojson` writes (json.dumps, not escaped for HTML).

#include <effinfer/text/jinja/numbers.hpp>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::text::jinja {

inline void append_hex(std::string& out, char32_t c, int digits) {
  for (int i = digits - 1; i >= 0; --i) out.push_back("0123456789abcdef"[(c >> (4 * i)) & 0xF]);
}

/// repr() of a string: quotes of the kind that it doesn't hold, unprintable characters escaped.
inline void append_quoted(std::string& out, std::string_view s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  out.push_back(quote);
  for (; !s.empty(); s.remove_prefix(static_cast<std::size_t>(first_code_point(s).length))) {
    const char32_t c = first_code_point(s).value;
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out.append("\\n");
    } else if (c == '\r') {
      out.append("\\r");
    } else if (c == '\t') {
      out.append("\\t");
    } else if (is_printable(c)) {
      append_utf8(out, c);
    } else {
      out.append(c < 0x100 ? "\\x" : c < 0x10000 ? "\\u" : "\\U");
      append_hex(out, c, c < 0x100 ? 2 : c < 0x10000 ? 4 : 8);
    }
  }
  out.push_back(quote);
}

/// repr(). Errors: `limit` (values that share parts can be huge in print).
inline void append_written(runtime& run, std::string& out, const value& v) {
  run.step();
  run.grow_string(out.size(), 8);
  const runtime::level inside(run);
  if (v.is_none()) {
    out.append("None");
  } else if (v.is_undefined()) {
    out.append("Undefined");
  } else if (const auto* b = v.get_if<bool>()) {
    out.append(*b ? "True" : "False");
  } else if (const auto* n = v.get_if<std::int64_t>()) {
    out.append(std::to_string(*n));
  } else if (const auto* d = v.get_if<double>()) {
    out.append(write_float(*d));
  } else if (const text_value* t = v.text()) {
    run.grow_string(out.size(), t->view().size());
    if (t->is_markup) out.append("Markup(");
    append_quoted(out, t->view());
    if (t->is_markup) out.append(")");
  } else if (const dictionary* m = v.mapping()) {
    out.push_back('{');
    bool is_first = true;
    for (const auto& [key, item] : m->entries()) {
      if (!is_first) out.append(", ");
      is_first = false;
      append_written(run, out, key);
      out.append(": ");
      append_written(run, out, item);
    }
    out.push_back('}');
  } else if (const sequence* s = v.elements()) {
    if (s->kind == sequence_kind::range) {
      out.append("range(" + std::to_string(s->range[0]) + ", " + std::to_string(s->range[1]));
      if (s->range[2] != 1) out.append(", " + std::to_string(s->range[2]));
      out.push_back(')');
      return;
    }
    constexpr const char* opened[] = {"[", "(", "", "dict_keys([", "dict_values([", "dict_items(["};
    constexpr const char* closed[] = {"]", ")", "", "])", "])", "])"};
    out.append(opened[static_cast<int>(s->kind)]);
    for (std::size_t i = 0; i < s->elements.size(); ++i) {
      if (i > 0) out.append(", ");
      append_written(run, out, s->elements[i]);
    }
    if (s->kind == sequence_kind::tuple && s->elements.size() == 1) out.push_back(',');
    out.append(closed[static_cast<int>(s->kind)]);
  } else {
    out.append(v.as()->written());
  }
}

/// str(), without a copy where the value is a string: that is what is printed.
class printed {
 public:
  printed(runtime& run, const value& v) : source_(v.text() ? v.text()->bytes : nullptr) {
    if (!source_ && !v.is_undefined()) append_written(run, made_, v);
  }
  [[nodiscard]] std::string_view view() const { return source_ ? std::string_view(*source_) : std::string_view(made_); }
  [[nodiscard]] std::string string() const { return std::string(view()); }

 private:
  std::shared_ptr<const std::string> source_;
  std::string made_;
};

/// What json.dumps may be told.
struct json_style {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  ///< one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

inline void append_json_string(std::string& out, std::string_view s, bool ensure_ascii) {
  out.push_back('"');
  for (; !s.empty(); s.remove_prefix(static_cast<std::size_t>(first_code_point(s).length))) {
    const char32_t c = first_code_point(s).value;
    switch (c) {
      case '"': out.append("\\\""); break;
      case '\\': out.append("\\\\"); break;
      case '\n': out.append("\\n"); break;
      case '\r': out.append("\\r"); break;
      case '\t': out.append("\\t"); break;
      case '\f': out.append("\\f"); break;
      case '\b': out.append("\\b"); break;
      default:
        if (c >= 0x20 && (c < 0x7F || !ensure_ascii)) {
          append_utf8(out, c);
        } else if (c < 0x10000) {
          out.append("\\u");
          append_hex(out, c, 4);
        } else {
          out.append("\\u");
          append_hex(out, 0xD800 + ((c - 0x10000) >> 10), 4);
          out.append("\\u");
          append_hex(out, 0xDC00 + (c & 0x3FF), 4);
        }
    }
  }
  out.push_back('"');
}

inline std::string json_float(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return write_float(d);
}

/// json.dumps. Errors: `malformed` for what has no JSON, `limit`.
class json_writer {
 public:
  json_writer(runtime& run, json_style style) : run_(run), style_(std::move(style)) {}

  std::string write(const value& v) {
    append(v, 0);
    return std::move(out_);
  }

 private:
  void append(const value& v, int level) {
    run_.step();
    run_.grow_string(out_.size(), 8);
    const runtime::level inside(run_);
    if (v.is_none()) {
      out_.append("null");
    } else if (const auto* b = v.get_if<bool>()) {
      out_.append(*b ? "true" : "false");
    } else if (const auto* n = v.get_if<std::int64_t>()) {
      out_.append(std::to_string(*n));
    } else if (const auto* d = v.get_if<double>()) {
      out_.append(json_float(*d));
    } else if (const text_value* t = v.text()) {
      run_.grow_string(out_.size(), t->view().size());
      append_json_string(out_, t->view(), style_.ensure_ascii);
    } else if (const dictionary* m = v.mapping()) {
      append_dictionary(*m, level);
    } else if (const sequence* s = v.elements();
               s && (s->kind == sequence_kind::list || s->kind == sequence_kind::tuple)) {
      out_.push_back('[');
      for (std::size_t i = 0; i < s->elements.size(); ++i) {
        if (i > 0) out_.append(style_.item_separator);
        begin_line(level + 1);
        append(s->elements[i], level + 1);
      }
      if (!s->elements.empty()) begin_line(level);
      out_.push_back(']');
    } else {
      run_.fail("Object of type " + v.type_name() + " is not JSON serializable");
    }
  }

  void append_dictionary(const dictionary& m, int level) {
    std::vector<const dictionary::entry*> entries;
    entries.reserve(m.entries().size());
    for (const auto& e : m.entries()) entries.push_back(&e);
    if (style_.sort_keys) {
      bool are_strings = true, are_numbers = true;
      for (const auto* e : entries) {
        are_strings = are_strings && e->key.text();
        are_numbers = are_numbers && e->key.is_number();
      }
      if (!are_strings && !are_numbers && entries.size() > 1)
        run_.fail("tojson: keys of different types can't be sorted");
      run_.step(entries.size() * 20);
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return are_strings ? a->key.text()->view() < b->key.text()->view()  // bytes of UTF-8 sort as code points
                           : compare_numbers(a->key, b->key) == std::partial_ordering::less;
      });
    }
    out_.push_back('{');
    bool is_first = true;
    for (const auto* e : entries) {
      if (!is_first) out_.append(style_.item_separator);
      is_first = false;
      begin_line(level + 1);
      append_key(e->key);
      out_.append(style_.key_separator);
      append(e->item, level + 1);
    }
    if (!entries.empty()) begin_line(level);
    out_.push_back('}');
  }

  void append_key(const value& key) {
    std::string s;
    if (const text_value* t = key.text()) {
      s = t->view();
    } else if (key.is_none()) {
      s = "null";
    } else if (const auto* b = key.get_if<bool>()) {
      s = *b ? "true" : "false";
    } else if (const auto* n = key.get_if<std::int64_t>()) {
      s = std::to_string(*n);
    } else if (const auto* d = key.get_if<double>()) {
      s = json_float(*d);
    } else {
      run_.fail("keys must be str, int, float, bool or None, not " + key.type_name());
    }
    run_.grow_string(out_.size(), s.size());
    append_json_string(out_, s, style_.ensure_ascii);
  }

  void begin_line(int level) {
    if (!style_.indent) return;
    run_.grow_string(out_.size(), static_cast<std::uint64_t>(level) * style_.indent->size() + 1);
    out_.push_back('\n');
    for (int i = 0; i < level; ++i) out_.append(*style_.indent);
  }

  runtime& run_;
  json_style style_;
  std::string out_;
};

}  // namespace effinfer::inline v0::text::jinja
