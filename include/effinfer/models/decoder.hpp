#pragma once
// The decoder-only transformer block that Llama, Mistral, Qwen and the linear-attention model share:
//
//   x += mixer_output(mixer(rotary(norm(query)), rotary(norm(key)), value))     with query, key, value of rms_norm(x)
//   x += down(silu(gate(y)) * up(y))                                            with y = rms_norm(x)
//
// Source: Touvron et al., "LLaMA" (2023), section 2.2, and each model's report for its additions. Letters: T tokens of a pass,
// E width, H heads, K kv heads, D head size, F feed-forward width, V vocabulary.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/layers/elementwise.hpp>
#include <effinfer/layers/rms_norm.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/fingerprint.hpp>
#include <effinfer/models/mixer.hpp>
#include <effinfer/models/weights.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <memory_resource>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

/// A decoder with its weights; constant after `load`, shared by any number of sessions and threads. This is the floor for
/// logits: no text, no sampling.
///
/// `Mixer` (models/mixer.hpp) holds the attention policy and what it remembers; `Quantization` says how weights are stored.
///
/// Exact: the hidden state of a token is bit for bit the same however a sequence is cut into passes, whatever else is in
/// the pass, and on any number of threads; for the tokens of a prompt (item::prompt), among passes of such.
template <class Mixer, class Quantization>
class decoder {
 public:
  using state = typename Mixer::state;
  using mixer_settings = typename Mixer::settings;
  /// True where a session may go on beyond its context, letting go of the oldest tokens.
  static constexpr bool slides = Mixer::slides;
  /// Tokens of a tree that a pass reads, at most.
  static constexpr int tree_tokens = std::numeric_limits<int>::max();

  /// One sequence's part of a pass: `tokens` go behind the `position` tokens that `of` holds.
  struct item {
    state* of = nullptr;
    std::span<const int> tokens;
    int position = 0;
    int length = 0;  ///< tokens of the sequence behind the whole prompt that this pass is a part of (for dynamic_ntk)
    int outputs = std::numeric_limits<int>::max();  ///< how many of the last tokens need logits
    /// Of a tree of guesses: how many of the pass's tokens lead to each (token_tree.hpp), so that its position is
    /// `position + depths[t]`; such a pass changes nothing until `keep`. Empty: one token behind the other.
    std::span<const int> depths = {};
    /// Tokens of a prompt, which products of integer weights may meet in bf16 (quantization/matmul.hpp: on AMX), and whose attention may
    /// be that of bf16 parts (attention/cpu/softmax.hpp). A pass takes all its items so, or none: where one says no.
    bool prompt = false;
    /// Of a tree: takes the keys and values of all layers for `keep`, where `kept_rows` wants any. Shapes: [kept_rows, 2 K D].
    matrix_view<float> kept = {};
  };

  /// Hands out the residual state behind the first `layers` layers (0: the embedding), before any norm, for the last out.rows
  /// tokens of a pass. Shapes: out [n, E], n at most the tokens of the pass.
  struct tap {
    int layers = 0;
    matrix_view<float> out;
  };

  /// Scratch memory for passes of up to `tokens` tokens; one thread at a time.
  class workspace {
   public:
    workspace() = default;
    workspace(const checkpoint::model_config& config, int tokens);
    /// How many it is for; 0 for none.
    [[nodiscard]] int tokens() const { return tokens_; }

   private:
    friend decoder;
    int tokens_ = 0;
    bool prompt_ = false;  ///< of the pass that it holds
    std::vector<float> floats_;
    std::vector<std::byte> product_, hidden_;
    std::vector<float> logits_;
    matrix_view<float> x_, normed_, query_, key_, value_, mixed_, turns_;
  };

  static decoder load(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings,
                      const Quantization& policy, const execution::cpu& where, const weight_options& options) {
    return decoder(std::move(files), std::move(settings), policy, where, options);
  }

  [[nodiscard]] const checkpoint::model_config& config() const { return files_->config(); }
  [[nodiscard]] const checkpoint::model_files& files() const { return *files_; }
  [[nodiscard]] const execution::cpu::context& execution() const { return *execution_; }
  /// The CPU, wherever the model runs: for what drafters compute of their own.
  [[nodiscard]] const execution::cpu::context& host() const { return *execution_; }
  [[nodiscard]] const decoder_weights& weights() const { return weights_; }
  /// A number that differs between models and between policies whose sessions can't be exchanged.
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }

  /// What one sequence of up to `context_tokens` tokens remembers, empty, for passes of up to `pass_tokens`.
  [[nodiscard]] state make_state(int context_tokens, int pass_tokens,
                                 std::pmr::memory_resource* from = std::pmr::get_default_resource()) const {
    return state(config(), settings_, context_tokens, pass_tokens, from);
  }
  static std::uint64_t state_bytes(const checkpoint::model_config& config, const mixer_settings& settings,
                                   int context_tokens, int pass_tokens) {
    return state::bytes(config, settings, context_tokens, pass_tokens);
  }

  [[nodiscard]] workspace make_workspace(int tokens) const { return workspace(config(), tokens); }
  static std::uint64_t workspace_bytes(const checkpoint::model_config& config, int tokens) {
    return (static_cast<std::uint64_t>(tokens) * floats_per_token(config) +
            static_cast<std::uint64_t>(std::min(tokens, logit_rows)) *
                static_cast<std::uint64_t>(config.vocabulary_size)) *
               sizeof(float) +
           product_bytes(config, tokens) + hidden_bytes(config, tokens);
  }
  /// As many rows of logits a workspace holds: one product for so many is far cheaper than a product each.
  static constexpr int logit_rows = 8;

  /// Runs all layers over the tokens of `items` (together at most the workspace's). Afterwards `logits` gives the logits behind any
  /// of them that `outputs` counts: rows are counted through the items in order. The caller has checked ids and room.
  ///
  /// `taps` are filled on the way; without any the pass costs what it does without them.
  /// Returns false, with the states as before, if `stop` asked for it: it is looked at before every layer.
  bool forward(std::span<const item> items, workspace& w, const std::stop_token& stop,
               std::span<const tap> taps = {}) const {
    embed(items, w, taps);
    if (!run_layers(items, w, 0, config().layers, stop, taps)) return false;
    commit(items);
    return true;
  }

  // The steps of `forward`, for passes that leave layers out (early exit, self-speculation). Between `embed` and `commit` the
  // workspace holds a residual state for each row of the pass.

  /// Looks up the embeddings and rotary turns of `items`: the states become the embeddings.
  void embed(std::span<const item> items, workspace& w, std::span<const tap> taps = {}) const;
  /// Takes the states through layers [first, last), which write their keys and values. Layers between two calls are skipped: the
  /// states go past them unchanged, and what they remember lacks these tokens (see `fill_layers`). False as for `forward`.
  bool run_layers(std::span<const item> items, workspace& w, int first, int last, const std::stop_token& stop = {},
                  std::span<const tap> taps = {}) const;
  /// Gives layers [first, last) the keys and values of the states as they are, without taking the states through them: later
  /// tokens then find in these layers what a token that left early would have been. Source: Schuster et al., "Confident
  /// Adaptive Language Modeling" (2022), section 3.2 (hidden-state propagation). Costs two small products a layer.
  void fill_layers(std::span<const item> items, workspace& w, int first, int last) const;
  /// The tokens of `items` are now part of their sequences; those of a tree are not, but for `keep`.
  void commit(std::span<const item> items) const {
    for (const item& i : items) {
      if (i.depths.empty()) i.of->commit(static_cast<int>(i.tokens.size()));
    }
  }
  /// The tokens `path` of a tree that the last pass of `of` read, each the parent of the next, from one of depth 0 on, are now
  /// part of the sequence: bit for bit as if they alone had been read. `tokens`: of the whole tree.
  void keep(state& of, matrix_view<const float> kept, int tokens, std::span<const int> path) const {
    for (int layer = 0; kept.rows > 0 && !path.empty() && layer < config().layers; ++layer)
      mixer_.keep(*execution_, layer, of, kept.middle_rows(std::ptrdiff_t{layer} * tokens, tokens), path);
    of.commit(static_cast<int>(path.size()));
  }
  /// Rows that `item.kept` needs for a tree of these depths, of 2 K D numbers each; none where the cache holds what is needed.
  [[nodiscard]] std::ptrdiff_t kept_rows(std::span<const int> depths) const {
    return Mixer::keeps_rows(depths) ? static_cast<std::ptrdiff_t>(depths.size()) * config().layers : 0;
  }
  /// The states of rows [first, first + count) as they stand. Shapes: [count, E]. What they are changed to goes on.
  matrix_view<float> states(workspace& w, int first, int count) const { return w.x_.middle_rows(first, count); }

  /// Logits [V] behind row `row` of the last pass; valid until the next call with this workspace.
  std::span<const float> logits(workspace& w, int row) const {
    return {logits(w, row, 1).data, static_cast<std::size_t>(config().vocabulary_size)};
  }
  /// Logits [count, V] behind rows [first, first + count), count <= logit_rows; valid until the next call with this workspace.
  matrix_view<float> logits(workspace& w, int first, int count) const {
    const matrix_view<float> out(w.logits_.data(), count, config().vocabulary_size);
    logits(w, first, out);
    return out;
  }
  /// Logits behind rows [first, first + out.rows) of the last pass. Shapes: out [rows, V].
  void logits(workspace& w, int first, matrix_view<float> out) const {
    const auto x = w.x_.middle_rows(first, out.rows);
    const auto normed = w.normed_.middle_rows(first, out.rows);
    normed_product(x, weights_.final_norm, normed, w, {{&weights_.output, out}}, false);
  }
  /// The same by way of an exit: the states x are first mapped to x + map x (models/exit_maps.hpp).
  matrix_view<float> logits(workspace& w, const linear_layer& map, int first, int count) const {
    const auto x = w.x_.middle_rows(first, count), normed = w.normed_.middle_rows(first, count);
    for (std::ptrdiff_t r = 0; r < count; ++r) std::copy_n(x.row(r), x.columns, normed.row(r));
    quantization::activation_kinds kinds;
    kinds.add(map.weight.format, execution_->set());
    const quantization::product one{&map.weight, normed, map.bias_or_null(), true};
    quantization::matmul(*execution_, quantization::prepare(*execution_, x, w.product_, kinds), std::span(&one, 1));
    const matrix_view<float> out(w.logits_.data(), count, config().vocabulary_size);
    normed_product(normed, weights_.final_norm, normed, w, {{&weights_.output, out}}, false);
    return out;
  }
  /// What the final norm makes of states: the feature that Medusa, EAGLE and MTP drafters go on from. Shapes: both [n, E].
  void features(matrix_view<const float> states, matrix_view<float> out) const {
    layers::rms_norm(*execution_, states, weights_.final_norm.data(), config().norm_epsilon, out);
  }

 private:
  decoder(std::shared_ptr<const checkpoint::model_files> files, mixer_settings settings, const Quantization& policy,
          const execution::cpu& where, const weight_options& options)
      : files_(std::move(files)),
        settings_(std::move(settings)),
        execution_(std::make_unique<execution::cpu::context>(where)),
        weights_(weight_loader<Quantization>(*files_, policy).load(*execution_, options)),
        mixer_(config(), settings_) {
    models::fingerprint of(config());
    of.mix(weights_.bytes_per_token);
    of.mix(Mixer::kind);
    // A sample of the weights themselves tells two models of one shape apart.
    for (const block_weights& b : weights_.blocks)
      of.mix(std::span(b.query.weight.data, static_cast<std::size_t>(b.query.weight.panel_bytes)));
    fingerprint_ = of.value();
  }

  static std::uint64_t floats_per_token(const checkpoint::model_config& c) {
    const auto e = static_cast<std::uint64_t>(c.width);
    const auto q = static_cast<std::uint64_t>(c.heads) * static_cast<std::uint64_t>(c.head_size);
    const auto kv = static_cast<std::uint64_t>(c.kv_heads) * static_cast<std::uint64_t>(c.head_size);
    return 2 * e + 2 * q + 2 * kv + static_cast<std::uint64_t>(c.rope.rotary_size);
  }
  static std::uint64_t product_bytes(const checkpoint::model_config& c, int tokens) {
    const std::ptrdiff_t widest = std::max(c.width, c.heads * c.head_size);
    return quantization::matmul_workspace_bytes<typename Quantization::formats>(tokens, widest);
  }
  static std::uint64_t hidden_bytes(const checkpoint::model_config& c, int tokens) {
    const std::uint64_t floats = static_cast<std::uint64_t>(tokens) * static_cast<std::uint64_t>(c.feed_forward_width);
    return std::max<std::uint64_t>(
        floats * sizeof(float),
        quantization::matmul_workspace_bytes<typename Quantization::formats>(tokens, c.feed_forward_width));
  }

  static std::ptrdiff_t rows_of(std::span<const item> items) {
    std::ptrdiff_t total = 0;
    for (const item& i : items) total += static_cast<std::ptrdiff_t>(i.tokens.size());
    return total;
  }
  /// The states of a pass of `total` rows, behind so many layers, to the taps that want them.
  static void copy_to(std::span<const tap> taps, int layers, const workspace& w, std::ptrdiff_t total) {
    for (const tap& t : taps) {
      if (t.layers != layers) continue;
      for (std::ptrdiff_t r = 0; r < t.out.rows; ++r)
        std::copy_n(w.x_.row(total - t.out.rows + r), t.out.columns, t.out.row(r));
    }
  }

  /// y = x w^T + bias for layers with the same input; y += for one that adds.
  struct output {
    const linear_layer* layer;
    matrix_view<float> y;
    bool adds = false;
  };
  [[nodiscard]] quantization::activation_kinds kinds_of(std::initializer_list<output> outputs, bool prompt) const {
    quantization::activation_kinds kinds;
    for (const output& o : outputs) kinds.add(o.layer->weight.format, execution_->set(), prompt);
    return kinds;
  }
  void product(const quantization::prepared_activations& x, std::initializer_list<output> outputs) const {
    std::array<quantization::product, 3> products{};
    std::size_t count = 0;
    for (const output& o : outputs) products[count++] = {&o.layer->weight, o.y, o.layer->bias_or_null(), o.adds};
    quantization::matmul<typename Quantization::formats>(*execution_, x, std::span(products.data(), count));
  }

  /// rms_norm(x) for products of these kinds; `normed` is scratch.
  [[nodiscard]] quantization::prepared_activations norm(matrix_view<const float> x, const std::vector<float>& weight,
                                                        matrix_view<float> normed, workspace& w,
                                                        quantization::activation_kinds kinds) const {
    const auto normed_row = [&](std::ptrdiff_t t, float* to) {
      layers::rms_norm(execution_->set(), x.row(t), weight.data(), x.columns, config().norm_epsilon, to);
      return to;
    };
    return quantization::prepare_rows(*execution_, normed_row, normed, w.product_, kinds);
  }
  void normed_product(matrix_view<const float> x, const std::vector<float>& weight, matrix_view<float> normed,
                      workspace& w, std::initializer_list<output> outputs, bool prompt) const {
    product(norm(x, weight, normed, w, kinds_of(outputs, prompt)), outputs);
  }

  /// x += down(silu(gate(normed)) * up(normed)).
  void feed_forward(const block_weights& b, matrix_view<float> x, matrix_view<float> normed, workspace& w) const {
    // The one format of `down` wants floats or what is prepared, never both: they share their memory.
    const matrix_view<float> floats(reinterpret_cast<float*>(w.hidden_.data()), x.rows, config().feed_forward_width);
    const auto prepared =
        norm(x, b.feed_forward_norm, normed, w, kinds_of({{&b.gate, floats}, {&b.up, floats}}, w.prompt_));
    const auto hidden = quantization::matmul<typename Quantization::formats>(
        *execution_, prepared, {&b.gate.weight, floats, b.gate.bias_or_null()},
        {&b.up.weight, floats, b.up.bias_or_null()},
        [this](matrix_view<const float> gate, matrix_view<const float> up, matrix_view<float> out) {
          layers::swiglu(execution_->set(), gate, up, out);
        },
        w.hidden_, kinds_of({{&b.down, x}}, w.prompt_));
    product(hidden, {{&b.down, x, true}});
  }

  std::shared_ptr<const checkpoint::model_files> files_;
  mixer_settings settings_;
  std::unique_ptr<execution::cpu::context> execution_;
  decoder_weights weights_;
  Mixer mixer_;
  std::uint64_t fingerprint_ = 0;
};

template <class Mixer, class Quantization>
decoder<Mixer, Quantization>::workspace::workspace(const checkpoint::model_config& c, int tokens) : tokens_(tokens) {
  const auto t = static_cast<std::size_t>(tokens);
  floats_.resize(t * floats_per_token(c));
  product_.resize(product_bytes(c, tokens));
  hidden_.resize(hidden_bytes(c, tokens));
  logits_.resize(static_cast<std::size_t>(std::min(tokens, logit_rows)) * static_cast<std::size_t>(c.vocabulary_size));
  float* next = floats_.data();
  const auto take = [&](std::ptrdiff_t columns) {
    const matrix_view<float> view(next, tokens, columns);
    next += tokens * columns;
    return view;
  };
  const std::ptrdiff_t q = std::ptrdiff_t{c.heads} * c.head_size, kv = std::ptrdiff_t{c.kv_heads} * c.head_size;
  x_ = take(c.width);
  normed_ = take(c.width);
  query_ = take(q);
  mixed_ = take(q);
  key_ = take(kv);
  value_ = take(kv);
  turns_ = take(c.rope.rotary_size);
}

template <class Mixer, class Quantization>
void decoder<Mixer, Quantization>::embed(std::span<const item> items, workspace& w, std::span<const tap> taps) const {
  std::ptrdiff_t total = 0;
  w.prompt_ = std::all_of(items.begin(), items.end(), [](const item& i) { return i.prompt; });
  for (const item& i : items) {
    for (std::size_t t = 0; t < i.tokens.size(); ++t, ++total) {
      weights_.look_up(i.tokens[t], w.x_.row(total));
      const auto* rotary = mixer_.rotary();
      if (rotary == nullptr) continue;
      const int at = i.position + (i.depths.empty() ? static_cast<int>(t) : i.depths[t]);
      rotary->turns(at, i.depths.empty() ? i.length : at + 1, w.turns_.row(total));
    }
  }
  copy_to(taps, 0, w, total);
}

template <class Mixer, class Quantization>
bool decoder<Mixer, Quantization>::run_layers(std::span<const item> items, workspace& w, int first_layer,
                                              int last_layer, const std::stop_token& stop,
                                              std::span<const tap> taps) const {
  const checkpoint::model_config& c = config();
  const auto& exec = *execution_;
  const std::ptrdiff_t total = rows_of(items);
  const auto turns = w.turns_.middle_rows(0, total), query = w.query_.middle_rows(0, total);
  const auto key = w.key_.middle_rows(0, total), value = w.value_.middle_rows(0, total);
  auto x = w.x_.middle_rows(0, total), normed = w.normed_.middle_rows(0, total);
  auto mixed = w.mixed_.middle_rows(0, total);

  for (int layer = first_layer; layer < last_layer; ++layer) {
    if (stop.stop_requested()) {
      for (const item& i : items) {
        if (i.depths.empty()) i.of->abandon();
      }
      return false;
    }
    const block_weights& b = weights_.blocks[static_cast<std::size_t>(layer)];
    normed_product(x, b.mixer_norm, normed, w, {{&b.query, query}, {&b.key, key}, {&b.value, value}}, w.prompt_);
    if (c.qk_norm) {
      layers::head_rms_norm(exec, query, c.head_size, b.query_norm.data(), c.norm_epsilon);
      layers::head_rms_norm(exec, key, c.head_size, b.key_norm.data(), c.norm_epsilon);
    }
    mixer_.mix(exec, layer, items, w.prompt_, turns, query, key, value, mixed);
    if (layer + 1 == c.layers && items.size() == 1) {
      // Nobody reads the last layer's outputs but those whose logits or states are wanted.
      std::ptrdiff_t wanted = items[0].outputs;
      for (const tap& t : taps) wanted = t.layers == c.layers ? std::max(wanted, t.out.rows) : wanted;
      wanted = std::min(wanted, total);
      for (auto* rows : {&x, &normed, &mixed}) *rows = rows->middle_rows(total - wanted, wanted);
    }
    const std::initializer_list<output> sum = {{&b.mixer_output, x, true}};
    product(quantization::prepare(exec, mixed, w.product_, kinds_of(sum, w.prompt_)), sum);
    feed_forward(b, x, normed, w);
    copy_to(taps, layer + 1, w, total);
  }
  return true;
}

template <class Mixer, class Quantization>
void decoder<Mixer, Quantization>::fill_layers(std::span<const item> items, workspace& w, int first, int last) const {
  const checkpoint::model_config& c = config();
  const auto& exec = *execution_;
  const std::ptrdiff_t total = rows_of(items);
  const auto x = w.x_.middle_rows(0, total), normed = w.normed_.middle_rows(0, total);
  const auto turns = w.turns_.middle_rows(0, total);
  const auto key = w.key_.middle_rows(0, total), value = w.value_.middle_rows(0, total);
  for (int layer = first; layer < last; ++layer) {
    const block_weights& b = weights_.blocks[static_cast<std::size_t>(layer)];
    normed_product(x, b.mixer_norm, normed, w, {{&b.key, key}, {&b.value, value}}, w.prompt_);
    if (c.qk_norm) layers::head_rms_norm(exec, key, c.head_size, b.key_norm.data(), c.norm_epsilon);
    mixer_.remember(exec, layer, items, turns, w.query_.middle_rows(0, total), key, value,
                    w.mixed_.middle_rows(0, total));
  }
}

}  // namespace effinfer::inline v0::models
