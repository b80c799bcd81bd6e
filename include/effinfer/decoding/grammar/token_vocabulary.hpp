#pragma once
// The tokens of a model as a grammar sees them: the bytes that each adds to the text, and the tokens that end it.

#include <effinfer/core/error.hpp>
#include <effinfer/decoding/grammar/byte_trie.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// Immutable; shared by all grammars of a model. tokenizer_vocabulary.hpp makes one of a tokenizer.
class token_vocabulary {
 public:
  /// `bytes`: by id; empty for a token that is no text (special, unused): such a token never matches. `end_tokens` end a text and are
  /// no text, whatever their bytes. Errors: `invalid_argument` (no end token, one outside of the vocabulary, a token over 65,535 bytes).
  token_vocabulary(std::vector<std::string> bytes, std::vector<int> end_tokens)
      : bytes_(std::move(bytes)), end_tokens_(std::move(end_tokens)) {
    const std::string where = "grammar::token_vocabulary: ";
    if (end_tokens_.empty()) {
      throw error(error_code::invalid_argument, where + "end_tokens", "there are none, so no text could end");
    }
    for (const int id : end_tokens_) {
      if (id < 0 || static_cast<std::size_t>(id) >= bytes_.size()) {
        throw error(error_code::invalid_argument, where + "end_tokens",
                    std::to_string(id) + " is not in [0, " + std::to_string(bytes_.size()) + ")");
      }
      bytes_[static_cast<std::size_t>(id)].clear();
    }
    std::vector<std::pair<std::string_view, int>> strings;
    strings.reserve(bytes_.size());
    for (std::size_t id = 0; id < bytes_.size(); ++id) {
      if (bytes_[id].size() > byte_trie::longest) {
        throw error(error_code::invalid_argument, where + "bytes",
                    "token " + std::to_string(id) + " has " + std::to_string(bytes_[id].size()) + " bytes");
      }
      if (bytes_[id].empty()) continue;
      strings.emplace_back(bytes_[id], static_cast<int>(id));
      longest_bytes_ = std::max(longest_bytes_, bytes_[id].size());
    }
    trie_ = byte_trie(std::move(strings));
  }

  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  /// Empty for what is no text. Precondition: 0 <= id < size().
  [[nodiscard]] std::string_view bytes(int id) const { return bytes_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const std::vector<int>& end_tokens() const { return end_tokens_; }
  [[nodiscard]] bool is_end(int id) const {
    return std::find(end_tokens_.begin(), end_tokens_.end(), id) != end_tokens_.end();
  }
  [[nodiscard]] const byte_trie& trie() const { return trie_; }
  [[nodiscard]] std::size_t longest_bytes() const { return longest_bytes_; }

 private:
  std::vector<std::string> bytes_;
  std::vector<int> end_tokens_;
  byte_trie trie_;
  std::size_t longest_bytes_ = 0;
};

}  // namespace effinfer::inline v0::decoding::grammar
