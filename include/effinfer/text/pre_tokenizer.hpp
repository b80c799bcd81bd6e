#pragma once
// How text is split into the pieces that merges may not cross. A pre-tokenizer is a list of steps, and a
// tokenizer.json says which (field "pre_tokenizer"). Each step hands every piece on as soon as it is found, so that
// no list of pieces is ever kept: text runs through all steps depth first.

#include <effinfer/text/byte_level.hpp>
#include <effinfer/text/normalizer.hpp>
#include <effinfer/text/regex.hpp>
#include <effinfer/text/unicode.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace effinfer::inline v0::text {

/// A part of a text, with `front` as in aligned_text.
struct text_piece {
  std::string_view text;
  std::size_t front;

  [[nodiscard]] text_piece part(text_range range) const {
    const std::size_t front_end = front < range.end ? front : range.end;
    return {text.substr(range.begin, range.end - range.begin), front_end > range.begin ? front_end - range.begin : 0};
  }
};

/// What becomes of the matches of a split, in Hugging Face's words.
enum class split_behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Groups a sequence of ranges, each match or not, into pieces by one of the behaviors, and hands them on.
template <class Use>
class range_grouper {
 public:
  range_grouper(split_behavior behavior, Use& use) : behavior_(behavior), use_(use) {}

  void add(text_range range, bool is_match) {
    const bool extends = [&] {
      switch (behavior_) {
        case split_behavior::contiguous: return has_group_ && is_match == last_is_match_;
        case split_behavior::merged_with_previous: return has_group_ && is_match && !last_is_match_;
        case split_behavior::merged_with_next: return has_group_ && !is_match && last_is_match_;
        default: return false;
      }
    }();
    if (extends) {
      group_.end = range.end;
    } else {
      finish();
      group_ = range;
      has_group_ = !(behavior_ == split_behavior::removed && is_match);
    }
    last_is_match_ = is_match;
  }
  void finish() {
    if (has_group_ && group_.end > group_.begin) use_(group_);
    has_group_ = false;
  }

 private:
  split_behavior behavior_;
  Use& use_;
  text_range group_{0, 0};
  bool has_group_ = false;
  bool last_is_match_ = false;
};

namespace pre_tokenizers {

/// Splits at the matches of a pattern, or with `invert` at what is between them.
struct split_regex {
  regex pattern;
  split_behavior behavior;
  bool invert;
  template <class Use>
  void run(text_piece piece, regex_search* search, Use&& use) const {
    const auto hand_on = [&](text_range range) { use(piece.part(range)); };
    range_grouper grouper(behavior, hand_on);
    search->for_each(piece.text, [&](text_range range, bool is_match) { grouper.add(range, is_match != invert); });
    grouper.finish();
  }
};

/// Splits at the occurrences of a non-empty text.
struct split_text {
  std::string pattern;
  split_behavior behavior;
  bool invert;
  template <class Use>
  void run(text_piece piece, regex_search*, Use&& use) const {
    const auto hand_on = [&](text_range range) { use(piece.part(range)); };
    range_grouper grouper(behavior, hand_on);
    std::size_t covered = 0;
    for (std::size_t found; (found = piece.text.find(pattern, covered)) != std::string_view::npos;) {
      if (found > covered) grouper.add({covered, found}, invert);
      covered = found + pattern.size();
      grouper.add({found, covered}, !invert);
    }
    if (covered < piece.text.size()) grouper.add({covered, piece.text.size()}, invert);
    grouper.finish();
  }
};

/// Splits at the characters of a class.
struct split_class {
  bool (*contains)(char32_t);
  split_behavior behavior;
  template <class Use>
  void run(text_piece piece, regex_search*, Use&& use) const {
    const auto hand_on = [&](text_range range) { use(piece.part(range)); };
    range_grouper grouper(behavior, hand_on);
    std::size_t covered = 0;
    for (std::size_t at = 0; at < piece.text.size();) {
      const code_point c = first_code_point(piece.text.substr(at));
      const std::size_t end = at + static_cast<std::size_t>(c.length);
      if (contains(c.value)) {
        if (at > covered) grouper.add({covered, at}, false);
        grouper.add({at, end}, true);
        covered = end;
      }
      at = end;
    }
    if (covered < piece.text.size()) grouper.add({covered, piece.text.size()}, false);
    grouper.finish();
  }
};

/// Keeps the runs of word characters and the runs of what is neither word nor white space: \w+|[^\w\s]+
struct words {
  template <class Use>
  void run(text_piece piece, regex_search*, Use&& use) const {
    const auto kind = [&](std::size_t at) {
      const char32_t c = first_code_point(piece.text.substr(at)).value;
      return is_word(c) ? 2 : is_white_space(c) ? 0 : 1;
    };
    for (std::size_t begin = 0; begin < piece.text.size();) {
      const int first = kind(begin);
      std::size_t end = begin;
      while (end < piece.text.size() && kind(end) == first)
        end += static_cast<std::size_t>(utf8_length(piece.text[end]));
      if (first != 0) use(piece.part({begin, end}));
      begin = end;
    }
  }
};

enum class prepend_scheme { first, never, always };

/// Writes spaces as `replacement`, puts one in front, and splits before each of them.
struct metaspace {
  std::string replacement;
  prepend_scheme scheme;
  bool split;
  template <class Use>
  void run(text_piece piece, regex_search*, Use&& use) const {
    aligned_text t{std::string(piece.text), piece.front};
    normalizers::replace_text{" ", replacement}.apply(t);
    const bool prepends = scheme == prepend_scheme::always || (scheme == prepend_scheme::first && t.front > 0);
    if (prepends && !t.text.starts_with(replacement)) normalizers::prepend{replacement}.apply(t);
    const text_piece whole{t.text, t.front};
    if (!split) return use(whole);
    split_text{replacement, split_behavior::merged_with_next, false}.run(whole, nullptr, use);
  }
};

/// GPT-2's splitting: an optional space in front, an optional pattern, and bytes written in the byte alphabet.
struct byte_level {
  bool add_prefix_space;
  std::optional<regex> pattern;
  bool keeps_bytes;  ///< the model reads bytes itself, so they are handed on as they are
  template <class Use>
  void run(text_piece piece, regex_search* search, Use&& use) const {
    aligned_text with_space;
    if (add_prefix_space && !piece.text.starts_with(' ')) {
      with_space = {std::string(piece.text), piece.front};
      normalizers::prepend{" "}.apply(with_space);
      piece = {with_space.text, with_space.front};
    }
    const auto hand_on = [&](text_range range) {
      const text_piece part = piece.part(range);
      if (keeps_bytes) return use(part);
      aligned_text written{std::string(part.text), part.front};
      normalizers::byte_level{}.apply(written);
      use(text_piece{written.text, written.front});
    };
    if (!pattern) return hand_on({0, piece.text.size()});
    search->for_each(piece.text, [&](text_range range, bool) {
      if (range.end > range.begin) hand_on(range);
    });
  }
};

}  // namespace pre_tokenizers

using pre_tokenizer_step =
    std::variant<pre_tokenizers::split_regex, pre_tokenizers::split_text, pre_tokenizers::split_class,
                 pre_tokenizers::words, pre_tokenizers::metaspace, pre_tokenizers::byte_level>;

/// The steps in order. Immutable once built.
struct pre_tokenizer {
  std::vector<pre_tokenizer_step> steps;

  /// What matching writes to, a step each; one a call.
  using searches = std::vector<std::optional<regex_search>>;
  [[nodiscard]] searches make_searches() const {
    searches all(steps.size());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (const auto* s = std::get_if<pre_tokenizers::split_regex>(&steps[i])) all[i].emplace(s->pattern);
      if (const auto* b = std::get_if<pre_tokenizers::byte_level>(&steps[i]); b && b->pattern)
        all[i].emplace(*b->pattern);
    }
    return all;
  }

  /// Calls `use(std::string_view)` for each piece, in order; a piece lives until `use` returns.
  /// Errors: limit, from a pattern (see regex.hpp).
  template <class Use>
  void run(text_piece piece, searches& s, Use&& use, std::size_t step = 0) const {
    if (piece.text.empty()) return;
    if (step == steps.size()) return use(piece.text);
    regex_search* search = s[step] ? &*s[step] : nullptr;
    std::visit(
        [&](const auto& action) { action.run(piece, search, [&](text_piece part) { run(part, s, use, step + 1); }); },
        steps[step]);
  }
};

}  // namespace effinfer::inline v0::text
