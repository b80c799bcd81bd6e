#pragma once
// Text to tokens and back, exactly as the model was trained with: from Hugging Face's tokenizer.json (byte-pair
// models) or from the vocabulary inside a .gguf file (models "gpt2" and "llama").

#include <effinfer/checkpoint/gguf.hpp>
#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/text/tokenizer_gguf.hpp>
#include <effinfer/text/tokenizer_json.hpp>
#include <effinfer/text/tokenizer_parts.hpp>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::text {

struct encode_options {
  bool add_special_tokens = true;  ///< put round the text what the model expects (begin of sequence ...)
  bool parse_special = true;       ///< "<|im_end|>" in the text is the token; false: it is nine characters
};

struct decode_options {
  bool skip_special = true;  ///< special tokens are left out of the text
};

/// A tokenizer. Immutable after loading, cheap to copy, shared among threads without locks.
///
/// Exact: the ids and texts of Hugging Face's `tokenizers` 0.23 for tokenizer.json, of llama.cpp for GGUF. Known
/// differences: characters newer than Unicode 14 may fall into other classes; a run of byte tokens that holds whole
/// and broken characters keeps the whole ones; `truncation` and `padding` in a tokenizer.json are not applied.
class tokenizer {
 public:
  explicit tokenizer(tokenizer_parts parts) : parts_(std::make_shared<const tokenizer_parts>(std::move(parts))) {}

  /// Reads a tokenizer.json, and bos and eos from the tokenizer_config.json beside it if there is one.
  /// Errors, naming file and field: io, malformed, limit, and unsupported for what isn't computed here.
  static tokenizer from_json_file(const std::string& path) { return tokenizer(read_tokenizer_json_file(path)); }

  /// The same from text in memory; `name` stands for the file in errors. There is no bos and no eos.
  static tokenizer from_json(std::string_view json, const std::string& name = "tokenizer.json") {
    return tokenizer(read_tokenizer_json(json, name));
  }

  /// Reads the vocabulary of a GGUF file. Errors, naming file and key: missing, malformed, limit, unsupported.
  static tokenizer from_gguf(const checkpoint::gguf& file) { return tokenizer(read_tokenizer_gguf(file)); }

  /// Reads the tokenizer that comes with a checkpoint.
  static tokenizer load(const checkpoint::model_files& files);

  /// The tokens of a text.
  /// Errors: invalid_utf8, naming the first bad byte; limit, if a splitting pattern takes too many steps on this text.
  /// Cost: about linear; O(n log n) in the longest piece between splits.
  [[nodiscard]] std::vector<int> encode(std::string_view utf8, encode_options options = {}) const {
    const std::size_t invalid = find_invalid_utf8(utf8);
    if (invalid != std::string_view::npos) {
      throw error(error_code::invalid_utf8, "text::tokenizer::encode, argument utf8",
                  "the text isn't UTF-8 at byte " + std::to_string(invalid));
    }
    std::vector<int> ids;
    ids.reserve(utf8.size() / 3 + 8);
    if (options.add_special_tokens) ids.insert(ids.end(), parts_->prefix.begin(), parts_->prefix.end());
    parts_->encode(utf8, options.parse_special, ids);
    if (options.add_special_tokens) ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
    return ids;
  }

  /// The text of tokens, always UTF-8: bytes that are no character become U+FFFD. Ids that name no token give no text.
  [[nodiscard]] std::string decode(std::span<const int> ids, decode_options options = {}) const {
    std::string out;
    decoding run(parts_->decoding_steps);
    for (const int id : ids) parts_->push_to(run, id, options.skip_special, out);
    run.finish(out);
    return out;
  }

  /// One more than the greatest id. (A model's logits may be longer: its vocabulary is padded.)
  [[nodiscard]] int size() const { return parts_->tokens.size(); }

  /// The token with exactly this text in the vocabulary, where a space may be written otherwise ("\u0120the").
  [[nodiscard]] std::optional<int> token_id(std::string_view text) const {
    const int id = parts_->tokens.find(text);
    return id < 0 ? std::nullopt : std::optional<int>(id);
  }

  /// The text of a token as it stands in the vocabulary; empty for an id that names none. Lives as long as this.
  [[nodiscard]] std::string_view token_text(int id) const { return parts_->tokens.text(id); }

  /// The bytes that a token adds in the middle of a text; not always whole characters. Empty for no token.
  [[nodiscard]] std::string token_bytes(int id) const {
    return parts_->decoding_steps.bytes_of(parts_->text_to_decode(id), parts_->literal(id));
  }

  /// True of tokens that control the model and are not text.
  [[nodiscard]] bool is_special(int id) const { return parts_->special(id); }

  /// The tokens that begin and end a sequence, where the files name them.
  [[nodiscard]] std::optional<int> bos() const { return parts_->bos; }
  [[nodiscard]] std::optional<int> eos() const { return parts_->eos; }

  [[nodiscard]] const std::shared_ptr<const tokenizer_parts>& shared_parts() const { return parts_; }

 private:
  std::shared_ptr<const tokenizer_parts> parts_;
};

inline tokenizer tokenizer::load(const checkpoint::model_files& files) {
  if (const checkpoint::gguf* gguf = files.gguf_file()) return from_gguf(*gguf);
  tokenizer_parts parts = read_tokenizer_json_file(files.folder() + "/tokenizer.json");
  const auto first_known = [&](const std::vector<int>& ids) -> std::optional<int> {
    for (const int id : ids) {
      if (parts.tokens.has(id)) return id;
    }
    return std::nullopt;
  };
  if (!parts.bos) parts.bos = first_known(files.config().bos_ids);
  if (!parts.eos) parts.eos = first_known(files.config().eos_ids);
  return tokenizer(std::move(parts));
}

}  // namespace effinfer::inline v0::text
