#pragma once
// The token mixer of a block and what it remembers: softmax attention over a KV cache, or linear attention over a
// recurrent state. Both turn the queries, keys and values of a pass into mixed values and have the same members, so that
// the decoder knows no difference.

#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/checkpoint/model_config.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/recurrent_state.hpp>
#include <effinfer/kv_cache/ring.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/token_tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models {

namespace detail {

inline kv_cache::shape cache_shape(const checkpoint::model_config& c) { return {c.layers, c.kv_heads, c.head_size}; }

inline void check_head_size(const checkpoint::model_config& c, int largest) {
  if (c.head_size <= largest) return;
  throw error(error_code::unsupported, c.file, "heads of " + std::to_string(c.head_size),
              "with these policies attention computes heads of up to " + std::to_string(largest));
}

/// The `Modifier` in softmax<Modifiers...> that is a sliding window, as a width; 0 without one.
template <class Mixer>
int stated_window(const Mixer&) {
  return 0;
}
template <class First, class... Rest>
int stated_window(const attention::softmax<First, Rest...>& mixer) {
  if constexpr (requires { mixer.first.window; }) {
    return mixer.first.window;
  } else {
    return stated_window(mixer.rest);
  }
}

template <class Mixer>
struct add_window;
template <class... Modifiers>
struct add_window<attention::softmax<Modifiers...>> {
  using type = attention::softmax<Modifiers..., attention::sliding_window<>>;
  /// `mixer` with one more window behind it.
  static type with(const attention::softmax<Modifiers...>& mixer, int window) {
    attention::sliding_window<> w;
    w.window = window;
    return type(mixer.template get<Modifiers>()..., w);
  }
};

/// Fills what a session remembers from saved bytes: all of them, and for so many tokens. Errors: `malformed`.
template <class Memory>
void load_all(Memory& memory, std::span<const std::byte> in, int tokens, const char* what) {
  if (memory.load(in) != in.size())
    throw error(error_code::malformed, "session.restore", "there are bytes behind the end");
  if (memory.length() != tokens)
    throw error(error_code::malformed, "session.restore", std::string("tokens and ") + what + " differ in number");
}

/// A layer's keys and values of a tree's T tokens, side by side into their rows of `kept` [layers * T, 2 K D].
inline void keep_rows(int layer, matrix_view<const float> key, matrix_view<const float> value,
                      matrix_view<float> kept) {
  for (std::ptrdiff_t t = 0; t < key.rows; ++t) {
    float* const to = kept.row(layer * key.rows + t);
    std::copy_n(key.row(t), key.columns, to);
    std::copy_n(value.row(t), value.columns, to + key.columns);
  }
}

template <class Cache>
inline constexpr bool is_ring = false;
template <class T>
inline constexpr bool is_ring<kv_cache::ring<T>> = true;

}  // namespace detail

/// Softmax attention under `Attention` = softmax<modifiers...>, keys and values in `Cache`. With `FromCheckpoint` each layer also
/// has the window that the checkpoint gives it. On a ring a session slides: a token sees at most the session's context.
template <class Attention, class Cache, bool FromCheckpoint>
class softmax_mixer {
  static constexpr bool ring = detail::is_ring<Cache>;
  static constexpr bool windowed = FromCheckpoint || ring;
  using kernel_mixer =
      typename std::conditional_t<windowed, detail::add_window<Attention>, std::type_identity<Attention>>::type;
  static constexpr int unlimited = std::numeric_limits<int>::max();

 public:
  static constexpr std::uint64_t kind = 1 + 2 * sizeof(typename Cache::element_type) + (ring ? 1 : 0);
  static constexpr bool slides = ring;
  struct settings {
    Attention attention;
    std::vector<int> windows;  ///< [layers]; `unlimited` where a layer sees all
    /// Every layer's ring is as long as the widest window needs.
    [[nodiscard]] int widest(int context) const {
      return std::min(context, *std::max_element(windows.begin(), windows.end()));
    }
  };

  /// Errors: `mismatch` (the policy's window is wider than the checkpoint's, or `full` meets a window), `unsupported` (wider heads
  /// than attention computes), those of the modifiers.
  static settings configure(const checkpoint::model_config& c, const Attention& attention) {
    attention.validate();
    detail::check_head_size(c, attention::largest_softmax_head_size<typename Cache::element_type>);
    settings s{attention, {}};
    const int stated = detail::stated_window(attention);
    for (const int own : c.windows) {
      if (!FromCheckpoint && own != 0 && (stated == 0 || stated > own)) {
        throw error(error_code::mismatch, c.file,
                    "the checkpoint was trained with a sliding window of " + std::to_string(own) +
                        ", and the pipeline pins " +
                        (stated == 0 ? std::string("attention::full") : "a window of " + std::to_string(stated)),
                    "pin a window no wider than that, or drop the attention policy to take the checkpoint's");
      }
      s.windows.push_back(stated != 0 ? stated : own != 0 ? own : unlimited);
    }
    return s;
  }

  /// One sequence's keys and values, for passes of up to `pass` tokens.
  class state {
   public:
    state(const checkpoint::model_config& c, const settings& s, int context, int pass, std::pmr::memory_resource* from)
        : cache_(make(c, s, context, pass, from)), context_(context) {}
    static std::uint64_t bytes(const checkpoint::model_config& c, const settings& s, int context, int pass) {
      if constexpr (ring) {
        return Cache::cache::footprint(detail::cache_shape(c), s.widest(context), pass);
      } else {
        return Cache::cache::footprint(detail::cache_shape(c), context);
      }
    }
    bool truncate(int position) { return cache_.truncate(position); }
    void clear() { cache_.clear(); }
    void mark() {}
    bool rollback() { return false; }
    void abandon() {}
    void commit(int tokens) { cache_.commit(tokens); }
    /// Becomes a copy of `other`, which began with the same `common` tokens.
    void become(const state& other, int common) { cache_.become(other.cache_, common); }
    void save(std::vector<std::byte>& out) const { cache_.save(out); }
    void load(std::span<const std::byte> in, int tokens) { detail::load_all(cache_, in, tokens, "keys"); }

   private:
    friend softmax_mixer;
    static typename Cache::cache make(const checkpoint::model_config& c, const settings& s, int context, int pass,
                                      std::pmr::memory_resource* from) {
      if constexpr (ring) {
        return typename Cache::cache(detail::cache_shape(c), s.widest(context), pass, from);
      } else {
        return typename Cache::cache(detail::cache_shape(c), context, from);
      }
    }
    typename Cache::cache cache_;
    int context_;
  };

  softmax_mixer(const checkpoint::model_config& c, const settings& s)
      : settings_(s),
        rotary_(c.rope),
        layout_{c.heads, c.kv_heads, c.head_size, 1.0F / std::sqrt(static_cast<float>(c.head_size))} {}

  /// mixed = attention of the pass's queries over everything up to each of them. `query` and `key` are turned in place.
  /// `prompt`: all items are of prompts (attention::sequence::prompt).
  /// Shapes: query, mixed [T, H*D]; key, value [T, K*D]; turns [T, R].
  template <class Item>
  void mix(const execution::cpu::context& exec, int layer, std::span<const Item> items, bool prompt,
           matrix_view<const float> turns, matrix_view<float> query, matrix_view<float> key, matrix_view<float> value,
           matrix_view<float> mixed) const {
    layers::rotate(exec, rotary_, turns, layout_.head_size, query);
    layers::rotate(exec, rotary_, turns, layout_.head_size, key);
    using view = typename Cache::view;
    std::vector<attention::sequence<view>> sequences;
    std::ptrdiff_t row = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const auto count = static_cast<std::ptrdiff_t>(items[i].tokens.size());
      if (!items[i].depths.empty()) {
        mix_tree(exec, layer, items[i], static_cast<int>(i), query.middle_rows(row, count), key.middle_rows(row, count),
                 value.middle_rows(row, count), mixed.middle_rows(row, count));
        row += count;
        continue;
      }
      const view cache =
          items[i].of->cache_.write(exec, layer, key.middle_rows(row, count), value.middle_rows(row, count));
      sequences.push_back({query.middle_rows(row, count), mixed.middle_rows(row, count), cache, items[i].position,
                           static_cast<int>(i), prompt});
      row += count;
      // Sequences of unlike context see windows of unlike width on a ring: each run of equal ones is one call.
      const bool last = i + 1 == items.size() || !items[i + 1].depths.empty() ||
                        (ring && items[i + 1].of->context_ != items[i].of->context_);
      if (!last) continue;
      attention::attend(exec, at(layer, items[i].of->context_), layout_,
                        std::span<const attention::sequence<view>>(sequences));
      sequences.clear();
    }
  }

  /// What `mix` leaves behind, without an output: keys and values. `key` is turned in place; `query` and `mixed` are scratch.
  template <class Item>
  void remember(const execution::cpu::context& exec, int layer, std::span<const Item> items,
                matrix_view<const float> turns, matrix_view<float> /*query*/, matrix_view<float> key,
                matrix_view<float> value, matrix_view<float> /*mixed*/) const {
    layers::rotate(exec, rotary_, turns, layout_.head_size, key);
    std::ptrdiff_t row = 0;
    for (const Item& i : items) {
      const auto count = static_cast<std::ptrdiff_t>(i.tokens.size());
      i.of->cache_.write(exec, layer, key.middle_rows(row, count), value.middle_rows(row, count));
      row += count;
    }
  }

  /// Of a tree whose rows of one layer are `kept` [T, 2 K D] the tokens `path` stay.
  void keep(const execution::cpu::context& exec, int layer, state& of, matrix_view<const float> kept,
            std::span<const int> path) const {
    const std::ptrdiff_t columns = kept.columns / 2;
    for (std::size_t i = 0; i < path.size(); ++i) {
      const auto row = kept.middle_rows(path[i], 1);
      of.cache_.write(exec, layer, row.middle_columns(0, columns), row.middle_columns(columns, columns),
                      static_cast<int>(i));
    }
  }
  /// A chain lies in the cache as it is.
  static bool keeps_rows(std::span<const int> depths) {
    return !depths.empty() && depths.back() + 1 != static_cast<int>(depths.size());
  }

  [[nodiscard]] const layers::rotary_embedding* rotary() const { return &rotary_; }

 private:
  /// Each run of the tree is written behind what leads to it, where the run before it stood, and reads the cache as if it came alone:
  /// the policy sees true positions, and the results are those of a chain, bit for bit.
  template <class Item>
  void mix_tree(const execution::cpu::context& exec, int layer, const Item& item, int index, matrix_view<float> query,
                matrix_view<float> key, matrix_view<float> value, matrix_view<float> mixed) const {
    using view = typename Cache::view;
    const kernel_mixer mixer = at(layer, item.of->context_);
    for_each_run(item.depths, [&](std::ptrdiff_t first, std::ptrdiff_t count, int depth) {
      const view cache =
          item.of->cache_.write(exec, layer, key.middle_rows(first, count), value.middle_rows(first, count), depth);
      const attention::sequence<view> one{query.middle_rows(first, count), mixed.middle_rows(first, count), cache,
                                          item.position + depth, index};
      attention::attend(exec, mixer, layout_, std::span(&one, 1));
    });
    if (item.kept.rows > 0) detail::keep_rows(layer, key, value, item.kept);
  }

  [[nodiscard]] kernel_mixer at(int layer, int context) const {
    if constexpr (windowed) {
      const int own = settings_.windows[static_cast<std::size_t>(layer)];
      return detail::add_window<Attention>::with(settings_.attention, ring ? std::min(own, context) : own);
    } else {
      return settings_.attention;
    }
  }

  settings settings_;
  layers::rotary_embedding rotary_;
  attention::head_layout layout_;
};

/// Linear attention: no rotary embedding, a state of fixed size.
template <class Linear>
class linear_mixer {
 public:
  static constexpr std::uint64_t kind = 2;
  static constexpr bool slides = true;
  struct settings {
    Linear linear;
  };

  /// Errors: `mismatch` (the checkpoint decays and the policy doesn't, or has no rates), `unsupported` (wider heads than attention
  /// computes).
  static settings configure(const checkpoint::model_config& c, const Linear& linear) {
    detail::check_head_size(c, attention::detail::largest_linear_head_size);
    bool decays = false;
    for (const float g : c.decay) decays = decays || g != 1.0F;
    if constexpr (!std::is_same_v<decltype(linear.decay), attention::decay_per_head>) {
      if (decays && std::is_same_v<decltype(linear.decay), attention::no_decay>) {
        throw error(
            error_code::mismatch, c.file + ": field decay",
            "the checkpoint's state decays, and the pipeline pins attention::no_decay",
            "use attention::linear<attention::elu_plus_one, attention::decay_per_head>, or drop the attention policy");
      }
    }
    return {linear};
  }

  /// One sequence's state, and a copy of it to go back to.
  class state {
   public:
    state(const checkpoint::model_config& c, const settings&, int, int, std::pmr::memory_resource* from)
        : memory_(c.layers, c.heads, c.head_size, from), marked_(memory_.snapshot()) {}
    static std::uint64_t bytes(const checkpoint::model_config& c, const settings&, int, int) {
      return 2 * kv_cache::recurrent_state::footprint(c.layers, c.heads, c.head_size);
    }
    bool truncate(int position) {
      if (position == 0) dirty_ = false;
      return !dirty_ && memory_.truncate(position);
    }
    void clear() {
      memory_.clear();
      dirty_ = false;
    }
    void mark() { memory_.snapshot(marked_); }
    bool rollback() {
      dirty_ = false;
      return memory_.rollback(marked_);
    }
    /// A pass was given up between two layers: some have read its tokens and some have not.
    void abandon() { dirty_ = true; }
    void commit(int tokens) { memory_.commit(tokens); }
    void become(const state& other, int /*common*/) {
      memory_ = other.memory_;
      dirty_ = other.dirty_;
    }
    void save(std::vector<std::byte>& out) const { memory_.save(out); }
    void load(std::span<const std::byte> in, int tokens) { detail::load_all(memory_, in, tokens, "state"); }

   private:
    friend linear_mixer;
    /// Memory of `count` numbers, for a tree.
    static float* room(std::vector<float>& scratch, std::ptrdiff_t count) {
      if (static_cast<std::ptrdiff_t>(scratch.size()) < count) scratch.resize(static_cast<std::size_t>(count));
      return scratch.data();
    }
    kv_cache::recurrent_state memory_;
    std::vector<float> before_, replayed_;  // of one layer, while a tree is read
    kv_cache::recurrent_state::mark marked_;
    bool dirty_ = false;
  };

  linear_mixer(const checkpoint::model_config& c, const settings& s)
      : linear_(s.linear), decay_(c.decay), layout_{c.heads, c.kv_heads, c.head_size, 1.0F} {
    if (decay_.empty()) decay_.assign(static_cast<std::size_t>(c.heads), 1.0F);
  }

  template <class Item>
  void mix(const execution::cpu::context& exec, int layer, std::span<const Item> items, bool /*prompt*/,
           matrix_view<const float> /*turns*/, matrix_view<float> query, matrix_view<float> key,
           matrix_view<float> value, matrix_view<float> mixed) const {
    std::vector<attention::recurrent_sequence> sequences;
    std::ptrdiff_t row = 0;
    for (const Item& i : items) {
      const auto count = static_cast<std::ptrdiff_t>(i.tokens.size());
      if (!i.depths.empty()) {
        mix_tree(exec, layer, i, query.middle_rows(row, count), key.middle_rows(row, count),
                 value.middle_rows(row, count), mixed.middle_rows(row, count));
        row += count;
        continue;
      }
      sequences.push_back({query.middle_rows(row, count), key.middle_rows(row, count), value.middle_rows(row, count),
                           mixed.middle_rows(row, count), i.of->memory_.view(layer)});
      row += count;
    }
    if (!sequences.empty())
      attention::attend(exec, at(), layout_, std::span<const attention::recurrent_sequence>(sequences));
  }

  /// What `mix` leaves behind, without an output: the state moves on. `query` and `mixed` are scratch.
  template <class Item>
  void remember(const execution::cpu::context& exec, int layer, std::span<const Item> items,
                matrix_view<const float> turns, matrix_view<float> query, matrix_view<float> key,
                matrix_view<float> value, matrix_view<float> mixed) const {
    for (std::ptrdiff_t r = 0; r < query.rows; ++r) std::fill_n(query.row(r), query.columns, 0.0F);
    mix(exec, layer, items, false, turns, query, key, value, mixed);
  }

  /// Of a tree whose rows of one layer are `kept` [T, 2 K D] the tokens `path` stay: the state moves on by them.
  void keep(const execution::cpu::context& exec, int layer, state& of, matrix_view<const float> kept,
            std::span<const int> path) const {
    const std::ptrdiff_t columns = kept.columns / 2;
    replay(exec, layer, of, kept.middle_columns(0, columns), kept.middle_columns(columns, columns), path);
  }
  static bool keeps_rows(std::span<const int> depths) { return !depths.empty(); }

  [[nodiscard]] const layers::rotary_embedding* rotary() const { return nullptr; }

 private:
  /// Each run of the tree begins in the state that the tokens in front of it make of the one before the pass, which comes back
  /// at the end. They are read again for it, without a product: cheaper to have than a state for each fork.
  template <class Item>
  void mix_tree(const execution::cpu::context& exec, int layer, const Item& item, matrix_view<float> query,
                matrix_view<float> key, matrix_view<float> value, matrix_view<float> mixed) const {
    const kv_cache::recurrent_view now = item.of->memory_.view(layer);
    const std::ptrdiff_t size = std::ptrdiff_t{now.heads} * now.head_size * (now.head_size + 1);
    float* const before = state::room(item.of->before_, size);
    std::copy_n(now.matrices, size, before);
    std::vector<int> path;  // the rows that lead to the one at hand
    for_each_run(item.depths, [&](std::ptrdiff_t first, std::ptrdiff_t count, int depth) {
      path.resize(static_cast<std::size_t>(depth));
      if (first > 0) {
        std::copy_n(before, size, now.matrices);
        replay(exec, layer, *item.of, key, value, path);
      }
      const attention::recurrent_sequence one{query.middle_rows(first, count), key.middle_rows(first, count),
                                              value.middle_rows(first, count), mixed.middle_rows(first, count), now};
      attention::attend(exec, at(), layout_, std::span(&one, 1));
      for (std::ptrdiff_t t = 0; t < count; ++t) path.push_back(static_cast<int>(first + t));
    });
    std::copy_n(before, size, now.matrices);
    if (item.kept.rows > 0) detail::keep_rows(layer, key, value, item.kept);
  }

  /// Moves a layer's state on by the rows `path` of `key` and `value`.
  void replay(const execution::cpu::context& exec, int layer, state& of, matrix_view<const float> key,
              matrix_view<const float> value, std::span<const int> path) const {
    const auto count = static_cast<std::ptrdiff_t>(path.size());
    if (count == 0) return;
    const std::ptrdiff_t wide = std::ptrdiff_t{layout_.heads} * layout_.head_size, narrow = key.columns;
    float* const room = state::room(of.replayed_, count * 2 * (wide + narrow));
    const matrix_view<float> query(room, count, wide), out(query.row(count), count, wide);
    const matrix_view<float> keys(out.row(count), count, narrow), values(keys.row(count), count, narrow);
    std::fill_n(query.data, count * wide, 0.0F);
    for (std::ptrdiff_t t = 0; t < count; ++t) {
      std::copy_n(key.row(path[static_cast<std::size_t>(t)]), narrow, keys.row(t));
      std::copy_n(value.row(path[static_cast<std::size_t>(t)]), narrow, values.row(t));
    }
    const attention::recurrent_sequence one{query, keys, values, out, of.memory_.view(layer)};
    attention::attend(exec, at(), layout_, std::span(&one, 1));
  }

  [[nodiscard]] Linear at() const {
    Linear mixer = linear_;
    if constexpr (std::is_same_v<decltype(mixer.decay), attention::decay_per_head>) {
      if (mixer.decay.rates == nullptr) mixer.decay.rates = decay_.data();
    }
    return mixer;
  }

  Linear linear_;
  std::vector<float> decay_;
  attention::head_layout layout_;
};

}  // namespace effinfer::inline v0::models
