#pragma once
// Reads Hugging Face's config.json and generation_config.json. Defaults are those of each architecture's configuration class in
// transformers; both spellings of rotary settings are read (rope_theta + rope_scaling, and rope_parameters).

#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/json.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace effinfer::inline v0::checkpoint {

namespace detail {

/// Reads fields of one object with range checks and defaults; null counts as absent.
class field_reader {
 public:
  explicit field_reader(json::value object) : object_(object) {}

  [[nodiscard]] std::optional<json::value> find(std::string_view key) const { return object_.find_set(key); }
  [[nodiscard]] int integer(std::string_view key, std::int64_t low, std::int64_t high) const {
    return static_cast<int>(object_.at(key).integer(low, high));
  }
  [[nodiscard]] int integer(std::string_view key, std::int64_t low, std::int64_t high, int otherwise) const {
    const auto v = find(key);
    return v ? static_cast<int>(v->integer(low, high)) : otherwise;
  }
  [[nodiscard]] double number(std::string_view key, double low, double high) const {
    const json::value v = object_.at(key);
    const double n = v.number();
    if (!(n >= low && n <= high)) {
      v.fail(std::to_string(n) + " is not in [" + std::to_string(low) + ", " + std::to_string(high) + "]");
    }
    return n;
  }
  [[nodiscard]] double number(std::string_view key, double low, double high, double otherwise) const {
    return find(key) ? number(key, low, high) : otherwise;
  }
  [[nodiscard]] bool boolean(std::string_view key, bool otherwise) const {
    const auto v = find(key);
    return v ? v->boolean() : otherwise;
  }

 private:
  json::value object_;
};

/// True where the weights are FP8 with scales beside them: quant_method fp8, or compressed-tensors in its format for that. How activations
/// were to be quantized doesn't matter: they aren't.
inline bool is_fp8(const json::value& quantization) {
  const field_reader q(quantization);
  const auto is = [&](std::string_view key, std::string_view wanted) {
    const auto v = q.find(key);
    return v && v->string() == wanted;
  };
  return is("quant_method", "fp8") || (is("quant_method", "compressed-tensors") && is("format", "float-quantized"));
}

/// The object with the rotary settings: transformers takes rope_scaling, the older spelling, where both stand.
inline std::optional<json::value> find_rope(const field_reader& config) {
  for (const std::string_view key : {"rope_scaling", "rope_parameters"}) {
    if (const auto settings = config.find(key); settings && !settings->members().empty()) return settings;
  }
  return std::nullopt;
}

inline rotary_scaling read_rope_type(const field_reader& settings) {
  auto type = settings.find("rope_type");
  if (!type) type = settings.find("type");
  const std::string_view name = type ? type->string() : "default";
  if (name == "default") return rotary_scaling::none;
  if (name == "linear") return rotary_scaling::linear;
  if (name == "dynamic") return rotary_scaling::dynamic_ntk;
  if (name == "yarn") return rotary_scaling::yarn;
  if (name == "llama3") return rotary_scaling::llama3;
  type->fail(
      "rotary scaling \"" + std::string(name) + "\" isn't computed here; have default, linear, dynamic, yarn, llama3",
      error_code::unsupported);
}

inline void read_rope(const field_reader& config, model_config& c) {
  const auto partial = [](const field_reader& r) {
    if (const auto v = r.find("partial_rotary_factor"); v && v->number() != 1.0) {
      v->fail("these architectures rotate whole heads", error_code::unsupported);
    }
  };
  partial(config);
  c.rope.base = config.number("rope_theta", 2.0, 1e12, 10000.0);
  c.rope.rotary_size = c.head_size;
  c.rope.original_max_positions = c.max_positions;
  const auto settings = find_rope(config);
  if (!settings) return;
  for (const auto& [key, v] : settings->members()) {
    if (v.is_object()) v.fail("rotary settings for each type of layer aren't computed here", error_code::unsupported);
  }
  const field_reader r(*settings);
  partial(r);
  c.rope.base = r.number("rope_theta", 2.0, 1e12, c.rope.base);
  c.rope.scaling = read_rope_type(r);
  if (c.rope.scaling == rotary_scaling::none) return;
  if (c.rope.scaling == rotary_scaling::yarn || c.rope.scaling == rotary_scaling::llama3) {
    // Phi-3's place for the field, outside of the settings, goes first in transformers.
    const int inside = r.integer("original_max_position_embeddings", 1, 1 << 28, c.max_positions);
    c.rope.original_max_positions = config.integer("original_max_position_embeddings", 1, 1 << 28, inside);
  }
  if (c.rope.scaling == rotary_scaling::yarn) {
    c.rope.factor = r.number("factor", 1e-3, 1e6, static_cast<double>(c.max_positions) / c.rope.original_max_positions);
    c.rope.beta_fast = r.number("beta_fast", 1e-6, 1e6, 32.0);
    c.rope.beta_slow = r.number("beta_slow", 1e-6, 1e6, 1.0);
    c.rope.attention_factor = r.number("attention_factor", 0.0, 1e6, 0.0);
    c.rope.mscale = r.number("mscale", 0.0, 1e6, 0.0);
    c.rope.mscale_all_dim = r.number("mscale_all_dim", 0.0, 1e6, 0.0);
    c.rope.truncate = r.boolean("truncate", true);
    return;
  }
  c.rope.factor = r.number("factor", 1e-3, 1e6);
  if (c.rope.scaling == rotary_scaling::llama3) {
    c.rope.low_freq_factor = r.number("low_freq_factor", 1e-6, 1e6);
    c.rope.high_freq_factor = r.number("high_freq_factor", 1e-6, 1e6);
    if (c.rope.high_freq_factor <= c.rope.low_freq_factor) {
      settings->fail("high_freq_factor must be greater than low_freq_factor");
    }
  }
}

/// A single id or a list of them.
inline void read_ids(const std::optional<json::value>& v, std::vector<int>& ids) {
  if (!v) return;
  ids.clear();
  const auto add = [&](const json::value& id) {
    if (const std::int64_t n = id.integer(-1, 1 << 30); n >= 0) ids.push_back(static_cast<int>(n));  // -1 says none
  };
  if (v->is_array()) {
    for (const json::value& id : v->elements()) add(id);
  } else {
    add(*v);
  }
}

}  // namespace detail

/// `text` is config.json's, `generation_text` generation_config.json's (empty where there is none); `folder` stands in errors.
/// Errors: `malformed` (invalid JSON), `missing`, `mismatch` (a type or range), `unsupported` (an activation, rotary scaling or
/// quantization that isn't computed), each naming file and field.
inline model_config read_config_json(std::string_view text, std::string_view generation_text,
                                     const std::string& folder) {
  const json::document document(text, folder + "/config.json", {.bytes = 16 << 20, .depth = 16});
  const detail::field_reader r(document.root());
  model_config c;
  c.file = document.name();
  c.architecture = std::string(document.root().at("model_type").string());
  const bool llama = c.architecture == "llama" || c.architecture == "effinfer_linear",
             mistral = c.architecture == "mistral";
  const bool qwen2 = c.architecture == "qwen2", qwen3 = c.architecture == "qwen3";
  if (!llama && !mistral && !qwen2 && !qwen3) {
    document.root()
        .at("model_type")
        .fail("\"" + c.architecture + "\" isn't computed here; have llama, mistral, qwen2, qwen3, effinfer_linear",
              error_code::unsupported);
  }
  if (const auto quantization = r.find("quantization_config"); quantization && !detail::is_fp8(*quantization)) {
    quantization->fail("weights quantized by other tools aren't computed here, but for FP8", error_code::unsupported,
                       "take the checkpoint in BF16, or as GGUF");
  }
  c.vocabulary_size = r.integer("vocab_size", 1, 1 << 24);
  c.width = r.integer("hidden_size", 1, 1 << 20);
  c.feed_forward_width = r.integer("intermediate_size", 1, 1 << 22);
  c.layers = r.integer("num_hidden_layers", 1, 4096);
  c.heads = r.integer("num_attention_heads", 1, 65536);
  // An absent field is the class's default; a null says as many as there are query heads.
  const bool names_kv_heads = document.root().find("num_key_value_heads").has_value();
  const int default_kv_heads = names_kv_heads || llama ? c.heads : mistral ? 8 : 32;
  c.kv_heads = r.integer("num_key_value_heads", 1, 65536, default_kv_heads);
  c.head_size = r.integer("head_dim", 1, 65536, qwen3 ? 128 : std::max(1, c.width / c.heads));
  c.max_positions = r.integer("max_position_embeddings", 1, 1 << 28, mistral ? 131072 : qwen2 || qwen3 ? 32768 : 2048);
  c.norm_epsilon = static_cast<float>(r.number("rms_norm_eps", 0.0, 1.0, 1e-6));
  c.tied_embeddings = r.boolean("tie_word_embeddings", false);
  // Llama's and Qwen3's one switch covers the output projection too; Qwen2 always has biases on query, key and value only.
  c.attention_bias = qwen2 || (!mistral && r.boolean("attention_bias", false));
  c.attention_output_bias = !qwen2 && c.attention_bias;
  c.mlp_bias = llama && r.boolean("mlp_bias", false);
  c.qk_norm = qwen3;
  if (const auto act = r.find("hidden_act"); act && act->string() != "silu" && act->string() != "swish") {
    act->fail("\"" + std::string(act->string()) + "\" isn't computed here; have silu", error_code::unsupported);
  }

  c.windows.assign(static_cast<std::size_t>(c.layers), 0);
  const bool windowed = mistral || ((qwen2 || qwen3) && r.boolean("use_sliding_window", false));
  // MistralConfig's default is 4096 where the key is absent; a null says none.
  const bool absent = !document.root().find("sliding_window");
  const int window = r.integer("sliding_window", 1, 1 << 28, absent && windowed ? 4096 : 0);
  if (windowed && window != 0) {
    const auto types = r.find("layer_types");
    if (types && types->size() != c.windows.size())
      types->fail("it has " + std::to_string(types->size()) + " entries for " + std::to_string(c.layers) + " layers");
    for (const json::value& type : types ? types->elements() : std::vector<json::value>{}) {
      if (const auto name = type.string(); name != "sliding_attention" && name != "full_attention") {
        type.fail("\"" + std::string(name) + "\" isn't computed here; have full_attention, sliding_attention",
                  error_code::unsupported);
      }
    }
    const int first = mistral ? 0 : r.integer("max_window_layers", 0, 1 << 20, 28);
    for (std::size_t i = 0; i < c.windows.size(); ++i) {
      const bool uses = types ? (*types)[i].string() == "sliding_attention" : static_cast<int>(i) >= first;
      c.windows[i] = uses ? window : 0;
    }
  }
  detail::read_rope(r, c);
  detail::read_ids(r.find("bos_token_id"), c.bos_ids);
  detail::read_ids(r.find("eos_token_id"), c.eos_ids);
  if (c.architecture == "effinfer_linear") {
    c.feature_map = std::string(document.root().at("feature_map").string());
    if (c.feature_map != "elu_plus_one") {
      document.root()
          .at("feature_map")
          .fail("\"" + c.feature_map + "\" isn't computed here; have elu_plus_one", error_code::unsupported);
    }
    for (const json::value& g : document.root().at("decay").elements())
      c.decay.push_back(static_cast<float>(g.number()));
  }
  if (!generation_text.empty()) {
    const json::document generation(generation_text, folder + "/generation_config.json",
                                    {.bytes = 16 << 20, .depth = 16});
    detail::read_ids(generation.root().find_set("bos_token_id"), c.bos_ids);
    detail::read_ids(generation.root().find_set("eos_token_id"), c.eos_ids);
  }
  detail::check_config(c, {"field num_key_value_heads", "field head_dim", "field num_attention_heads", "field decay"});
  return c;
}

}  // namespace effinfer::inline v0::checkpoint
