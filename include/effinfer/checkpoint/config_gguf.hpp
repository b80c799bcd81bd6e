#pragma once
// Reads a model's configuration from GGUF metadata, with the keys that llama.cpp's converter writes.

#include <effinfer/checkpoint/gguf.hpp>
#include <effinfer/checkpoint/model_config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>

namespace effinfer::inline v0::checkpoint {

/// Errors: `missing`, `mismatch` (a type or range), `unsupported`, each naming file and key.
inline model_config read_config_gguf(const gguf& file) {
  model_config c;
  c.file = file.name();
  c.architecture = std::string(file.at("general.architecture").string());
  const bool llama = c.architecture == "llama";
  if (!llama && c.architecture != "qwen2" && c.architecture != "qwen3") {
    throw error(error_code::unsupported, c.file + ": general.architecture",
                "\"" + c.architecture + "\" isn't computed here; have llama, qwen2, qwen3");
  }
  const auto key = [&](const char* rest) { return c.architecture + "." + rest; };
  const auto integer = [&](const char* rest, std::int64_t low, std::int64_t high) {
    return static_cast<int>(file.at(key(rest)).integer(low, high));
  };
  const auto integer_or = [&](const char* rest, std::int64_t low, std::int64_t high, int otherwise) {
    const auto* v = file.find(key(rest));
    return v ? static_cast<int>(v->integer(low, high)) : otherwise;
  };
  const auto number_or = [&](const char* rest, double low, double high, double otherwise) {
    const auto* v = file.find(key(rest));
    if (v == nullptr) return otherwise;
    const double n = v->number();
    if (!(n >= low && n <= high)) {
      throw error(error_code::mismatch, v->where(),
                  std::to_string(n) + " is not in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
    }
    return n;
  };
  const tensor* embedding = nullptr;
  const tensor* frequencies = nullptr;
  for (const tensor& t : file.tensors()) {
    if (t.name == "token_embd.weight") embedding = &t;
    if (t.name == "rope_freqs.weight") frequencies = &t;
  }
  if (embedding == nullptr) throw error(error_code::missing, c.file + ": tensor token_embd.weight", "it isn't there");
  if (embedding->shape.size() != 2 || embedding->shape[0] < 1 || embedding->shape[0] > (1 << 24)) {
    throw error(error_code::mismatch, c.file + ": tensor token_embd.weight", "its shape is not [vocabulary, width]");
  }
  const auto has = [&](std::string_view name) {
    return std::any_of(file.tensors().begin(), file.tensors().end(), [&](const tensor& t) { return t.name == name; });
  };
  if (integer_or("expert_count", 0, 1 << 20, 0) != 0) {
    throw error(error_code::unsupported, c.file + ": " + key("expert_count"),
                "a mixture of experts isn't computed here");
  }
  c.vocabulary_size = static_cast<int>(embedding->shape[0]);
  c.width = integer("embedding_length", 1, 1 << 20);
  c.feed_forward_width = integer("feed_forward_length", 1, 1 << 22);
  c.layers = integer("block_count", 1, 4096);
  c.heads = integer("attention.head_count", 1, 65536);
  c.kv_heads = integer_or("attention.head_count_kv", 1, 65536, c.heads);
  c.head_size = integer_or("attention.key_length", 1, 65536, std::max(1, c.width / c.heads));
  if (integer_or("attention.value_length", 1, 65536, c.head_size) != c.head_size) {
    throw error(error_code::unsupported, c.file + ": " + key("attention.value_length"),
                "a value size other than the key size isn't computed here");
  }
  c.max_positions = integer_or("context_length", 1, 1 << 28, 2048);
  c.norm_epsilon = static_cast<float>(number_or("attention.layer_norm_rms_epsilon", 0.0, 1.0, 1e-6));
  c.tied_embeddings = !has("output.weight");
  c.attention_bias = c.architecture == "qwen2" || has("blk.0.attn_q.bias");
  c.attention_output_bias = has("blk.0.attn_output.bias");
  c.mlp_bias = has("blk.0.ffn_gate.bias");
  c.qk_norm = c.architecture == "qwen3" || has("blk.0.attn_q_norm.weight");
  c.windows.assign(static_cast<std::size_t>(c.layers), integer_or("attention.sliding_window", 0, 1 << 28, 0));

  c.rope.base = number_or("rope.freq_base", 2.0, 1e12, 10000.0);
  c.rope.rotary_size = integer_or("rope.dimension_count", 2, 65536, c.head_size);
  c.rope.interleaved = llama;  // the converter permutes the rows of query and key for it
  c.rope.original_max_positions = integer_or("rope.scaling.original_context_length", 1, 1 << 28, c.max_positions);
  // As in llama.cpp: older files have the factor under another name, and a factor without a type scales linearly.
  c.rope.factor = number_or("rope.scaling.factor", 1e-3, 1e6, number_or("rope.scale_linear", 1e-3, 1e6, 1.0));
  if (c.rope.factor != 1.0) c.rope.scaling = rotary_scaling::linear;
  if (const auto* type = file.find(key("rope.scaling.type"))) {
    const std::string_view name = type->string();
    if (name == "linear")
      c.rope.scaling = rotary_scaling::linear;
    else if (name == "yarn")
      c.rope.scaling = rotary_scaling::yarn;
    else if (name == "none")
      c.rope.scaling = rotary_scaling::none;
    else {
      throw error(error_code::unsupported, type->where(),
                  "rotary scaling \"" + std::string(name) + "\" isn't computed here; have none, linear, yarn");
    }
  }
  // Here the factor stands in front of the one that yarn derives; transformers' field replaces that one.
  const double attention = number_or("rope.scaling.attn_factor", 0.0, 1e6, 0.0);
  c.rope.attention_factor =
      attention == 0.0 ? 0.0 : attention * (c.rope.factor > 1.0 ? 0.1 * std::log(c.rope.factor) + 1.0 : 1.0);
  c.rope.beta_fast = number_or("rope.scaling.yarn_beta_fast", 1e-6, 1e6, 32.0);
  c.rope.beta_slow = number_or("rope.scaling.yarn_beta_slow", 1e-6, 1e6, 1.0);
  if (frequencies != nullptr) {
    if (frequencies->format != weight_format::f32 ||
        frequencies->shape != std::vector<std::int64_t>{c.rope.rotary_size / 2}) {
      throw error(error_code::mismatch, c.file + ": tensor rope_freqs.weight",
                  "it is not F32 of " + std::to_string(c.rope.rotary_size / 2) + " values");
    }
    c.rope.frequency_factors.resize(static_cast<std::size_t>(c.rope.rotary_size / 2));
    std::copy(frequencies->data.begin(), frequencies->data.end(),
              std::as_writable_bytes(std::span(c.rope.frequency_factors)).begin());
    for (const float f : c.rope.frequency_factors) {
      if (!(f > 0.0F && f < 1e9F))
        throw error(error_code::mismatch, c.file + ": tensor rope_freqs.weight", "a factor is not positive");
    }
  }
  const auto id = [&](const char* name, std::vector<int>& ids) {
    if (const auto* v = file.find(name)) ids.push_back(static_cast<int>(v->integer(0, 1 << 30)));
  };
  id("tokenizer.ggml.bos_token_id", c.bos_ids);
  id("tokenizer.ggml.eos_token_id", c.eos_ids);
  id("tokenizer.ggml.eot_token_id", c.eos_ids);
  id("tokenizer.ggml.eom_token_id", c.eos_ids);
  detail::check_config(c,
                       {key("attention.head_count_kv"), key("rope.dimension_count"), key("attention.head_count"), ""});
  return c;
}

}  // namespace effinfer::inline v0::checkpoint
