#pragma once
// Text in, text out: the pipeline as a type. Policies in any order, at most one a slot, a default for each missing
// one; what a policy pins is checked against the checkpoint, what it doesn't is read from it.

#include <effinfer/model.hpp>
#include <effinfer/pipeline/generation.hpp>
#include <effinfer/text/tokenizer.hpp>

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0 {

/// A model with everything around it that turns text into text.
///
/// Slots and their defaults: model (from_checkpoint), attention (as the checkpoint's windows say), attention_heads (as the
/// checkpoint says), quantization (none: as stored), kv_cache (contiguous<f16>; ring<f16> where the type pins a window),
/// decoding (sample), execution (cpu).
///
/// A chat checkpoint's template: text::find_chat_template(llm.files()). Copying is cheap and shares the model. All members are safe to call from several threads at once.
///
/// Example:
///     using chat = effinfer::pipeline<effinfer::models::llama, effinfer::quantization::int4<128>>;
///     chat llm = chat::load("path/to/checkpoint");
///     for (std::string_view piece : llm.generate("Once upon a time", {.max_tokens = 64})) std::cout << piece;
template <class... Policies>
class pipeline : public model<Policies...> {
  using base = model<Policies...>;

 public:
  using decoder = typename base::decoder;
  using session_type = typename base::session_type;
  using decoding = typename base::parts::decoding;
  using generate_options = effinfer::generate_options<decoding>;
  using generation_type = generation<decoder, decoding>;

  /// Loads a checkpoint with its tokenizer: a Hugging Face folder (config.json, safetensors, tokenizer.json) or a .gguf file.
  /// `values` and errors as for model::load, and those of the tokenizer.
  template <class... Values>
  static pipeline load(const std::string& path, const load_options& options = {}, const Values&... values) {
    auto files = std::make_shared<const checkpoint::model_files>(checkpoint::model_files::open(path));
    auto tokenizer = std::make_shared<const text::tokenizer>(text::tokenizer::load(*files));
    return pipeline(base::load(std::move(files), options, values...), std::move(tokenizer));
  }

  /// Continues `prompt`. The range is lazy; see `generation`. Errors: `invalid_utf8`, `invalid_argument` (an empty prompt or a bad
  /// option), `context_overflow` (a prompt longer than the context).
  [[nodiscard]] generation_type generate(std::string_view prompt, generate_options options = {}) const {
    text::encode_options how;
    how.add_special_tokens = options.add_special_tokens;
    auto tokens = tokenizer_->encode(prompt, how);
    return generate(this->start(), std::move(tokens), std::move(options));
  }
  /// Continues `tokens` behind what `sequence` holds already. The last generated token is not yet read into the session.
  [[nodiscard]] generation_type generate(session_type& sequence, std::vector<int> tokens,
                                         generate_options options = {}) const {
    return generation_type(tokenizer_, sequence, std::move(tokens), std::move(options));
  }
  /// The same on a session that the generation owns.
  [[nodiscard]] generation_type generate(session_type&& sequence, std::vector<int> tokens,
                                         generate_options options = {}) const {
    return generation_type(tokenizer_, std::move(sequence), std::move(tokens), std::move(options));
  }

  [[nodiscard]] const text::tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  pipeline(base loaded, std::shared_ptr<const text::tokenizer> tokenizer)
      : base(std::move(loaded)), tokenizer_(std::move(tokenizer)) {}

  std::shared_ptr<const text::tokenizer> tokenizer_;
};

}  // namespace effinfer::inline v0
