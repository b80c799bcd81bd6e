// Loading checkpoints whose files are well-formed and whose weights are not what the configuration says: each is
// refused with an error that names the tensor, before anything is quantized.

#include "checkpoint/expect_error.hpp"
#include "checkpoint/gguf_writer.hpp"
#include "checkpoint/safetensors_writer.hpp"
#include "checkpoint/scratch_folder.hpp"

#include <effinfer/model.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace broken_tests {

namespace ei = effinfer;
using ei::error_code;
using test::expect_error;
using test::safetensors_entry;
using test::scratch_folder;

namespace {

const std::string models = std::string(EFFINFER_TEST_DATA) + "/models/";
using int8_model = ei::model<ei::quantization::int8>;

std::string text(const std::vector<std::int64_t>& shape) {
  std::string s = "[";
  for (const std::int64_t n : shape) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
  return s + "]";
}

/// A folder with a checkpoint of the tests, whose tensors may be changed before it is loaded.
class changed : public scratch_folder {
 public:
  std::vector<safetensors_entry> tensors;
  std::string config;

  explicit changed(const std::string& name = "llama-f16") : config(test::read_file(models + name + "/config.json")) {
    const auto files = ei::checkpoint::model_files::open(models + name);
    for (const auto& t : files.tensors()) {
      tensors.push_back({t.name,
                         std::string(to_string(t.format)),
                         text(t.shape),
                         {reinterpret_cast<const char*>(t.data.data()), t.data.size()}});
    }
  }
  safetensors_entry& operator[](const std::string& name) {
    for (auto& t : tensors) {
      if (t.name == name) return t;
    }
    throw std::logic_error(name);
  }
  /// Replaces `from` in config.json.
  void configure(const std::string& from, const std::string& to) {
    const auto at = config.find(from);
    REQUIRE(at != std::string::npos);
    config.replace(at, from.size(), to);
  }
  /// Writes it; returns its path.
  std::string saved(std::size_t padding = 0) const {
    write("config.json", config);
    write("model.safetensors", test::safetensors_file(tensors, padding));
    return path();
  }
};

/// Refused by loading and by the footprint alike, naming `tensor` and `words`.
template <class Model = ei::model<>>
void refuses(const std::string& path, error_code code, const std::string& tensor, std::string_view word = "") {
  const auto named = {std::string_view("tensor "), std::string_view(tensor), word};
  expect_error(code, named, [&] { return Model::load(path); });
  expect_error(code, named, [&] { return Model::memory_footprint(path); });
}

/// A llama of one layer as GGUF, each matrix in Q8_0 and each norm in F32 but what `change` says.
struct small_gguf {
  std::string changed_name;  ///< this tensor ...
  std::uint32_t type = 0;    ///< ... has this type of ggml's ...
  std::string bytes;         ///< ... and these bytes; empty: it isn't there
  std::vector<std::uint64_t> dimensions;

  [[nodiscard]] std::string file() const {
    test::gguf_writer w;
    w.add("general.architecture", "llama").add("llama.embedding_length", 32U).add("llama.feed_forward_length", 32U);
    w.add("llama.block_count", 1U).add("llama.attention.head_count", 2U);
    for (const char* name :
         {"token_embd", "output_norm", "blk.0.attn_norm", "blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v",
          "blk.0.attn_output", "blk.0.ffn_norm", "blk.0.ffn_gate", "blk.0.ffn_up", "blk.0.ffn_down"}) {
      const std::string full = std::string(name) + ".weight";
      const bool norm = full.find("norm") != std::string::npos;
      if (full == changed_name) {
        if (!bytes.empty()) w.add_tensor(full, dimensions, type, bytes);
      } else if (norm) {
        w.add_tensor(full, {32}, 0, std::string(128, '\0'));
      } else {
        w.add_tensor(full, {32, 32}, 8, std::string(32 * 34, '\0'));
      }
    }
    return w.file();
  }
};

}  // namespace

TEST_CASE("a missing tensor") {
  CHECK_NOTHROW(ei::model<>::load(changed().saved()));
  const changed whole;
  for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
    changed c;
    c.tensors.erase(c.tensors.begin() + static_cast<std::ptrdiff_t>(i));
    refuses(c.saved(), error_code::missing, whole.tensors[i].name);
  }
  changed deep;
  deep.configure("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 4096");
  refuses(deep.saved(), error_code::missing, "model.layers.1.input_layernorm.weight");
  changed biased;
  biased.configure("\"attention_bias\": false", "\"attention_bias\": true");
  refuses(biased.saved(), error_code::missing, "model.layers.0.self_attn.q_proj.bias");
}

TEST_CASE("a tensor of another shape") {
  const changed whole;
  for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
    const std::string name = whole.tensors[i].name;
    CAPTURE(name);
    changed c;
    auto& t = c.tensors[i];
    const std::size_t values = t.data.size() / 2;
    t.shape = "[1, " + std::to_string(values) + "]";
    refuses(c.saved(), error_code::mismatch, name,
            "its shape is [1, " + std::to_string(values) + "], the configuration asks");
    t.shape = "[0]";
    t.data.clear();
    refuses(c.saved(), error_code::mismatch, name, "its shape is [0]");
  }
  for (const auto& row :
       {std::array<std::string, 3>{"\"vocab_size\": 96", "\"vocab_size\": 16777216", "model.embed_tokens.weight"},
        {"\"hidden_size\": 64", "\"hidden_size\": 2048", "model.embed_tokens.weight"},
        {"\"intermediate_size\": 96", "\"intermediate_size\": 4194304", "mlp.gate_proj.weight"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", "self_attn.k_proj.weight"},
        {"\"num_attention_heads\": 4", "\"head_dim\": 32, \"num_attention_heads\": 4", "self_attn.q_proj.weight"}}) {
    CAPTURE(row[1]);
    changed c;
    c.configure(row[0], row[1]);
    refuses(c.saved(), error_code::mismatch, row[2], "its shape is");
  }
}

TEST_CASE("a tensor in a format that isn't computed") {
  const changed whole;
  for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
    changed c;
    c.tensors[i].dtype = "I16";
    refuses(c.saved(), error_code::unsupported, c.tensors[i].name);
    refuses<int8_model>(c.saved(), error_code::unsupported, c.tensors[i].name);
  }
}

TEST_CASE("a gguf tensor that is missing, has another shape, or is a norm in blocks") {
  const scratch_folder folder;
  const auto file = [&](const small_gguf& g) { return folder.write("m.gguf", g.file()); };
  CHECK_NOTHROW(ei::model<>::load(file({})));
  const std::string q8_row(34, '\0');
  for (const std::string name : {"output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"}) {
    refuses(file({name, 8, q8_row, {32}}), error_code::unsupported, name, "F32, F16 or BF16");
    refuses(file({name, 0, std::string(64, '\0'), {16}}), error_code::mismatch, name, "[16]");
    refuses(file({name, 0, "", {}}), error_code::missing, name);
  }
  for (const std::string name : {"blk.0.attn_q.weight", "blk.0.ffn_down.weight"}) {
    refuses(file({name, 8, q8_row, {32}}), error_code::mismatch, name, "[32]");
    refuses(file({name, 8, q8_row + q8_row, {32, 2}}), error_code::mismatch, name, "[2, 32]");
    refuses(file({name, 39, "????", {32, 32}}), error_code::unsupported, name, "isn't computed");
    refuses(file({name, 0, "", {}}), error_code::missing, name);
  }
  refuses<int8_model>(file({}), error_code::unsupported, "blk.0.attn_q.weight", "Q8_0");
  refuses<ei::model<ei::quantization::int4<32>>>(file({}), error_code::unsupported, "blk.0.attn_q.weight", "Q8_0");
  expect_error(error_code::unsupported, {models + "llama-q4_k/model.gguf: tensor blk.0.", "quantization::none"},
               [] { return int8_model::load(models + "llama-q4_k/model.gguf"); });
}

TEST_CASE("heads wider than attention computes") {
  for (const std::string& size : {std::string("514"), std::string("65536")}) {
    changed c;
    c.configure("\"num_attention_heads\": 4", "\"head_dim\": " + size + ", \"num_attention_heads\": 4");
    const std::string path = c.saved();
    expect_error(error_code::unsupported, {path + "/config.json", "heads of " + size, "up to 512"},
                 [&] { return ei::model<>::load(path); });
  }
  changed c;
  c.configure("\"num_attention_heads\": 4", "\"head_dim\": 258, \"num_attention_heads\": 4");
  const std::string path = c.saved();
  expect_error(error_code::unsupported, {path + "/config.json", "heads of 258", "up to 256"},
               [&] { return ei::model<ei::kv_cache::contiguous<ei::kv_cache::int8>>::load(path); });
}

TEST_CASE("errors of shape come before any weight is quantized") {
  changed c;
  c["lm_head.weight"].shape = "[64, 96]";
  int reports = 0;
  const ei::load_options options{.progress = [&](std::string_view, double) { ++reports; }, .session = {}};
  const std::string path = c.saved();
  expect_error(error_code::mismatch, {path + "/model.safetensors: tensor lm_head.weight"},
               [&] { return int8_model::load(path, options); });
  CHECK(reports == 0);
}

TEST_CASE("weights that no integer stands for") {
  for (const char* bits : {"\x00\x7e", "\x00\x7c", "\x00\xfc"}) {  // NaN and infinities in half precision
    for (const std::string name : {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"}) {
      changed c;
      c[name].data.replace(c[name].data.size() - 2, 2, std::string(bits, 2));
      const std::string path = c.saved();
      expect_error(error_code::unsupported, {path + "/model.safetensors: tensor " + name},
                   [&] { return int8_model::load(path); });
      expect_error(error_code::unsupported, {path + "/model.safetensors: tensor " + name},
                   [&] { return ei::model<ei::quantization::int4<32>>::load(path); });
    }
  }
}

TEST_CASE("weights at any byte of the file give the same logits") {
  for (const std::string name : {"llama-f16", "llama2", "llama-bf16"}) {
    CAPTURE(name);
    const std::vector<int> tokens{1, 5, 17, 90, 3};
    auto session = ei::model<>::load(models + name).start({.context_tokens = 16});
    const auto row = session.append(tokens);
    const std::vector<float> expected(row.begin(), row.end());
    for (const std::size_t padding : {1U, 2U, 3U}) {
      const changed c(name);
      auto shifted = ei::model<>::load(c.saved(padding)).start({.context_tokens = 16});
      const auto logits = shifted.append(tokens);
      REQUIRE(logits.size() == expected.size());
      CHECK(std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)) == 0);
    }
  }
}

}  // namespace broken_tests
