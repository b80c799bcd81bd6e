#pragma once
// Softmax attention over keys and values in device memory. Attention has two kernels, whose sums differ in their order: one for a token
// a sequence, over the keys in splits (attention/cuda/softmax.hpp), and one for many (attention/cuda/prefill.hpp). Which of them a token
// goes through depends on the read that it is part of, never on how that is cut into passes or on what else is in the pass.
//
// The tokens of a tree are decode steps too, each over the cache and those that lead to it, which lie beside the cache until `keep`.

#include <effinfer/attention/cuda/branch_view.hpp>
#include <effinfer/attention/cuda/prefill_wgmma.hpp>
#include <effinfer/attention/cuda/softmax.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/rotary_settings.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/kv_cache/cuda/copy_tokens.hpp>
#include <effinfer/kv_cache/cuda/pages.hpp>
#include <effinfer/kv_cache/cuda/positions.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>
#include <effinfer/layers/rotary_embedding.hpp>
#include <effinfer/models/cuda/mixer.hpp>
#include <effinfer/models/cuda/support.hpp>
#include <effinfer/models/mixer.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

namespace detail {

/// A cache policy's memory on a device; of another policy there is none, and the pipeline says so.
template <class Cache, class Device>
struct cache_on;
template <class T, class Device>
struct cache_on<kv_cache::contiguous<T>, Device> {
  using type = kv_cache::cuda::positions<T, Device>;
};
template <class T, class Device>
struct cache_on<kv_cache::ring<T>, Device> {
  using type = kv_cache::cuda::positions<T, Device>;
};
template <class T, int Block, class Device>
struct cache_on<kv_cache::paged<T, Block>, Device> {
  using type = kv_cache::cuda::pages<T, Block, Device>;
};

}  // namespace detail

template <class Attention, class Cache, bool FromCheckpoint, execution::simt::device_policy Execution>
class device_mixer<softmax_mixer<Attention, Cache, FromCheckpoint>, Execution> {
  using on_cpu = softmax_mixer<Attention, Cache, FromCheckpoint>;
  using device = typename Execution::context;
  using T = typename Execution::activation;
  using C = typename Cache::element_type;
  static constexpr bool ring = models::detail::is_ring<Cache>;
  static constexpr bool windowed = FromCheckpoint || ring;
  using kernel_mixer =
      typename std::conditional_t<windowed, models::detail::add_window<Attention>, std::type_identity<Attention>>::type;
  using memory = typename detail::cache_on<Cache, device>::type;
  using view = typename Cache::view;
  using sequence = attention::cuda::decode_sequence<T, view>;
  using long_read = attention::cuda::prefill_sequence<T, view>;
  /// The copying engine may be told of the cache.
  static constexpr bool mapped = std::is_same_v<view, kv_cache::view<T>>;
  using branch = attention::cuda::decode_sequence<T, attention::cuda::branch_view<view>>;
  using place = layers::cuda::cache_place<C>;

 public:
  using settings = typename on_cpu::settings;
  static constexpr std::uint64_t kind = on_cpu::kind;
  static constexpr bool slides = ring;

  /// One sequence's keys and values in device memory, for passes of up to `pass` tokens.
  class state {
   public:
    state(const checkpoint::model_config& c, const settings& s, int context, int pass, const device& where)
        : cache_(make(c, s, context, pass, where)),
          branches_(models::detail::cache_shape(c), std::min(pass, few_tokens), 0, where),
          context_(context),
          part_floats_(row_part_floats(c, slots(s, context, pass))),
          parts_(where, part_floats_ * static_cast<std::size_t>(part_rows(pass)) * sizeof(float)),
          arrivals_(zeros(where, arrival_bytes(c, pass))) {}
    state(const state& other)
        : cache_(other.cache_),
          branches_(other.branches_),
          context_(other.context_),
          part_floats_(other.part_floats_),
          parts_(*other.parts_.device(), other.parts_.size()),
          arrivals_(zeros(*other.parts_.device(), other.arrivals_.size())) {}
    state(state&&) noexcept = default;
    state& operator=(const state& other) { return *this = state(other); }
    state& operator=(state&&) noexcept = default;
    ~state() = default;

    static std::uint64_t bytes(const checkpoint::model_config& c, const settings& s, int context, int pass) {
      const int held = slots(s, context, pass);
      const auto shape = models::detail::cache_shape(c);
      return memory::footprint(shape, held) + tree_memory::footprint(shape, std::min(pass, few_tokens)) +
             row_part_floats(c, held) * static_cast<std::uint64_t>(part_rows(pass)) * sizeof(float) +
             arrival_bytes(c, pass);
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
    void abandon() {}
    void commit(int tokens) { cache_.commit(tokens); }
    void become(const state& other, int common) {
      read_end_ = 0;
      cache_.become(other.cache_, common);
    }
    void save(std::vector<std::byte>& out) const { cache_.save(out); }
    void load(std::span<const std::byte> in, int tokens) { models::detail::load_all(cache_, in, tokens, "keys"); }

   private:
    friend device_mixer;
    using tree_memory = kv_cache::cuda::positions<C, device>;
    static memory make(const checkpoint::model_config& c, const settings& s, int context, int pass,
                       const device& where) {
      if constexpr (std::is_constructible_v<memory, kv_cache::shape, int, int, const device&>) {
        return memory(models::detail::cache_shape(c), slots(s, context, pass), ring ? s.widest(context) : 0, where);
      } else {
        return memory(models::detail::cache_shape(c), context, where);
      }
    }
    static int slots(const settings& s, int context, int pass) {
      if constexpr (ring) {
        return Cache::cache::positions_held(s.widest(context), pass);
      } else {
        return (void)s, (void)pass, context;
      }
    }
    /// What the splits of one query's keys leave for the merge.
    static std::size_t row_part_floats(const checkpoint::model_config& c, int held) {
      return static_cast<std::size_t>(attention::cuda::parts_at_most<T, C>(held)) * static_cast<std::size_t>(c.heads) *
             static_cast<std::size_t>(attention::cuda::part_floats(c.head_size));
    }
    static std::size_t row_arrivals(int heads) {
      return static_cast<std::size_t>(heads) * attention::cuda::arrivals_of_head;
    }
    static std::size_t arrival_bytes(const checkpoint::model_config& c, int pass) {
      return static_cast<std::size_t>(part_rows(pass)) * row_arrivals(c.heads) * sizeof(unsigned);
    }
    static execution::simt::memory<device> zeros(const device& where, std::size_t bytes) {
      execution::simt::memory<device> m(where, bytes);
      const execution::simt::memory<device, true> staged(where, bytes);
      std::memset(staged.data(), 0, bytes);
      auto q = where.queue();
      q.upload(m.data(), staged.data(), bytes);
      q.synchronize();
      return m;
    }
    /// Queries of a pass that may be decode steps.
    static int part_rows(int pass) { return reads_long ? std::min(pass, few_tokens) : pass; }

    memory cache_;
    tree_memory branches_;  // rows of the tree just read
    bool branched_ = false;
    int context_;
    int read_end_ = 0;  // where a long read ends that has begun
    std::size_t part_floats_;
    execution::simt::memory<device> parts_;
    execution::simt::memory<device> arrivals_;  // [part_rows, heads, arrivals_of_head]
  };
  using item = pass_item<state>;

  device_mixer(const checkpoint::model_config& c, settings s, const device& where)
      : settings_(std::move(s)),
        where_(&where),
        rope_(c.rope),
        layers_(c.layers),
        rotary_(c.rope),
        heads_{c.heads, c.kv_heads, c.head_size, 1.0F / std::sqrt(static_cast<float>(c.head_size))} {}

  /// Errors: `unsupported`.
  static void check(const checkpoint::model_config& c) { check_head_size<Execution>(c); }
  static std::uint64_t bytes(const checkpoint::model_config&) { return 0; }

  static std::size_t workspace_bytes(const checkpoint::model_config&, int) { return 0; }
  static std::size_t upload_bytes(const checkpoint::model_config& c, int tokens) {
    return std::max({layout(c.layers, c.rope, tokens, read::steps).bytes,
                     layout(c.layers, c.rope, tokens, read::whole).bytes,
                     layout(c.layers, c.rope, std::min(tokens, few_tokens), read::tree).bytes});
  }

 private:
  /// How attention reads a pass: as decode steps, as a part of a read of more than few_tokens, or as a tree.
  enum class read { steps, whole, tree };
  /// Where the parts of an upload for `rows` rows begin. Sequences are [layers, rows], or a long read's, [layers].
  struct parts {
    std::size_t turns = 0, places = 0, sequences = 0, maps = 0, bytes = 0;
  };
  static parts layout(int layers, const rotary_settings& rope, int rows, read as) {
    execution::simt::layout l;
    const auto n = static_cast<std::size_t>(rows);
    const auto next = [&](std::size_t bytes) {
      const std::size_t at = l.used();
      (void)l.take<std::byte>(bytes);
      return at;
    };
    parts p;
    p.turns = next(n * static_cast<std::size_t>(rope.rotary_size) * sizeof(float));
    p.places = next(n * sizeof(place));
    p.sequences = next(static_cast<std::size_t>(layers) * (as == read::whole  ? sizeof(long_read)
                                                           : as == read::tree ? n * sizeof(branch)
                                                                              : n * sizeof(sequence)));
    p.maps = next(mapped && as == read::whole ? static_cast<std::size_t>(layers) * sizeof(attention::cuda::prefill_maps)
                                              : 0);
    p.bytes = l.used();
    return p;
  }

 public:
  /// What the kernels of a pass are started with.
  struct plan {
    /// What passes that one graph serves have in common.
    struct form {
      int splits = 0;  ///< of one query, the most
      int context = 0;
      friend bool operator==(const form&, const form&) = default;
    };
    form of;
    std::size_t upload_bytes = 0;
    // The mixer's own:
    read as = read::steps;
    parts at;
    const std::byte* upload = nullptr;  // on the device
    attention::cuda::prefill_plan whole;
    std::vector<int> contexts;  // [rows]: of the sequence, which on a ring bounds what it sees
  };

  plan prepare(std::span<const item> items, matrix_view<T> qkv, matrix_view<T> mixed, std::byte* /*workspace*/,
               std::byte* host, const std::byte* upload) const {
    plan p;
    p.upload = upload;
    const int rows = static_cast<int>(qkv.rows);
    for (const item& i : items) {
      const bool tree = !i.depths.empty();
      i.of->branched_ = tree && !is_chain(i.depths);
      if (i.of->branched_) p.as = read::tree;
      i.of->cache_.prepare(tree ? *std::max_element(i.depths.begin(), i.depths.end()) + 1
                                : static_cast<int>(i.tokens.size()));
    }
    if (reads_long && items.size() == 1 && items[0].depths.empty()) {
      const item& i = items[0];
      const int end = std::max(i.length, i.position + rows);
      if (end - i.position > few_tokens || i.of->read_end_ == end) p.as = read::whole;
      i.of->read_end_ = p.as == read::whole && i.position + rows < end ? end : 0;
    }
    p.at = layout(layers_, rope_, rows, p.as);
    p.upload_bytes = p.at.bytes;
    auto* const turns = reinterpret_cast<float*>(host + p.at.turns);
    auto* const places = reinterpret_cast<place*>(host + p.at.places);
    std::ptrdiff_t row = 0;
    for (std::size_t n = 0; n < items.size(); ++n) {
      const item& i = items[n];
      for (std::size_t t = 0; t < i.tokens.size(); ++t, ++row) {
        const int position = i.position + (i.depths.empty() ? static_cast<int>(t) : i.depths[t]);
        rotary_.turns(position, i.depths.empty() ? i.length : position + 1, turns + row * rope_.rotary_size);
        places[row] = p.as == read::tree ? i.of->branches_.place(static_cast<int>(t)) : i.of->cache_.place(position);
        p.contexts.push_back(i.of->context_);
        for (int layer = 0; p.as != read::whole && layer < layers_; ++layer) {
          const auto put = [&](auto& s) {
            s.query = qkv.row(row), s.out = mixed.row(row);
            s.index = static_cast<int>(n);
            s.parts = reinterpret_cast<float*>(i.of->parts_.data()) + t * i.of->part_floats_;
            s.arrivals = reinterpret_cast<unsigned*>(i.of->arrivals_.data()) + t * state::row_arrivals(heads_.heads);
            const auto of_it = attention::cuda::plan_decode(at(layer, i.of->context_), heads_, std::span(&s, 1));
            p.of.splits = std::max(p.of.splits, of_it.most_splits);
          };
          const std::ptrdiff_t index = std::ptrdiff_t{layer} * rows + row;
          if (p.as == read::tree) {
            branch& s = reinterpret_cast<branch*>(host + p.at.sequences)[index];
            s = {};
            s.cache = branch_of(i, t, layer);
            put(s);
          } else {
            sequence& s = reinterpret_cast<sequence*>(host + p.at.sequences)[index];
            s = {};
            s.cache = i.of->cache_.view(layer, position + 1);
            put(s);
          }
        }
      }
    }
    for (int layer = 0; p.as == read::whole && layer < layers_; ++layer) {
      const item& i = items[0];
      long_read& s = reinterpret_cast<long_read*>(host + p.at.sequences)[layer];
      s = {qkv.middle_columns(0, mixed.columns), mixed, i.of->cache_.view(layer, i.position + rows), i.position};
      p.whole = attention::cuda::plan_prefill(at(layer, i.of->context_), heads_, std::span<long_read>(&s, 1),
                                              where_->limits());
      if constexpr (mapped) {
        if (p.whole.form != attention::cuda::prefill_form::wgmma) continue;
        // Made anew each time, as nothing else knows when a cache's memory has become another's; the driver isn't asked, it only computes.
        reinterpret_cast<attention::cuda::prefill_maps*>(host + p.at.maps)[layer] = attention::cuda::map_cache(
            s.cache, heads_.kv_heads, [this](const execution::simt::box_source& m) { return where_->map(m); });
        s.maps = reinterpret_cast<const attention::cuda::prefill_maps*>(upload + p.at.maps) + layer;
      }
    }
    return p;
  }

  static bool is_long_read(const plan& p) { return p.as == read::whole; }

  /// More splits than there are cost next to nothing, so powers of two serve.
  static bool can_repeat(plan& p) {
    if (p.as != read::steps) return false;
    int splits = 1;
    while (splits < p.of.splits) splits *= 2;
    p.of.splits = splits;
    if constexpr (ring) {
      p.of.context = p.contexts[0];
      for (const int one : p.contexts) {
        if (one != p.of.context) return false;  // attention in several calls: not worth it
      }
    }
    return true;
  }

  matrix_view<T> query_key_value(const plan&, int, matrix_view<T> rows) const { return rows; }

  /// mixed = attention of each token over what it sees, itself included. Shapes: qkv [T, (H + 2 K) D], turned in place; mixed [T, H D].
  template <class Queue>
  void mix(Queue& q, const plan& p, int layer, matrix_view<T> qkv, matrix_view<T> mixed) const {
    remember(q, p, layer, qkv, mixed);
    if (p.as == read::tree) {
      attend(q, p, layer, qkv.rows, std::type_identity<branch>());
    } else if (p.as == read::steps) {
      attend(q, p, layer, qkv.rows, std::type_identity<sequence>());
    } else if constexpr (reads_long) {
      const attention::cuda::prefill_args<kernel_mixer, T, view> args{
          at(layer, p.contexts[0]), heads_, reinterpret_cast<const long_read*>(p.upload + p.at.sequences) + layer,
          p.whole};
      with_head_size<Execution>(heads_.head_size, [&](auto size) {
        attention::cuda::start_prefill<kernel_mixer, T, view, decltype(size)::value>(
            args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
      });
    }
  }
  /// What `mix` leaves behind, without an output: keys and values.
  template <class Queue>
  void remember(Queue& q, const plan& p, int layer, matrix_view<T> qkv, matrix_view<T> /*mixed*/) const {
    const matrix_view<const float> turns(reinterpret_cast<const float*>(p.upload + p.at.turns), qkv.rows,
                                         rope_.rotary_size);
    q.template launch<layers::cuda::rotate_and_store_tokens<T, C>>(
        {qkv, turns, reinterpret_cast<const place*>(p.upload + p.at.places), layer, heads_.heads, heads_.kv_heads,
         heads_.head_size, rope_.rotary_size, rope_.interleaved});
  }

  void keep(const device& where, state& of, std::span<const int> path) const {
    if (of.branched_ && !path.empty()) {
      typename kv_cache::cuda::copy_tokens<C>::args a;
      a.tokens = static_cast<int>(path.size());
      a.layers = layers_, a.kv_heads = heads_.kv_heads;
      a.row = kv_cache::row_elements<C>(heads_.head_size);
      for (std::size_t t = 0; t < path.size(); ++t) {
        a.from[t] = of.branches_.place(path[t]);
        a.to[t] = of.cache_.place(of.cache_.length() + static_cast<int>(t));
      }
      auto q = where.queue();
      q.template launch<kv_cache::cuda::copy_tokens<C>>(a);
    }
    of.commit(static_cast<int>(path.size()));
  }

 private:
  static constexpr bool reads_long = has_long_reads<T, C>;
  static_assert(few_tokens <= attention::cuda::most_branch_tokens &&
                few_tokens <= kv_cache::cuda::copy_tokens<C>::most);

  [[nodiscard]] kernel_mixer at(int layer, int context) const {
    if constexpr (windowed) {
      const int own = settings_.windows[static_cast<std::size_t>(layer)];
      return models::detail::add_window<Attention>::with(settings_.attention, ring ? std::min(own, context) : own);
    } else {
      return (void)layer, (void)context, settings_.attention;
    }
  }

  /// What token t of a tree sees.
  attention::cuda::branch_view<view> branch_of(const item& i, std::size_t t, int layer) const {
    attention::cuda::branch_view<view> v;
    const int depth = i.depths[t];
    v.cache = i.of->cache_.view(layer, i.position + depth + 1);
    v.branches = i.of->branches_.view(layer, static_cast<int>(i.tokens.size()));
    v.base = i.position;
    for (int at = static_cast<int>(t), wanted = depth; at >= 0; --at) {
      if (i.depths[static_cast<std::size_t>(at)] != wanted) continue;
      v.path[wanted--] = static_cast<std::uint8_t>(at);
      if (wanted < 0) break;
    }
    v.row_stride = v.cache.row_stride;
    v.first = v.cache.first;
    v.length = v.cache.length;
    return v;
  }

  /// Decode steps of each row.
  template <class Queue, class Sequence>
  void attend(Queue& q, const plan& p, int layer, std::ptrdiff_t rows, std::type_identity<Sequence>) const {
    using seen = decltype(Sequence::cache);
    const auto* const sequences = reinterpret_cast<const Sequence*>(p.upload + p.at.sequences) + layer * rows;
    for (int first = 0; first < rows;) {
      // Sequences of unlike context see windows of unlike width on a ring: each run of equal ones is one call.
      const int context = p.contexts[static_cast<std::size_t>(first)];
      int end = ring ? first + 1 : static_cast<int>(rows);
      while (end < rows && p.contexts[static_cast<std::size_t>(end)] == context) ++end;
      attention::cuda::decode_plan of_it;
      of_it.sequences = end - first, of_it.most_splits = p.of.splits;
      const attention::cuda::decode_args<kernel_mixer, T, seen> args{at(layer, context), heads_, sequences + first,
                                                                     of_it, nullptr};
      with_head_size<Execution>(heads_.head_size, [&](auto size) {
        constexpr int head = decltype(size)::value;
        q.template launch<attention::cuda::decode<kernel_mixer, T, seen, head>>(args);
      });
      first = end;
    }
  }

  settings settings_;
  const device* where_;
  rotary_settings rope_;
  int layers_;
  layers::rotary_embedding rotary_;
  attention::head_layout heads_;
};

}  // namespace effinfer::inline v0::models::cuda
