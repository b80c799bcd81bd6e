// checkpoint/config_gguf.hpp: every key of the metadata, its defaults, and values that can't be.

#include "checkpoint/expect_error.hpp"
#include "checkpoint/gguf_writer.hpp"

#include <effinfer/checkpoint/config_gguf.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace config_gguf_tests {

using effinfer::error_code;
using effinfer::rotary_scaling;
using namespace effinfer::checkpoint;
using test::expect_error;
using test::gguf_writer;
using test::little_endian;

namespace {

/// The keys and the tensor without which there is no model, all but `without`.
gguf_writer model(const std::string& architecture = "llama", const std::string& without = "") {
  gguf_writer w;
  const auto add = [&](const std::string& key, auto value) {
    if (key != without) w.add(key, value);
  };
  add("general.architecture", std::string_view(architecture));
  add(architecture + ".embedding_length", 64U);
  add(architecture + ".feed_forward_length", 96U);
  add(architecture + ".block_count", 3U);
  add(architecture + ".attention.head_count", 4U);
  if (without != "token_embd.weight")
    w.add_info("token_embd.weight", {64, 96}, 0, 0).add_data(std::string(64 * 96 * 4, 0));
  return w;
}

model_config read(const gguf_writer& w) {
  const std::string bytes = w.file();
  const gguf file(test::bytes_of(bytes), "m.gguf");
  return read_config_gguf(file);
}

}  // namespace

TEST_CASE("gguf configuration: keys and defaults") {
  const model_config d = read(model());
  CHECK(d.file == "m.gguf");
  CHECK(d.architecture == "llama");
  CHECK(d.vocabulary_size == 96);
  CHECK(d.width == 64);
  CHECK(d.feed_forward_width == 96);
  CHECK(d.layers == 3);
  CHECK(d.heads == 4);
  CHECK(d.kv_heads == 4);
  CHECK(d.head_size == 16);
  CHECK(d.max_positions == 2048);
  CHECK(d.tied_embeddings);
  CHECK(!d.attention_bias);
  CHECK(!d.qk_norm);
  CHECK(d.windows == std::vector<int>(3, 0));
  CHECK(d.rope.interleaved);
  CHECK(d.rope.scaling == rotary_scaling::none);
  CHECK(d.bos_ids.empty());

  const model_config c = read(model()
                                  .add("llama.attention.head_count_kv", 2U)
                                  .add("llama.attention.key_length", 32U)
                                  .add("llama.attention.value_length", 32U)
                                  .add("llama.context_length", 512U)
                                  .add("llama.attention.layer_norm_rms_epsilon", 1e-5F)
                                  .add("llama.attention.sliding_window", 16U)
                                  .add("llama.rope.freq_base", 5e5F)
                                  .add("llama.rope.dimension_count", 8U)
                                  .add("tokenizer.ggml.bos_token_id", 1U)
                                  .add("tokenizer.ggml.eos_token_id", 2U)
                                  .add("tokenizer.ggml.eot_token_id", 5U)
                                  .add_info("output.weight", {64, 96}, 30, 64 * 96 * 4)
                                  .add_data(std::string(64 * 96 * 2, 0)));
  CHECK(c.kv_heads == 2);
  CHECK(c.head_size == 32);
  CHECK(c.max_positions == 512);
  CHECK(c.norm_epsilon == 1e-5F);
  CHECK(c.windows == std::vector<int>(3, 16));
  CHECK(c.rope.base == 5e5);
  CHECK(c.rope.rotary_size == 8);
  CHECK(!c.tied_embeddings);
  CHECK(c.bos_ids == std::vector<int>{1});
  CHECK(c.eos_ids == std::vector<int>{2, 5});

  const model_config q2 = read(model("qwen2")), q3 = read(model("qwen3"));
  CHECK(q2.attention_bias);
  CHECK(!q2.rope.interleaved);
  CHECK(!q2.qk_norm);
  CHECK(q3.qk_norm);
  CHECK(!q3.attention_bias);
}

TEST_CASE("gguf configuration: rotary scaling") {
  const model_config yarn = read(model()
                                     .add("llama.rope.scaling.type", "yarn")
                                     .add("llama.rope.scaling.factor", 4.0F)
                                     .add("llama.rope.scaling.original_context_length", 64U)
                                     .add("llama.rope.scaling.yarn_beta_fast", 8.0F));
  CHECK(yarn.rope.scaling == rotary_scaling::yarn);
  CHECK(yarn.rope.factor == 4.0);
  CHECK(yarn.rope.original_max_positions == 64);
  CHECK(yarn.rope.beta_fast == 8.0);
  CHECK(yarn.rope.attention_factor == 0.0);
  const auto scaled = [](const char* key, float factor, const char* type = nullptr) {
    gguf_writer w = model();
    w.add(key, factor);
    if (type != nullptr) w.add("llama.rope.scaling.type", type);
    return read(w).rope;
  };
  CHECK(scaled("llama.rope.scaling.factor", 2.0F, "linear").scaling == rotary_scaling::linear);
  CHECK(scaled("llama.rope.scaling.factor", 2.0F, "none").scaling == rotary_scaling::none);
  CHECK(scaled("llama.rope.scaling.factor", 2.0F).scaling == rotary_scaling::linear);
  CHECK(scaled("llama.rope.scale_linear", 2.0F).scaling == rotary_scaling::linear);
  CHECK(scaled("llama.rope.scale_linear", 2.0F).factor == 2.0);
  CHECK(scaled("llama.rope.scaling.factor", 1.0F).scaling == rotary_scaling::none);
  expect_error(error_code::unsupported, {"m.gguf: llama.rope.scaling.type", "longrope"},
               [] { return read(model().add("llama.rope.scaling.type", "longrope")); });

  const auto factors = [](const std::vector<std::uint64_t>& shape, std::uint32_t type,
                          const std::vector<float>& values) {
    std::string bytes;
    for (const float f : values) bytes += little_endian<4>(std::bit_cast<std::uint32_t>(f));
    return read(model().add_info("rope_freqs.weight", shape, type, 64 * 96 * 4).add_data(bytes + std::string(64, 0)));
  };
  const std::vector<float> eight{1, 2, 3, 4, 5, 6, 7, 8};
  CHECK(factors({8}, 0, eight).rope.frequency_factors == eight);
  const auto refused = [&](const std::vector<std::uint64_t>& shape, std::uint32_t type, std::vector<float> values) {
    expect_error(error_code::mismatch, {"m.gguf: tensor rope_freqs.weight"},
                 [&] { return factors(shape, type, values); });
  };
  // Of heads of one value no pair turns: there is no factor to copy.
  expect_error(error_code::mismatch, {"m.gguf"}, [] {
    read(model().add("llama.attention.key_length", 1U).add_info("rope_freqs.weight", {0}, 0, 64 * 96 * 4));
  });
  refused({7}, 0, eight);
  refused({9}, 0, eight);
  refused({8, 1}, 0, eight);
  refused({8}, 1, eight);
  refused({8}, 0, {1, 2, 3, 4, 5, 6, 7, 0});
  refused({8}, 0, {1, 2, 3, 4, 5, 6, 7, -1});
  refused({8}, 0, {1, 2, 3, 4, 5, 6, 7, std::numeric_limits<float>::quiet_NaN()});
  refused({8}, 0, {1, 2, 3, 4, 5, 6, 7, std::numeric_limits<float>::infinity()});
}

TEST_CASE("gguf configuration: what must be there") {
  for (const std::string key : {"general.architecture", "llama.embedding_length", "llama.feed_forward_length",
                                "llama.block_count", "llama.attention.head_count"}) {
    CAPTURE(key);
    expect_error(error_code::missing, {"m.gguf: " + key}, [&] { return read(model("llama", key)); });
  }
  expect_error(error_code::missing, {"m.gguf: tensor token_embd.weight"},
               [] { return read(model("llama", "token_embd.weight")); });
  expect_error(error_code::mismatch, {"m.gguf: tensor token_embd.weight", "[vocabulary, width]"}, [] {
    return read(
        model("llama", "token_embd.weight").add_info("token_embd.weight", {8}, 0, 0).add_data(std::string(32, 0)));
  });
  expect_error(error_code::mismatch, {"m.gguf: tensor token_embd.weight", "[vocabulary, width]"}, [] {
    return read(model("llama", "token_embd.weight").add_info("token_embd.weight", {64, 0}, 0, 0));
  });
  expect_error(error_code::unsupported, {"m.gguf: general.architecture", "\"gpt2\""},
               [] { return read(model("gpt2")); });
}

TEST_CASE("gguf configuration: values out of range or of a wrong type") {
  for (const std::string key :
       {"embedding_length", "feed_forward_length", "block_count", "attention.head_count", "attention.head_count_kv",
        "attention.key_length", "context_length", "rope.dimension_count", "rope.scaling.original_context_length"}) {
    const std::string full = "llama." + key;
    CAPTURE(full);
    const auto refused = [&](gguf_type type, const std::string& bytes, std::string_view word) {
      expect_error(error_code::mismatch, {"m.gguf: " + full, word},
                   [&] { return read(model("llama", full).add(full, type, bytes)); });
    };
    refused(gguf_type::uint32, little_endian<4>(0), "0 is not in");
    refused(gguf_type::int32, little_endian<4>(0xffffffff), "-1 is not in");
    refused(gguf_type::uint32, little_endian<4>(0xffffffff), "4294967295 is not in");
    refused(gguf_type::uint64, little_endian<8>(std::uint64_t{1} << 32 | 4), "is not in");
    refused(gguf_type::uint64, little_endian<8>(~std::uint64_t{0}), "63 bits");
    refused(gguf_type::float32, little_endian<4>(0x40800000), "no integer");
    refused(gguf_type::string, test::gguf_string("4"), "no integer");
    refused(gguf_type::boolean, "\x01", "no integer");
    refused(gguf_type::array, little_endian<4>(4) + little_endian<8>(1) + little_endian<4>(4), "no integer");
  }
  for (const std::string key : {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.scaling.factor",
                                "rope.scale_linear", "rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast"}) {
    CAPTURE(key);
    for (const float value :
         {-1.0F, 1e30F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      expect_error(error_code::mismatch, {"m.gguf: llama." + key, "is not in"},
                   [&] { return read(model().add("llama." + key, value)); });
    }
    expect_error(error_code::mismatch, {"m.gguf: llama." + key},
                 [&] { return read(model().add("llama." + key, "1")); });
  }
  const auto refused = [](const gguf_writer& w, error_code code, std::string_view key) {
    expect_error(code, {"m.gguf: ", key}, [&] { return read(w); });
  };
  refused(model().add("llama.attention.head_count_kv", 3U), error_code::mismatch,
          "llama.attention.head_count_kv: 4 query heads");
  refused(model("llama", "llama.attention.head_count")
              .add("llama.attention.head_count", 32U)
              .add("llama.attention.key_length", 65536U),
          error_code::mismatch, "llama.attention.head_count: heads x head size");
  refused(model().add("llama.attention.value_length", 8U), error_code::unsupported, "llama.attention.value_length");
  refused(model().add("llama.rope.dimension_count", 32U), error_code::mismatch,
          "llama.rope.dimension_count: the rotary size 32");
  refused(model().add("llama.rope.dimension_count", 7U), error_code::mismatch,
          "llama.rope.dimension_count: the rotary size 7");
  refused(model().add("llama.rope.freq_base", 1.0F), error_code::mismatch, "llama.rope.freq_base");
  refused(model().add("llama.expert_count", 8U), error_code::unsupported, "llama.expert_count: a mixture of experts");
  refused(model().add("llama.attention.sliding_window", 0x7fffffffU), error_code::mismatch, "sliding_window");
  refused(model().add("llama.rope.scaling.type", 1U), error_code::mismatch, "rope.scaling.type");
  refused(model().add("tokenizer.ggml.eos_token_id", 0xffffffffU), error_code::mismatch, "tokenizer.ggml.eos_token_id");
  refused(model("llama", "general.architecture").add("general.architecture", 1U), error_code::mismatch,
          "general.architecture");
}

}  // namespace config_gguf_tests
