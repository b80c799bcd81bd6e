#pragma once
// Drafters of one layer that go on from the features of a model: EAGLE, EAGLE-3 and DeepSeek-V3's multi-token prediction, from
// their published checkpoint layouts. The feature f_t is what the model knows behind token t; the drafter makes from it and
// token t + 1 the feature g_{t+1}, from that a guess at token t + 2, and goes on from its own features:
//
//   eagle    x = fc [embed(token); f] + b             g = layer(x), no norm in front of its attention    head(g)
//   mtp      x = eh_proj [enorm(embed); hnorm(f)]     g = layer(x)                                       head(norm(g))
//   eagle3   g = f + attention([norm(embed); norm(f)]), then the feed-forward                            lm_head(norm(g))
//
// eagle and mtp take f from behind the model's final norm and use its embedding and output head; eagle3 joins the states
// behind three of its layers, f = fc [a; b; c], and has a head of its own over some of the vocabulary.
// Sources: Li et al., "EAGLE" (2024), section 3; "EAGLE-3" (2025), section 3.1; DeepSeek-AI, "DeepSeek-V3" (2024), section 2.2.

#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/checkpoint/config_json.hpp>
#include <effinfer/checkpoint/drafter_files.hpp>
#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/layers/elementwise.hpp>
#include <effinfer/layers/rms_norm.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/owned_linear.hpp>
#include <effinfer/quantization/matmul.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

namespace detail {

/// A drafted token sees what was there before the draft, and its own ancestors.
struct draft_tree_mask : attention::no_hooks {
  const std::uint64_t* ancestors = nullptr;  ///< [nodes]: bit j of entry i: node i sees node j (itself too)
  int base = 0;                              ///< position in the cache of node 0

  EFFINFER_HOST_DEVICE constexpr bool visible(attention::position p) const {
    return p.key < base || (ancestors[p.query - base] >> (p.key - base) & 1) != 0;
  }
  EFFINFER_HOST_DEVICE constexpr bool all_visible(attention::tile t) const { return t.key_end <= base; }
};

}  // namespace detail

/// A drafter's weights; constant after `load`, shared by sessions.
///
/// What belongs to one sequence is a `state`. Use: `advance` reads the tokens and features that the model has made sure of,
/// `expand` adds guesses, node by node of a tree, and the next `advance` forgets them.
class feature_drafter {
 public:
  enum class kind { eagle, eagle3, mtp };
  /// The most nodes of a draft.
  static constexpr int most_nodes = 64;

  class state;

  /// From a folder with config.json and model.safetensors. Names: EAGLE's `fc.*`, `layers.0.*`; EAGLE-3's `fc.*`, `midlayer.*`, `norm`,
  /// `lm_head`, `d2t`; DeepSeek's `model.layers.{n}.` with `enorm`, `hnorm`, `eh_proj`, `shared_head.norm` and a Llama layer.
  /// `weights` says how the matrices are kept.
  /// Errors: `missing` (a tensor or field), `mismatch` (a shape, or another width or vocabulary than the model's), `unsupported` (none
  /// of these layouts, or a format), and those of drafter_files.
  static feature_drafter load(const std::string& folder, const checkpoint::model_config& model,
                              const execution::cpu::context& exec, const quantization::at_load& weights = {}) {
    return feature_drafter(checkpoint::drafter_files::open(folder), model, exec, weights);
  }

  [[nodiscard]] kind layout() const { return kind_; }
  /// The model's states that a feature is made of, as numbers of layers: see decoder::tap.
  [[nodiscard]] std::span<const int> feature_layers() const { return feature_layers_; }
  /// Numbers of one token's states, side by side: feature_layers().size() * E.
  [[nodiscard]] int states_width() const { return static_cast<int>(feature_layers_.size()) * model_.width; }
  /// The drafter's own vocabulary: `logits` are of so many tokens.
  [[nodiscard]] int vocabulary_size() const { return vocabulary_; }
  /// The model's token for entry `i` of the drafter's vocabulary.
  [[nodiscard]] int token(int i) const { return tokens_.empty() ? i : tokens_[static_cast<std::size_t>(i)]; }

  /// For a sequence of up to `context_tokens` tokens. Errors: those of the cache.
  [[nodiscard]] state make_state(int context_tokens) const;

  /// Reads the pairs that the model has made sure of and forgets all guesses: token i of `tokens` is the one behind row i of `states`
  /// (that is, the i-th next token and what the model's `feature_layers` knew in front of it). Node 0 is then the last of them.
  ///
  /// `Formats`: what its products are compiled for. Shapes: tokens [T], T >= 1; states [T, states_width()]. Errors:
  /// `invalid_argument` (shapes), `context_overflow`, and those of `matmul`.
  template <class Formats = quantization::all_formats>
  void advance(state& s, const decoder_weights& target, const execution::cpu::context& exec,
               std::span<const int> tokens, matrix_view<const float> states) const;
  /// Adds a node for each token, behind node parents[i] of this draft. Nodes are numbered on: the first is `nodes()`.
  ///
  /// `Formats`: as above. Shapes: both [T], 1 <= T. Errors: `invalid_argument` (a parent that isn't there, more than most_nodes in
  /// all).
  template <class Formats = quantization::all_formats>
  void expand(state& s, const decoder_weights& target, const execution::cpu::context& exec, std::span<const int> tokens,
              std::span<const int> parents) const;

 private:
  struct layer {
    std::vector<float> input_norm, hidden_norm, feed_forward_norm;  // empty where the layout has none
    owned_linear query, key, value, output, gate, up, down;
  };
  struct product_of {
    const linear_layer* layer;
    matrix_view<float> y;
  };

  feature_drafter(const checkpoint::drafter_files& files, const checkpoint::model_config& model,
                  const execution::cpu::context& exec, const quantization::at_load& weights);
  void read_tokens(const checkpoint::drafter_files& files, int model_vocabulary);

  /// The layer over `tokens` and the features in s.feature_, at the given positions, into nodes' hidden rows.
  template <class Formats>
  void run(state& s, const decoder_weights& target, const execution::cpu::context& exec, std::span<const int> tokens,
           std::span<const int> positions, bool tree) const;
  template <class Formats>
  void make_logits(state& s, const decoder_weights& target, const execution::cpu::context& exec,
                   matrix_view<const float> hidden) const;
  template <class Formats>
  void product(state& s, const execution::cpu::context& exec, matrix_view<const float> x,
               std::initializer_list<product_of> outputs) const;

  checkpoint::model_config model_;   // of the target
  checkpoint::model_config config_;  // of the layer
  kind kind_ = kind::eagle;
  std::vector<int> feature_layers_;
  owned_linear fuse_;                 // fc or eh_proj
  std::vector<float> enorm_, hnorm_;  // mtp
  layer layer_;
  std::vector<float> final_norm_;  // in front of the head; empty for eagle
  owned_linear head_;              // eagle3
  int vocabulary_ = 0;
  std::vector<int> tokens_;  // eagle3: the model's tokens, by the drafter's
  layers::rotary_embedding rotary_;
};

/// One sequence's keys and values of the drafter, its draft, and scratch memory. Copying it forks it.
class feature_drafter::state {
 public:
  /// Pairs read by `advance`.
  [[nodiscard]] int length() const { return committed_; }
  /// Forgets the pairs from `length` on, and all guesses. Errors: `invalid_argument`.
  void truncate(int length) {
    if (length < 0 || length > committed_) {
      throw error(error_code::invalid_argument, "feature_drafter::state.truncate",
                  std::to_string(length) + " is not in [0, " + std::to_string(committed_) + "]");
    }
    cache_.truncate(length);
    committed_ = length;
    nodes_ = 0;
  }
  /// Nodes of the draft, node 0 included.
  [[nodiscard]] int nodes() const { return nodes_; }
  /// Logits [vocabulary_size()] behind the i-th of the nodes that the last `expand` added (of `advance`: behind node 0, i = 0).
  [[nodiscard]] std::span<const float> logits(int i) const {
    return {logits_.data() + static_cast<std::size_t>(i) * static_cast<std::size_t>(vocabulary_),
            static_cast<std::size_t>(vocabulary_)};
  }

 private:
  friend feature_drafter;
  state(const feature_drafter& d, int context);

  [[nodiscard]] matrix_view<float> rows(std::vector<float>& of, std::ptrdiff_t count) const {
    return {of.data(), count, static_cast<std::ptrdiff_t>(of.size()) / most_nodes};
  }

  kv_cache::contiguous<float>::cache cache_;
  int vocabulary_;
  int committed_ = 0, nodes_ = 0;
  std::array<int, most_nodes> position_{};             // of each node
  std::array<std::uint64_t, most_nodes> ancestors_{};  // node i >= 1 as bit i - 1; node 0 is seen by all
  std::vector<float> hidden_;                          // [most_nodes, E], of each node
  // Scratch, most_nodes rows each.
  std::vector<float> feature_, joined_, x_, normed_, query_, key_, value_, mixed_, gate_, turns_, logits_;
  std::vector<std::byte> product_;
};

inline feature_drafter::feature_drafter(const checkpoint::drafter_files& files, const checkpoint::model_config& model,
                                        const execution::cpu::context& exec, const quantization::at_load& weights)
    : model_(model) {
  using checkpoint::detail::field_reader;
  const field_reader r(files.config());
  checkpoint::model_config& c = config_;
  c.file = files.path();
  c.width = r.integer("hidden_size", 1, 1 << 20);
  if (c.width != model.width) {
    files.config()
        .at("hidden_size")
        .fail("it is " + std::to_string(c.width) + ", the model (" + model.file + ") has " +
              std::to_string(model.width));
  }
  c.layers = 1;
  c.heads = r.integer("num_attention_heads", 1, 1 << 16);
  c.kv_heads = r.integer("num_key_value_heads", 1, 1 << 16, c.heads);
  c.head_size = r.integer("head_dim", 1, 1 << 16, c.width / c.heads);
  c.feed_forward_width = r.integer("intermediate_size", 1, 1 << 24);
  c.max_positions = r.integer("max_position_embeddings", 1, 1 << 28, 2048);
  c.norm_epsilon = static_cast<float>(r.number("rms_norm_eps", 0.0, 1.0, 1e-6));
  checkpoint::detail::read_rope(r, c);
  checkpoint::detail::check_config(
      c, {"field num_key_value_heads", "field head_dim", "field num_attention_heads", "field decay"});
  rotary_ = layers::rotary_embedding(c.rope);

  const std::int64_t e = c.width, f = c.feed_forward_width;
  const std::int64_t q = std::int64_t{c.heads} * c.head_size, kv = std::int64_t{c.kv_heads} * c.head_size;
  const auto linear = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    return owned_linear(exec, files, name, rows, columns, files.find(name + ".bias") != nullptr, weights);
  };
  const auto norm = [&](const std::string& name) { return detail::float_values(files.at(name + ".weight", {e})); };

  std::string prefix;  // of the layer
  if (files.find("midlayer.self_attn.q_proj.weight") != nullptr) {
    kind_ = kind::eagle3;
    prefix = "midlayer.";
    fuse_ = linear("fc", e, 3 * e);
    feature_layers_ = {2, model.layers / 2, model.layers - 3};  // EAGLE-3's own choice; a config may say another
    if (const auto own = r.find("eagle_config"); own && own->find_set("eagle_aux_hidden_state_layer_ids")) {
      const json::value ids = own->at("eagle_aux_hidden_state_layer_ids");
      if (ids.size() != 3) ids.fail("it has " + std::to_string(ids.size()) + " entries, fc takes 3");
      for (std::size_t i = 0; i < 3; ++i) feature_layers_[i] = static_cast<int>(ids[i].integer(0, model.layers));
    }
    for (const int layers : feature_layers_) {
      if (layers < 0) {
        throw error(error_code::missing,
                    files.path() + "/config.json: field eagle_config.eagle_aux_hidden_state_layer_ids",
                    "it isn't there, and the default wants a model of more layers");
      }
    }
    final_norm_ = norm("norm");
    vocabulary_ = r.integer("draft_vocab_size", 1, model.vocabulary_size, model.vocabulary_size);
    head_ = linear("lm_head", vocabulary_, e);
    read_tokens(files, model.vocabulary_size);
    layer_.hidden_norm = norm(prefix + "hidden_norm");
    layer_.input_norm = norm(prefix + "input_layernorm");
  } else {
    feature_layers_ = {model.layers};
    vocabulary_ = model.vocabulary_size;
    if (files.find("fc.weight") != nullptr) {
      kind_ = kind::eagle;
      prefix = "layers.0.";
      fuse_ = linear("fc", e, 2 * e);
      if (files.find(prefix + "input_layernorm.weight") != nullptr)
        layer_.input_norm = norm(prefix + "input_layernorm");
    } else {
      kind_ = kind::mtp;
      prefix = "model.layers." + std::to_string(model.layers) + ".";
      if (files.find(prefix + "eh_proj.weight") == nullptr) {
        throw error(error_code::unsupported, files.path(),
                    "it is no EAGLE (fc.weight), EAGLE-3 (midlayer.*) or multi-token-prediction (" + prefix +
                        "eh_proj.weight) drafter for this model");
      }
      fuse_ = linear(prefix + "eh_proj", e, 2 * e);
      enorm_ = norm(prefix + "enorm");
      hnorm_ = norm(prefix + "hnorm");
      layer_.input_norm = norm(prefix + "input_layernorm");
      final_norm_ = norm(prefix + "shared_head.norm");
    }
  }
  const std::int64_t inputs = kind_ == kind::eagle3 ? 2 * e : e;
  layer_.query = linear(prefix + "self_attn.q_proj", q, inputs);
  layer_.key = linear(prefix + "self_attn.k_proj", kv, inputs);
  layer_.value = linear(prefix + "self_attn.v_proj", kv, inputs);
  layer_.output = linear(prefix + "self_attn.o_proj", e, q);
  layer_.feed_forward_norm = norm(prefix + "post_attention_layernorm");
  layer_.gate = linear(prefix + "mlp.gate_proj", f, e);
  layer_.up = linear(prefix + "mlp.up_proj", f, e);
  layer_.down = linear(prefix + "mlp.down_proj", e, f);
}

/// `d2t` holds, for each of the drafter's tokens, how far the model's id is from the drafter's.
inline void feature_drafter::read_tokens(const checkpoint::drafter_files& files, int model_vocabulary) {
  if (vocabulary_ == model_vocabulary && files.find("d2t") == nullptr) return;
  const checkpoint::tensor& t = files.at("d2t", {vocabulary_});
  if (t.data.size() != static_cast<std::size_t>(vocabulary_) * sizeof(std::int64_t))
    throw error(error_code::unsupported, t.file + ": tensor d2t", "it must be I64");
  for (int i = 0; i < vocabulary_; ++i) {
    std::int64_t offset = 0;
    std::memcpy(&offset, t.data.data() + static_cast<std::size_t>(i) * sizeof offset, sizeof offset);
    if (offset < -std::int64_t{i} || offset >= std::int64_t{model_vocabulary} - i) {
      throw error(error_code::mismatch, t.file + ": tensor d2t",
                  "entry " + std::to_string(i) + " is no token of the model's vocabulary of " +
                      std::to_string(model_vocabulary));
    }
    tokens_.push_back(static_cast<int>(i + offset));
  }
}

inline feature_drafter::state::state(const feature_drafter& d, int context)
    : cache_({1, d.config_.kv_heads, d.config_.head_size}, context + most_nodes), vocabulary_(d.vocabulary_) {
  const auto& c = d.config_;
  const auto rows = static_cast<std::size_t>(most_nodes), e = static_cast<std::size_t>(c.width);
  const auto size = static_cast<std::size_t>(c.head_size);
  hidden_.resize(rows * e);
  feature_.resize(rows * e);
  joined_.resize(rows * 2 * e);
  x_.resize(rows * e);
  normed_.resize(rows * e);
  query_.resize(rows * static_cast<std::size_t>(c.heads) * size);
  mixed_.resize(query_.size());
  key_.resize(rows * static_cast<std::size_t>(c.kv_heads) * size);
  value_.resize(key_.size());
  gate_.resize(rows * static_cast<std::size_t>(c.feed_forward_width));
  turns_.resize(rows * size);
  const std::ptrdiff_t widest =
      std::max<std::ptrdiff_t>({3 * c.width, c.feed_forward_width, std::ptrdiff_t{c.heads} * c.head_size});
  product_.resize(quantization::matmul_workspace_bytes<>(most_nodes, widest));
}

inline feature_drafter::state feature_drafter::make_state(int context_tokens) const { return {*this, context_tokens}; }

template <class Formats>
void feature_drafter::product(state& s, const execution::cpu::context& exec, matrix_view<const float> x,
                              std::initializer_list<product_of> outputs) const {
  quantization::activation_kinds kinds;
  std::array<quantization::product, 3> products{};
  std::size_t count = 0;
  for (const product_of& o : outputs) {
    kinds.add(o.layer->weight.format, exec.set());
    products[count++] = {&o.layer->weight, o.y, o.layer->bias_or_null()};
  }
  quantization::matmul<Formats>(exec, quantization::prepare(exec, x, s.product_, kinds),
                                std::span(products.data(), count));
}

template <class Formats>
void feature_drafter::run(state& s, const decoder_weights& target, const execution::cpu::context& exec,
                          std::span<const int> tokens, std::span<const int> positions, bool tree) const {
  const auto& c = config_;
  const auto n = static_cast<std::ptrdiff_t>(tokens.size()), e = std::ptrdiff_t{c.width};
  const auto feature = s.rows(s.feature_, n), joined = s.rows(s.joined_, n), x = s.rows(s.x_, n);
  const auto normed = s.rows(s.normed_, n), query = s.rows(s.query_, n), mixed = s.rows(s.mixed_, n);
  const auto key = s.rows(s.key_, n), value = s.rows(s.value_, n), gate = s.rows(s.gate_, n);
  const auto turns = s.rows(s.turns_, n), left = joined.middle_columns(0, e), right = joined.middle_columns(e, e);
  for (std::ptrdiff_t t = 0; t < n; ++t) {
    target.look_up(tokens[static_cast<std::size_t>(t)], left.row(t));
    const int position = positions[static_cast<std::size_t>(t)];
    rotary_.turns(position, position + 1, turns.row(t));
  }
  const auto norm = [&](matrix_view<const float> from, const std::vector<float>& weight, matrix_view<float> to) {
    layers::rms_norm(exec, from, weight.data(), c.norm_epsilon, to);
  };
  const auto copy = [&](matrix_view<const float> from, matrix_view<float> to) {
    for (std::ptrdiff_t t = 0; t < n; ++t) std::copy_n(from.row(t), e, to.row(t));
  };
  matrix_view<const float> input = joined;  // of the attention
  switch (kind_) {
    case kind::eagle3:
      norm(left, layer_.input_norm, left);
      norm(feature, layer_.hidden_norm, right);
      copy(feature, x);
      break;
    case kind::mtp:
      norm(left, enorm_, left);
      norm(feature, hnorm_, right);
      break;
    case kind::eagle: copy(feature, right); break;
  }
  if (kind_ != kind::eagle3) {
    product<Formats>(s, exec, joined, {{&fuse_.layer, x}});
    input = x;
    if (!layer_.input_norm.empty()) {
      norm(x, layer_.input_norm, normed);
      input = normed;
    }
  }
  product<Formats>(s, exec, input,
                   {{&layer_.query.layer, query}, {&layer_.key.layer, key}, {&layer_.value.layer, value}});
  layers::rotate(exec, rotary_, turns, c.head_size, query);
  layers::rotate(exec, rotary_, turns, c.head_size, key);
  const int first = s.cache_.length();
  using view = kv_cache::contiguous<float>::view;
  const view cache = s.cache_.write(exec, 0, key, value);
  const attention::sequence<view> one{query, mixed, cache, first, 0};
  const attention::head_layout heads{c.heads, c.kv_heads, c.head_size,
                                     1.0F / std::sqrt(static_cast<float>(c.head_size))};
  if (tree) {
    detail::draft_tree_mask mask;
    mask.ancestors = s.ancestors_.data() + 1;
    mask.base = s.committed_;
    attention::attend(exec, attention::softmax<detail::draft_tree_mask>(mask), heads, std::span(&one, 1));
  } else {
    attention::attend(exec, attention::softmax<>(), heads, std::span(&one, 1));
  }
  s.cache_.commit(static_cast<int>(n));
  product<Formats>(s, exec, mixed, {{&layer_.output.layer, normed}});
  layers::add(exec, x, normed);
  norm(x, layer_.feed_forward_norm, normed);
  quantization::activation_kinds kinds;
  for (const owned_linear* l : {&layer_.gate, &layer_.up}) kinds.add(l->layer.weight.format, exec.set());
  quantization::matmul<Formats>(exec, quantization::prepare(exec, normed, s.product_, kinds),
                                {&layer_.gate.layer.weight, gate, layer_.gate.layer.bias_or_null()},
                                {&layer_.up.layer.weight, gate, layer_.up.layer.bias_or_null()},
                                [&exec](matrix_view<const float> g, matrix_view<const float> u,
                                        matrix_view<float> out) { layers::swiglu(exec.set(), g, u, out); });
  product<Formats>(s, exec, gate, {{&layer_.down.layer, normed}});
  layers::add(exec, x, normed);
}

template <class Formats>
void feature_drafter::make_logits(state& s, const decoder_weights& target, const execution::cpu::context& exec,
                                  matrix_view<const float> hidden) const {
  const auto size = static_cast<std::size_t>(hidden.rows) * static_cast<std::size_t>(vocabulary_);
  if (s.logits_.size() < size) s.logits_.resize(size);
  const matrix_view<float> out(s.logits_.data(), hidden.rows, vocabulary_);
  if (!final_norm_.empty()) {
    const auto normed = s.rows(s.normed_, hidden.rows);
    layers::rms_norm(exec, hidden, final_norm_.data(), config_.norm_epsilon, normed);
    hidden = normed;
  }
  product<Formats>(s, exec, hidden, {{kind_ == kind::eagle3 ? &head_.layer : &target.output, out}});
}

template <class Formats>
void feature_drafter::advance(state& s, const decoder_weights& target, const execution::cpu::context& exec,
                              std::span<const int> tokens, matrix_view<const float> states) const {
  if (tokens.empty() || states.rows != static_cast<std::ptrdiff_t>(tokens.size()) || states.columns != states_width()) {
    throw error(error_code::invalid_argument, "feature_drafter.advance",
                std::to_string(tokens.size()) + " tokens, states [" + std::to_string(states.rows) + ", " +
                    std::to_string(states.columns) + "], not [tokens, " + std::to_string(states_width()) + "]");
  }
  s.truncate(s.committed_);
  std::array<int, most_nodes> positions{};
  std::ptrdiff_t count = 0;
  for (std::ptrdiff_t done = 0; done < states.rows; done += count) {
    count = std::min<std::ptrdiff_t>(states.rows - done, most_nodes);
    const auto from = states.middle_rows(done, count);
    const auto feature = s.rows(s.feature_, count);
    if (kind_ == kind::eagle3) {
      product<Formats>(s, exec, from, {{&fuse_.layer, feature}});
    } else {
      layers::rms_norm(exec, from, target.final_norm.data(), model_.norm_epsilon, feature);
    }
    for (std::ptrdiff_t i = 0; i < count; ++i)
      positions[static_cast<std::size_t>(i)] = s.committed_ + static_cast<int>(i);
    const auto size = static_cast<std::size_t>(count);
    run<Formats>(s, target, exec, tokens.subspan(static_cast<std::size_t>(done), size),
                 std::span(positions.data(), size), false);
    s.committed_ += static_cast<int>(count);
  }
  std::copy_n(s.rows(s.x_, count).row(count - 1), config_.width, s.hidden_.data());
  s.position_[0] = s.committed_ - 1;
  s.ancestors_[0] = 0;
  s.nodes_ = 1;
  make_logits<Formats>(s, target, exec, s.rows(s.hidden_, 1));
}

template <class Formats>
void feature_drafter::expand(state& s, const decoder_weights& target, const execution::cpu::context& exec,
                             std::span<const int> tokens, std::span<const int> parents) const {
  const int count = static_cast<int>(tokens.size());
  if (count == 0 || parents.size() != tokens.size() || s.nodes_ == 0 || s.nodes_ + count > most_nodes) {
    throw error(error_code::invalid_argument, "feature_drafter.expand",
                std::to_string(tokens.size()) + " tokens and " + std::to_string(parents.size()) + " parents behind " +
                    std::to_string(s.nodes_) + " nodes of at most " + std::to_string(most_nodes));
  }
  const auto hidden = s.rows(s.hidden_, most_nodes), feature = s.rows(s.feature_, count);
  bool tree = false;  // a chain needs no mask
  for (int i = 0; i < count; ++i) {
    const int parent = parents[static_cast<std::size_t>(i)], node = s.nodes_ + i;
    if (parent < 0 || parent >= s.nodes_) {
      throw error(error_code::invalid_argument, "feature_drafter.expand: parents",
                  std::to_string(parent) + " is not in [0, " + std::to_string(s.nodes_) + ")");
    }
    const auto at = static_cast<std::size_t>(node), above = static_cast<std::size_t>(parent);
    s.position_[at] = s.position_[above] + 1;
    s.ancestors_[at] = s.ancestors_[above] | std::uint64_t{1} << (node - 1);
    tree = tree || s.ancestors_[at] != (std::uint64_t{1} << (node - 1) << 1) - 1;
    std::copy_n(hidden.row(parent), config_.width, feature.row(i));
  }
  run<Formats>(s, target, exec, tokens,
               std::span(s.position_).subspan(static_cast<std::size_t>(s.nodes_), tokens.size()), tree);
  const auto x = s.rows(s.x_, count);
  for (int i = 0; i < count; ++i) std::copy_n(x.row(i), config_.width, hidden.row(s.nodes_ + i));
  make_logits<Formats>(s, target, exec, hidden.middle_rows(s.nodes_, count));
  s.nodes_ += count;
}

}  // namespace effinfer::inline v0::models
