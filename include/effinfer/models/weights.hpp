#pragma once
// A decoder's weights: found by role in a checkpoint, checked against its configuration and packed for the products, quantized
// on the way where the quantization policy asks for it, or mapped as an earlier start packed them. The checkpoint's pages are
// let go as they have been read.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/models/packed_cache.hpp>
#include <effinfer/models/weight_names.hpp>
#include <effinfer/quantization/formats.hpp>
#include <effinfer/quantization/pack.hpp>
#include <effinfer/quantization/policy.hpp>
#include <effinfer/quantization/weight_matrix.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

/// Called while loading with what is being done and how much of it is done, in [0, 1].
using progress_callback = std::function<void(std::string_view stage, double done)>;

/// What loading weights may be told.
struct weight_options {
  progress_callback progress = {};  ///< called on the loading thread
  std::string packed_cache = {};    ///< see load_options
};

/// y = x w^T + bias; `bias` is empty where there is none.
struct linear_layer {
  quantization::packed_matrix weight;
  std::vector<float> bias;

  [[nodiscard]] const float* bias_or_null() const { return bias.empty() ? nullptr : bias.data(); }
};

/// The weights of one block. Norms and biases are kept in float, they are small.
struct block_weights {
  std::vector<float> mixer_norm;         ///< [E]
  std::vector<float> feed_forward_norm;  ///< [E]
  std::vector<float> query_norm;         ///< [D], empty without head norms
  std::vector<float> key_norm;           ///< [D], empty without head norms
  linear_layer query;                    ///< [H*D, E]
  linear_layer key;                      ///< [K*D, E]
  linear_layer value;                    ///< [K*D, E]
  linear_layer mixer_output;             ///< [E, H*D]
  linear_layer gate;                     ///< [F, E]
  linear_layer up;                       ///< [F, E]
  linear_layer down;                     ///< [E, F]
};

/// The rows that tokens are looked up in: as the checkpoint stores them, or the output head's, which is the same matrix.
struct embedding_table {
  quantization::weight_matrix stored;
  bool is_output = false;
};

/// All weights of a decoder. `embedding.stored` points into the mapped files, which must outlive this.
struct decoder_weights {
  std::vector<block_weights> blocks;
  embedding_table embedding;            ///< [V, E]
  std::vector<float> final_norm;        ///< [E]
  linear_layer output;                  ///< [V, E]
  quantization::weight_storage packed;  ///< what the matrices are views of ...
  checkpoint::mapped_file packed_file;  ///< ... or this, where a packed_cache was mapped

  std::uint64_t packed_bytes = 0;     ///< of `packed`
  std::uint64_t mapped_bytes = 0;     ///< read where they lie in the files
  std::uint64_t owned_bytes = 0;      ///< packed matrices, norms, biases
  std::uint64_t bytes_per_token = 0;  ///< read by one token's pass: all but the embedding rows not looked up

  void look_up(int token, float* out) const {
    if (embedding.is_output) return quantization::decode_row(output.weight, token, out);
    quantization::decode_row(embedding.stored, token, out);
  }
};

/// A tensor whose shape is checked: [rows, columns], or [rows] where columns is 0. Errors: `missing`, `mismatch`.
inline const checkpoint::tensor& tensor_of(const checkpoint::model_files& files, weight_role role, int layer,
                                           std::int64_t rows, std::int64_t columns,
                                           std::string_view suffix = "weight") {
  const auto text = [](const std::vector<std::int64_t>& shape) {
    std::string s = "[";
    for (const std::int64_t n : shape) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
    return s + "]";
  };
  const checkpoint::tensor& t = files.at(weight_name(role, layer, files.is_gguf(), suffix));
  std::vector<std::int64_t> expected{rows};
  if (columns != 0) expected.push_back(columns);
  if (t.shape != expected) {
    throw error(error_code::mismatch, t.file + ": tensor " + t.name,
                "its shape is " + text(t.shape) + ", the configuration asks for " + text(expected));
  }
  return t;
}

/// Finds, checks, packs and, where the policy says so, quantizes the weights of a checkpoint, or only counts what that would
/// take.
template <class Quantization>
class weight_loader {
 public:
  weight_loader(const checkpoint::model_files& files, const Quantization& policy)
      : files_(files), config_(files.config()), policy_(policy), layers_(config_.layers) {}

  /// Errors: `missing` (a tensor isn't there), `mismatch` (its shape is not what the configuration says), `unsupported` (a format
  /// that nothing computes, a checkpoint that is quantized already under a policy that quantizes, or values that can't be
  /// quantized); with a `packed_cache` also those of packed_cache::find and write.
  decoder_weights load(const execution::cpu::context& exec, const weight_options& options) {
    exec_ = &exec;
    progress_ = &options.progress;
    const decoder_weights counted = visit();  // every error of shape or format comes before the first allocation
    total_bytes_ = counted.packed_bytes;
    decoder_weights weights = options.packed_cache.empty() ? pack() : map_or_pack(options.packed_cache);
    for (const auto& map : files_.maps()) checkpoint::release_pages(map->bytes());
    return weights;
  }

  /// What stands in front of the blocks and behind them, without blocks. Errors: as `load`.
  decoder_weights load_ends(const execution::cpu::context& exec) {
    layers_ = 0;
    return load(exec, {});
  }

  /// What `load` would take, `owned_bytes` and the like, without a weight loaded. Errors: those of `load` that shapes and formats
  /// tell.
  decoder_weights count() { return visit(); }

 private:
  enum class step { count, pack, map };

  decoder_weights map_or_pack(const std::string& path) {
    const packed_cache cache(path, files_, places_);
    if (auto file = cache.find()) {
      mapped_ = cache.data_of(*file).data();
      now_ = step::map;
      decoder_weights weights = visit();
      weights.packed_file = std::move(*file);
      report("mapping", 1.0);
      return weights;
    }
    checkpoint::replacing_file made(cache.path());  // what can't be written is known before the work
    decoder_weights weights = pack();
    report("writing", 0.0);
    cache.write(made, {weights.packed.data(), weights.packed.size()});
    report("writing", 1.0);
    return weights;
  }

  decoder_weights pack() {
    memory_ = quantization::weight_storage(static_cast<std::size_t>(total_bytes_));
    now_ = step::pack;
    decoder_weights weights = visit();
    weights.packed = std::move(memory_);
    report("packing", 1.0);
    return weights;
  }

  decoder_weights visit() {
    decoder_weights w;
    const std::int64_t e = config_.width, f = config_.feed_forward_width, v = config_.vocabulary_size;
    const std::int64_t q = std::int64_t{config_.heads} * config_.head_size;
    const std::int64_t kv = std::int64_t{config_.kv_heads} * config_.head_size;
    const checkpoint::tensor& embedding = tensor(weight_role::embedding, 0, v, e);
    w.embedding.stored = stored(embedding);
    w.blocks.resize(static_cast<std::size_t>(layers_));
    for (int i = 0; i < layers_; ++i) {
      block_weights& b = w.blocks[static_cast<std::size_t>(i)];
      b.mixer_norm = vector(w, weight_role::mixer_norm, i, e);
      b.query = linear(w, weight_role::query, i, q, e, config_.attention_bias);
      b.key = linear(w, weight_role::key, i, kv, e, config_.attention_bias);
      b.value = linear(w, weight_role::value, i, kv, e, config_.attention_bias);
      if (config_.qk_norm) {
        b.query_norm = vector(w, weight_role::query_norm, i, config_.head_size);
        b.key_norm = vector(w, weight_role::key_norm, i, config_.head_size);
      }
      b.mixer_output = linear(w, weight_role::mixer_output, i, e, q, config_.attention_output_bias);
      b.feed_forward_norm = vector(w, weight_role::feed_forward_norm, i, e);
      b.gate = linear(w, weight_role::gate, i, f, e, config_.mlp_bias);
      b.up = linear(w, weight_role::up, i, f, e, config_.mlp_bias);
      b.down = linear(w, weight_role::down, i, e, f, config_.mlp_bias);
    }
    w.final_norm = vector(w, weight_role::final_norm, 0, e);
    w.output = config_.tied_embeddings ? linear_from(w, weight_role::output, embedding)
                                       : linear(w, weight_role::output, 0, v, e, false);
    w.embedding.is_output = config_.tied_embeddings && w.output.weight.format == w.embedding.stored.format;
    if (!w.embedding.is_output) w.mapped_bytes = embedding.data.size();
    return w;
  }

  const checkpoint::tensor& tensor(weight_role role, int layer, std::int64_t rows, std::int64_t columns,
                                   std::string_view suffix = "weight") {
    return tensor_of(files_, role, layer, rows, columns, suffix);
  }

  quantization::weight_matrix stored(const checkpoint::tensor& t) {
    if (t.format == weight_format::other) {
      throw error(error_code::unsupported, t.file + ": tensor " + t.name, "its format isn't computed here",
                  "convert it to F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K");
    }
    return quantization::packed_rows(t.format, t.data.data(), t.shape[0], t.shape[1]);
  }

  std::vector<float> vector(decoder_weights& w, weight_role role, int layer, std::int64_t size,
                            std::string_view suffix = "weight") {
    const checkpoint::tensor& t = tensor(role, layer, size, 0, suffix);
    if (block_size(t.format) != 1 || t.format == weight_format::other) {
      throw error(error_code::unsupported, t.file + ": tensor " + t.name, "a norm or bias must be F32, F16 or BF16");
    }
    w.owned_bytes += static_cast<std::uint64_t>(size) * sizeof(float);
    if (now_ == step::count) return {};
    std::vector<float> values(static_cast<std::size_t>(size));
    quantization::decode_row(quantization::packed_rows(t.format, t.data.data(), 1, size), 0, values.data());
    return values;
  }

  linear_layer linear(decoder_weights& w, weight_role role, int layer, std::int64_t rows, std::int64_t columns,
                      bool bias) {
    linear_layer l = linear_from(w, role, tensor(role, layer, rows, columns));
    if (bias) l.bias = vector(w, role, layer, rows, "bias");
    return l;
  }

  linear_layer linear_from(decoder_weights& w, weight_role role, const checkpoint::tensor& t) {
    linear_layer l;
    const quantization::weight_matrix source = stored(t);
    const auto use =
        role == weight_role::output ? quantization::matrix_use::output : quantization::matrix_use::projection;
    const quantization::storage target = policy_.target(use, t.format, t.shape[1]);
    if (target.format != t.format && block_size(t.format) != 1) {
      throw error(error_code::unsupported, t.file + ": tensor " + t.name,
                  "it is stored as " + std::string(to_string(t.format)) + ", and " + std::string(Quantization::name) +
                      " quantizes floating-point weights only",
                  "use quantization::none, which computes with " + std::string(to_string(t.format)) + " as stored");
    }
    l.weight = quantization::packed_layout(target, t.shape[0], t.shape[1]);
    const std::uint64_t offset = w.packed_bytes, bytes = l.weight.bytes();  // a multiple of 64
    w.packed_bytes += bytes;
    w.owned_bytes += bytes;
    w.bytes_per_token += bytes;
    if (now_ == step::count) {
      places_.push_back({t.name, l.weight, offset});
      return l;
    }
    if (now_ == step::map) {
      l.weight.data = mapped_ + offset;
      return l;
    }
    quantization::pack_options options;
    options.name = t.file + ": tensor " + t.name;
    std::ptrdiff_t released = 0;
    options.progress = [&](std::ptrdiff_t done, std::ptrdiff_t rows) {
      checkpoint::release_pages(t.data.subspan(static_cast<std::size_t>(released * source.row_bytes),
                                               static_cast<std::size_t>((done - released) * source.row_bytes)));
      released = done;
      report("packing", (static_cast<double>(offset) +
                         static_cast<double>(bytes) * static_cast<double>(done) / static_cast<double>(rows)) /
                            static_cast<double>(total_bytes_));
    };
    l.weight = quantization::pack(*exec_, target, source, memory_.data() + offset, options);
    return l;
  }

  void report(std::string_view stage, double done) const {
    if (progress_ != nullptr && *progress_) (*progress_)(stage, done);
  }

  const checkpoint::model_files& files_;
  const checkpoint::model_config& config_;
  const Quantization& policy_;
  int layers_;
  const execution::cpu::context* exec_ = nullptr;
  const progress_callback* progress_ = nullptr;
  step now_ = step::count;
  std::vector<packed_place> places_;
  std::uint64_t total_bytes_ = 0;
  quantization::weight_storage memory_;
  const std::byte* mapped_ = nullptr;
};

}  // namespace effinfer::inline v0::models
