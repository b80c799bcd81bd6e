// checkpoint/config_json.hpp: every field of config.json, its defaults, and values that can't be.

#include "checkpoint/expect_error.hpp"

#include <effinfer/checkpoint/config_json.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

namespace config_json_tests {

using effinfer::error_code;
using effinfer::rotary_scaling;
using namespace effinfer::checkpoint;
using test::expect_error;

namespace {

/// A right configuration, with `more` fields ("\"key\": value, ") in place of those of the same names: the last counts.
std::string config(const std::string& architecture, const std::string& more = "") {
  return R"({"model_type": ")" + architecture + R"(", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2)" +
         (more.empty() ? "" : ", ") + more + "}";
}
model_config read(const std::string& text, std::string_view generation = "") {
  return read_config_json(text, generation, "folder");
}
model_config llama(const std::string& more) { return read(config("llama", more)); }

/// The field's value is refused with a message that names file and field.
void refuses(const std::string& field, const std::string& value, error_code code = error_code::mismatch,
             std::string_view word = "", const std::string& architecture = "llama") {
  CAPTURE(value);
  expect_error(code, {"folder/config.json: field " + field, word},
               [&] { return read(config(architecture, "\"" + field + "\": " + value)); });
}

}  // namespace

TEST_CASE("config.json: sizes as they stand") {
  const model_config c =
      llama(R"("head_dim": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "bos_token_id": 1,
      "eos_token_id": [2, 3], "tie_word_embeddings": true, "attention_bias": true, "mlp_bias": true)");
  CHECK(c.file == "folder/config.json");
  CHECK(c.architecture == "llama");
  CHECK(c.vocabulary_size == 96);
  CHECK(c.width == 64);
  CHECK(c.feed_forward_width == 96);
  CHECK(c.layers == 3);
  CHECK(c.heads == 4);
  CHECK(c.kv_heads == 2);
  CHECK(c.head_size == 32);
  CHECK(c.max_positions == 512);
  CHECK(c.norm_epsilon == 1e-5F);
  CHECK(c.tied_embeddings);
  CHECK(c.attention_bias);
  CHECK(c.attention_output_bias);
  CHECK(c.mlp_bias);
  CHECK(!c.qk_norm);
  CHECK(c.windows == std::vector<int>(3, 0));
  CHECK(c.bos_ids == std::vector<int>{1});
  CHECK(c.eos_ids == std::vector<int>{2, 3});
  CHECK(c.rope.rotary_size == 32);
}

TEST_CASE("config.json: defaults of each architecture, as in transformers") {
  const model_config l = llama("\"num_key_value_heads\": null");
  CHECK(l.kv_heads == 4);
  CHECK(l.head_size == 16);
  CHECK(l.max_positions == 2048);
  CHECK(l.norm_epsilon == 1e-6F);
  CHECK(l.rope.base == 10000.0);
  CHECK(l.rope.scaling == rotary_scaling::none);
  CHECK(!l.tied_embeddings);
  CHECK(!l.attention_bias);
  const model_config m = read(config("mistral", "\"attention_bias\": true"));
  CHECK(m.max_positions == 131072);
  CHECK(m.windows == std::vector<int>(3, 4096));
  CHECK(!m.attention_bias);
  const std::string wide = R"("num_attention_heads": 64, "hidden_size": 4096)";
  CHECK(read(config("mistral", wide + ", \"num_key_value_heads\": null")).kv_heads == 64);
  CHECK(read(config("qwen2", wide + ", \"num_key_value_heads\": null")).kv_heads == 64);
  const auto without_kv_heads = [&](const std::string& architecture) {
    std::string text = config(architecture, wide);
    text.replace(text.find("num_key_value_heads"), 19, "another");
    return read(text).kv_heads;
  };
  CHECK(without_kv_heads("llama") == 64);
  CHECK(without_kv_heads("mistral") == 8);
  CHECK(without_kv_heads("qwen2") == 32);
  CHECK(without_kv_heads("qwen3") == 32);
  CHECK(read(config("mistral", "\"sliding_window\": null")).windows == std::vector<int>(3, 0));
  const model_config q2 = read(config("qwen2"));
  CHECK(q2.attention_bias);
  CHECK(!q2.attention_output_bias);
  CHECK(!q2.qk_norm);
  CHECK(q2.max_positions == 32768);
  const model_config q3 = read(config("qwen3"));
  CHECK(q3.qk_norm);
  CHECK(q3.head_size == 128);
  CHECK(!q3.attention_bias);
}

TEST_CASE("config.json: windows") {
  const std::string uses = "\"use_sliding_window\": true, \"sliding_window\": 8, ";
  CHECK(read(config("mistral", "\"sliding_window\": 16")).windows == std::vector<int>{16, 16, 16});
  CHECK(read(config("qwen2", "\"sliding_window\": 16")).windows == std::vector<int>{0, 0, 0});
  CHECK(read(config("qwen2", uses + "\"max_window_layers\": 1")).windows == std::vector<int>{0, 8, 8});
  CHECK(read(config("qwen2", uses + "\"max_window_layers\": 28")).windows == std::vector<int>{0, 0, 0});
  CHECK(read(config("qwen3", uses + R"("layer_types": ["sliding_attention", "full_attention", "sliding_attention"])"))
            .windows == std::vector<int>{8, 0, 8});
  const auto refused = [&](const std::string& types, error_code code, std::string_view word) {
    expect_error(code, {"folder/config.json: field layer_types", word},
                 [&] { return read(config("qwen3", uses + "\"layer_types\": " + types)); });
  };
  refused(R"(["full_attention"])", error_code::mismatch, "1 entries for 3 layers");
  refused(R"(["full_attention", "full_attention", "linear_attention"])", error_code::unsupported, "layer_types[2]");
  refused(R"(["full_attention", "full_attention", 1])", error_code::mismatch, "layer_types[2]");
  refused("8", error_code::mismatch, "a number, not an array");
  refuses("sliding_window", "0", error_code::mismatch, "0 is not in", "mistral");
  refuses("sliding_window", "-4", error_code::mismatch, "-4", "mistral");
  refuses("use_sliding_window", "1", error_code::mismatch, "true or false", "qwen2");
}

TEST_CASE("config.json: rotary settings in both spellings") {
  const auto l3 = llama(R"("max_position_embeddings": 512, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3",
      "factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 3, "original_max_position_embeddings": 64})");
  CHECK(l3.rope.scaling == rotary_scaling::llama3);
  CHECK(l3.rope.base == 5e5);
  CHECK(l3.rope.factor == 8.0);
  CHECK(l3.rope.low_freq_factor == 1.5);
  CHECK(l3.rope.high_freq_factor == 3.0);
  CHECK(l3.rope.original_max_positions == 64);
  const auto yarn = llama(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4, "beta_fast": 8,
      "attention_factor": 1.25, "truncate": false, "partial_rotary_factor": 1.0})");
  CHECK(yarn.rope.scaling == rotary_scaling::yarn);
  CHECK(yarn.rope.base == 1e6);
  CHECK(yarn.rope.beta_fast == 8.0);
  CHECK(yarn.rope.beta_slow == 1.0);
  CHECK(yarn.rope.attention_factor == 1.25);
  CHECK(!yarn.rope.truncate);
  CHECK(yarn.rope.rotary_size == 16);
  CHECK(yarn.rope.original_max_positions == 2048);
  // A factor of null, or none, is the ratio of the lengths.
  const std::string lengths = R"("max_position_embeddings": 512, "rope_scaling": {"rope_type": "yarn", )";
  CHECK(llama(lengths + R"("original_max_position_embeddings": 128, "factor": null})").rope.factor == 4.0);
  CHECK(llama(lengths + R"("original_max_position_embeddings": 128, "factor": 3})").rope.factor == 3.0);
  CHECK(llama(lengths + R"("original_max_position_embeddings": 64})").rope.original_max_positions == 64);
  CHECK(llama(lengths + R"("factor": 2}, "original_max_position_embeddings": 32)").rope.original_max_positions == 32);
  CHECK(llama(R"("rope_scaling": {"type": "linear", "factor": 2})").rope.scaling == rotary_scaling::linear);
  CHECK(llama(R"("rope_scaling": {"type": "dynamic", "factor": 2})").rope.scaling == rotary_scaling::dynamic_ntk);
  // Its base grows beyond max_position_embeddings; another length in the settings means nothing to it.
  CHECK(llama(R"("rope_scaling": {"type": "dynamic", "factor": 2, "original_max_position_embeddings": 8})")
            .rope.original_max_positions == 2048);
  const auto both = llama(R"("rope_theta": 5e4, "rope_scaling": {"type": "linear", "factor": 2},
      "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4})");
  CHECK(both.rope.scaling == rotary_scaling::linear);
  CHECK(both.rope.base == 5e4);
  CHECK(llama(R"("rope_scaling": {}, "rope_parameters": {"rope_theta": 1e6})").rope.base == 1e6);
  CHECK(llama(R"("rope_scaling": null)").rope.scaling == rotary_scaling::none);
  CHECK(llama(R"("rope_parameters": {"rope_type": "default"})").rope.scaling == rotary_scaling::none);

  const auto refused = [](const std::string& object, error_code code, std::string_view field, std::string_view word) {
    CAPTURE(object);
    expect_error(code, {"folder/config.json: field rope_scaling", field, word},
                 [&] { return llama("\"rope_scaling\": " + object); });
  };
  refused(R"({"type": "longrope"})", error_code::unsupported, ".type", "longrope");
  refused(R"({"rope_type": 3})", error_code::mismatch, ".rope_type", "not a string");
  refused(R"("linear")", error_code::mismatch, "", "not an object");
  refused(R"({"type": "linear", "factor": 0})", error_code::mismatch, ".factor", "is not in");
  refused(R"({"type": "linear", "factor": -2.0})", error_code::mismatch, ".factor", "-2");
  refused(R"({"type": "linear", "factor": 1e300})", error_code::mismatch, ".factor", "is not in");
  refused(R"({"type": "linear", "factor": "8"})", error_code::mismatch, ".factor", "not a number");
  refused(R"({"type": "llama3", "factor": 8, "high_freq_factor": 1, "low_freq_factor": 1})", error_code::mismatch, "",
          "greater");
  refused(R"({"type": "linear"})", error_code::missing, ".factor", "isn't there");
  refused(R"({"type": "dynamic"})", error_code::missing, ".factor", "isn't there");
  refused(R"({"type": "linear", "factor": null})", error_code::mismatch, ".factor", "null, not a number");
  refused(R"({"type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4})", error_code::missing, ".factor", "");
  refused(R"({"type": "llama3", "factor": 8, "high_freq_factor": 4})", error_code::missing, ".low_freq_factor", "");
  refused(R"({"type": "llama3", "factor": 8, "low_freq_factor": 1})", error_code::missing, ".high_freq_factor", "");
  refused(R"({"full_attention": {"rope_type": "default"}})", error_code::unsupported, ".full_attention",
          "type of layer");
  refused(R"({"type": "linear", "factor": 2, "partial_rotary_factor": 0.5})", error_code::unsupported,
          ".partial_rotary_factor", "whole heads");
  refused(R"({"type": "yarn", "original_max_position_embeddings": 0})", error_code::mismatch, "original_max", "0");
  refused(R"({"type": "yarn", "beta_fast": 0})", error_code::mismatch, ".beta_fast", "is not in");
  refused(R"({"type": "yarn", "truncate": 0})", error_code::mismatch, ".truncate", "true or false");
  refuses("rope_theta", "0");
  refuses("rope_theta", "1e40");
  refuses("rope_theta", "1");
  refuses("partial_rotary_factor", "0.5", error_code::unsupported, "whole heads");
  refuses("partial_rotary_factor", "\"1\"", error_code::mismatch, "not a number");
  refuses("head_dim", "15", error_code::mismatch, "rotary size 15");
}

TEST_CASE("config.json: sizes out of range or of a wrong type") {
  for (const std::string field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    CAPTURE(field);
    for (const std::string value :
         {"0", "-1", "2147483647", "4294967297", "9223372036854775807", "-9223372036854775808"}) {
      refuses(field, value, error_code::mismatch, value);
    }
    for (const std::string value : {"18446744073709551615", "1e3", "4.0", "\"4\"", "[4]", "true", "{}"}) {
      refuses(field, value, error_code::mismatch, "not an integer");
    }
  }
  for (const std::string field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    std::string text = config("llama");
    text.replace(text.find(field), field.size(), "another");
    expect_error(error_code::missing, {"folder/config.json: field " + field}, [&] { return read(text); });
    refuses(field, "null", error_code::mismatch, "null, not an integer");
  }
  refuses("rms_norm_eps", "-1e-6");
  refuses("rms_norm_eps", "2");
  refuses("rms_norm_eps", "\"1e-6\"", error_code::mismatch, "not a number");
  for (const std::string field : {"tie_word_embeddings", "attention_bias", "mlp_bias"}) {
    refuses(field, "1", error_code::mismatch, "true or false");
  }
}

TEST_CASE("config.json: values that don't fit each other") {
  expect_error(error_code::mismatch, {"folder/config.json: field num_key_value_heads", "4 query heads", "3 kv heads"},
               [] { return llama("\"num_key_value_heads\": 3"); });
  expect_error(error_code::mismatch, {"folder/config.json: field num_key_value_heads", "8 kv heads"},
               [] { return llama("\"num_key_value_heads\": 8"); });
  expect_error(error_code::mismatch, {"folder/config.json: field num_attention_heads", "absurdly large"},
               [] { return llama("\"num_attention_heads\": 65536, \"head_dim\": 65536"); });
  // More heads than width: one value a head, which can't be turned.
  expect_error(error_code::mismatch, {"folder/config.json: field head_dim", "rotary size 1"},
               [] { return llama("\"num_attention_heads\": 128"); });
}

TEST_CASE("config.json: what isn't computed") {
  refuses("model_type", "\"gpt2\"", error_code::unsupported, "\"gpt2\"");
  refuses("model_type", "7", error_code::mismatch, "not a string");
  refuses("hidden_act", "\"gelu\"", error_code::unsupported, "\"gelu\"");
  CHECK_NOTHROW(llama("\"hidden_act\": \"swish\""));  // the same function
  refuses("quantization_config", R"({"quant_method": "gptq", "bits": 4})", error_code::unsupported, "GGUF");
  CHECK_NOTHROW(llama("\"quantization_config\": null"));
  CHECK_NOTHROW(llama(R"("quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]})"));
  CHECK_NOTHROW(llama(R"("quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"})"));
  refuses("quantization_config", R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})",
          error_code::unsupported, "FP8");
  refuses("hidden_act", "1", error_code::mismatch, "not a string");
  expect_error(error_code::missing, {"folder/config.json: field model_type"}, [] { return read("{}"); });
}

TEST_CASE("config.json: linear attention") {
  const std::string map = R"("feature_map": "elu_plus_one")";
  const auto linear = [&](const std::string& more) { return read(config("effinfer_linear", more)); };
  const model_config c = linear(map + ", \"decay\": [0.5, 0.75, 0.875, 1.0]");
  CHECK(c.feature_map == "elu_plus_one");
  CHECK(c.decay == std::vector<float>{0.5F, 0.75F, 0.875F, 1.0F});
  const auto refused = [&](const std::string& more, error_code code, std::string_view field) {
    CAPTURE(more);
    expect_error(code, {"folder/config.json: field ", field}, [&] { return linear(more); });
  };
  refused("\"decay\": [1, 1, 1, 1]", error_code::missing, "feature_map");
  refused(R"("feature_map": "relu")", error_code::unsupported, "feature_map");
  refused(map, error_code::missing, "decay");
  refused(map + ", \"decay\": []", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1]", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1, 1, 1]", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1, 0]", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1, 1.5]", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1, -0.5]", error_code::mismatch, "decay");
  refused(map + ", \"decay\": [1, 1, 1, \"1\"]", error_code::mismatch, "decay[3]");
  refused(map + ", \"decay\": 1", error_code::mismatch, "decay");
}

TEST_CASE("config.json: ids, and generation_config.json") {
  const std::string text = config("llama", "\"bos_token_id\": 1, \"eos_token_id\": 2");
  CHECK(read(text, R"({"eos_token_id": [4, 5]})").eos_ids == std::vector<int>{4, 5});
  CHECK(read(text, R"({"eos_token_id": null})").eos_ids == std::vector<int>{2});
  CHECK(read(text, R"({"eos_token_id": [4, 5]})").bos_ids == std::vector<int>{1});
  CHECK(llama("\"bos_token_id\": -1").bos_ids.empty());
  CHECK(llama("\"eos_token_id\": null").eos_ids.empty());
  refuses("bos_token_id", "-2");
  refuses("eos_token_id", "\"2\"", error_code::mismatch, "not an integer");
  refuses("eos_token_id", "[1, 9999999999]", error_code::mismatch, "eos_token_id[1]");
  const auto refused = [&](std::string_view generation, error_code code, std::string_view word) {
    expect_error(code, {"folder/generation_config.json", word}, [&] { return read(text, generation); });
  };
  refused("{", error_code::malformed, "invalid JSON");
  refused("[]", error_code::mismatch, "not an object");
  refused(R"({"eos_token_id": true})", error_code::mismatch, "field eos_token_id");
}

TEST_CASE("config.json: a text cut short anywhere is an error, and so is what is no JSON") {
  const std::string whole = config("llama", "\"rope_scaling\": {\"type\": \"default\"}");
  CHECK_NOTHROW(read(whole));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    expect_error(error_code::malformed, {"folder/config.json"}, [&] { return read(whole.substr(0, size)); });
  }
  expect_error(error_code::malformed, {"folder/config.json"}, [&] { return read(whole + "}"); });
  expect_error(error_code::malformed, {"folder/config.json"}, [&] { return read(whole + "\xff"); });
  expect_error(error_code::malformed, {"folder/config.json"}, [] { return llama("\"x\": \"\xc3(\""); });
  expect_error(error_code::malformed, {"folder/config.json"}, [] { return llama("\"x\": 1e999"); });
  expect_error(error_code::mismatch, {"folder/config.json"}, [] { return read("[1]"); });
  expect_error(error_code::limit, {"folder/config.json", "nested deeper than 16"},
               [] { return llama("\"x\": " + std::string(17, '[') + std::string(17, ']')); });
}

}  // namespace config_json_tests
