#pragma once
// The block of models/decoder.hpp as a sequence of SIMT kernels on a device. What layers add to stays in float, as do the sums of products
// and the logits; in between activations are bf16 or f16, as the execution policy says.
//
// A pass is one upload (tokens, and what the mixer needs to know of them), the kernels, and nothing that waits. Steps of a token a
// sequence are recorded as a graph when their form comes the second time: all that changes from step to step lies in the upload.
//
// What sequences remember, and the attention over it: softmax_mixer.hpp, linear_mixer.hpp. Memory of a pass: workspace.hpp.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/embedding.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/models/cuda/linear_mixer.hpp>
#include <effinfer/models/cuda/softmax_mixer.hpp>
#include <effinfer/models/cuda/weights.hpp>
#include <effinfer/models/cuda/workspace.hpp>
#include <effinfer/models/fingerprint.hpp>
#include <effinfer/models/mixer.hpp>
#include <effinfer/quantization/cuda/matmul.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// A decoder whose weights lie on a device; constant after `load`, shared by any number of sessions and threads. It has the members of
/// models::decoder that sessions, rules and searches use, and not those that leave layers out or look at the weights.
///
/// Exact: the hidden state of a token is bit for bit the same however a read is cut into passes, and whatever else is in the pass; also
/// however a sequence is cut into reads, as long as each has at most `few_tokens` (or each more): so a draft that is verified, a chain or a
/// tree, gets the logits that its tokens get one by one. With a recurrent mixer reads are cut in any way.
template <class Mixer, class Quantization, class Execution>
class decoder {
  static_assert(execution::simt::device_policy<Execution>);
  using mixer = device_mixer<Mixer, Execution>;
  using T = typename Execution::activation;
  using products = typename weights_of<Quantization, T>::type;

 public:
  using device = typename Execution::context;
  using state = typename mixer::state;
  using mixer_settings = typename mixer::settings;
  static constexpr bool slides = mixer::slides;
  static constexpr int logit_rows = cuda::logit_rows;
  static constexpr int few_tokens = cuda::few_tokens;
  static constexpr int graph_rows = cuda::graph_rows;
  static constexpr bool reads_trees = true;
  static constexpr int tree_tokens = few_tokens;

  /// As models::decoder's.
  using item = typename mixer::item;
  struct tap {
    int layers = 0;
    matrix_view<float> out;
  };

  using workspace = cuda::workspace<T, typename mixer::plan::form, device>;

  static decoder load(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings,
                      const Quantization& policy, const Execution& where, const weight_options& options) {
    return decoder(std::move(files), std::move(settings), policy, where, options);
  }

  [[nodiscard]] const checkpoint::model_config& config() const { return files_->config(); }
  [[nodiscard]] const checkpoint::model_files& files() const { return *files_; }
  [[nodiscard]] const device& execution() const { return *device_; }
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }

  /// Errors: `invalid_argument`, where memory of the host is asked for: that of a device comes from the execution policy.
  [[nodiscard]] state make_state(int context_tokens, int pass_tokens,
                                 std::pmr::memory_resource* from = std::pmr::get_default_resource()) const {
    if (from != std::pmr::get_default_resource()) {
      throw error(error_code::invalid_argument, "session_options.memory",
                  "keys and values lie in device memory, and this is the host's",
                  "give a resource of device memory to the execution policy: execution::cuda{.memory = ...}");
    }
    return state(config(), settings_, context_tokens, pass_tokens, *device_);
  }
  [[nodiscard]] workspace make_workspace(int tokens) const {
    return workspace(config(), sizes_of(config(), weights_, device_->limits(), tokens), *device_);
  }

  /// Bytes of the device that weights, a session's state and its workspace take, and of the host that it copies from and to: exactly.
  struct counted {
    std::uint64_t weights = 0, state = 0, workspace = 0;
  };
  /// Errors: as `load`.
  static counted count(const checkpoint::model_files& files, const mixer_settings& settings, const Quantization& policy,
                       const Execution& where, int context_tokens, int pass_tokens) {
    const device on(where);
    mixer::check(files.config());
    const auto weights = device_loader<T, Quantization, device>(files, policy).count();
    const auto [on_device, on_host] =
        workspace::bytes(files.config(), sizes_of(files.config(), weights, on.limits(), pass_tokens));
    return {weights.bytes + mixer::bytes(files.config()),
            state::bytes(files.config(), settings, context_tokens, pass_tokens), on_device + on_host};
  }

  /// As models::decoder::forward. What it starts goes on after it has returned; `logits` waits.
  bool forward(std::span<const item> items, workspace& w, const std::stop_token& stop,
               std::span<const tap> taps = {}) const {
    auto q = device_->queue();
    if (w.busy_) q.synchronize();  // the last upload has been read
    pass p = prepare(items, w);
    p.is_step = p.is_step && taps.empty() && p.rows <= graph_rows && mixer::can_repeat(p.mixing);
    q.upload(w.upload_, w.host_upload_, p.upload_bytes);
    w.busy_ = true;
    w.logits_count_ = 0;
    w.rows_ = p.rows;
    if (p.is_step) p.outputs = p.rows;  // a graph serves all
    w.first_output_ = p.rows - p.outputs;
    const typename device::graph* graph = p.is_step ? recorded(p, w) : nullptr;
    if (graph == nullptr) {
      if (!run(q, p, w, stop, taps)) {
        for (const item& i : items) {
          if (i.depths.empty()) i.of->abandon();
        }
        return false;
      }
    } else if (stop.stop_requested()) {
      return false;
    } else {
      graph->start(q);
    }
    if (p.is_step) w.first_logits_ = 0, w.logits_count_ = std::min(p.rows, logit_rows);
    for (const item& i : items) {
      if (i.depths.empty()) i.of->commit(static_cast<int>(i.tokens.size()));
    }
    return true;
  }
  /// As models::decoder's.
  void keep(state& of, matrix_view<const float> /*kept*/, int /*tokens*/, std::span<const int> path) const {
    mixer_.keep(*device_, of, path);
  }
  [[nodiscard]] std::ptrdiff_t kept_rows(std::span<const int> /*depths*/) const { return 0; }

  /// Logits [V] behind row `row` of the last pass, copied to the host; valid until the next call with this workspace.
  std::span<const float> logits(workspace& w, int row) const {
    return {logits(w, row, 1).data, static_cast<std::size_t>(config().vocabulary_size)};
  }
  /// Logits [count, V] behind rows [first, first + count), count <= logit_rows.
  matrix_view<float> logits(workspace& w, int first, int count) const {
    auto q = device_->queue();
    const std::ptrdiff_t v = config().vocabulary_size;
    const matrix_view<float> on_device = device_logits(q, w, first, count), out(w.host_logits_, count, v);
    q.download(out.data, on_device.data, static_cast<std::size_t>(count * v) * sizeof(float));
    q.synchronize();
    w.busy_ = false;
    return out;
  }
  /// The same of any number of rows. Shapes: out [rows, V].
  void logits(workspace& w, int first, matrix_view<float> out) const {
    for (int done = 0; done < static_cast<int>(out.rows); done += logit_rows) {
      const auto some = logits(w, first + done, std::min(logit_rows, static_cast<int>(out.rows) - done));
      for (std::ptrdiff_t r = 0; r < some.rows; ++r) std::copy_n(some.row(r), some.columns, out.row(done + r));
    }
  }

  // What leaves layers out or looks at states and weights isn't here, and says so.
  template <class... Arguments>
  void embed(const Arguments&...) const {
    runs_whole<Arguments...>();
  }
  template <class... Arguments>
  bool run_layers(const Arguments&...) const {
    return runs_whole<Arguments...>();
  }
  template <class... Arguments>
  void fill_layers(const Arguments&...) const {
    runs_whole<Arguments...>();
  }
  template <class... Arguments>
  matrix_view<float> states(const Arguments&...) const {
    return runs_whole<Arguments...>(), matrix_view<float>();
  }
  template <class... Arguments>
  void features(const Arguments&...) const {
    runs_whole<Arguments...>();
  }
  template <class... Arguments>
  const decoder_weights& weights(const Arguments&...) const {
    runs_whole<Arguments...>();
    throw error(error_code::unsupported, "decoder.weights", "they lie on the device");
  }

  /// The token that the rule chooses behind row `row` of the last pass, without a copy of the logits; nothing for a rule, or logits, that the
  /// host must see. Exact: what the rule chooses on the host.
  [[nodiscard]] std::optional<int> choose(workspace& w, int row, const decoding::greedy&, random_stream,
                                          std::uint64_t) const {
    auto q = device_->queue();
    q.template launch<decoding::cuda::greedy<float>>({device_logits(q, w, row, 1), w.token_});
    return chosen(q, w);
  }
  [[nodiscard]] std::optional<int> choose(workspace& w, int row, const decoding::sample& rule, random_stream random,
                                          std::uint64_t position) const {
    const bool penalties =
        rule.repetition_penalty != 1.0F || rule.frequency_penalty != 0.0F || rule.presence_penalty != 0.0F;
    // The weights that the portable kernels of the host give tokens may differ in the last place.
    if (penalties || device_->set() == execution::instruction_set::portable) return {};
    auto q = device_->queue();
    if (w.busy_) q.synchronize();
    *w.host_rule_ = decoding::cuda::row_of(rule, random, position);
    q.upload(w.rule_, w.host_rule_, sizeof *w.rule_);
    q.template launch<decoding::cuda::sample<float>>({device_logits(q, w, row, 1), w.rule_, w.token_});
    return chosen(q, w);
  }

 private:
  template <class... Arguments>
  static constexpr bool runs_whole() {
    static_assert(
        sizeof...(Arguments) == 0 && !std::is_same_v<Mixer, Mixer>,
        "effinfer: execution::cuda takes tokens through the whole model and keeps its states and weights on the "
        "device: early "
        "exit, self-speculation, EAGLE, MTP and Medusa drafters and contrastive search run with execution::cpu.");
    return false;
  }

  decoder(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings, const Quantization& policy,
          const Execution& where, const weight_options& options)
      : files_(std::move(files)),
        settings_(std::move(settings)),
        device_(std::make_unique<device>(where)),
        mixer_(checked(config()), settings_, *device_) {
    if (!options.packed_cache.empty()) {
      throw error(error_code::unsupported, "load_options.packed_cache", "weights for a device are not kept in files",
                  "leave it empty");
    }
    weights_ = device_loader<T, Quantization, device>(*files_, policy).load(*device_, options.progress);
    models::fingerprint of(config());
    of.mix(weights_.bytes);
    of.mix(mixer::kind);
    of.mix(std::is_same_v<T, bf16> ? 0x42463136 : 0x46313600);  // not the CPU's states
    for (int i = 0; i < config().layers; ++i) {  // a sample of the weights tells two models of one shape apart
      const auto data = files_->at(weight_name(weight_role::query, i, files_->is_gguf())).data;
      of.mix(data.first(std::min<std::size_t>(data.size(), 256)));
    }
    fingerprint_ = of.value();
  }

  static const checkpoint::model_config& checked(const checkpoint::model_config& c) {
    mixer::check(c);
    return c;
  }

  static workspace_sizes sizes_of(const checkpoint::model_config& c, const device_weights<device>& weights,
                                  const execution::simt::device_limits& limits, int tokens) {
    return {tokens, product_workspace_bytes<products, T>(weights, limits, tokens),
            token_bytes(tokens) + mixer::upload_bytes(c, tokens), mixer::workspace_bytes(c, tokens)};
  }
  /// Of an upload: the tokens, in front of the mixer's part.
  static std::size_t token_bytes(int tokens) {
    return (static_cast<std::size_t>(tokens) * sizeof(int) + 255) / 256 * 256;
  }

  // --- a pass ---

  /// What the kernels of a pass are started with.
  struct pass {
    int rows = 0;
    bool is_step = true;  ///< of a token a sequence, few enough: recorded as a graph, with the logits
    int outputs = 0;      ///< rows that go through the whole of the last layer
    std::size_t upload_bytes = 0;
    typename mixer::plan mixing;
  };

  /// Fills the host's part of the upload.
  pass prepare(std::span<const item> items, workspace& w) const {
    const checkpoint::model_config& c = config();
    pass p;
    for (const item& i : items) {
      p.rows += static_cast<int>(i.tokens.size());
      p.is_step = p.is_step && i.tokens.size() == 1;
    }
    p.outputs = items.size() == 1 ? std::min(items[0].outputs, p.rows) : p.rows;
    const std::size_t first = token_bytes(p.rows);
    p.mixing =
        mixer_.prepare(items, matrix_view<T>(w.qkv_, p.rows, std::ptrdiff_t{c.heads + 2 * c.kv_heads} * c.head_size),
                       matrix_view<T>(w.mixed_, p.rows, std::ptrdiff_t{c.heads} * c.head_size), w.mixer_,
                       w.host_upload_ + first, w.upload_ + first);
    p.upload_bytes = first + p.mixing.upload_bytes;
    int* next = reinterpret_cast<int*>(w.host_upload_);
    for (const item& i : items) next = std::copy(i.tokens.begin(), i.tokens.end(), next);
    return p;
  }

  /// The recorded step for a pass of this form; null, where it comes for the first time.
  const typename device::graph* recorded(const pass& p, workspace& w) const {
    for (auto& s : w.steps_) {
      if (s.rows != p.rows || !(s.form == p.mixing.of)) continue;
      if (!s.graph) s.graph = device_->record([&](auto& q) { (void)run(q, p, w, {}, {}); });
      return &s.graph;
    }
    if (w.steps_.size() == w.steps_.capacity()) w.steps_.clear();
    w.steps_.push_back({p.rows, p.mixing.of});
    return nullptr;
  }

  template <class Queue>
  bool run(Queue& q, const pass& p, workspace& w, const std::stop_token& stop, std::span<const tap> taps) const {
    const checkpoint::model_config& c = config();
    const int d = c.head_size, last_first = p.rows - outputs_wanted(p, taps);
    const std::ptrdiff_t rows = p.rows, f = c.feed_forward_width;
    matrix_view<float> x(w.x_, rows, c.width);
    matrix_view<T> normed(w.normed_, rows, c.width), added(w.added_, rows, c.width);
    const matrix_view<T> all_qkv(w.qkv_, rows, std::ptrdiff_t{c.heads + 2 * c.kv_heads} * d);
    matrix_view<T> mixed(w.mixed_, rows, std::ptrdiff_t{c.heads} * d), hidden(w.hidden_, rows, f);
    matrix_view<T> gate_up(w.gate_up_, rows, 2 * f);
    matrix_view<const T> pending;  // what x lacks yet: it is added by the next norm
    const auto norm = [&](const float* weight) {
      q.template launch<layers::cuda::rms_norm<T, float, float>>({x, pending, weight, c.norm_epsilon, normed});
      pending = {};
    };
    const auto tap_here = [&](int behind) {
      for (const tap& t : taps) {
        if (t.layers != behind) continue;
        if (pending.data != nullptr) q.template launch<layers::cuda::add<float, T>>({x, pending});
        pending = {};
        for (std::ptrdiff_t r = 0; r < t.out.rows; ++r)
          q.download(t.out.row(r), w.x_ + (rows - t.out.rows + r) * c.width,
                     static_cast<std::size_t>(c.width) * sizeof(float));
        q.synchronize();
      }
    };

    q.template launch<layers::cuda::embedding>(
        {reinterpret_cast<const int*>(w.upload_), weights_.embedding, weights_.embedding_format, x});
    tap_here(0);
    for (int layer = 0; layer < c.layers; ++layer) {
      if (stop.stop_requested()) return false;
      const device_block& b = weights_.blocks[static_cast<std::size_t>(layer)];
      norm(b.mixer_norm);
      const matrix_view<T> qkv = mixer_.query_key_value(p.mixing, layer, all_qkv);
      product(q, b.query_key_value, normed, qkv, w);
      if (b.query_norm != nullptr) {
        const auto key = qkv.middle_columns(mixed.columns, std::ptrdiff_t{c.kv_heads} * d);
        q.template launch<layers::cuda::head_rms_norm<T>>({qkv, b.query_norm, c.norm_epsilon, c.heads, d});
        q.template launch<layers::cuda::head_rms_norm<T>>({key, b.key_norm, c.norm_epsilon, c.kv_heads, d});
      }
      mixer_.mix(q, p.mixing, layer, qkv, mixed);
      if (layer + 1 == c.layers) {  // nobody reads the others' outputs
        for (auto* of : {&normed, &added, &mixed, &hidden, &gate_up})
          *of = of->middle_rows(last_first, rows - last_first);
        x = x.middle_rows(last_first, rows - last_first);
      }
      product(q, b.mixer_output, mixed, added, w);
      pending = added;
      norm(b.feed_forward_norm);
      product(q, b.gate_up, normed, gate_up, w);
      q.template launch<layers::cuda::swiglu<T>>({gate_up.middle_columns(0, f), gate_up.middle_columns(f, f), hidden});
      product(q, b.down, hidden, added, w);
      pending = added;
      tap_here(layer + 1);
    }
    norm(weights_.final_norm);
    if (p.is_step) {
      const int count = std::min(p.rows, logit_rows);
      product(q, weights_.output, normed.middle_rows(0, count), matrix_view<float>(w.logits_, count, c.vocabulary_size),
              w);
    }
    return true;
  }

  int outputs_wanted(const pass& p, std::span<const tap> taps) const {
    std::ptrdiff_t wanted = p.outputs;
    for (const tap& t : taps) wanted = t.layers == config().layers ? std::max(wanted, t.out.rows) : wanted;
    return static_cast<int>(std::min<std::ptrdiff_t>(wanted, p.rows));
  }

  /// out = x w^T + bias.
  template <class Queue, class Out>
  void product(Queue& q, const device_linear& l, matrix_view<const T> x, matrix_view<Out> out, workspace& w) const {
    with_weights(products(), l.weight, [&](auto weights) {
      const quantization::cuda::product_args<decltype(weights), T, Out> args{
          x, weights, out, quantization::cuda::plan_matmul(x, weights, out, device_->limits()), w.products_};
      quantization::cuda::start_matmul(
          args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
    });
    if (l.bias != nullptr) q.template launch<layers::cuda::add<Out, float>>({out, {l.bias, 1, out.columns}});
  }

  template <class Queue>
  matrix_view<float> device_logits(Queue& q, workspace& w, int first, int count) const {
    const std::ptrdiff_t v = config().vocabulary_size;
    if (first < w.first_logits_ || first + count > w.first_logits_ + w.logits_count_) {
      if (first < w.first_output_ || first + count > w.rows_ || count > logit_rows) {
        throw error(error_code::invalid_argument, "decoder.logits",
                    "rows [" + std::to_string(first) + ", " + std::to_string(first + count) +
                        ") are not among the outputs [" + std::to_string(w.first_output_) + ", " +
                        std::to_string(w.rows_) + ") of the pass");
      }
      product(q, weights_.output,
              matrix_view<const T>(w.normed_ + std::ptrdiff_t{first} * config().width, count, config().width),
              matrix_view<float>(w.logits_, count, v), w);
      w.first_logits_ = first, w.logits_count_ = count;
    }
    return {w.logits_ + (first - w.first_logits_) * v, count, v};
  }

  template <class Queue>
  std::optional<int> chosen(Queue& q, workspace& w) const {
    q.download(w.host_token_, w.token_, sizeof(int));
    q.synchronize();
    w.busy_ = false;
    if (*w.host_token_ < 0) return {};  // no token has a chance: the rule says what then
    return *w.host_token_;
  }

  std::shared_ptr<const checkpoint::model_files> files_;
  mixer_settings settings_;
  std::unique_ptr<device> device_;
  mixer mixer_;
  device_weights<device> weights_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace effinfer::inline v0::models::cuda
