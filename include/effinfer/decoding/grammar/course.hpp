#pragma once
// A matcher that keeps up with a history of tokens: the state behind `constrained`, as a cache of a pure function of the history.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/matcher.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Takes -infinity for all logits whose token is not in the mask [mask_words(V)], and for those behind it.
inline void apply_mask(std::span<float> logits, std::span<const mask_word> mask) {
  constexpr float out = -std::numeric_limits<float>::infinity();
  for (std::size_t begin = 0, word = 0; begin < logits.size(); begin += 64, ++word) {
    const mask_word bits = word < mask.size() ? mask[word] : 0;
    const std::span<float> part = logits.subspan(begin, std::min<std::size_t>(64, logits.size() - begin));
    if (bits == ~mask_word{0}) continue;
    if (bits == 0) {
      std::fill(part.begin(), part.end(), out);
      continue;
    }
    for (std::size_t i = 0; i < part.size(); ++i) part[i] = (bits >> i & 1) != 0 ? part[i] : out;
  }
}

/// Belongs to one generation. A copy goes on by itself, so whoever copies the policy (a fork, a beam) copies this along.
class course {
 public:
  /// The text begins behind so many tokens.
  void begin(std::size_t prompt_tokens) { first_ = prompt_tokens, restart(); }
  [[nodiscard]] bool has_begun() const { return first_.has_value(); }

  /// Brings the matcher to the end of `history`: goes back to where both agree, and on from there. False where a token behind the
  /// prompt may not stand there. Precondition: has_begun(). Errors: `invalid_argument` (a history shorter than the prompt).
  bool follow(const std::shared_ptr<const compiled_grammar>& grammar, std::span<const int> history) {
    if (history.size() < *first_) {
      throw error(error_code::invalid_argument, "decoding::constrained: history",
                  "it has " + std::to_string(history.size()) + " tokens, fewer than the " + std::to_string(*first_) +
                      " of the prompt",
                  "call begin() for a new text");
    }
    if (!matcher_ || &matcher_->grammar() != grammar.get()) {
      restart();
      matcher_.emplace(grammar);
    }
    const std::span<const int> text = history.subspan(*first_);
    const auto common = static_cast<std::size_t>(
        std::mismatch(taken_.begin(), taken_.end(), text.begin(), text.end()).first - taken_.begin());
    taken_.resize(common);
    matcher_->rollback(common);
    for (const int token : text.subspan(common)) {
      if (!matcher_->advance(token)) return false;
      taken_.push_back(token);
    }
    return true;
  }

  /// Takes out the logits of all tokens that may not come next. Precondition: follow() was true.
  /// Errors: `malformed`, where none may: the vocabulary has no token for what the grammar asks for.
  void mask(std::span<float> logits) {
    mask_.resize(mask_words(matcher_->grammar().vocabulary().size()));
    if (!matcher_->allowed(mask_)) {
      throw error(error_code::malformed, "decoding::constrained",
                  "no token of the vocabulary can go on behind " + std::to_string(taken_.size()) + " generated ones");
    }
    apply_mask(logits, mask_);
  }

  /// Up to `most` tokens of the text that must come next, each the longest that fits: none where the text is free. The end of the
  /// forced text is left out where a longer token would reach over it. Precondition: follow() was true.
  [[nodiscard]] std::vector<int> forced(std::size_t most) {
    std::vector<int> tokens;
    constexpr std::size_t bytes_a_token = 16;
    const std::string text = matcher_->forced_text(std::min<std::size_t>(most, 256) * bytes_a_token);
    const byte_trie& trie = matcher_->grammar().vocabulary().trie();
    for (std::size_t at = 0; at < text.size() && tokens.size() < most;) {
      int longest = -1;
      std::size_t length = 0, depth = 0;
      for (std::uint32_t n = 0, end = trie.size(); n < end;) {
        if (trie.at(n).byte != static_cast<std::uint8_t>(text[at + depth])) {
          n = trie.at(n).subtree_end;
          continue;
        }
        ++depth;
        if (!trie.tokens(n).empty()) longest = trie.tokens(n)[0], length = depth;
        end = trie.at(n).subtree_end;
        ++n;
        if (at + depth < text.size()) continue;
        if (n < end) longest = -1;
        break;
      }
      if (longest < 0) break;
      tokens.push_back(longest);
      at += length;
    }
    return tokens;
  }

 private:
  void restart() {
    matcher_.reset();
    taken_.clear();
  }

  std::optional<std::size_t> first_;
  std::optional<matcher> matcher_;
  std::vector<int> taken_;  // tokens that the matcher took
  std::vector<mask_word> mask_;
};

}  // namespace effinfer::inline v0::decoding::grammar
