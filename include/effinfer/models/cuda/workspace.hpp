#pragma once
// Scratch memory of a device for passes of a model: exact sizes, and where each array lies.

#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample_row.hpp>
#include <effinfer/execution/simt/device.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

template <class Mixer, class Quantization, class Execution>
class decoder;

/// As many rows of logits a workspace holds.
inline constexpr int logit_rows = 8;
/// Sequences of a step that is recorded as a graph.
inline constexpr int graph_rows = 16;

/// What a workspace for passes of up to `tokens` tokens is made of.
struct workspace_sizes {
  int tokens = 0;
  std::size_t product_bytes = 0, upload_bytes = 0, mixer_bytes = 0;
};

/// What the kernels of a pass are started with. `Plan`: the mixer's.
template <class Plan>
struct pass {
  int rows = 0;
  bool is_step = true;  ///< of a token a sequence, few enough: recorded as a graph, with the logits
  int outputs = 0;      ///< rows that go through the whole of the last layer
  std::size_t upload_bytes = 0;
  Plan mixing = {};
};

/// Scratch memory for passes of up to `tokens` tokens, on the device, and what is copied to and from it; one thread at a time.
template <class T, class Plan, class Device>
class workspace {
 public:
  workspace() = default;
  workspace(const checkpoint::model_config& c, const workspace_sizes& s, const Device& where) : tokens_(s.tokens) {
    const auto [device_bytes, host_bytes] = bytes(c, s);
    memory_ = execution::simt::memory<Device>(where, device_bytes);
    host_ = execution::simt::memory<Device, true>(where, host_bytes);
    place(c, s, memory_.data(), host_.data());
    steps_.reserve(graph_rows);
  }
  [[nodiscard]] int tokens() const { return tokens_; }

  /// Of the device, and of the host that it copies from and to.
  static std::pair<std::size_t, std::size_t> bytes(const checkpoint::model_config& c, const workspace_sizes& s) {
    workspace none;
    return none.place(c, s, nullptr, nullptr);
  }

 private:
  template <class, class, class>
  friend class decoder;

  /// A form of step that was met, and once it has been met twice, its kernels.
  struct step {
    int rows = 0;
    typename Plan::form form = {};
    typename Device::graph graph = {};
  };

  /// Gives every array its place. Returns the bytes of both blocks, which need not be there.
  std::pair<std::size_t, std::size_t> place(const checkpoint::model_config& c, const workspace_sizes& s,
                                            std::byte* memory, std::byte* host) {
    execution::simt::layout on_device(memory), on_host(host);
    const auto n = static_cast<std::size_t>(s.tokens);
    const auto size = [](int a, int b = 1) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
    const std::size_t rows_of_logits = std::min(n, std::size_t{logit_rows}), v = size(c.vocabulary_size);
    x_ = on_device.take<float>(n * size(c.width));
    normed_ = on_device.take<T>(n * size(c.width));
    qkv_ = on_device.take<T>(n * size(c.heads + 2 * c.kv_heads, c.head_size));
    mixed_ = on_device.take<T>(n * size(c.heads, c.head_size));
    added_ = on_device.take<T>(n * size(c.width));
    gate_up_ = on_device.take<T>(n * size(c.feed_forward_width, 2));
    hidden_ = on_device.take<T>(n * size(c.feed_forward_width));
    products_ = on_device.take<float>(s.product_bytes / sizeof(float));
    mixer_ = on_device.take<std::byte>(s.mixer_bytes);
    logits_ = on_device.take<float>(rows_of_logits * v);
    candidates_ =
        on_device.take<decoding::cuda::candidate>(size(decoding::cuda::greedy_parts<float>::count(c.vocabulary_size)));
    token_ = on_device.take<int>(1);
    rule_ = on_device.take<decoding::cuda::sample_row>(1);
    draw_ = on_device.take<std::byte>(decoding::cuda::sample_space::bytes(c.vocabulary_size));
    exit_ = on_device.take<float>(rows_of_logits * size(c.width));
    upload_ = on_device.take<std::byte>(s.upload_bytes);
    host_upload_ = on_host.take<std::byte>(s.upload_bytes);
    host_logits_ = on_host.take<float>(rows_of_logits * v);
    host_exit_ = on_host.take<float>(rows_of_logits * size(c.width));
    host_token_ = on_host.take<int>(1);
    host_rule_ = on_host.take<decoding::cuda::sample_row>(1);
    return {on_device.used(), on_host.used()};
  }

  int tokens_ = 0;
  execution::simt::memory<Device> memory_;
  execution::simt::memory<Device, true> host_;
  float *x_ = nullptr, *products_ = nullptr, *logits_ = nullptr;
  T *normed_ = nullptr, *qkv_ = nullptr, *mixed_ = nullptr, *added_ = nullptr, *gate_up_ = nullptr, *hidden_ = nullptr;
  std::byte *mixer_ = nullptr, *upload_ = nullptr, *host_upload_ = nullptr, *draw_ = nullptr;
  float *exit_ = nullptr, *host_exit_ = nullptr, *host_logits_ = nullptr;
  decoding::cuda::candidate* candidates_ = nullptr;
  int *token_ = nullptr, *host_token_ = nullptr;
  decoding::cuda::sample_row *rule_ = nullptr, *host_rule_ = nullptr;
  std::vector<step> steps_;
  std::vector<float> host_states_;
  bool busy_ = false;  // the host's memory may still be read
  pass<Plan> pass_;    // the last one
  int first_output_ = 0,
      normed_rows_ = 0;  // rows [first_output_, normed_rows_) have their final norms in normed_, if any
  int first_logits_ = 0, logits_count_ = 0;  // rows whose logits are in logits_
};

}  // namespace effinfer::inline v0::models::cuda
