#pragma once
// The block of models/decoder.hpp as a sequence of SIMT kernels on a device. What layers add to stays in float, as do the sums of products
// and the logits; in between activations are bf16 or f16, as the execution policy says.
//
// A pass is one upload (tokens, and what the mixer needs to know of them), the kernels, and nothing that waits. Steps of a token a
// sequence are recorded as a graph when their form comes the second time: all that changes from step to step lies in the upload.
//
// What sequences remember, and the attention over it: softmax_mixer.hpp, linear_mixer.hpp. Which kernels products are: products.hpp. Memory of a
// pass: workspace.hpp.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/embedding.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/layers/rms_norm.hpp>
#include <effinfer/models/cuda/linear_mixer.hpp>
#include <effinfer/models/cuda/products.hpp>
#include <effinfer/models/cuda/softmax_mixer.hpp>
#include <effinfer/models/cuda/weights.hpp>
#include <effinfer/models/cuda/workspace.hpp>
#include <effinfer/models/fingerprint.hpp>
#include <effinfer/models/owned_linear.hpp>
#include <effinfer/models/weights.hpp>
#include <effinfer/quantization/cuda/input_order.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// A decoder whose weights lie on a device; constant after `load`, shared by any number of sessions and threads. It has the members of
/// models::decoder. What drafters compute of their own they compute on the host.
///
/// Products of a long read, of more than `few_tokens`, are those of wgmma_product.hpp where the device has wgmma, and with them sums and the
/// rounding of weights in groups are other than in steps.
///
/// Exact: the hidden state of a token is bit for bit the same however a read is cut into passes, and whatever else is in the pass; also
/// however a sequence is cut into reads, as long as each has at most `few_tokens` (or each more): so a draft that is verified, a chain or a
/// tree, gets the logits that its tokens get one by one. With a recurrent mixer reads are cut in any way.
template <class Mixer, class Quantization, class Execution>
class decoder {
  static_assert(execution::simt::device_policy<Execution>);
  using mixer = device_mixer<Mixer, Execution>;
  using T = typename Execution::activation;
  using compiled_weights = typename weights_of<Quantization, T>::type;
  using input_order = quantization::cuda::input_order;

 public:
  using device = typename Execution::context;
  using state = typename mixer::state;
  using mixer_settings = typename mixer::settings;
  static constexpr bool slides = mixer::slides;
  static constexpr int logit_rows = cuda::logit_rows;
  static constexpr int few_tokens = cuda::few_tokens;
  static constexpr int graph_rows = cuda::graph_rows;
  static constexpr int tree_tokens = few_tokens;

  /// As models::decoder's.
  using item = typename mixer::item;
  struct tap {
    int layers = 0;
    matrix_view<float> out;
  };

  using workspace = cuda::workspace<T, typename mixer::plan, device>;

  static decoder load(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings,
                      const Quantization& policy, const Execution& where, const weight_options& options) {
    return decoder(std::move(files), std::move(settings), policy, where, options);
  }

  [[nodiscard]] const checkpoint::model_config& config() const { return files_->config(); }
  [[nodiscard]] const checkpoint::model_files& files() const { return *files_; }
  [[nodiscard]] const device& execution() const { return *device_; }
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }
  /// The CPU, for what drafters compute of their own; its threads start with the first call.
  [[nodiscard]] const execution::cpu::context& host() const {
    std::call_once(host_->started, [this] { host_->context = std::make_unique<execution::cpu::context>(); });
    return *host_->context;
  }
  /// Embedding, final norm and output head in the host's memory, without blocks: read from the checkpoint by the first call. Errors: those of
  /// weight_loader.
  [[nodiscard]] const decoder_weights& weights() const {
    std::call_once(host_->read,
                   [this] { host_->weights = weight_loader<Quantization>(*files_, policy_).load_ends(host()); });
    return host_->weights;
  }

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
    begin(q, items, w);
    pass& p = w.pass_;
    p.is_step = p.is_step && taps.empty() && p.rows <= graph_rows && mixer::can_repeat(p.mixing);
    if (p.is_step) p.outputs = p.rows;  // a graph serves all
    const typename device::graph* graph = p.is_step ? recorded(w) : nullptr;
    if (graph != nullptr) {
      if (stop.stop_requested()) return false;
      graph->start(q);
    } else if (!run(q, w, stop, taps)) {
      abandon(items);
      return false;
    }
    w.first_output_ = p.rows - p.outputs, w.normed_rows_ = p.rows;
    if (p.is_step) w.first_logits_ = 0, w.logits_count_ = std::min(p.rows, logit_rows);
    commit(items);
    return true;
  }

  // The steps of `forward`, as models::decoder's.

  void embed(std::span<const item> items, workspace& w, std::span<const tap> taps = {}) const {
    auto q = device_->queue();
    begin(q, items, w);
    look_up(q, w, taps);
  }
  bool run_layers(std::span<const item> items, workspace& w, int first, int last, const std::stop_token& stop = {},
                  std::span<const tap> taps = {}) const {
    auto q = device_->queue();
    w.logits_count_ = w.normed_rows_ = 0;
    const auto pending = through_layers(q, w, first, last, stop, taps);
    if (!pending) {
      abandon(items);
      return false;
    }
    if (pending->data != nullptr) {
      const int from = last == config().layers ? w.pass_.rows - w.pass_.outputs : 0;
      q.template launch<layers::cuda::add<float, T>>({all_states(w).middle_rows(from, pending->rows), *pending});
    }
    return true;
  }
  void fill_layers(std::span<const item> /*items*/, workspace& w, int first, int last) const {
    auto q = device_->queue();
    const pass& p = w.pass_;
    const matrix_view<T> normed(w.normed_, p.rows, config().width);
    w.logits_count_ = w.normed_rows_ = 0;
    for (int layer = first; layer < last; ++layer) {
      const device_block& b = weights_.blocks[static_cast<std::size_t>(layer)];
      norm(q, all_states(w), {}, b.mixer_norm, normed, products_of(w).order_for(b.query_key_value));
      const matrix_view<T> qkv = query_key_value(q, b, layer, normed, w);
      mixer_.remember(q, p.mixing, layer, qkv, matrix_view<T>(w.mixed_, p.rows, mixed_columns()));
    }
  }
  void commit(std::span<const item> items) const {
    for (const item& i : items) {
      if (i.depths.empty()) i.of->commit(static_cast<int>(i.tokens.size()));
    }
  }
  /// A copy of the states on the host, valid until the next call with this workspace.
  matrix_view<float> states(workspace& w, int first, int count) const {
    auto q = device_->queue();
    const std::ptrdiff_t e = config().width;
    w.host_states_.resize(static_cast<std::size_t>(count * e));
    const matrix_view<float> out(w.host_states_.data(), count, e);
    q.download(out.data, all_states(w).row(first), static_cast<std::size_t>(count * e) * sizeof(float));
    q.synchronize();
    w.busy_ = false;
    return out;
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
    return download_logits(q, w, device_logits(q, w, first, count));
  }
  /// The same of any number of rows. Shapes: out [rows, V].
  void logits(workspace& w, int first, matrix_view<float> out) const {
    for (int done = 0; done < static_cast<int>(out.rows); done += logit_rows) {
      const auto some = logits(w, first + done, std::min(logit_rows, static_cast<int>(out.rows) - done));
      for (std::ptrdiff_t r = 0; r < some.rows; ++r) std::copy_n(some.row(r), some.columns, out.row(done + r));
    }
  }

  /// As models::decoder's: the map is computed on the host.
  matrix_view<float> logits(workspace& w, const linear_layer& map, int first, int count) const {
    const matrix_view<float> x = states(w, first, count);
    const auto& on = host();
    std::vector<std::byte> prepared(quantization::matmul_workspace_bytes<>(count, x.columns));
    quantization::activation_kinds kinds;
    kinds.add(map.weight.format, on.set());
    std::vector<float> through(x.data, x.data + x.rows * x.columns);
    const quantization::product one{&map.weight, {through.data(), x.rows, x.columns}, map.bias_or_null(), true};
    quantization::matmul(on, quantization::prepare(on, matrix_view<const float>(x), prepared, kinds),
                         std::span(&one, 1));
    const std::size_t bytes = through.size() * sizeof(float);
    std::copy(through.begin(), through.end(), w.host_exit_);
    auto q = device_->queue();
    q.upload(w.exit_, w.host_exit_, bytes);
    w.logits_count_ = w.normed_rows_ = 0;
    return download_logits(q, w, output_of(q, w, {w.exit_, count, x.columns}));
  }
  /// As models::decoder's, on the host.
  void features(matrix_view<const float> states, matrix_view<float> out) const {
    for (std::ptrdiff_t r = 0; r < states.rows; ++r) {
      layers::rms_norm(device_->set(), states.row(r), host_->final_norm.data(), states.columns, config().norm_epsilon,
                       out.row(r));
    }
  }

  /// The token that the rule chooses behind row `row` of the last pass, without a copy of the logits; nothing for a rule, or logits, that the
  /// host must see. Exact: what the rule chooses on the host.
  [[nodiscard]] std::optional<int> choose(workspace& w, int row, const decoding::greedy&, random_stream,
                                          std::uint64_t) const {
    auto q = device_->queue();
    using parts = decoding::cuda::greedy_parts<float>;
    q.template launch<parts>({device_logits(q, w, row, 1), w.candidates_});
    q.template launch<decoding::cuda::greedy>({w.candidates_, parts::count(config().vocabulary_size), 1, w.token_});
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
    const decoding::cuda::sample_args<float> args{device_logits(q, w, row, 1), w.rule_, w.token_, w.draw_};
    decoding::cuda::start_sample<float>(
        args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
    return chosen(q, w);
  }

 private:
  decoder(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings, const Quantization& policy,
          const Execution& where, const weight_options& options)
      : files_(std::move(files)),
        settings_(std::move(settings)),
        policy_(policy),
        device_(std::make_unique<device>(where)),
        mixer_(checked(config()), settings_, *device_),
        host_(std::make_unique<host_part>()) {
    if (!options.packed_cache.empty()) {
      throw error(error_code::unsupported, "load_options.packed_cache", "weights for a device are not kept in files",
                  "leave it empty");
    }
    weights_ = device_loader<T, Quantization, device>(*files_, policy).load(*device_, options.progress);
    host_->final_norm = models::detail::float_values(tensor_of(*files_, weight_role::final_norm, 0, config().width, 0));
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
    return {tokens, product_workspace_bytes<compiled_weights, T>(weights, limits, tokens, logit_rows),
            token_bytes(tokens) + mixer::upload_bytes(c, tokens), mixer::workspace_bytes(c, tokens)};
  }
  /// Of an upload: the tokens, in front of the mixer's part.
  static std::size_t token_bytes(int tokens) {
    return (static_cast<std::size_t>(tokens) * sizeof(int) + 255) / 256 * 256;
  }

  // --- a pass ---

  using pass = cuda::pass<typename mixer::plan>;

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

  /// A pass begins: its upload.
  template <class Queue>
  void begin(Queue& q, std::span<const item> items, workspace& w) const {
    if (w.busy_) q.synchronize();  // the last upload has been read
    w.pass_ = prepare(items, w);
    q.upload(w.upload_, w.host_upload_, w.pass_.upload_bytes);
    w.busy_ = true;
    w.logits_count_ = w.normed_rows_ = 0;
  }
  static void abandon(std::span<const item> items) {
    for (const item& i : items) {
      if (i.depths.empty()) i.of->abandon();
    }
  }

  /// The recorded step for a pass of this form; null, where it comes for the first time.
  const typename device::graph* recorded(workspace& w) const {
    const pass& p = w.pass_;
    for (auto& s : w.steps_) {
      if (s.rows != p.rows || !(s.form == p.mixing.of)) continue;
      if (!s.graph) s.graph = device_->record([&](auto& q) { (void)run(q, w, {}, {}); });
      return &s.graph;
    }
    if (w.steps_.size() == w.steps_.capacity()) w.steps_.clear();
    w.steps_.push_back({p.rows, p.mixing.of});
    return nullptr;
  }

  template <class Queue>
  bool run(Queue& q, workspace& w, const std::stop_token& stop, std::span<const tap> taps) const {
    const pass& p = w.pass_;
    const checkpoint::model_config& c = config();
    look_up(q, w, taps);
    const auto pending = through_layers(q, w, 0, c.layers, stop, taps);
    if (!pending) return false;
    const int first = p.rows - outputs_wanted(p, taps);
    const matrix_view<T> normed = matrix_view<T>(w.normed_, p.rows, c.width).middle_rows(first, p.rows - first);
    norm(q, all_states(w).middle_rows(first, p.rows - first), *pending, weights_.final_norm, normed);
    if (p.is_step) {
      const int count = std::min(p.rows, logit_rows);
      products_of(w).multiply(q, weights_.output, normed.middle_rows(0, count),
                              matrix_view<float>(w.logits_, count, c.vocabulary_size));
    }
    return true;
  }

  /// The states become the embeddings.
  template <class Queue>
  void look_up(Queue& q, workspace& w, std::span<const tap> taps) const {
    const auto* const tokens = reinterpret_cast<const int*>(w.upload_);
    if (weights_.embedding != nullptr) {
      q.template launch<layers::cuda::embedding>(
          {tokens, weights_.embedding, weights_.embedding_format, all_states(w)});
    } else {
      (void)with_weights(compiled_weights(), weights_.packed_embedding, [&](auto table) {
        if constexpr (requires { table.value(0, 0); })
          q.template launch<layers::cuda::packed_embedding<decltype(table)>>({tokens, table, all_states(w)});
      });
    }
    matrix_view<const T> none;
    hand_out(q, w, taps, 0, all_states(w), none);
  }

  /// The states go through layers [first, last); returns what they lack then: it is added by the next norm. In the last of all layers only
  /// the rows whose outputs are wanted go on. Nothing, where `stop` asked for it.
  template <class Queue>
  std::optional<matrix_view<const T>> through_layers(Queue& q, workspace& w, int first_layer, int last_layer,
                                                     const std::stop_token& stop, std::span<const tap> taps) const {
    const checkpoint::model_config& c = config();
    const pass& p = w.pass_;
    const std::ptrdiff_t rows = p.rows, f = c.feed_forward_width;
    matrix_view<float> x = all_states(w);
    matrix_view<T> normed(w.normed_, rows, c.width), added(w.added_, rows, c.width);
    matrix_view<T> mixed(w.mixed_, rows, mixed_columns()), hidden(w.hidden_, rows, f), gate_up(w.gate_up_, rows, 2 * f);
    matrix_view<const T> pending;
    const auto products = products_of(w);
    for (int layer = first_layer; layer < last_layer; ++layer) {
      if (stop.stop_requested()) return {};
      const device_block& b = weights_.blocks[static_cast<std::size_t>(layer)];
      norm(q, x, pending, b.mixer_norm, normed, products.order_for(b.query_key_value));
      mixer_.mix(q, p.mixing, layer, query_key_value(q, b, layer, normed, w), mixed);
      if (layer + 1 == c.layers) {  // nobody reads the others' outputs
        const int first = p.rows - outputs_wanted(p, taps);
        for (auto* of : {&normed, &added, &mixed, &hidden, &gate_up}) *of = of->middle_rows(first, rows - first);
        x = x.middle_rows(first, rows - first);
      }
      products.multiply(q, b.mixer_output, mixed, added);
      norm(q, x, added, b.feed_forward_norm, normed);
      if (!products.multiply_gated(q, b.gate_up, normed, hidden)) {
        products.multiply(q, b.gate_up, normed, gate_up);
        q.template launch<layers::cuda::swiglu<T>>(
            {gate_up.middle_columns(0, f), gate_up.middle_columns(f, f), hidden});
      }
      products.multiply(q, b.down, hidden, added);
      pending = added;
      hand_out(q, w, taps, layer + 1, x, pending);
    }
    return pending;
  }

  /// The states, complete then, to the taps behind so many layers.
  template <class Queue>
  void hand_out(Queue& q, workspace& w, std::span<const tap> taps, int behind, matrix_view<float> x,
                matrix_view<const T>& pending) const {
    for (const tap& t : taps) {
      if (t.layers != behind) continue;
      if (pending.data != nullptr) q.template launch<layers::cuda::add<float, T>>({x, pending});
      pending = {};
      for (std::ptrdiff_t r = 0; r < t.out.rows; ++r)
        q.download(t.out.row(r), all_states(w).row(w.pass_.rows - t.out.rows + r),
                   static_cast<std::size_t>(config().width) * sizeof(float));
      q.synchronize();
    }
  }

  template <class Queue>
  void norm(Queue& q, matrix_view<float> x, matrix_view<const T> pending, const float* weight, matrix_view<T> normed,
            input_order order = {}) const {
    q.template launch<layers::cuda::rms_norm<T, float, float>>(
        {x, pending, weight, config().norm_epsilon, normed, order});
  }
  template <class Queue>
  matrix_view<T> query_key_value(Queue& q, const device_block& b, int layer, matrix_view<const T> normed,
                                 workspace& w) const {
    const checkpoint::model_config& c = config();
    const int d = c.head_size;
    const matrix_view<T> qkv = mixer_.query_key_value(
        w.pass_.mixing, layer, {w.qkv_, w.pass_.rows, std::ptrdiff_t{c.heads + 2 * c.kv_heads} * d});
    const auto products = products_of(w);
    products.multiply(q, b.query_key_value, normed, qkv, products.order_for(b.query_key_value));
    if (b.query_norm != nullptr) {
      q.template launch<layers::cuda::head_rms_norm<T>>(
          {qkv, b.query_norm, b.key_norm, c.norm_epsilon, c.heads, c.kv_heads, d});
    }
    return qkv;
  }

  weight_products<compiled_weights, T, device> products_of(const workspace& w) const {
    return {*device_, mixer::is_long_read(w.pass_.mixing), w.products_};
  }
  matrix_view<float> all_states(const workspace& w) const { return {w.x_, w.pass_.rows, config().width}; }
  [[nodiscard]] std::ptrdiff_t mixed_columns() const { return std::ptrdiff_t{config().heads} * config().head_size; }

  int outputs_wanted(const pass& p, std::span<const tap> taps) const {
    std::ptrdiff_t wanted = p.outputs;
    for (const tap& t : taps) wanted = t.layers == config().layers ? std::max(wanted, t.out.rows) : wanted;
    return static_cast<int>(std::min<std::ptrdiff_t>(wanted, p.rows));
  }

  template <class Queue>
  matrix_view<float> device_logits(Queue& q, workspace& w, int first, int count) const {
    const std::ptrdiff_t v = config().vocabulary_size;
    if (first < w.first_logits_ || first + count > w.first_logits_ + w.logits_count_) {
      const bool normed = w.normed_rows_ > 0;
      if (first < (normed ? w.first_output_ : 0) || first + count > w.pass_.rows || count > logit_rows) {
        throw error(error_code::invalid_argument, "decoder.logits",
                    "rows [" + std::to_string(first) + ", " + std::to_string(first + count) +
                        ") are not among the outputs [" + std::to_string(normed ? w.first_output_ : 0) + ", " +
                        std::to_string(w.pass_.rows) + ") of the pass");
      }
      if (normed) {
        products_of(w).multiply(
            q, weights_.output,
            matrix_view<const T>(w.normed_ + std::ptrdiff_t{first} * config().width, count, config().width),
            matrix_view<float>(w.logits_, count, v));
      } else {
        output_of(q, w, all_states(w).middle_rows(first, count));
      }
      w.first_logits_ = first, w.logits_count_ = count;
    }
    return {w.logits_ + (first - w.first_logits_) * v, count, v};
  }

  /// Logits of states, by way of the final norm.
  template <class Queue>
  matrix_view<float> output_of(Queue& q, workspace& w, matrix_view<float> x) const {
    const matrix_view<T> normed(w.normed_, x.rows, x.columns);
    const matrix_view<float> out(w.logits_, x.rows, config().vocabulary_size);
    norm(q, x, {}, weights_.final_norm, normed);
    products_of(w).multiply(q, weights_.output, normed, out);
    return out;
  }
  template <class Queue>
  matrix_view<float> download_logits(Queue& q, workspace& w, matrix_view<float> from) const {
    const matrix_view<float> out(w.host_logits_, from.rows, from.columns);
    q.download(out.data, from.data, static_cast<std::size_t>(from.rows * from.columns) * sizeof(float));
    q.synchronize();
    w.busy_ = false;
    return out;
  }

  template <class Queue>
  std::optional<int> chosen(Queue& q, workspace& w) const {
    q.download(w.host_token_, w.token_, sizeof(int));
    q.synchronize();
    w.busy_ = false;
    if (*w.host_token_ < 0) return {};  // no token has a chance: the rule says what then
    return *w.host_token_;
  }

  /// What drafters and exits read on the host.
  struct host_part {
    std::vector<float> final_norm;
    std::once_flag started, read;
    std::unique_ptr<execution::cpu::context> context;
    decoder_weights weights;
  };

  std::shared_ptr<const checkpoint::model_files> files_;
  mixer_settings settings_;
  Quantization policy_;
  std::unique_ptr<device> device_;
  mixer mixer_;
  device_weights<device> weights_;
  std::unique_ptr<host_part> host_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace effinfer::inline v0::models::cuda
