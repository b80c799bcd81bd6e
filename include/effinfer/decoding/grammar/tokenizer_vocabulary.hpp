#pragma once
// A model's tokenizer as a grammar's vocabulary. Apart from token_vocabulary.hpp because tokenizers link PCRE2.

#include <effinfer/decoding/grammar/token_vocabulary.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::decoding::grammar {

/// The bytes that each token adds in the middle of a text; special tokens are no text. `end_tokens`: those that end a generation,
/// by default the tokenizer's own (a checkpoint may name more: model.config().eos_ids). Errors: as token_vocabulary.
inline std::shared_ptr<const token_vocabulary> vocabulary_of(const text::tokenizer& tokenizer,
                                                             std::vector<int> end_tokens = {}) {
  if (end_tokens.empty() && tokenizer.eos()) end_tokens.push_back(*tokenizer.eos());
  std::vector<std::string> bytes(static_cast<std::size_t>(tokenizer.size()));
  for (int id = 0; id < tokenizer.size(); ++id) {
    if (!tokenizer.is_special(id)) bytes[static_cast<std::size_t>(id)] = tokenizer.token_bytes(id);
  }
  return std::make_shared<const token_vocabulary>(std::move(bytes), std::move(end_tokens));
}

}  // namespace effinfer::inline v0::decoding::grammar
