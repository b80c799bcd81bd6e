#pragma once
// What is done to text before it is split: Unicode normal forms, replacements, lower case ... A normalizer is a list
// of steps, each a small struct with `apply(aligned_text&)`, and a tokenizer.json says which (field "normalizer").

#include <effinfer/text/byte_level.hpp>
#include <effinfer/text/regex.hpp>
#include <effinfer/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace effinfer::inline v0::text {

/// Text on its way to the model. `front` says how many of its first bytes stem from the first character of what the
/// user wrote (0 if that character was dropped, or the text is from further on): the Metaspace scheme "first" asks.
struct aligned_text {
  std::string text;
  std::size_t front = 0;
};

namespace normalizers {

/// A step that turns characters one by one into any number of others; `append(out, character)` does it.
template <class Append>
void transform_characters(aligned_text& t, Append append) {
  std::string out;
  out.reserve(t.text.size());
  std::size_t front = 0;
  for (std::size_t at = 0; at < t.text.size();) {
    const code_point c = first_code_point(std::string_view(t.text).substr(at));
    append(out, c.value);
    if (at < t.front) front = out.size();
    at += static_cast<std::size_t>(c.length);
  }
  t = {std::move(out), front};
}

struct unicode_form {
  normal_form form;
  void apply(aligned_text& t) const {
    t.text = to_normal_form(form, t.text);
    if (t.front > 0) t.front = t.text.empty() ? 0 : static_cast<std::size_t>(utf8_length(t.text[0]));
  }
};

struct lower_case {
  void apply(aligned_text& t) const {
    transform_characters(t, [](std::string& out, char32_t c) { append_lower_case(out, c); });
  }
};

/// Drops combining marks.
struct strip_accents {
  void apply(aligned_text& t) const {
    transform_characters(t, [](std::string& out, char32_t c) {
      if (!is_mark(c)) append_utf8(out, c);
    });
  }
};

/// Drops white space at the ends.
struct strip {
  bool left, right;
  void apply(aligned_text& t) const {
    std::string_view rest = t.text;
    while (left && !rest.empty() && is_white_space(first_code_point(rest).value)) {
      rest.remove_prefix(static_cast<std::size_t>(utf8_length(rest[0])));
      t.front = 0;
    }
    while (right && !rest.empty()) {
      const code_point last = last_code_point(rest);
      if (!is_white_space(last.value)) break;
      rest.remove_suffix(static_cast<std::size_t>(last.length));
    }
    t.front = std::min(t.front, rest.size());
    t.text = std::string(rest);
  }
};

/// Puts text before a text that isn't empty.
struct prepend {
  std::string content;
  void apply(aligned_text& t) const {
    if (t.text.empty()) return;
    t.text.insert(0, content);
    if (t.front > 0) t.front += content.size();
  }
};

/// Replaces each match by `content`, pieces of old and new text going to `out` as (range, is_match).
class replaced_text {
 public:
  replaced_text(const aligned_text& from, std::string_view content) : from_(from), content_(content) {}
  void add(text_range range, bool is_match) {
    const bool in_front = is_match ? range.end <= from_.front : range.begin < from_.front;
    out_.append(is_match ? content_ : std::string_view(from_.text).substr(range.begin, range.end - range.begin));
    if (!in_front) return;
    front_ = is_match ? out_.size() : out_.size() - (range.end - std::min(range.end, from_.front));
  }
  aligned_text result() && { return {std::move(out_), front_}; }

 private:
  const aligned_text& from_;
  std::string_view content_;
  std::string out_;
  std::size_t front_ = 0;
};

/// Replaces every occurrence of a non-empty text.
struct replace_text {
  std::string pattern, content;
  void apply(aligned_text& t) const {
    replaced_text out(t, content);
    std::size_t covered = 0;
    for (std::size_t found; (found = t.text.find(pattern, covered)) != std::string::npos;) {
      if (found > covered) out.add({covered, found}, false);
      covered = found + pattern.size();
      out.add({found, covered}, true);
    }
    if (covered == 0) return;
    if (covered < t.text.size()) out.add({covered, t.text.size()}, false);
    t = std::move(out).result();
  }
};

/// Replaces every match of a pattern; `content` is taken as it is.
struct replace_regex {
  regex pattern;
  std::string content;
  void apply(aligned_text& t) const {
    replaced_text out(t, content);
    regex_search(pattern).for_each(t.text, [&](text_range range, bool is_match) { out.add(range, is_match); });
    t = std::move(out).result();
  }
};

/// Writes each byte as a character of the byte alphabet.
struct byte_level {
  void apply(aligned_text& t) const {
    transform_characters(t, [](std::string& out, char32_t c) {
      std::string bytes;
      append_utf8(bytes, c);
      append_byte_level(bytes, out);
    });
  }
};

}  // namespace normalizers

using normalizer_step =
    std::variant<normalizers::unicode_form, normalizers::lower_case, normalizers::strip_accents, normalizers::strip,
                 normalizers::prepend, normalizers::replace_text, normalizers::replace_regex, normalizers::byte_level>;

/// The steps in order. Immutable once built.
struct normalizer {
  std::vector<normalizer_step> steps;

  /// Errors: limit, from a pattern (see regex.hpp).
  void apply(aligned_text& t) const {
    for (const normalizer_step& step : steps) {
      std::visit([&](const auto& s) { s.apply(t); }, step);
    }
  }
};

}  // namespace effinfer::inline v0::text
