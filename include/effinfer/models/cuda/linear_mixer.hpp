#pragma once
// Linear attention over a recurrent state in device memory, always as a recurrence: so results don't depend on how a sequence is cut.
//
// A tree changes no state: each of its runs reads again what leads to it, and `keep` moves the state on by the rows that stay, which every layer
// has left in memory of the session.

#include <effinfer/attention/cuda/linear.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/kv_cache/cuda/recurrent_state.hpp>
#include <effinfer/models/cuda/mixer.hpp>
#include <effinfer/models/mixer.hpp>
#include <effinfer/models/token_tree.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace effinfer::inline v0::models::cuda {

template <class Linear, execution::simt::device_policy Execution>
class device_mixer<linear_mixer<Linear>, Execution> {
  using on_cpu = linear_mixer<Linear>;
  using device = typename Execution::context;
  using T = typename Execution::activation;
  using sequence = attention::cuda::linear_sequence<T>;
  static constexpr bool has_rates = std::is_same_v<decltype(Linear::decay), attention::decay_per_head>;

 public:
  using settings = typename on_cpu::settings;
  static constexpr std::uint64_t kind = on_cpu::kind;
  static constexpr bool slides = true;

  /// One sequence's state in device memory, and what a tree leaves behind.
  class state {
   public:
    state(const checkpoint::model_config& c, const settings&, int, int pass, const device& where)
        : memory_(c.layers, c.heads, c.head_size, where),
          tree_(c, pass),
          tree_memory_(where, tree_.device_bytes),
          tree_upload_(where, tree_.upload_bytes) {}
    state(const state& other)
        : memory_(other.memory_),
          tree_(other.tree_),
          tree_memory_(*other.tree_memory_.device(), tree_.device_bytes),
          tree_upload_(*other.tree_memory_.device(), tree_.upload_bytes),
          broken_off_(other.broken_off_) {}
    state(state&&) noexcept = default;
    state& operator=(const state& other) { return *this = state(other); }
    state& operator=(state&&) noexcept = default;
    ~state() = default;

    static std::uint64_t bytes(const checkpoint::model_config& c, const settings&, int, int pass) {
      const tree_layout tree(c, pass);
      return kv_cache::cuda::recurrent_state<device>::footprint(c.layers, c.heads, c.head_size) + tree.device_bytes +
             tree.upload_bytes;
    }
    bool truncate(int position) {
      if (position == 0) broken_off_ = false;
      return !broken_off_ && memory_.truncate(position);
    }
    void clear() {
      memory_.clear();
      broken_off_ = false;
    }
    void mark() { memory_.mark(); }
    bool rollback() {
      broken_off_ = false;
      return memory_.rollback();
    }
    /// A pass was given up between two layers: some have read its tokens and some have not.
    void abandon() { broken_off_ = true; }
    void commit(int tokens) { memory_.commit(tokens); }
    void become(const state& other, int /*common*/) {
      memory_.become(other.memory_);
      broken_off_ = other.broken_off_;
    }
    void save(std::vector<std::byte>& out) const { memory_.save(out); }
    void load(std::span<const std::byte> in, int tokens) { models::detail::load_all(memory_, in, tokens, "state"); }

   private:
    friend device_mixer;
    /// Where the memory of a tree begins: rows of all layers, [layers, tokens, (H + 2 K) D]; the new vectors of `keep`, [layers, H, D];
    /// and what it uploads: sequences [layers], rows [tokens].
    struct tree_layout {
      tree_layout(const checkpoint::model_config& c, int pass) : tokens(std::min(pass, few_tokens)) {
        execution::simt::layout l;
        const auto size = [](int a, int b = 1) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
        (void)l.take<T>(size(c.layers, tokens) * size(c.heads + 2 * c.kv_heads, c.head_size));
        vectors = l.used();
        (void)l.take<float>(size(c.layers) * size(c.heads, c.head_size));
        sequences = l.used();
        (void)l.take<sequence>(size(c.layers));
        path = l.used();
        (void)l.take<int>(size(tokens));
        device_bytes = l.used();
        upload_bytes = device_bytes - sequences;
      }
      int tokens;
      std::size_t vectors = 0, sequences = 0, path = 0, device_bytes = 0, upload_bytes = 0;
    };
    kv_cache::cuda::recurrent_state<device> memory_;
    tree_layout tree_;
    execution::simt::memory<device> tree_memory_;
    execution::simt::memory<device, true> tree_upload_;
    int tree_rows_ = 0;  // of the tree just read
    bool broken_off_ = false;
  };
  using item = pass_item<state>;

  device_mixer(const checkpoint::model_config& c, settings s, const device& where)
      : linear_(s.linear), layers_(c.layers), heads_{c.heads, c.kv_heads, c.head_size, 1.0F} {
    if constexpr (has_rates) {
      std::vector<float> rates(static_cast<std::size_t>(c.heads), 1.0F);
      if (linear_.decay.rates != nullptr) {
        rates.assign(linear_.decay.rates, linear_.decay.rates + c.heads);
      } else if (!c.decay.empty()) {
        rates = c.decay;
      }
      const std::size_t bytes = rates.size() * sizeof(float);
      rates_ = execution::simt::memory<device>(where, bytes);
      const execution::simt::memory<device, true> staged(where, bytes);
      std::copy(rates.begin(), rates.end(), reinterpret_cast<float*>(staged.data()));
      auto q = where.queue();
      q.upload(rates_.data(), staged.data(), bytes);
      q.synchronize();
      linear_.decay.rates = reinterpret_cast<const float*>(rates_.data());
    }
  }
  /// Bytes of device memory that it owns.
  static std::uint64_t bytes(const checkpoint::model_config& c) {
    return has_rates ? static_cast<std::uint64_t>(c.heads) * sizeof(float) : 0;
  }

  /// The new vectors of a pass's sequences.
  static std::size_t workspace_bytes(const checkpoint::model_config& c, int tokens) {
    return static_cast<std::size_t>(tokens) * static_cast<std::size_t>(c.heads) *
           static_cast<std::size_t>(c.head_size) * sizeof(float);
  }
  static std::size_t upload_bytes(const checkpoint::model_config& c, int tokens) {
    return std::max(sequence_bytes(c.layers, tokens),
                    sequence_bytes(c.layers, std::min(tokens, few_tokens)) + most_paths * sizeof(int));
  }

  struct plan {
    struct form {
      friend bool operator==(const form&, const form&) = default;
    };
    form of;
    std::size_t upload_bytes = 0;
    // The mixer's own:
    int sequences = 0;  // of a layer
    const sequence* upload = nullptr;
    float* vectors = nullptr;
    T* tree_rows = nullptr;  // where the rows of all layers stay
  };

  plan prepare(std::span<const item> items, matrix_view<T> qkv, matrix_view<T> mixed, std::byte* workspace,
               std::byte* host, const std::byte* upload) const {
    plan p;
    p.upload = reinterpret_cast<const sequence*>(upload);
    p.vectors = reinterpret_cast<float*>(workspace);
    if (items.size() == 1 && !items[0].depths.empty()) {
      prepare_tree(p, items[0], qkv, mixed, host, upload);
      return p;
    }
    p.sequences = static_cast<int>(items.size());
    p.upload_bytes = sequence_bytes(layers_, p.sequences);
    auto* const sequences = reinterpret_cast<sequence*>(host);
    for (int layer = 0; layer < layers_; ++layer) {
      std::ptrdiff_t row = 0;
      for (std::size_t n = 0; n < items.size(); ++n) {
        const auto count = static_cast<std::ptrdiff_t>(items[n].tokens.size());
        sequences[std::ptrdiff_t{layer} * p.sequences + static_cast<std::ptrdiff_t>(n)] =
            sequence_of(qkv.middle_rows(row, count), mixed.middle_rows(row, count), items[n].of->memory_.view(layer));
        row += count;
      }
    }
    check_shapes(std::span(sequences, 1));
    return p;
  }

  /// Reads are cut in any way, so all have the same products.
  static bool is_long_read(const plan&) { return false; }
  static bool can_repeat(plan& p) { return p.tree_rows == nullptr; }

  matrix_view<T> query_key_value(const plan& p, int layer, matrix_view<T> rows) const {
    if (p.tree_rows != nullptr) rows.data = p.tree_rows + layer * rows.rows * rows.columns;
    return rows;
  }

  template <class Queue>
  void mix(Queue& q, const plan& p, int layer, matrix_view<T> /*qkv*/, matrix_view<T> /*mixed*/) const {
    const int at_once = std::max(1, 65535 / heads_.heads);
    const sequence* const first = p.upload + std::ptrdiff_t{layer} * p.sequences;
    for (int done = 0; done < p.sequences; done += at_once) {
      start(q, first + done, std::min(at_once, p.sequences - done),
            p.vectors + std::ptrdiff_t{done} * heads_.heads * heads_.head_size);
    }
  }

  /// What `mix` leaves behind: the state moves on. `mixed` is scratch.
  template <class Queue>
  void remember(Queue& q, const plan& p, int layer, matrix_view<T> qkv, matrix_view<T> mixed) const {
    mix(q, p, layer, qkv, mixed);
  }

  void keep(const device& where, state& of, std::span<const int> path) const {
    if (!path.empty()) {
      const auto& tree = of.tree_;
      std::byte* const memory = of.tree_memory_.data();
      auto* const sequences = reinterpret_cast<sequence*>(of.tree_upload_.data());
      auto q = where.queue();
      q.synchronize();  // the last upload has been read
      std::copy(path.begin(), path.end(),
                reinterpret_cast<int*>(of.tree_upload_.data() + (tree.path - tree.sequences)));
      const std::ptrdiff_t columns = std::ptrdiff_t{heads_.heads + 2 * heads_.kv_heads} * heads_.head_size;
      for (int layer = 0; layer < layers_; ++layer) {
        const matrix_view<T> rows(reinterpret_cast<T*>(memory) + layer * of.tree_rows_ * columns, of.tree_rows_,
                                  columns);
        sequence& s = sequences[layer] = sequence_of(
            rows, rows.middle_columns(0, std::ptrdiff_t{heads_.heads} * heads_.head_size), of.memory_.view(layer));
        s.rows = reinterpret_cast<const int*>(memory + tree.path);
        s.count = s.first_out = static_cast<int>(path.size());
      }
      q.upload(memory + tree.sequences, of.tree_upload_.data(), tree.upload_bytes);
      const int at_once = std::max(1, 65535 / heads_.heads);
      for (int layer = 0; layer < layers_; layer += at_once) {
        start(q, reinterpret_cast<const sequence*>(memory + tree.sequences) + layer, std::min(at_once, layers_ - layer),
              reinterpret_cast<float*>(memory + tree.vectors));
      }
    }
    of.commit(static_cast<int>(path.size()));
  }

  /// Errors: `unsupported`.
  static void check(const checkpoint::model_config& c) { check_head_size<Execution>(c); }

 private:
  static constexpr std::size_t most_paths = std::size_t{few_tokens} * few_tokens;
  static std::size_t sequence_bytes(int layers, int sequences) {
    return (static_cast<std::size_t>(layers) * static_cast<std::size_t>(sequences) * sizeof(sequence) + 255) / 256 *
           256;
  }

  sequence sequence_of(matrix_view<T> qkv, matrix_view<T> mixed, const kv_cache::recurrent_view& of) const {
    const std::ptrdiff_t wide = std::ptrdiff_t{heads_.heads} * heads_.head_size,
                         narrow = std::ptrdiff_t{heads_.kv_heads} * heads_.head_size;
    sequence s;
    s.query = qkv.middle_columns(0, wide);
    s.key = qkv.middle_columns(wide, narrow);
    s.value = qkv.middle_columns(wide + narrow, narrow);
    s.out = mixed;
    s.state = of;
    return s;
  }
  void check_shapes(std::span<const sequence> sequences) const {
    (void)attention::cuda::plan_linear(heads_, sequences);
  }

  /// A sequence for each run of the tree, which reads what leads to it first.
  void prepare_tree(plan& p, const item& i, matrix_view<T> qkv, matrix_view<T> mixed, std::byte* host,
                    const std::byte* upload) const {
    p.tree_rows = reinterpret_cast<T*>(i.of->tree_memory_.data());
    i.of->tree_rows_ = static_cast<int>(i.tokens.size());
    for_each_run(i.depths, [&](std::ptrdiff_t, std::ptrdiff_t, int) { ++p.sequences; });
    const std::size_t paths = sequence_bytes(layers_, p.sequences);
    auto* const sequences = reinterpret_cast<sequence*>(host);
    auto* const rows = reinterpret_cast<int*>(host + paths);
    p.upload_bytes = paths + static_cast<std::size_t>(p.sequences) * few_tokens * sizeof(int);
    std::vector<int> path;
    int run = 0;
    for_each_run(i.depths, [&](std::ptrdiff_t first, std::ptrdiff_t count, int depth) {
      path.resize(static_cast<std::size_t>(depth));
      for (std::ptrdiff_t t = 0; t < count; ++t) path.push_back(static_cast<int>(first + t));
      std::copy(path.begin(), path.end(), rows + run * few_tokens);
      for (int layer = 0; layer < layers_; ++layer) {
        sequence& s = sequences[layer * p.sequences + run] =
            sequence_of(query_key_value(p, layer, qkv), mixed, i.of->memory_.view(layer));
        s.rows = reinterpret_cast<const int*>(upload + paths) + run * few_tokens;
        s.count = static_cast<int>(path.size());
        s.first_out = depth;
        s.moves_state = false;
      }
      ++run;
    });
    check_shapes(std::span(sequences, 1));
  }

  template <class Queue>
  void start(Queue& q, const sequence* sequences, int count, float* vectors) const {
    attention::cuda::linear_args<Linear, T> args{linear_, heads_, sequences, {}, vectors};
    args.plan.sequences = count;
    with_head_size<Execution>(heads_.head_size, [&](auto size) {
      attention::cuda::start_recurrent<decltype(size)::value>(
          args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
    });
  }

  Linear linear_;
  int layers_;
  attention::head_layout heads_;
  execution::simt::memory<device> rates_;
};

}  // namespace effinfer::inline v0::models::cuda
