#pragma once
// The map from a weight's role to its name in a checkpoint: Hugging Face's names and GGUF's.

#include <effinfer/core/config.hpp>

#include <string>
#include <string_view>

namespace effinfer::inline v0::models {

/// What a tensor is for. The first three stand once a model, the others once a layer.
enum class weight_role {
  embedding,
  final_norm,
  output,
  mixer_norm,
  query,
  key,
  value,
  mixer_output,
  query_norm,
  key_norm,
  feed_forward_norm,
  gate,
  up,
  down,
};

namespace detail {
struct weight_name {
  std::string_view hugging_face;
  std::string_view gguf;
};
constexpr weight_name stem(weight_role role) {
  switch (role) {
    case weight_role::embedding: return {"model.embed_tokens", "token_embd"};
    case weight_role::final_norm: return {"model.norm", "output_norm"};
    case weight_role::output: return {"lm_head", "output"};
    case weight_role::mixer_norm: return {"input_layernorm", "attn_norm"};
    case weight_role::query: return {"self_attn.q_proj", "attn_q"};
    case weight_role::key: return {"self_attn.k_proj", "attn_k"};
    case weight_role::value: return {"self_attn.v_proj", "attn_v"};
    case weight_role::mixer_output: return {"self_attn.o_proj", "attn_output"};
    case weight_role::query_norm: return {"self_attn.q_norm", "attn_q_norm"};
    case weight_role::key_norm: return {"self_attn.k_norm", "attn_k_norm"};
    case weight_role::feed_forward_norm: return {"post_attention_layernorm", "ffn_norm"};
    case weight_role::gate: return {"mlp.gate_proj", "ffn_gate"};
    case weight_role::up: return {"mlp.up_proj", "ffn_up"};
    case weight_role::down: return {"mlp.down_proj", "ffn_down"};
  }
  return {};
}
}  // namespace detail

/// The tensor's full name: `layer` is ignored for the roles that stand once a model; `suffix` is "weight"
/// or "bias".
inline std::string weight_name(weight_role role, int layer, bool gguf, std::string_view suffix = "weight") {
  const auto names = detail::stem(role);
  std::string name;
  if (role > weight_role::output) {
    name = gguf ? "blk." : "model.layers.";
    name += std::to_string(layer);
    name += '.';
  }
  name += gguf ? names.gguf : names.hugging_face;
  name += '.';
  name += suffix;
  return name;
}

}  // namespace effinfer::inline v0::models
