#pragma once
// What a tokenizer is made of, whichever file it was read from, and the way of text through the parts:
//   added tokens as they stand -> normalizer -> added tokens in normalized text -> pre-tokenizer -> merges
// (Hugging Face's order). tokenizer_json.hpp and tokenizer_gguf.hpp fill it in.

#include <effinfer/core/error.hpp>
#include <effinfer/text/added_tokens.hpp>
#include <effinfer/text/bpe.hpp>
#include <effinfer/text/decoder.hpp>
#include <effinfer/text/normalizer.hpp>
#include <effinfer/text/pre_tokenizer.hpp>
#include <effinfer/text/vocabulary.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace effinfer::inline v0::text {

/// The parts of one tokenizer. Immutable once a reader has filled it in.
struct tokenizer_parts {
  vocabulary tokens;  ///< of the model, and the added ones
  bpe model;
  normalizer normalizing;
  pre_tokenizer splitting;
  decoder decoding_steps;
  added_token_set raw_added;         ///< looked for in the text as it is
  added_token_set normalized_added;  ///< looked for in normalized text; their contents are normalized too
  std::vector<bool> is_special;      ///< by id
  std::vector<bool> is_literal;      ///< by id: decodes to its own text, whatever the decoder's steps say
  std::unordered_map<int, std::string> decoded_as;  ///< tokens that decode from another text than their own
  std::vector<int> prefix, suffix;                  ///< what the post-processor puts round the text
  std::optional<int> bos, eos;

  /// Appends the tokens of well-formed `text` to `ids`.
  void encode(std::string_view text, bool finds_special, std::vector<int>& ids) const {
    bpe_scratch scratch;
    pre_tokenizer::searches searches = splitting.make_searches();
    const auto encode_piece = [&](std::string_view piece) { model.encode(piece, scratch, ids); };
    const auto encode_part = [&](text_piece part) {
      normalized_added.split(part.text, finds_special,
                             [&](std::string_view between, const added_token* token, std::size_t offset) {
                               if (token) return ids.push_back(token->id);
                               splitting.run(part.part({offset, offset + between.size()}), searches, encode_piece);
                             });
    };
    raw_added.split(text, finds_special, [&](std::string_view between, const added_token* token, std::size_t offset) {
      if (token) return ids.push_back(token->id);
      const std::size_t front = offset == 0 ? static_cast<std::size_t>(utf8_length(between[0])) : 0;
      if (normalizing.steps.empty()) return encode_part({between, front});
      aligned_text normalized{std::string(between), front};
      normalizing.apply(normalized);
      encode_part({normalized.text, normalized.front});
    });
  }

  /// Runs one token through a decoding. Ids that name no token, and special ones to be skipped, give nothing.
  void push_to(decoding& run, int id, bool skips_special, std::string& out) const {
    if (!tokens.has(id) || (skips_special && special(id))) return;
    run.push(text_to_decode(id), literal(id), out);
  }

  /// The text that a token is decoded from.
  [[nodiscard]] std::string_view text_to_decode(int id) const {
    const auto other = decoded_as.find(id);
    return other == decoded_as.end() ? tokens.text(id) : std::string_view(other->second);
  }
  [[nodiscard]] bool special(int id) const {
    return id >= 0 && static_cast<std::size_t>(id) < is_special.size() && is_special[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] bool literal(int id) const {
    return id >= 0 && static_cast<std::size_t>(id) < is_literal.size() && is_literal[static_cast<std::size_t>(id)];
  }
};

}  // namespace effinfer::inline v0::text
