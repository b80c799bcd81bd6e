#pragma once
// Tokens that are found in the text as they stand, before it is split: control tokens, and words a user added. The
// leftmost match wins, and of those at one place the longest.

#include <effinfer/text/unicode.hpp>
#include <effinfer/text/utf8.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

/// A token that is looked for in the text itself, in Hugging Face's words.
struct added_token {
  std::string content;  ///< what is looked for
  int id = -1;
  bool special = false;      ///< controls the model; not part of decoded text
  bool single_word = false;  ///< matches only where no word character is next to it
  bool left_strip = false;   ///< takes the white space before it along
  bool right_strip = false;  ///< takes the white space after it along
};

/// A set of added tokens to search for. Immutable once built.
class added_token_set {
 public:
  added_token_set() = default;
  explicit added_token_set(std::vector<added_token> tokens) : tokens_(std::move(tokens)) {
    std::erase_if(tokens_, [](const added_token& t) { return t.content.empty(); });
    std::sort(tokens_.begin(), tokens_.end(),
              [](const added_token& a, const added_token& b) { return a.content < b.content; });
    const auto same = [](const added_token& a, const added_token& b) { return a.content == b.content; };
    tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same), tokens_.end());
    for (std::size_t i = tokens_.size(); i-- > 0;) {
      range& r = by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])];
      if (r.end == 0) r.end = i + 1;
      r.begin = i;
    }
  }
  [[nodiscard]] bool empty() const { return tokens_.empty(); }

  /// Calls `use(text, token)` for the text between tokens (token null, text not empty) and for the tokens, in order;
  /// `offset` in the call `use(text, token, offset)` is where the text begins. Special tokens are passed over unless
  /// `finds_special`.
  template <class Use>
  void split(std::string_view text, bool finds_special, Use&& use) const {
    std::size_t covered = 0;
    for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
      const added_token* token = begins_token(text[at]) ? longest_at(text, at) : nullptr;
      if (!token) {
        ++at;
        continue;
      }
      std::size_t begin = at;
      std::size_t end = at + token->content.size();
      at = end;  // as in Hugging Face's tokenizers, a match that is turned down hides those that overlap it
      if (token->special && !finds_special) continue;
      if (token->single_word && touches_word(text, begin, end)) continue;
      if (token->left_strip) begin = std::max(covered, begin_of_trailing_space(text.substr(0, begin)));
      if (token->right_strip) end += bytes_of_leading_space(text.substr(end));
      if (covered < begin) use(text.substr(covered, begin - covered), nullptr, covered);
      use(text.substr(begin, end > begin ? end - begin : 0), token, begin);
      covered = end;
    }
    if (covered < text.size()) use(text.substr(covered), nullptr, covered);
  }

 private:
  [[nodiscard]] bool begins_token(char c) const { return by_first_byte_[static_cast<unsigned char>(c)].end != 0; }

  /// The tokens that begin like the text are neighbours in the sorted list: each byte of the text narrows the range.
  [[nodiscard]] const added_token* longest_at(std::string_view text, std::size_t at) const {
    range r = by_first_byte_[static_cast<unsigned char>(text[at])];
    const added_token* longest = nullptr;
    for (std::size_t depth = 1; r.begin < r.end; ++depth) {
      if (tokens_[r.begin].content.size() == depth) longest = &tokens_[r.begin++];
      if (at + depth >= text.size()) break;
      const auto wanted = static_cast<unsigned char>(text[at + depth]);
      const auto byte = [&](const added_token& t) { return static_cast<unsigned char>(t.content[depth]); };
      const auto first = tokens_.begin() + static_cast<std::ptrdiff_t>(r.begin);
      const auto last = tokens_.begin() + static_cast<std::ptrdiff_t>(r.end);
      const auto low =
          std::lower_bound(first, last, wanted, [&](const added_token& t, unsigned char b) { return byte(t) < b; });
      const auto high =
          std::upper_bound(low, last, wanted, [&](unsigned char b, const added_token& t) { return b < byte(t); });
      r = {static_cast<std::size_t>(low - tokens_.begin()), static_cast<std::size_t>(high - tokens_.begin())};
    }
    return longest;
  }

  static bool touches_word(std::string_view text, std::size_t begin, std::size_t end) {
    return (begin > 0 && is_word(last_code_point(text.substr(0, begin)).value)) ||
           (end < text.size() && is_word(first_code_point(text.substr(end)).value));
  }
  static std::size_t begin_of_trailing_space(std::string_view text) {
    while (!text.empty()) {
      const code_point last = last_code_point(text);
      if (!is_white_space(last.value)) break;
      text.remove_suffix(static_cast<std::size_t>(last.length));
    }
    return text.size();
  }
  static std::size_t bytes_of_leading_space(std::string_view text) {
    std::size_t bytes = 0;
    while (bytes < text.size()) {
      const code_point c = first_code_point(text.substr(bytes));
      if (!is_white_space(c.value)) break;
      bytes += static_cast<std::size_t>(c.length);
    }
    return bytes;
  }

  struct range {
    std::size_t begin = 0, end = 0;
  };
  std::vector<added_token> tokens_;  // sorted by content
  std::array<range, 256> by_first_byte_{};
};

}  // namespace effinfer::inline v0::text
