#pragma once
// The weights of a decoder on a device: found and checked as the CPU's (models/weights.hpp), put into the order of the GPU's products on the
// host, a few strips at a time, and uploaded into one block of memory whose size is known before.
//
// Matrices with the same input stand as one, [query; key; value] and [gate; up]: fewer and larger products, the same sums.

#include <effinfer/checkpoint/model_files.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/models/cuda/support.hpp>
#include <effinfer/models/weights.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/quantization/cuda/int4_groups.hpp>
#include <effinfer/quantization/cuda/pack.hpp>
#include <effinfer/quantization/cuda/weights.hpp>
#include <effinfer/quantization/pack.hpp>
#include <effinfer/quantization/policy.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// A matrix in device memory, in one of the orders of quantization/cuda/weights.hpp.
struct device_matrix {
  weight_format format = weight_format::bf16;  ///< bf16 or f16 (as the activations), int8, int4
  int group = 0;                               ///< of int4
  int rows = 0, columns = 0;
  const void* units = nullptr;
  const void* scales = nullptr;
  const std::uint8_t* zeros = nullptr;
};

/// The orders that products are compiled for.
template <class... Weights>
struct weight_list {};

template <class... Lists>
struct joined;
template <class... Weights>
struct joined<weight_list<Weights...>> {
  using type = weight_list<Weights...>;
};
template <class... A, class... B, class... Rest>
struct joined<weight_list<A...>, weight_list<B...>, Rest...> : joined<weight_list<A..., B...>, Rest...> {};

/// Those that a quantization policy needs: what isn't listed isn't compiled.
template <class Quantization, class T>
struct weights_of {
  using formats = typename Quantization::formats;
  using type = typename joined<
      weight_list<quantization::cuda::float_weights<T>>,
      std::conditional_t<formats::contains(weight_format::int8), weight_list<quantization::cuda::int8_weights>,
                         weight_list<>>,
      std::conditional_t<formats::contains(weight_format::int4),
                         weight_list<quantization::cuda::int4_weights<32>, quantization::cuda::int4_weights<64>,
                                     quantization::cuda::int4_weights<128>>,
                         weight_list<>>>::type;
};
template <class T>
struct weights_of<quantization::none, T> {
  using type = weight_list<quantization::cuda::float_weights<T>>;
};
template <class T>
struct weights_of<quantization::int8, T> {
  using type = weight_list<quantization::cuda::int8_weights>;
};
template <class T, int Group>
struct weights_of<quantization::int4<Group>, T> {
  using type = weight_list<quantization::cuda::int8_weights, quantization::cuda::int4_weights<Group>>;
};

/// f(weights) with m as the one of the list that it is.
template <class... Weights, class F>
void with_weights(weight_list<Weights...>, const device_matrix& m, const F& f) {
  using quantization::cuda::words;
  const auto one = [&](auto type) {
    using weights = typename decltype(type)::type;
    weights w;
    w.rows = m.rows, w.columns = m.columns;
    if constexpr (requires { w.stride; }) {
      if (m.format == weight_format::int8 || m.format == weight_format::int4) return false;
      w.data = static_cast<decltype(w.data)>(m.units), w.stride = m.columns;
    } else if constexpr (weights::group == 0) {
      if (m.format != weight_format::int8) return false;
      w.units = static_cast<const words*>(m.units), w.scales = static_cast<const float*>(m.scales);
    } else {
      if (m.format != weight_format::int4 || m.group != weights::group) return false;
      w.units = static_cast<const words*>(m.units), w.scales = static_cast<const f16*>(m.scales), w.zeros = m.zeros;
    }
    f(w);
    return true;
  };
  (void)(one(std::type_identity<Weights>{}) || ...);
}

/// A matrix and, where there is one, what is added to its product [rows].
struct device_linear {
  device_matrix weight;
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
  const void* embedding = nullptr;  ///< [V, E], row-major, as stored
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
    const bool shared = config_.tied_embeddings && w.output.weight.format == table.format;
    w.embedding = shared ? w.output.weight.units : raw(table);
    return w;
  }

  struct part {
    weight_role role;
    std::int64_t rows;
  };
  using parts = std::vector<part>;

  [[noreturn]] void refuse(const checkpoint::tensor& t, weight_format target) const {
    const bool other_float = t.format == weight_format::f16 || t.format == weight_format::bf16;
    throw error(
        error_code::unsupported, t.file + ": tensor " + t.name,
        "it is stored as " + std::string(to_string(t.format)) + ", which the GPU doesn't compute" +
            (target == t.format && other_float ? " with activations in " + std::string(to_string(activation)) : ""),
        other_float
            ? std::string("use ") + (activation == weight_format::bf16 ? "execution::cuda_f16" : "execution::cuda") +
                  ", or quantize it on load: quantization::int8 or int4"
            : "run it with execution::cpu, or take a checkpoint in BF16 or F16");
  }

  /// Floats one behind the other.
  const float* vector(const parts& of, int layer, std::string_view suffix = "weight") {
    std::vector<float> values;
    for (const part& p : of) {
      const checkpoint::tensor& t = tensor_of(files_, p.role, layer, p.rows, 0, suffix);
      if (block_size(t.format) != 1 || t.format == weight_format::other) {
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
    device_matrix& m = l.weight;
    std::vector<const checkpoint::tensor*> tensors;
    std::int64_t rows = 0;
    quantization::storage target;
    for (const part& p : of) {
      const checkpoint::tensor& t = tensor_of(files_, p.role, layer, p.rows, columns);
      const bool is_head = p.role == weight_role::output || p.role == weight_role::embedding;
      target = policy_.target(is_head ? quantization::matrix_use::output : quantization::matrix_use::projection,
                              t.format, columns);
      if (treatment_of(t.format, target.format, activation) == treatment::refused) refuse(t, target.format);
      if (columns % quantization::cuda::unit_inputs != 0) {
        throw error(error_code::unsupported, t.file + ": tensor " + t.name,
                    std::to_string(columns) + " inputs are no multiple of " +
                        std::to_string(quantization::cuda::unit_inputs) + ", as the products of a GPU need them",
                    "run it with execution::cpu");
      }
      tensors.push_back(&t);
      rows += p.rows;
    }
    const bool integers = target.format == weight_format::int8 || target.format == weight_format::int4;
    m.format = integers ? target.format : activation;
    m.group = target.format == weight_format::int4 ? target.group : 0;
    m.rows = static_cast<int>(rows), m.columns = static_cast<int>(columns);
    const strip_sizes sizes = sizes_of(m);
    const auto strips = static_cast<std::size_t>((rows + 15) / 16);
    widest_ = std::max(widest_, sizes.bytes());
    auto* const units =
        to_.take<std::byte>(integers ? strips * sizes.units : static_cast<std::size_t>(rows * columns) * 2);
    auto* const scales = to_.take<std::byte>(m.group > 0 ? strips * sizes.scales
                                             : integers  ? static_cast<std::size_t>(rows) * 4
                                                         : 0);
    auto* const zeros = to_.take<std::uint8_t>(strips * sizes.zeros);
    m.units = units, m.scales = scales, m.zeros = m.group > 0 ? zeros : nullptr;
    if (device_ != nullptr) encode(m, tensors, units, scales, zeros);
    if (bias) l.bias = vector(of, layer, "bias");
    return l;
  }

  /// Bytes that sixteen rows take.
  struct strip_sizes {
    std::size_t units = 0, scales = 0, zeros = 0;
    [[nodiscard]] std::size_t bytes() const { return units + scales + zeros; }
  };
  static strip_sizes sizes_of(const device_matrix& m) {
    const auto columns = static_cast<std::size_t>(m.columns);
    if (m.format == weight_format::int8) return {columns * 16, 64, 0};
    if (m.format == weight_format::int4) {
      const std::size_t groups = columns / static_cast<std::size_t>(m.group);
      return {columns * 8, groups * 32, groups * 16};
    }
    return {columns * 32, 0, 0};
  }

  /// What of the host's memory is filled before it is uploaded: 16 MiB, or a strip that is more.
  [[nodiscard]] std::size_t stage_bytes() const { return std::max<std::size_t>(widest_, std::size_t{16} << 20); }

  void encode(const device_matrix& m, const std::vector<const checkpoint::tensor*>& tensors, std::byte* units,
              std::byte* scales, std::uint8_t* zeros) {
    const strip_sizes sizes = sizes_of(m);
    const std::ptrdiff_t strips = (m.rows + 15) / 16;
    const auto at_once = static_cast<std::ptrdiff_t>(stage_bytes() / sizes.bytes());
    std::atomic<int> bad_row{m.rows};
    for (std::ptrdiff_t first = 0; first < strips; first += at_once) {
      const auto count = static_cast<std::size_t>(std::min(at_once, strips - first));
      std::byte* const staged_units = staged_.data();
      std::byte* const staged_scales = staged_units + count * sizes.units;
      auto* const staged_zeros = reinterpret_cast<std::uint8_t*>(staged_scales + count * sizes.scales);
      threads_->parallel_for(static_cast<std::ptrdiff_t>(count), 1, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
        strip_encoder one(threads_->set(), m);
        for (std::ptrdiff_t s = begin; s < end; ++s) {
          const auto i = static_cast<std::size_t>(s);
          const int row = static_cast<int>(first + s) * 16;
          const int bad = one.encode(tensors, row, staged_units + i * sizes.units, staged_scales + i * sizes.scales,
                                     staged_zeros + i * sizes.zeros);
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
      const auto at = static_cast<std::size_t>(first);
      const auto rows =
          static_cast<std::size_t>(std::min<std::ptrdiff_t>(m.rows - first * 16, std::ptrdiff_t(count) * 16));
      const bool floats = sizes.scales == 0;
      auto queue = device_->queue();
      queue.upload(units + at * sizes.units, staged_units,
                   floats ? rows * static_cast<std::size_t>(m.columns) * 2 : count * sizes.units);
      if (!floats)
        queue.upload(scales + at * sizes.scales, staged_scales,
                     m.group > 0 ? count * sizes.scales : rows * sizeof(float));
      if (sizes.zeros > 0) queue.upload(zeros + at * sizes.zeros, staged_zeros, count * sizes.zeros);
      queue.synchronize();
      report(static_cast<double>(to_.used()) / static_cast<double>(total_));
    }
  }

  /// Sixteen rows at a time, of tensors that stand one below the other.
  class strip_encoder {
   public:
    strip_encoder(execution::instruction_set set, const device_matrix& m)
        : set_(set), m_(m), parts_(m.columns), codes_(std::size_t{16} * static_cast<std::size_t>(m.columns)) {
      if (m.group > 0) groups_.resize(std::size_t{16} * static_cast<std::size_t>(m.columns / m.group));
    }

    /// Returns the first row that can't be encoded, else the number of rows of the matrix.
    int encode(const std::vector<const checkpoint::tensor*>& tensors, int first, std::byte* units, std::byte* scales,
               std::uint8_t* zeros) {
      namespace packing = quantization::cuda;
      const int rows = std::min(16, m_.rows - first);
      const auto columns = static_cast<std::size_t>(m_.columns);
      for (int r = 0; r < rows; ++r) {
        const quantization::weight_matrix source = row_of(tensors, first + r);
        if (m_.format == weight_format::int8) {
          bool fits = true;
          const quantization::detail::encode_row::args args{
              {weight_format::int8, 0}, source.format,  source.data, source.columns,
              parts_.values.data(),     &parts_.row[r], &fits};
          execution::dispatch<quantization::detail::encode_row>(set_, args);
          if (!fits) return first + r;
          for (std::size_t c = 0; c < columns; ++c)
            codes_[static_cast<std::size_t>(r) * columns + c] =
                static_cast<std::uint8_t>(parts_.row[r].codes[c] ^ 0x80U);
          std::memcpy(scales + r * 4, &parts_.row[r].row_scale, sizeof(float));
          continue;
        }
        quantization::decode_row(quantization::float_formats(), source, 0, parts_.values.data());
        if (m_.format == weight_format::int4) {
          for (int g = 0; g < m_.columns / m_.group; ++g) {
            const std::size_t at = static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(g * m_.group);
            if (!packing::encode_int4_group(parts_.values.data() + g * m_.group, m_.group, codes_.data() + at,
                                            groups_[group_index(r, g)]))
              return first + r;
          }
        } else {
          auto* const to = reinterpret_cast<Activation*>(units) + static_cast<std::size_t>(r) * columns;
          if (source.format == activation) {
            std::memcpy(to, source.data, columns * sizeof(Activation));
          } else {
            for (std::size_t c = 0; c < columns; ++c) to[c] = Activation(parts_.values[c]);
          }
        }
      }
      const std::size_t words = sizes_of(m_).units / sizeof(packing::words);
      const std::span<packing::words> to(reinterpret_cast<packing::words*>(units), words);
      if (m_.format == weight_format::int8) {
        packing::pack_int8(
            {reinterpret_cast<const std::int8_t*>(codes_.data()), static_cast<std::size_t>(rows) * columns}, rows,
            m_.columns, to);
      } else if (m_.format == weight_format::int4) {
        const auto count = static_cast<std::size_t>(16 * (m_.columns / m_.group));
        packing::pack_int4(
            [&](std::ptrdiff_t r, std::ptrdiff_t c) {
              return codes_[static_cast<std::size_t>(r) * columns + static_cast<std::size_t>(c)];
            },
            [&](std::ptrdiff_t r, std::ptrdiff_t g) { return groups_[group_index(r, g)].scale; },
            [&](std::ptrdiff_t r, std::ptrdiff_t g) { return groups_[group_index(r, g)].zero; }, rows, m_.columns,
            m_.group, to, {reinterpret_cast<f16*>(scales), count}, {zeros, count});
      }
      return m_.rows;
    }

   private:
    static quantization::weight_matrix row_of(const std::vector<const checkpoint::tensor*>& tensors, int row) {
      for (const checkpoint::tensor* t : tensors) {
        if (row < t->shape[0]) {
          auto w = quantization::packed_rows(t->format, t->data.data(), t->shape[0], t->shape[1]);
          w.data += row * w.row_bytes, w.rows = 1;
          return w;
        }
        row -= static_cast<int>(t->shape[0]);
      }
      return {};
    }
    [[nodiscard]] std::size_t group_index(std::ptrdiff_t row, std::ptrdiff_t g) const {
      return static_cast<std::size_t>(row * (m_.columns / m_.group) + g);
    }

    execution::instruction_set set_;
    const device_matrix& m_;
    quantization::detail::unpacked_rows parts_;
    std::vector<std::uint8_t> codes_;
    std::vector<quantization::cuda::int4_group> groups_;
  };

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
