#pragma once
// The weights of a decoder on a device: found and checked as the CPU's (models/weights.hpp), put into the order of the GPU's products on the
// host, a few strips at a time, and uploaded into one block of memory whose size is known before.
//
// Matrices with the same input stand as one, [query; key; value] and [gate; up]: fewer and larger products, the same sums.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/models/cuda/device_matrix.hpp>
#include <effinfer/models/cuda/strip_encoder.hpp>
#include <effinfer/models/cuda/support.hpp>
#include <effinfer/models/weights.hpp>
#include <effinfer/quantization/cuda/weights.hpp>
#include <effinfer/quantization/pack.hpp>
#include <effinfer/quantization/policy.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// Matrices with the same input, one below the other (more than one where their formats differ), and, where there is one, what is added to
/// their product [rows].
struct device_linear {
  std::vector<device_matrix> weights;
  const float* bias = nullptr;
};

struct device_block {
  const float *mixer_norm = nullptr, *feed_forward_norm = nullptr;  ///< [E]
  const float *query_norm = nullptr, *key_norm = nullptr;           ///< [D], null without head norms
  device_linear query_key_value;                                    ///< [(H + 2 K) D, E]
  device_linear mixer_output;                                       ///< [E, H D]
  device_linear gate_up;                                            ///< [2 F, E]
  device_linear down;                                               ///< [E, F]
};

template <class Device>
struct device_weights {
  execution::simt::memory<Device> memory;  ///< of all of them
  std::vector<device_block> blocks;
  const void* embedding = nullptr;  ///< [V, E], row-major, as stored; null, where it is stored in GGUF blocks:
  device_matrix packed_embedding;   ///< [V, E]
  weight_format embedding_format = weight_format::bf16;
  const float* final_norm = nullptr;  ///< [E]
  device_linear output;               ///< [V, E]
  std::uint64_t bytes = 0;            ///< of `memory`
};

/// Loads them, or only counts.
template <class Activation, class Quantization, execution::simt::device Device>
class device_loader {
 public:
  using weights = device_weights<Device>;
  static constexpr weight_format activation =
      std::is_same_v<Activation, bf16> ? weight_format::bf16 : weight_format::f16;

  device_loader(const checkpoint::model_files& files, const Quantization& policy)
      : files_(files), config_(files.config()), policy_(policy) {}

  /// `bytes` and nothing else. Errors: `missing`, `mismatch`, `unsupported`, as the headers tell.
  weights count() {
    to_ = execution::simt::layout();
    device_ = nullptr;
    weights w = visit();
    w.bytes = to_.used();
    return w;
  }

  /// Errors: as `count`; `device`; `unsupported` (values that can't be quantized).
  weights load(const Device& device, const progress_callback& progress) {
    total_ = count().bytes;  // every error of shape or format comes before the first allocation
    execution::simt::memory<Device> memory(device, static_cast<std::size_t>(total_));
    const execution::cpu::context threads;
    threads_ = &threads;
    progress_ = &progress;
    device_ = &device;
    staged_ = execution::simt::memory<Device, true>(device, stage_bytes());
    to_ = execution::simt::layout(memory.data());
    weights w = visit();
    w.bytes = total_;
    w.memory = std::move(memory);
    report(1.0);
    for (const auto& map : files_.maps()) checkpoint::release_pages(map->bytes());
    staged_ = {};
    return w;
  }

 private:
  weights visit() {
    weights w;
    widest_ = 0;
    const std::int64_t e = config_.width, f = config_.feed_forward_width, v = config_.vocabulary_size;
    const std::int64_t q = std::int64_t{config_.heads} * config_.head_size;
    const std::int64_t kv = std::int64_t{config_.kv_heads} * config_.head_size;
    for (int i = 0; i < config_.layers; ++i) {
      device_block b;
      b.mixer_norm = vector({{weight_role::mixer_norm, e}}, i);
      b.query_key_value = linear({{weight_role::query, q}, {weight_role::key, kv}, {weight_role::value, kv}}, i, e,
                                 config_.attention_bias);
      if (config_.qk_norm) {
        b.query_norm = vector({{weight_role::query_norm, config_.head_size}}, i);
        b.key_norm = vector({{weight_role::key_norm, config_.head_size}}, i);
      }
      b.mixer_output = linear({{weight_role::mixer_output, e}}, i, q, config_.attention_output_bias);
      b.feed_forward_norm = vector({{weight_role::feed_forward_norm, e}}, i);
      b.gate_up = linear({{weight_role::gate, f}, {weight_role::up, f}}, i, e, config_.mlp_bias);
      b.down = linear({{weight_role::down, e}}, i, f, config_.mlp_bias);
      w.blocks.push_back(b);
    }
    w.final_norm = vector({{weight_role::final_norm, e}}, 0);
    const checkpoint::tensor& table = tensor_of(files_, weight_role::embedding, 0, v, e);
    const weight_role head = config_.tied_embeddings ? weight_role::embedding : weight_role::output;
    w.output = linear({{head, v}}, 0, e, false);
    w.embedding_format = table.format;
    if (treatment_of(table.format, table.format, table.format) == treatment::refused) refuse(table, table.format);
    const device_matrix& first = w.output.weights[0];
    const bool shared = config_.tied_embeddings && first.format == table.format;
    if (block_size(table.format) > 1) {
      w.packed_embedding = shared ? first : matrix({&table}, {table.format, 0}, e);
    } else {
      w.embedding = shared ? first.parts[0] : raw(table);
    }
    return w;
  }

  struct part {
    weight_role role;
    std::int64_t rows;
  };
  using parts = std::vector<part>;

  [[noreturn]] void refuse(const checkpoint::tensor& t, weight_format target) const {
    const bool other_float = t.format == weight_format::f16 || t.format == weight_format::bf16;
    std::string problem = "it is stored as " + std::string(to_string(t.format)), advice;
    if (other_float && target == t.format) {
      problem += ", which the GPU doesn't compute with activations in " + std::string(to_string(activation));
      advice = std::string("use ") + (activation == weight_format::bf16 ? "execution::cuda_f16" : "execution::cuda") +
               ", or quantize it on load: quantization::int8 or int4";
    } else if (target == t.format && block_bytes(t.format) > 0) {
      problem += ", which isn't among the formats of " + std::string(Quantization::name);
      advice = "load it with quantization::none";
    } else if (block_bytes(t.format) > 0) {
      problem += " already, and is to be quantized to " + std::string(to_string(target));
      advice = "load it with quantization::none";
    } else {
      problem += ", which the GPU doesn't compute";
      advice = "take a checkpoint in BF16, F16, FP8 or GGUF's block formats";
    }
    throw error(error_code::unsupported, t.file + ": tensor " + t.name, problem, advice);
  }

  /// Floats one behind the other.
  const float* vector(const parts& of, int layer, std::string_view suffix = "weight") {
    std::vector<float> values;
    for (const part& p : of) {
      const checkpoint::tensor& t = tensor_of(files_, p.role, layer, p.rows, 0, suffix);
      if (!is_float(t.format)) {
        throw error(error_code::unsupported, t.file + ": tensor " + t.name, "a norm or bias must be F32, F16 or BF16");
      }
      const std::size_t at = values.size();
      values.resize(at + static_cast<std::size_t>(p.rows));
      if (device_ != nullptr)
        quantization::decode_row(quantization::packed_rows(t.format, t.data.data(), 1, p.rows), 0, values.data() + at);
    }
    float* const to = to_.take<float>(values.size());
    if (device_ != nullptr) upload(to, values.data(), values.size() * sizeof(float));
    return to;
  }

  const void* raw(const checkpoint::tensor& t) {
    std::byte* const to = to_.take<std::byte>(t.data.size());
    if (device_ != nullptr) upload(to, t.data.data(), t.data.size());
    return to;
  }

  device_linear linear(const parts& of, int layer, std::int64_t columns, bool bias) {
    device_linear l;
    std::vector<const checkpoint::tensor*> together;  // of one format, one below the other
    quantization::storage together_as;
    const auto finish = [&] {
      if (together.empty()) return;
      l.weights.push_back(matrix(together, together_as, columns));
      const bool is_compiled =
          with_weights(typename weights_of<Quantization, Activation>::type(), l.weights.back(), [](auto) {});
      if (!is_compiled) refuse(*together[0], together_as.format);
      together.clear();
    };
    for (const part& p : of) {
      const checkpoint::tensor& t = tensor_of(files_, p.role, layer, p.rows, columns);
      const bool is_head = p.role == weight_role::output || p.role == weight_role::embedding;
      quantization::storage target = policy_.target(
          is_head ? quantization::matrix_use::output : quantization::matrix_use::projection, t.format, columns);
      const treatment how = treatment_of(t.format, target.format, activation);
      if (how == treatment::refused) refuse(t, target.format);
      if (columns % quantization::cuda::unit_inputs != 0) {
        throw error(error_code::unsupported, t.file + ": tensor " + t.name,
                    std::to_string(columns) + " inputs are no multiple of " +
                        std::to_string(quantization::cuda::unit_inputs) + ", as the products of a GPU need them",
                    "run it with execution::cpu");
      }
      if (how == treatment::rounded) target.format = activation;
      if (target.format != weight_format::int4) target.group = 0;
      if (t.format == weight_format::fp8_e4m3) target.group = fp8_group(t);
      // A block's scale is that of whole strips, so the next tensor's rows must begin a strip.
      if (target != together_as || (target.group == 128 && together.back()->shape[0] % 16 != 0)) finish();
      together_as = target;
      together.push_back(&t);
    }
    finish();
    if (bias) l.bias = vector(of, layer, "bias");
    return l;
  }

  /// The tensor beside an FP8 one that has its scales: [], [1] for all, [rows] or [rows, 1], or [rows / 128, columns / 128] rounded up.
  /// Errors: `missing`, `mismatch` (another shape), `unsupported` (not F32, F16 or BF16).
  const checkpoint::tensor& fp8_scale(const checkpoint::tensor& t) const {
    const checkpoint::tensor* scale = files_.find(t.name + "_scale_inv");
    if (scale == nullptr) scale = &files_.at(t.name + "_scale");
    if (!is_float(scale->format)) {
      throw error(error_code::unsupported, scale->file + ": tensor " + scale->name, "scales must be F32, F16 or BF16");
    }
    const auto& s = scale->shape;
    const bool blocks = s == std::vector<std::int64_t>{(t.shape[0] + 127) / 128, (t.shape[1] + 127) / 128};
    const std::int64_t values = std::accumulate(s.begin(), s.end(), std::int64_t{1}, std::multiplies<>());
    if (!blocks && values != 1 && !(values == t.shape[0] && !s.empty() && s[0] == values)) {
      throw error(error_code::mismatch, scale->file + ": tensor " + scale->name,
                  "it has " + std::to_string(values) + " scales, for a matrix of " + std::to_string(t.shape[0]) +
                      " x " + std::to_string(t.shape[1]),
                  "have one, one a row, or one for each block of 128 x 128");
    }
    return *scale;
  }
  /// 128 where it has blocks, 0 where it has a scale a row or one for all.
  int fp8_group(const checkpoint::tensor& t) const {
    const auto& shape = fp8_scale(t).shape;
    const std::int64_t values = std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
    if (values == 1 || (shape[0] == t.shape[0] && values == t.shape[0])) return 0;
    if (t.shape[1] % 128 != 0) {
      throw error(error_code::unsupported, t.file + ": tensor " + t.name,
                  std::to_string(t.shape[1]) + " inputs are no whole number of blocks of 128");
    }
    return 128;
  }

  /// Tensors one below the other, kept as `target` says.
  device_matrix matrix(const std::vector<const checkpoint::tensor*>& tensors, quantization::storage target,
                       std::int64_t columns) {
    device_matrix m;
    m.format = target.format, m.group = target.group;
    m.columns = static_cast<int>(columns);
    for (const checkpoint::tensor* t : tensors) m.rows += static_cast<int>(t->shape[0]);
    const strip_sizes sizes = strip_sizes_of(m);
    widest_ = std::max(widest_, bytes(sizes));
    std::array<std::byte*, matrix_parts> to{};
    for (std::size_t p = 0; p < matrix_parts; ++p) {
      if (sizes[p] > 0) to[p] = to_.take<std::byte>(static_cast<std::size_t>((m.rows + 15) / 16) * sizes[p]);
      m.parts[p] = to[p];
    }
    if (device_ != nullptr) encode(m, tensors, to);
    return m;
  }

  static std::size_t bytes(const strip_sizes& of) { return std::accumulate(of.begin(), of.end(), std::size_t{0}); }

  /// What of the host's memory is filled before it is uploaded: 16 MiB, or a strip that is more.
  [[nodiscard]] std::size_t stage_bytes() const { return std::max<std::size_t>(widest_, std::size_t{16} << 20); }

  void encode(const device_matrix& m, const std::vector<const checkpoint::tensor*>& tensors,
              const std::array<std::byte*, matrix_parts>& to) {
    const strip_sizes sizes = strip_sizes_of(m);
    std::vector<const checkpoint::tensor*> scales;  // of FP8 tensors
    for (const checkpoint::tensor* t : tensors)
      scales.push_back(t->format == weight_format::fp8_e4m3 ? &fp8_scale(*t) : nullptr);
    const std::ptrdiff_t strips = (m.rows + 15) / 16;
    const auto at_once = static_cast<std::ptrdiff_t>(stage_bytes() / bytes(sizes));
    std::atomic<int> bad_row{m.rows};
    for (std::ptrdiff_t first = 0; first < strips; first += at_once) {
      const auto count = static_cast<std::size_t>(std::min(at_once, strips - first));
      std::array<std::byte*, matrix_parts> staged{};
      std::byte* next = staged_.data();
      for (std::size_t p = 0; p < matrix_parts; ++p) staged[p] = next, next += count * sizes[p];
      threads_->parallel_for(static_cast<std::ptrdiff_t>(count), 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
        strip_encoder<Activation> one(threads_->set(), m, scales);
        for (std::ptrdiff_t s = begin; s < end; ++s) {
          std::array<std::byte*, matrix_parts> strip{};
          for (std::size_t p = 0; p < matrix_parts; ++p) {
            strip[p] = staged[p] + static_cast<std::size_t>(s) * sizes[p];
            std::memset(strip[p], 0, sizes[p]);
          }
          const int bad = one.encode(tensors, static_cast<int>(first + s) * 16, strip);
          int seen = bad_row.load();
          while (bad < seen && !bad_row.compare_exchange_weak(seen, bad)) {
          }
        }
      });
      if (bad_row.load() < m.rows) {
        throw error(error_code::unsupported, tensors[0]->file + ": tensor " + tensors[0]->name,
                    "row " + std::to_string(bad_row.load()) + " has a value that " + std::string(to_string(m.format)) +
                        " can't hold (a NaN, an infinity, or one beyond the range of its scales)",
                    "load this checkpoint with quantization::none");
      }
      auto queue = device_->queue();
      for (std::size_t p = 0; p < matrix_parts; ++p) {
        if (sizes[p] > 0) queue.upload(to[p] + static_cast<std::size_t>(first) * sizes[p], staged[p], count * sizes[p]);
      }
      queue.synchronize();
      report(static_cast<double>(to_.used()) / static_cast<double>(total_));
    }
  }

  /// Through the staging memory.
  void upload(void* to, const void* from, std::size_t bytes) {
    auto queue = device_->queue();
    for (std::size_t done = 0; done < bytes;) {
      const std::size_t some = std::min(bytes - done, staged_.size());
      std::memcpy(staged_.data(), static_cast<const std::byte*>(from) + done, some);
      queue.upload(static_cast<std::byte*>(to) + done, staged_.data(), some);
      queue.synchronize();
      done += some;
    }
  }

  void report(double done) const {
    if (*progress_) (*progress_)("packing", done);
  }

  const checkpoint::model_files& files_;
  const checkpoint::model_config& config_;
  const Quantization& policy_;
  execution::simt::layout to_;
  std::size_t widest_ = 0;
  std::uint64_t total_ = 0;
  const execution::cpu::context* threads_ = nullptr;
  const progress_callback* progress_ = nullptr;
  const Device* device_ = nullptr;
  execution::simt::memory<Device, true> staged_;
};

}  // namespace effinfer::inline v0::models::cuda
