#pragma once
// Model policies: which layers, in which order. All of these share one block (models/decoder.hpp): norm,
// token mixer, residual, norm, gated feed-forward, residual; what differs (biases, head norms, rotary
// scaling, windows) is read from the checkpoint. A policy states which checkpoints it takes and which token
// mixer it needs.
//
// To add one: a struct with the four members of `llama` below. `name` is for messages; `accepts` gets
// the architecture as the checkpoint spells it ("qwen2"); `recurrent` is true where the mixer is a
// recurrence (attention::linear) and not a softmax.

#include <effinfer/core/slot.hpp>

#include <string_view>

namespace effinfer::inline v0 {

namespace models {

/// Llama 2, 3, 3.1, 3.2 (Touvron et al. 2023; Grattafiori et al. 2024): rotary, grouped-query, SwiGLU.
struct llama {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::llama";
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) { return architecture == "llama"; }
};

/// Mistral 7B (Jiang et al. 2023): Llama's block with a sliding window. A GGUF file calls it "llama".
struct mistral {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::mistral";
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) {
    return architecture == "mistral" || architecture == "llama";
  }
};

/// Qwen2, Qwen2.5 (Yang et al. 2024): Llama's block with biases on query, key and value.
struct qwen2 {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::qwen2";
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) { return architecture == "qwen2"; }
};

/// Qwen3, dense (Yang et al. 2025): Llama's block with RMS norms on each head of query and key.
struct qwen3 {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::qwen3";
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) { return architecture == "qwen3"; }
};

/// Llama's block with kernelised linear attention as the mixer and no rotary embedding
/// (Katharopoulos et al. 2020, with a fixed decay a head as in RetNet, Sun et al. 2023).
struct linear_llama {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::linear_llama";
  static constexpr bool recurrent = true;
  static constexpr bool accepts(std::string_view architecture) { return architecture == "effinfer_linear"; }
};

/// Any softmax decoder above, as the checkpoint says. The default.
struct from_checkpoint {
  using slot = effinfer::slot::model;
  static constexpr std::string_view name = "models::from_checkpoint";
  static constexpr bool recurrent = false;
  static constexpr bool accepts(std::string_view architecture) {
    return llama::accepts(architecture) || mistral::accepts(architecture) || qwen2::accepts(architecture) ||
           qwen3::accepts(architecture);
  }
};

/// A policy in the model slot with all of its members.
template <class T>
concept model_policy = policy_of<T, slot::model> && requires(std::string_view architecture) {
  std::string_view(T::name);
  bool(T::recurrent);
  { T::accepts(architecture) } -> std::convertible_to<bool>;
};

static_assert(model_policy<llama> && model_policy<mistral> && model_policy<qwen2> && model_policy<qwen3>);
static_assert(model_policy<linear_llama> && model_policy<from_checkpoint>);

}  // namespace models
}  // namespace effinfer::inline v0
