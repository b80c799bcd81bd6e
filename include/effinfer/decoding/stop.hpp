#pragma once
// Where a generated text ends: stop strings that may lie across several tokens, and stop tokens.
// Source of the matching: Knuth, Morris, Pratt, "Fast pattern matching in strings" (1977), one automaton a stop string.

#include <effinfer/core/error.hpp>
#include <effinfer/text/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding {

/// Takes a text in pieces and gives back what may be shown: everything in front of the first stop string, and nothing yet that may
/// turn out to be the beginning of one.
///
/// The text ends where, read byte by byte, the first stop string is complete; of several complete at the same byte the longest is
/// cut off. So the result doesn't depend on how the text is cut into pieces. Pieces of whole characters give whole characters.
/// Cost: O(bytes * stops), without looking at a byte twice.
class stop_matcher {
 public:
  stop_matcher() = default;
  /// Errors: `invalid_argument` (an empty string), `invalid_utf8`.
  explicit stop_matcher(const std::vector<std::string>& texts, std::vector<int> tokens = {})
      : tokens_(std::move(tokens)) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const std::string where = "stop[" + std::to_string(i) + "]";
      if (texts[i].empty())
        throw error(error_code::invalid_argument, where, "an empty string would end every text at once");
      if (text::find_invalid_utf8(texts[i]) != std::string_view::npos) {
        throw error(error_code::invalid_utf8, where, "not UTF-8, so it can't come up in a text");
      }
      patterns_.push_back({texts[i], borders(texts[i]), 0});
    }
  }

  /// True of a token that ends the text; it is no part of it.
  [[nodiscard]] bool is_stop_token(int token) const {
    return std::find(tokens_.begin(), tokens_.end(), token) != tokens_.end();
  }

  /// Adds `piece` and returns what may be shown now; nothing once a stop string was found.
  [[nodiscard]] std::string push(std::string_view piece) {
    if (stopped_) return {};
    for (const char byte : piece) {
      held_ += byte;
      std::size_t cut = 0;
      for (pattern& p : patterns_) {
        while (p.matched > 0 && p.text[p.matched] != byte) p.matched = p.border[p.matched - 1];
        if (p.text[p.matched] == byte) ++p.matched;
        if (p.matched == p.text.size()) cut = std::max(cut, p.matched);
      }
      if (cut > 0) {
        stopped_ = true;
        held_.resize(held_.size() - cut);
        return std::exchange(held_, {});
      }
    }
    std::size_t kept = 0;
    for (const pattern& p : patterns_) kept = std::max(kept, p.matched);
    std::string shown = held_.substr(0, held_.size() - kept);
    held_.erase(0, held_.size() - kept);
    return shown;
  }

  /// The text is over: returns what was held back.
  [[nodiscard]] std::string finish() {
    for (pattern& p : patterns_) p.matched = 0;
    return std::exchange(held_, {});
  }

  /// True once a stop string was found.
  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  struct pattern {
    std::string text;
    std::vector<std::size_t> border;  // border[i]: the longest proper prefix of text[0 ... i] that is also its suffix
    std::size_t matched;              // how much of `text` the bytes so far end with
  };

  static std::vector<std::size_t> borders(std::string_view text) {
    std::vector<std::size_t> border(text.size(), 0);
    for (std::size_t i = 1, k = 0; i < text.size(); ++i) {
      while (k > 0 && text[i] != text[k]) k = border[k - 1];
      if (text[i] == text[k]) ++k;
      border[i] = k;
    }
    return border;
  }

  std::vector<pattern> patterns_;
  std::vector<int> tokens_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace effinfer::inline v0::decoding
