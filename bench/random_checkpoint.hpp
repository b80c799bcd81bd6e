#pragma once
// A checkpoint of a real model's shape with random bf16 weights, in the Hugging Face layout, written to a folder: for
// measuring speed without anybody's weights.

#include <effinfer/core/dtype.hpp>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace random_checkpoint {

struct shape {
  int width, feed_forward_width, layers, heads, kv_heads, head_size, vocabulary;
};

inline constexpr shape qwen2_0_5b{896, 4864, 24, 14, 2, 64, 151936};
inline constexpr shape llama_3_2_1b{2048, 8192, 16, 32, 8, 64, 128256};

/// Writes config.json and model.safetensors (tied embeddings, no biases) into `folder`, unless they are there already.
inline void write(const std::string& folder, const shape& s) {
  namespace fs = std::filesystem;
  if (fs::exists(folder + "/model.safetensors")) return;
  fs::create_directories(folder);
  std::ofstream(folder + "/config.json") << "{\"model_type\":\"llama\",\"hidden_size\":" << s.width
                                         << ",\"intermediate_size\":" << s.feed_forward_width
                                         << ",\"num_hidden_layers\":" << s.layers
                                         << ",\"num_attention_heads\":" << s.heads
                                         << ",\"num_key_value_heads\":" << s.kv_heads << ",\"head_dim\":" << s.head_size
                                         << ",\"vocab_size\":" << s.vocabulary
                                         << ",\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-5,\"rope_theta\":"
                                            "500000.0,\"tie_word_embeddings\":true}";
  std::vector<std::pair<std::string, std::vector<int>>> tensors{{"model.embed_tokens.weight", {s.vocabulary, s.width}}};
  for (int l = 0; l < s.layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    const int q = s.heads * s.head_size, kv = s.kv_heads * s.head_size;
    tensors.push_back({p + "input_layernorm.weight", {s.width}});
    tensors.push_back({p + "self_attn.q_proj.weight", {q, s.width}});
    tensors.push_back({p + "self_attn.k_proj.weight", {kv, s.width}});
    tensors.push_back({p + "self_attn.v_proj.weight", {kv, s.width}});
    tensors.push_back({p + "self_attn.o_proj.weight", {s.width, q}});
    tensors.push_back({p + "post_attention_layernorm.weight", {s.width}});
    tensors.push_back({p + "mlp.gate_proj.weight", {s.feed_forward_width, s.width}});
    tensors.push_back({p + "mlp.up_proj.weight", {s.feed_forward_width, s.width}});
    tensors.push_back({p + "mlp.down_proj.weight", {s.width, s.feed_forward_width}});
  }
  tensors.push_back({"model.norm.weight", {s.width}});

  const auto values_of = [](const std::vector<int>& dims) {
    std::uint64_t n = 1;
    for (const int d : dims) n *= static_cast<std::uint64_t>(d);
    return n;
  };
  std::string header = "{";
  std::uint64_t offset = 0;
  for (const auto& [name, dims] : tensors) {
    std::string text;
    for (const int d : dims) text += (text.empty() ? "" : ",") + std::to_string(d);
    const std::uint64_t end = offset + 2 * values_of(dims);
    header += (offset == 0 ? "\"" : ",\"") + name + "\":{\"dtype\":\"BF16\",\"shape\":[" + text +
              "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::ofstream file(folder + "/model.safetensors.partial", std::ios::binary);
  const std::uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  std::uint64_t state = 1;
  std::vector<effinfer::bf16> block(1 << 16);
  for (const auto& [name, dims] : tensors) {
    // Norms near 1, weights uniform with the variance 1 / inputs: activations stay near 1 through all layers.
    const bool norm = dims.size() == 1;
    const float range = norm ? 0.1F : 1.7F / __builtin_sqrtf(static_cast<float>(dims[1]));
    for (std::uint64_t left = values_of(dims); left > 0;) {
      const std::uint64_t n = left < block.size() ? left : block.size();
      for (std::uint64_t i = 0; i < n; ++i) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        const float u = static_cast<float>(state >> 40) * 0x1p-23F - 1.0F;
        block[i] = effinfer::bf16((norm ? 1.0F : 0.0F) + range * u);
      }
      file.write(reinterpret_cast<const char*>(block.data()), static_cast<std::streamsize>(2 * n));
      left -= n;
    }
  }
  file.close();
  if (!file) throw std::runtime_error(folder + ": can't be written");
  fs::rename(folder + "/model.safetensors.partial", folder + "/model.safetensors");
}

}  // namespace random_checkpoint
