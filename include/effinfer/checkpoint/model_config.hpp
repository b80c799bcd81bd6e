#pragma once
// What a checkpoint says about its model, as one struct from either source: Hugging Face's config.json (old spelling and new)
// or GGUF metadata. Every number is checked for range where it is read, so that nothing absurd reaches an allocation.

#include <effinfer/core/error.hpp>
#include <effinfer/core/rotary_settings.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace effinfer::inline v0::checkpoint {

/// A decoder's shape and constants. Letters as everywhere: E, H, K, D, F, V.
struct model_config {
  std::string file;            ///< where it was read, for messages
  std::string architecture;    ///< "llama", "mistral", "qwen2", "qwen3", "effinfer_linear", or what else the file says
  int vocabulary_size = 0;     ///< V
  int width = 0;               ///< E
  int feed_forward_width = 0;  ///< F
  int layers = 0;
  int heads = 0;          ///< H
  int kv_heads = 0;       ///< K, divides H
  int head_size = 0;      ///< D
  int max_positions = 0;  ///< positions that it was made for
  float norm_epsilon = 1e-6F;
  bool tied_embeddings = false;  ///< the output head is the embedding
  bool attention_bias = false;   ///< of query, key and value
  bool attention_output_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;      ///< an RMS norm on each head of query and key
  std::vector<int> windows;  ///< [layers]: how many positions a layer sees, itself counted; 0: all
  rotary_settings rope;
  std::vector<int> bos_ids;
  std::vector<int> eos_ids;
  std::string feature_map;   ///< linear attention
  std::vector<float> decay;  ///< linear attention: [H], in (0, 1]
};

namespace detail {

/// What the checked values are called in the file, for messages.
struct config_names {
  std::string kv_heads, rotary_size, heads, decay;
};

/// What both readers check at the end: values that must fit each other.
inline void check_config(const model_config& c, const config_names& names) {
  const auto fail = [&](const std::string& name, const std::string& problem) {
    throw error(error_code::mismatch, c.file + ": " + name, problem);
  };
  if (c.heads % c.kv_heads != 0) {
    fail(names.kv_heads,
         std::to_string(c.heads) + " query heads can't share " + std::to_string(c.kv_heads) + " kv heads evenly");
  }
  if (c.rope.rotary_size < 2 || c.rope.rotary_size % 2 != 0 || c.rope.rotary_size > c.head_size) {
    fail(names.rotary_size, "the rotary size " + std::to_string(c.rope.rotary_size) +
                                " is not an even number in [2, head size " + std::to_string(c.head_size) + "]");
  }
  if (static_cast<std::int64_t>(c.heads) * c.head_size > (1 << 20)) {
    fail(names.heads, "heads x head size is absurdly large");
  }
  if ((!c.decay.empty() || !c.feature_map.empty()) && c.decay.size() != static_cast<std::size_t>(c.heads)) {
    fail(names.decay, std::to_string(c.decay.size()) + " numbers for " + std::to_string(c.heads) + " heads");
  }
  for (const float g : c.decay) {
    if (!(g > 0.0F && g <= 1.0F)) fail(names.decay, std::to_string(g) + " is not in (0, 1]");
  }
}

}  // namespace detail
}  // namespace effinfer::inline v0::checkpoint
