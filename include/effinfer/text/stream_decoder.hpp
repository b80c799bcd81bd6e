#pragma once
// Text from tokens as they are generated: only whole characters come out, and all that came out together is what
// decoding all tokens at once gives.

#include <effinfer/text/tokenizer.hpp>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace effinfer::inline v0::text {

/// Decodes one stream of tokens. Belongs to one thread; keeps the tokenizer's parts alive. Movable.
///
/// Exact: the texts of all `push` and of `finish`, one after another, equal `tokenizer::decode` of the same tokens.
/// To continue a prompt, `prime` with its tokens: then prompt text and stream together equal `decode` of both.
class stream_decoder {
 public:
  explicit stream_decoder(const tokenizer& source, decode_options options = {})
      : parts_(source.shared_parts()), run_(parts_->decoding_steps), options_(options) {}

  /// What the token completes; empty while a character is unfinished, for a special token that is skipped, and for an
  /// id that names no token.
  [[nodiscard]] std::string push(int id) {
    std::string out;
    parts_->push_to(run_, id, options_.skip_special, out);
    return out;
  }

  /// What is still held back; bytes that are no whole character become U+FFFD. Nothing may be pushed after it.
  [[nodiscard]] std::string finish() {
    std::string out;
    run_.finish(out);
    return out;
  }

  /// Takes tokens that came before the stream (a prompt); their own text is dropped.
  void prime(std::span<const int> ids) {
    for (const int id : ids) static_cast<void>(push(id));
  }

 private:
  std::shared_ptr<const tokenizer_parts> parts_;
  decoding run_;
  decode_options options_;
};

}  // namespace effinfer::inline v0::text
