#pragma once
// Tokens in, logits out: the models floor as a type. The same policies as pipeline<...>, no text; needs no library
// besides the standard one and RapidJSON's headers.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/models/decoder.hpp>
#include <effinfer/pipeline/composition.hpp>
#include <effinfer/pipeline/session.hpp>
#if defined(__CUDACC__)
#include <effinfer/execution/cuda.cuh>
#include <effinfer/models/cuda/decoder.hpp>
#endif

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace effinfer::inline v0 {

/// What `load` may be told besides the policies.
struct load_options {
  models::progress_callback progress = {};  ///< called on the loading thread
  session_options session = {};             ///< what sessions get unless they are told otherwise
  /// A file in which the packed weights are kept, or a folder that is there already and holds one for each checkpoint and policy.
  /// If the weights are there, they are mapped, which takes no time, and processes share them; else, and where the
  /// checkpoint has changed since, they are packed and written. Empty: packed at each start.
  std::string packed_cache = {};
};

/// Bytes that a model takes, known before anything is loaded; with execution::cuda on the device, but for a session's part of the
/// workspace that is copied to and from it.
struct footprint {
  std::uint64_t mapped_bytes = 0;     ///< embeddings looked up where they lie in the files; shared with other processes
  std::uint64_t owned_bytes = 0;      ///< packed weights, norms, biases
  std::uint64_t state_bytes = 0;      ///< a session's keys and values or recurrent state
  std::uint64_t workspace_bytes = 0;  ///< a session's scratch memory

  /// With `sessions` sessions.
  [[nodiscard]] std::uint64_t total(std::uint64_t sessions = 1) const {
    return mapped_bytes + owned_bytes + sessions * (state_bytes + workspace_bytes);
  }
};

/// A checkpoint loaded under `Policies` (any order, at most one a slot; defaults as for pipeline). Copying is cheap and shares
/// the weights. All members are safe to call from several threads at once.
///
/// Example:
///     auto llama = effinfer::model<effinfer::models::llama>::load("path/to/checkpoint");
///     auto session = llama.start();
///     std::span<const float> logits = session.append(tokens);   // [V], behind the last token
template <class... Policies>
class model : private detail::check_composition<Policies...> {
 public:
  using parts = detail::composition<Policies...>;
  using decoder = typename parts::decoder;
  using session_type = session<decoder>;
  using batch_type = batch<decoder>;

  /// Loads a checkpoint: a Hugging Face folder, a .safetensors file with config.json beside it, or a .gguf file.
  ///
  /// `values` are policies of this model that carry run-time values, in any order:
  /// `load(path, {}, attention::sliding_window<>{.window = 512})`. Weights are packed
  /// for the products as they are read, and the files' pages are let go; or they come from `packed_cache`.
  /// Errors: `io`, `malformed`, `missing`, `unsupported` as the checkpoint says; `mismatch` where a pinned policy and the checkpoint
  /// differ, naming both values; with a packed_cache, `io` where it can't be written and `mismatch` where it is another file.
  template <class... Values>
  static model load(const std::string& path, const load_options& options = {}, const Values&... values) {
    return load(std::make_shared<const checkpoint::model_files>(checkpoint::model_files::open(path)), options,
                values...);
  }
  /// The same from files that are open already.
  template <class... Values>
  static model load(std::shared_ptr<const checkpoint::model_files> files, const load_options& options = {},
                    const Values&... values) {
    const auto settings = parts::settings(*files, values...);
    return model(std::make_shared<const decoder>(decoder::load(
                     std::move(files), settings, parts::template value<typename parts::quantization>(values...),
                     parts::template value<typename parts::execution>(values...),
                     {.progress = options.progress, .packed_cache = options.packed_cache})),
                 options.session);
  }

  /// What `load` and one session would take, exactly, from the headers alone. Errors: as `load`.
  template <class... Values>
  static footprint memory_footprint(const std::string& path, const load_options& options = {},
                                    const Values&... values) {
    const auto files = checkpoint::model_files::open(path);
    const auto settings = parts::settings(files, values...);
    const auto session = session_type::checked(files.config(), options.session);
    footprint bytes;
    const auto policy = parts::template value<typename parts::quantization>(values...);
    if constexpr (requires { typename decoder::counted; }) {  // of the device
      const auto counted =
          decoder::count(files, settings, policy, parts::template value<typename parts::execution>(values...),
                         session.context_tokens, session.prefill_chunk);
      bytes.owned_bytes = counted.weights;
      bytes.state_bytes = counted.state;
      bytes.workspace_bytes = counted.workspace;
      return bytes;
    } else {
      const auto weights = models::weight_loader(files, policy).count();
      bytes.mapped_bytes = weights.mapped_bytes;
      bytes.owned_bytes = weights.owned_bytes;
      bytes.state_bytes = decoder::state_bytes(files.config(), settings, session.context_tokens, session.prefill_chunk);
      bytes.workspace_bytes = decoder::workspace_bytes(files.config(), session.prefill_chunk);
      return bytes;
    }
  }

  /// A new, empty session.
  [[nodiscard]] session_type start() const { return start(options_); }
  [[nodiscard]] session_type start(const session_options& options) const { return session_type(decoder_, options); }

  /// Room for steps of up to `max_sessions` sessions at once.
  [[nodiscard]] batch_type make_batch(int max_sessions) const { return batch_type(decoder_, max_sessions); }

  [[nodiscard]] const decoder& decoder_model() const { return *decoder_; }
  /// The checkpoint that it was loaded from.
  [[nodiscard]] const checkpoint::model_files& files() const { return decoder_->files(); }
  [[nodiscard]] const checkpoint::model_config& config() const { return decoder_->config(); }

 private:
  model(std::shared_ptr<const decoder> loaded, session_options options)
      : decoder_(std::move(loaded)), options_(options) {}

  std::shared_ptr<const decoder> decoder_;
  session_options options_;
};

}  // namespace effinfer::inline v0
