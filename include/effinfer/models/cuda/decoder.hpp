#pragma once
// The block of models/decoder.hpp as a sequence of SIMT kernels on a device. What layers add to stays in float, as do the sums of products
// and the logits; in between activations are bf16 or f16, as the execution policy says.
//
// A pass is one upload (tokens, rotary turns, where keys go, what each query sees), the kernels, and nothing that waits. Steps of a token a
// sequence are recorded as a graph when their form comes the second time: all that changes from step to step lies in the upload.
//
// Attention has two kernels, whose sums differ in their order: one for a token a sequence, over the keys in splits (attention/cuda/softmax.hpp),
// and one for many (attention/cuda/prefill.hpp). Which of them a token goes through depends on the read that it is part of, never on
// how that is cut into passes or on what else is in the pass.

#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/decoding/cuda/greedy.hpp>
#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/kv_cache/cuda/positions.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/layers/cuda/embedding.hpp>
#include <effinfer/layers/cuda/rms_norm.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/cuda/weights.hpp>
#include <effinfer/models/fingerprint.hpp>
#include <effinfer/models/mixer.hpp>
#include <effinfer/quantization/cuda/matmul.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <memory_resource>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// True where a device keeps keys and values in this type.
template <class C>
inline constexpr bool keeps = std::is_same_v<C, float> || std::is_same_v<C, f16> || std::is_same_v<C, bf16>;

/// See the specialisation. A recurrent mixer has no kernels.
template <class Mixer, class Quantization, class Execution>
class decoder {
  static_assert(sizeof(Mixer) == 0,
                "effinfer: execution::cuda computes softmax attention only: run linear attention with execution::cpu.");
};

/// A decoder whose weights lie on a device; constant after `load`, shared by any number of sessions and threads. It has the members of
/// models::decoder that sessions, rules and searches use, and not those that leave layers out or look at the weights.
///
/// Exact: the hidden state of a token is bit for bit the same however a read is cut into passes, and whatever else is in the pass; also
/// however a sequence is cut into reads, as long as each has at most `few_tokens` (or each more): so a draft that is verified gets the
/// logits that its tokens get one by one.
template <class Attention, class Cache, bool FromCheckpoint, class Quantization,
          execution::simt::device_policy Execution>
class decoder<softmax_mixer<Attention, Cache, FromCheckpoint>, Quantization, Execution> {
  using cpu_mixer = softmax_mixer<Attention, Cache, FromCheckpoint>;
  using T = typename Execution::activation;
  using C = typename Cache::element_type;
  static_assert(
      keeps<C>,
      "effinfer: execution::cuda keeps keys and values in float, f16 or bf16: use kv_cache::contiguous<f16> or "
      "ring<f16>.");
  static constexpr bool ring = models::detail::is_ring<Cache>;
  static constexpr bool windowed = FromCheckpoint || ring;
  using kernel_mixer =
      typename std::conditional_t<windowed, models::detail::add_window<Attention>, std::type_identity<Attention>>::type;
  using view = kv_cache::view<C>;
  using sequence = attention::cuda::decode_sequence<T, view>;
  using long_read = attention::cuda::prefill_sequence<T, view>;
  using products = typename weights_of<Quantization, T>::type;

 public:
  using device = typename Execution::context;
  using mixer_settings = typename cpu_mixer::settings;
  static constexpr bool slides = ring;
  /// As many rows of logits a workspace holds.
  static constexpr int logit_rows = 8;
  /// Tokens of a read up to which each is a decode step of its own to attention.
  static constexpr int few_tokens = 16;
  /// A chain of guesses gets the logits that its tokens get one by one; branches would need a mask that the kernels don't know.
  static constexpr bool reads_trees = false;
  static constexpr int tree_tokens = few_tokens;
  /// Sequences of a step that is recorded as a graph.
  static constexpr int graph_rows = 16;

  /// One sequence's keys and values in device memory, for passes of up to `pass` tokens.
  class state {
   public:
    state(const checkpoint::model_config& c, const mixer_settings& s, int context, int pass, const device& where)
        : cache_(models::detail::cache_shape(c), slots(s, context, pass), ring ? s.widest(context) : 0, where),
          context_(context),
          part_floats_(row_part_floats(c, slots(s, context, pass))),
          parts_(where, part_floats_ * static_cast<std::size_t>(part_rows(pass)) * sizeof(float)) {}
    state(const state& other)
        : cache_(other.cache_),
          context_(other.context_),
          part_floats_(other.part_floats_),
          parts_(*other.parts_.device(), other.parts_.size()) {}
    state(state&&) noexcept = default;
    state& operator=(const state& other) { return *this = state(other); }
    state& operator=(state&&) noexcept = default;
    ~state() = default;

    static std::uint64_t bytes(const checkpoint::model_config& c, const mixer_settings& s, int context, int pass) {
      const int held = slots(s, context, pass);
      return kv_cache::cuda::positions<C, device>::footprint(models::detail::cache_shape(c), held) +
             row_part_floats(c, held) * static_cast<std::uint64_t>(part_rows(pass)) * sizeof(float);
    }
    bool truncate(int position) {
      read_end_ = 0;
      return cache_.truncate(position);
    }
    void clear() {
      read_end_ = 0;
      cache_.clear();
    }
    void mark() {}
    bool rollback() { return false; }
    void commit(int tokens) { cache_.commit(tokens); }
    void become(const state& other, int common) {
      read_end_ = 0;
      cache_.become(other.cache_, common);
    }
    void save(std::vector<std::byte>& out) const { cache_.save(out); }
    void load(std::span<const std::byte> in, int tokens) { models::detail::load_all(cache_, in, tokens, "keys"); }

   private:
    friend decoder;
    static int slots(const mixer_settings& s, int context, int pass) {
      if constexpr (ring) {
        return Cache::cache::positions_held(s.widest(context), pass);
      } else {
        return (void)s, (void)pass, context;
      }
    }
    /// What the splits of one query's keys leave for the merge.
    static std::size_t row_part_floats(const checkpoint::model_config& c, int held) {
      const int splits = (held + attention::cuda::split_keys - 1) / attention::cuda::split_keys + (ring ? 1 : 0);
      return static_cast<std::size_t>(splits) * static_cast<std::size_t>(c.heads) *
             static_cast<std::size_t>(attention::cuda::part_floats(c.head_size));
    }
    /// Queries of a pass that may be decode steps.
    static int part_rows(int pass) { return reads_long ? std::min(pass, few_tokens) : pass; }
    kv_cache::cuda::positions<C, device> cache_;
    int context_;
    int read_end_ = 0;  // where a long read ends that has begun
    std::size_t part_floats_;
    execution::simt::memory<device> parts_;
  };

  /// As models::decoder's.
  struct item {
    state* of = nullptr;
    std::span<const int> tokens;
    int position = 0;
    int length = 0;
    int outputs = std::numeric_limits<int>::max();
    std::span<const int> depths = {};  ///< of a chain of guesses, 0, 1, 2 ...; no tree
    matrix_view<float> kept = {};      ///< never written: the cache has all that `keep` needs
  };
  struct tap {
    int layers = 0;
    matrix_view<float> out;
  };

  /// Scratch memory for passes of up to `tokens` tokens, on the device, and what is copied to and from it; one thread at a time.
  class workspace {
   public:
    workspace() = default;
    [[nodiscard]] int tokens() const { return tokens_; }

   private:
    friend decoder;
    /// A form of step that was met, and once it has been met twice, its kernels.
    struct step {
      int rows = 0, splits = 0, context = 0;
      typename device::graph graph = {};
    };
    int tokens_ = 0;
    execution::simt::memory<device> memory_;
    execution::simt::memory<device, true> host_;
    float *x_ = nullptr, *products_ = nullptr, *logits_ = nullptr;
    T *normed_ = nullptr, *qkv_ = nullptr, *mixed_ = nullptr, *added_ = nullptr, *gate_up_ = nullptr,
      *hidden_ = nullptr;
    std::byte *upload_ = nullptr, *host_upload_ = nullptr;
    float* host_logits_ = nullptr;
    int *token_ = nullptr, *host_token_ = nullptr;
    decoding::cuda::sample_row *rule_ = nullptr, *host_rule_ = nullptr;
    std::vector<step> steps_;
    bool busy_ = false;                        // the host's memory may still be read
    int first_output_ = 0, rows_ = 0;          // rows of the last pass whose final norms are in normed_
    int first_logits_ = 0, logits_count_ = 0;  // rows whose logits are in logits_
  };

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
    workspace w;
    w.tokens_ = tokens;
    const sizes s = sizes_of(config(), weights_, device_->limits(), tokens);
    w.memory_ = execution::simt::memory<device>(*device_, s.device_bytes);
    w.host_ = execution::simt::memory<device, true>(*device_, s.host_bytes);
    place(config(), s, w, w.memory_.data(), w.host_.data());
    w.steps_.reserve(graph_rows);
    return w;
  }

  /// Bytes of the device that weights, a session's state and its workspace take, and of the host that it copies from and to: exactly.
  struct counted {
    std::uint64_t weights = 0, state = 0, workspace = 0;
  };
  /// Errors: as `load`.
  static counted count(const checkpoint::model_files& files, const mixer_settings& settings, const Quantization& policy,
                       const Execution& where, int context_tokens, int pass_tokens) {
    const device on(where);
    check(files.config());
    const auto weights = device_loader<T, Quantization, device>(files, policy).count();
    const sizes s = sizes_of(files.config(), weights, on.limits(), pass_tokens);
    return {weights.bytes, state::bytes(files.config(), settings, context_tokens, pass_tokens),
            s.device_bytes + s.host_bytes};
  }

  /// As models::decoder::forward. What it starts goes on after it has returned; `logits` waits.
  bool forward(std::span<const item> items, workspace& w, const std::stop_token& stop,
               std::span<const tap> taps = {}) const {
    auto q = device_->queue();
    if (w.busy_) q.synchronize();  // the last upload has been read
    pass p = prepare(items, w);
    p.is_step = p.is_step && !p.is_long && taps.empty() && p.rows <= graph_rows;
    q.upload(w.upload_, w.host_upload_, p.upload_bytes);
    w.busy_ = true;
    w.logits_count_ = 0;
    w.rows_ = p.rows;
    if (p.is_step) p.outputs = p.rows;  // a graph serves all
    w.first_output_ = p.rows - p.outputs;
    const typename device::graph* graph = p.is_step ? recorded(p, w) : nullptr;
    if (graph == nullptr) {
      if (!run(q, p, w, stop, taps)) return false;
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
  /// As models::decoder's: the first path.size() tokens of the chain just read stay.
  void keep(state& of, matrix_view<const float> /*kept*/, int /*tokens*/, std::span<const int> path) const {
    of.commit(static_cast<int>(path.size()));
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
        sizeof...(Arguments) == 0 && !std::is_same_v<Attention, Attention>,
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
        rotary_(config().rope),
        heads_{config().heads, config().kv_heads, config().head_size,
               1.0F / std::sqrt(static_cast<float>(config().head_size))} {
    check(config());
    if (!options.packed_cache.empty()) {
      throw error(error_code::unsupported, "load_options.packed_cache", "weights for a device are not kept in files",
                  "leave it empty");
    }
    weights_ = device_loader<T, Quantization, device>(*files_, policy).load(*device_, options.progress);
    models::fingerprint of(config());
    of.mix(weights_.bytes);
    of.mix(cpu_mixer::kind);
    of.mix(std::is_same_v<T, bf16> ? 0x42463136 : 0x46313600);  // not the CPU's states
    for (int i = 0; i < config().layers; ++i) {  // a sample of the weights tells two models of one shape apart
      const auto data = files_->at(weight_name(weight_role::query, i, files_->is_gguf())).data;
      of.mix(data.first(std::min<std::size_t>(data.size(), 256)));
    }
    fingerprint_ = of.value();
  }

  /// Errors: `unsupported`.
  static void check(const checkpoint::model_config& c) {
    std::string compiled;
    const auto is_there = [&]<int... Sizes>(std::integer_sequence<int, Sizes...>) {
      ((compiled += (compiled.empty() ? "" : ", ") + std::to_string(Sizes)), ...);
      return ((c.head_size == Sizes) || ...);
    };
    if (is_there(typename Execution::head_sizes())) return;
    throw error(error_code::unsupported, c.file, "heads of " + std::to_string(c.head_size),
                "attention is compiled for heads of " + compiled + " here: run it with execution::cpu");
  }

  // --- memory ---

  struct sizes {
    int tokens = 0;
    std::size_t product_bytes = 0, upload_bytes = 0, device_bytes = 0, host_bytes = 0;
  };
  static sizes sizes_of(const checkpoint::model_config& c, const device_weights<device>& weights,
                        const execution::simt::device_limits& limits, int tokens) {
    sizes s;
    s.tokens = tokens;
    std::vector<device_matrix> seen;
    const auto meet = [&](const device_matrix& m, int most, auto out_type) {
      using out = typename decltype(out_type)::type;
      const auto same = [&](const device_matrix& o) {
        return o.format == m.format && o.group == m.group && o.rows == m.rows && o.columns == m.columns;
      };
      if (std::is_same_v<out, T> && std::any_of(seen.begin(), seen.end(), same)) return;
      if (std::is_same_v<out, T>) seen.push_back(m);
      (void)with_weights(products(), m, [&](auto w) {
        w = decltype(w){};  // only the shape counts
        w.rows = m.rows, w.columns = m.columns;
        if constexpr (requires { w.stride; }) w.stride = m.columns;
        for (int rows = 1; rows <= most; ++rows) {
          const auto plan = quantization::cuda::plan_matmul(matrix_view<const T>(nullptr, rows, m.columns), w,
                                                            matrix_view<out>(nullptr, rows, m.rows), limits);
          s.product_bytes = std::max(s.product_bytes, plan.workspace_bytes);
        }
      });
    };
    for (const device_block& b : weights.blocks) {
      for (const device_linear* l : {&b.query_key_value, &b.mixer_output, &b.gate_up, &b.down}) {
        for (const device_matrix& m : l->weights) meet(m, tokens, std::type_identity<T>());
      }
    }
    for (const device_matrix& m : weights.output.weights)
      meet(m, std::min(tokens, logit_rows), std::type_identity<float>());
    s.upload_bytes = std::max(upload_layout(c, tokens, false).bytes, upload_layout(c, 1, true).bytes);
    workspace none;
    std::tie(s.device_bytes, s.host_bytes) = place(c, s, none, nullptr, nullptr);
    return s;
  }

  /// Gives every array its place. Returns the bytes of both blocks, which need not be there.
  static std::pair<std::size_t, std::size_t> place(const checkpoint::model_config& c, const sizes& s, workspace& w,
                                                   std::byte* memory, std::byte* host) {
    execution::simt::layout on_device(memory), on_host(host);
    const auto n = static_cast<std::size_t>(s.tokens);
    const auto size = [](int a, int b = 1) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
    const std::size_t rows_of_logits = std::min(n, std::size_t{logit_rows}), v = size(c.vocabulary_size);
    w.x_ = on_device.take<float>(n * size(c.width));
    w.normed_ = on_device.take<T>(n * size(c.width));
    w.qkv_ = on_device.take<T>(n * size(c.heads + 2 * c.kv_heads, c.head_size));
    w.mixed_ = on_device.take<T>(n * size(c.heads, c.head_size));
    w.added_ = on_device.take<T>(n * size(c.width));
    w.gate_up_ = on_device.take<T>(n * size(c.feed_forward_width, 2));
    w.hidden_ = on_device.take<T>(n * size(c.feed_forward_width));
    w.products_ = on_device.take<float>(s.product_bytes / sizeof(float));
    w.logits_ = on_device.take<float>(rows_of_logits * v);
    w.token_ = on_device.take<int>(1);
    w.rule_ = on_device.take<decoding::cuda::sample_row>(1);
    w.upload_ = on_device.take<std::byte>(s.upload_bytes);
    w.host_upload_ = on_host.take<std::byte>(s.upload_bytes);
    w.host_logits_ = on_host.take<float>(rows_of_logits * v);
    w.host_token_ = on_host.take<int>(1);
    w.host_rule_ = on_host.take<decoding::cuda::sample_row>(1);
    return {on_device.used(), on_host.used()};
  }

  /// Attention has a kernel for reads of many tokens where keys and values are of the activations' type.
  static constexpr bool reads_long = std::is_same_v<T, C>;

  /// Where the parts of an upload for `rows` rows begin. Sequences are those of decode steps, [layers, rows], or a long read's, [layers].
  struct upload_parts {
    std::size_t tokens = 0, turns = 0, places = 0, sequences = 0, bytes = 0;
  };
  static upload_parts upload_layout(const checkpoint::model_config& c, int rows, bool is_long) {
    execution::simt::layout l;
    const auto n = static_cast<std::size_t>(rows);
    const auto next = [&](std::size_t bytes) {
      const std::size_t at = l.used();
      (void)l.take<std::byte>(bytes);
      return at;
    };
    upload_parts p;
    p.tokens = next(n * sizeof(int));
    p.turns = next(n * static_cast<std::size_t>(c.rope.rotary_size) * sizeof(float));
    p.places = next(n * sizeof(layers::cuda::cache_place<C>));
    p.sequences = next(static_cast<std::size_t>(c.layers) * (is_long ? sizeof(long_read) : n * sizeof(sequence)));
    p.bytes = l.used();
    return p;
  }

  // --- a pass ---

  /// What the kernels of a pass are started with.
  struct pass {
    int rows = 0;
    int splits = 0;        ///< of one query, the most
    bool is_step = true;   ///< of a token a sequence, few enough: recorded as a graph, with the logits
    bool is_long = false;  ///< of one sequence, part of a read of more than few_tokens
    attention::cuda::prefill_plan long_plan;
    int outputs = 0;            ///< rows that go through the whole of the last layer
    std::vector<int> contexts;  ///< [rows]: of the sequence, which on a ring bounds what it sees
    std::size_t upload_bytes = 0;
    upload_parts parts;
  };

  [[nodiscard]] kernel_mixer mixer_at(int layer, int context) const {
    if constexpr (windowed) {
      const int own = settings_.windows[static_cast<std::size_t>(layer)];
      return models::detail::add_window<Attention>::with(settings_.attention, ring ? std::min(own, context) : own);
    } else {
      return (void)layer, (void)context, settings_.attention;
    }
  }

  /// Fills the host's part of the upload.
  pass prepare(std::span<const item> items, workspace& w) const {
    const checkpoint::model_config& c = config();
    pass p;
    for (const item& i : items) {
      i.of->cache_.prepare(static_cast<int>(i.tokens.size()));
      p.rows += static_cast<int>(i.tokens.size());
      p.is_step = p.is_step && i.tokens.size() == 1;
    }
    p.outputs = items.size() == 1 ? std::min(items[0].outputs, p.rows) : p.rows;
    if (reads_long && items.size() == 1) {
      const item& i = items[0];
      const int end = std::max(i.length, i.position + p.rows);
      p.is_long = end - i.position > few_tokens || i.of->read_end_ == end;
      i.of->read_end_ = p.is_long && i.position + p.rows < end ? end : 0;
    }
    p.parts = upload_layout(c, p.rows, p.is_long);
    p.upload_bytes = p.parts.bytes;
    auto* const tokens = reinterpret_cast<int*>(w.host_upload_ + p.parts.tokens);
    auto* const turns = reinterpret_cast<float*>(w.host_upload_ + p.parts.turns);
    auto* const places = reinterpret_cast<layers::cuda::cache_place<C>*>(w.host_upload_ + p.parts.places);
    auto* const sequences = reinterpret_cast<sequence*>(w.host_upload_ + p.parts.sequences);
    const std::ptrdiff_t qkv = std::ptrdiff_t{c.heads + 2 * c.kv_heads} * c.head_size,
                         mixed = std::ptrdiff_t{c.heads} * c.head_size;
    std::ptrdiff_t row = 0;
    for (std::size_t n = 0; n < items.size(); ++n) {
      const item& i = items[n];
      for (std::size_t t = 0; t < i.tokens.size(); ++t, ++row) {
        const int position = i.position + static_cast<int>(t);
        tokens[row] = i.tokens[t];
        rotary_.turns(position, i.length, turns + row * c.rope.rotary_size);
        places[row] = i.of->cache_.place(position);
        p.contexts.push_back(i.of->context_);
        for (int layer = 0; !p.is_long && layer < c.layers; ++layer) {
          sequence& s = sequences[layer * p.rows + row];
          s = {w.qkv_ + row * qkv, w.mixed_ + row * mixed, i.of->cache_.view(layer, position + 1)};
          s.index = static_cast<int>(n);
          s.parts = reinterpret_cast<float*>(i.of->parts_.data()) + t * i.of->part_floats_;
          const auto plan =
              attention::cuda::plan_decode(mixer_at(layer, i.of->context_), heads_, std::span<sequence>(&s, 1));
          p.splits = std::max(p.splits, plan.most_splits);
        }
      }
    }
    for (int layer = 0; p.is_long && layer < c.layers; ++layer) {
      const item& i = items[0];
      long_read& s = reinterpret_cast<long_read*>(w.host_upload_ + p.parts.sequences)[layer];
      s = {{w.qkv_, p.rows, mixed, qkv},
           {w.mixed_, p.rows, mixed},
           i.of->cache_.view(layer, i.position + p.rows),
           i.position};
      p.long_plan = attention::cuda::plan_prefill(mixer_at(layer, i.of->context_), heads_, std::span<long_read>(&s, 1));
    }
    return p;
  }

  /// The recorded step for a pass of this form; null, where it comes for the first time. More splits than there are cost next to
  /// nothing, so powers of two serve.
  const typename device::graph* recorded(pass& p, workspace& w) const {
    int splits = 1;
    while (splits < p.splits) splits *= 2;
    p.splits = splits;
    int context = 0;
    if constexpr (ring) {
      context = p.contexts[0];
      for (const int one : p.contexts) {
        if (one != context) return nullptr;  // attention in several calls: not worth it
      }
    }
    for (auto& s : w.steps_) {
      if (s.rows != p.rows || s.splits != p.splits || s.context != context) continue;
      if (!s.graph) s.graph = device_->record([&](auto& q) { (void)run(q, p, w, {}, {}); });
      return &s.graph;
    }
    if (w.steps_.size() == w.steps_.capacity()) w.steps_.clear();
    w.steps_.push_back({p.rows, p.splits, context});
    return nullptr;
  }

  template <class Queue>
  bool run(Queue& q, const pass& p, workspace& w, const std::stop_token& stop, std::span<const tap> taps) const {
    const checkpoint::model_config& c = config();
    const int d = c.head_size, last_first = p.rows - outputs_wanted(p, taps);
    const std::ptrdiff_t rows = p.rows, f = c.feed_forward_width;
    matrix_view<float> x(w.x_, rows, c.width);
    matrix_view<T> normed(w.normed_, rows, c.width), added(w.added_, rows, c.width);
    matrix_view<T> qkv(w.qkv_, rows, std::ptrdiff_t{c.heads + 2 * c.kv_heads} * d);
    matrix_view<T> mixed(w.mixed_, rows, std::ptrdiff_t{c.heads} * d), hidden(w.hidden_, rows, f);
    matrix_view<T> gate_up(w.gate_up_, rows, 2 * f);
    const matrix_view<const float> turns(reinterpret_cast<const float*>(w.upload_ + p.parts.turns), rows,
                                         c.rope.rotary_size);
    const auto* const places = reinterpret_cast<const layers::cuda::cache_place<C>*>(w.upload_ + p.parts.places);
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

    const auto* const tokens = reinterpret_cast<const int*>(w.upload_ + p.parts.tokens);
    if (weights_.embedding != nullptr) {
      q.template launch<layers::cuda::embedding>({tokens, weights_.embedding, weights_.embedding_format, x});
    } else {
      (void)with_weights(products(), weights_.packed_embedding, [&](auto table) {
        if constexpr (requires { table.value(0, 0); })
          q.template launch<layers::cuda::packed_embedding<decltype(table)>>({tokens, table, x});
      });
    }
    tap_here(0);
    for (int layer = 0; layer < c.layers; ++layer) {
      if (stop.stop_requested()) return false;
      const device_block& b = weights_.blocks[static_cast<std::size_t>(layer)];
      norm(b.mixer_norm);
      product(q, b.query_key_value, normed, qkv, w);
      if (b.query_norm != nullptr) {
        const auto key = qkv.middle_columns(mixed.columns, std::ptrdiff_t{c.kv_heads} * d);
        q.template launch<layers::cuda::head_rms_norm<T>>({qkv, b.query_norm, c.norm_epsilon, c.heads, d});
        q.template launch<layers::cuda::head_rms_norm<T>>({key, b.key_norm, c.norm_epsilon, c.kv_heads, d});
      }
      q.template launch<layers::cuda::rotate_and_store_tokens<T, C>>(
          {qkv, turns, places, layer, c.heads, c.kv_heads, d, c.rope.rotary_size, c.rope.interleaved});
      attend(q, p, layer, w);
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
    std::ptrdiff_t first = 0;
    for (const device_matrix& m : l.weights) {
      const matrix_view<Out> part = out.middle_columns(first, m.rows);
      first += m.rows;
      (void)with_weights(products(), m, [&](auto weights) {
        const quantization::cuda::product_args<decltype(weights), T, Out> args{
            x, weights, part, quantization::cuda::plan_matmul(x, weights, part, device_->limits()), w.products_};
        quantization::cuda::start_matmul(
            args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
      });
    }
    if (l.bias != nullptr) q.template launch<layers::cuda::add<Out, float>>({out, {l.bias, 1, out.columns}});
  }

  /// Attention of each row of the pass over what it sees.
  template <class Queue>
  void attend(Queue& q, const pass& p, int layer, workspace& w) const {
    if constexpr (reads_long) {
      if (p.is_long) {
        const attention::cuda::prefill_args<kernel_mixer, T, view> args{
            mixer_at(layer, p.contexts[0]), heads_,
            reinterpret_cast<const long_read*>(w.upload_ + p.parts.sequences) + layer, p.long_plan};
        return with_head_size([&](auto size) {
          q.template launch<attention::cuda::prefill<kernel_mixer, T, view, decltype(size)::value>>(args);
        });
      }
    }
    const auto* const sequences =
        reinterpret_cast<const sequence*>(w.upload_ + p.parts.sequences) + std::ptrdiff_t{layer} * p.rows;
    for (int first = 0; first < p.rows;) {
      // Sequences of unlike context see windows of unlike width on a ring: each run of equal ones is one call.
      const int context = p.contexts[static_cast<std::size_t>(first)];
      int end = ring ? first + 1 : p.rows;
      while (end < p.rows && p.contexts[static_cast<std::size_t>(end)] == context) ++end;
      attention::cuda::decode_plan plan;
      plan.sequences = end - first, plan.most_splits = p.splits;
      const attention::cuda::decode_args<kernel_mixer, T, view> args{mixer_at(layer, context), heads_,
                                                                     sequences + first, plan, nullptr};
      with_head_size([&](auto size) {
        constexpr int head = decltype(size)::value;
        using attention::cuda::decode_split;
        const int group = heads_.heads / heads_.kv_heads;
        if (group == 1) {
          q.template launch<decode_split<kernel_mixer, T, view, head, 1>>(args);
        } else if (group <= 4) {
          q.template launch<decode_split<kernel_mixer, T, view, head, 4>>(args);
        } else {
          q.template launch<decode_split<kernel_mixer, T, view, head, 8>>(args);
        }
        q.template launch<attention::cuda::decode_merge<kernel_mixer, T, view, head>>(args);
      });
      first = end;
    }
  }
  template <class F>
  void with_head_size(const F& f) const {
    [&]<int... Sizes>(std::integer_sequence<int, Sizes...>) {
      (void)((heads_.head_size == Sizes ? (f(std::integral_constant<int, Sizes>()), true) : false) || ...);
    }
    (typename Execution::head_sizes());
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
  layers::rotary_embedding rotary_;
  attention::head_layout heads_;
  device_weights<device> weights_;
  std::uint64_t fingerprint_ = 0;
};

}  // namespace effinfer::inline v0::models::cuda
