#pragma once
// Checkpoints of a few thousand random weights, written to a folder: the shapes that no shipped model has.

#include <effinfer/core/dtype.hpp>
#include <effinfer/testing/attention_oracle.hpp>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace small_checkpoint {

struct shape {
  std::string architecture = "llama";  ///< qwen2 has biases, qwen3 norms of heads, effinfer_linear fades
  std::string dtype = "BF16";          ///< or F16, F32, F8_E4M3 with what is looked up and the head in BF16
  std::string scales = "one";          ///< of FP8: one for all, or "rows", or "blocks" of 128 x 128
  int width = 128, feed_forward_width = 192, layers = 2, heads = 3, kv_heads = 1, head_size = 64, vocabulary = 97;
  int window = 0;
  bool tied = false;
};

/// A folder that is there as long as this is.
class folder {
 public:
  folder() : path_((std::filesystem::temp_directory_path() / "effinfer-small-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no temporary folder");
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  ~folder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// A decay a head.
inline std::string fading(int heads) {
  std::string list;
  for (int h = 0; h < heads; ++h) list += (h == 0 ? "[" : ",") + std::to_string(1.0 - 0.5 / (1 + h));
  return list + "]";
}

/// Writes config.json and model.safetensors. Weights are numbers of BF16 in every
/// dtype, so that all dtypes are the same model.
inline void write(const std::string& path, const shape& s) {
  const auto text = [](auto n) { return std::to_string(n); };
  std::ofstream(path + "/config.json")
      << "{\"model_type\":\"" << s.architecture << "\",\"hidden_size\":" << s.width
      << ",\"intermediate_size\":" << s.feed_forward_width << ",\"num_hidden_layers\":" << s.layers
      << ",\"num_attention_heads\":" << s.heads << ",\"num_key_value_heads\":" << s.kv_heads
      << ",\"head_dim\":" << s.head_size << ",\"vocab_size\":" << s.vocabulary
      << ",\"max_position_embeddings\":4096,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\""
      << (s.architecture == "effinfer_linear" ? ",\"feature_map\":\"elu_plus_one\",\"decay\":" + fading(s.heads) : "")
      << (s.window > 0 ? ",\"sliding_window\":" + text(s.window) : std::string())
      << ",\"tie_word_embeddings\":" << (s.tied ? "true" : "false")
      << (s.dtype == "F8_E4M3" ? ",\"quantization_config\":{\"quant_method\":\"fp8\"}" : "") << "}";

  std::vector<std::pair<std::string, std::vector<int>>> tensors{{"model.embed_tokens.weight", {s.vocabulary, s.width}},
                                                                {"model.norm.weight", {s.width}}};
  if (!s.tied) tensors.push_back({"lm_head.weight", {s.vocabulary, s.width}});
  for (int l = 0; l < s.layers; ++l) {
    const std::string p = "model.layers." + text(l) + ".";
    const int q = s.heads * s.head_size, kv = s.kv_heads * s.head_size;
    for (const auto& [part, rows] : {std::pair("q", q), std::pair("k", kv), std::pair("v", kv)}) {
      tensors.push_back({p + "self_attn." + part + "_proj.weight", {rows, s.width}});
      if (s.architecture == "qwen2") tensors.push_back({p + "self_attn." + part + "_proj.bias", {rows}});
    }
    if (s.architecture == "qwen3") {
      tensors.push_back({p + "self_attn.q_norm.weight", {s.head_size}});
      tensors.push_back({p + "self_attn.k_norm.weight", {s.head_size}});
    }
    tensors.push_back({p + "self_attn.o_proj.weight", {s.width, q}});
    tensors.push_back({p + "input_layernorm.weight", {s.width}});
    tensors.push_back({p + "post_attention_layernorm.weight", {s.width}});
    tensors.push_back({p + "mlp.gate_proj.weight", {s.feed_forward_width, s.width}});
    tensors.push_back({p + "mlp.up_proj.weight", {s.feed_forward_width, s.width}});
    tensors.push_back({p + "mlp.down_proj.weight", {s.width, s.feed_forward_width}});
  }
  std::string header = "{", data;
  const auto put = [&](const auto& number) { data.append(reinterpret_cast<const char*>(&number), sizeof number); };
  const auto name = [&](const std::string& tensor, const std::string& dtype, const std::vector<int>& dims,
                        std::size_t begin) {
    std::string dimensions;
    for (const int d : dims) dimensions += (dimensions.empty() ? "" : ",") + text(d);
    header += (begin == 0 ? "\"" : ",\"") + tensor + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + dimensions +
              "],\"data_offsets\":[" + text(begin) + "," + text(data.size()) + "]}";
  };
  for (const auto& [tensor, dims] : tensors) {
    std::size_t count = 1;
    for (const int d : dims) count *= static_cast<std::size_t>(d);
    const std::size_t begin = data.size();
    const bool norm = tensor.find("norm") != std::string::npos;
    // Of variance 1 / inputs, so that activations stay near 1.
    const float scale = dims.size() == 1 ? 0.3F : 1.7F / std::sqrt(static_cast<float>(dims[1]));
    const std::vector<float> random = effinfer::testing::numbers(count, begin + 1);
    if (s.dtype == "F8_E4M3" && dims.size() == 2 && tensor.find("layers") != std::string::npos) {
      const int down = s.scales == "one" ? dims[0] : s.scales == "rows" ? 1 : 128;
      const int across = s.scales == "blocks" ? 128 : dims[1];
      const int rows = (dims[0] + down - 1) / down, columns = (dims[1] + across - 1) / across;
      const auto scale_of = [&](int block) {
        return static_cast<float>(effinfer::bf16(scale / 448 * (1 + 0.25F * static_cast<float>(block % 5))));
      };
      for (std::size_t i = 0; i < count; ++i) {
        const int at = static_cast<int>(i), block = at / dims[1] / down * columns + at % dims[1] / across;
        put(effinfer::fp8_e4m3(scale * random[i] / scale_of(block)).bits);
      }
      name(tensor, s.dtype, dims, begin);
      data.resize((data.size() + 3) / 4 * 4);
      const std::size_t scales = data.size();
      for (int b = 0; b < rows * columns; ++b) {
        if (s.scales == "rows") put(effinfer::bf16(scale_of(b)).bits);
        if (s.scales != "rows") put(scale_of(b));
      }
      if (s.scales == "blocks") name(tensor + "_scale_inv", "F32", {rows, columns}, scales);
      if (s.scales == "rows") name(tensor + "_scale", "BF16", {rows, 1}, scales);
      if (s.scales == "one") name(tensor + "_scale", "F32", {}, scales);
      continue;
    }
    for (const float v : random) {
      const effinfer::bf16 value((norm ? 1.0F : 0.0F) + scale * v);
      if (s.dtype == "BF16" || s.dtype == "F8_E4M3") put(value.bits);
      if (s.dtype == "F16") put(effinfer::f16(static_cast<float>(value)).bits);
      if (s.dtype == "F32") put(static_cast<float>(value));
    }
    name(tensor, s.dtype == "F8_E4M3" ? "BF16" : s.dtype, dims, begin);
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::ofstream file(path + "/model.safetensors", std::ios::binary);
  const std::uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << header << data;
}

}  // namespace small_checkpoint
