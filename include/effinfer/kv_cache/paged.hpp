#pragma once
// A KV cache in blocks of a pool. Sequences that share a pool take as much of it as they have tokens, and copies share blocks until one
// of them writes (copy-on-write): a fork costs no memory, nor does a common prefix.
//
// Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), section 4.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/kv_cache/block_pool.hpp>
#include <effinfer/kv_cache/cpu/write.hpp>
#include <effinfer/kv_cache/paged_view.hpp>
#include <effinfer/kv_cache/policy.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache {

namespace detail {

/// Keys and values of one sequence in blocks of a pool of its own or a common one.
template <element T, int Block>
class pages {
 public:
  using pool = block_pool<T, Block>;

  /// Memory comes from `from`, as does that of copies, which share none.
  pages(const shape& s, int capacity, std::pmr::memory_resource* from)
      : capacity_(capacity), from_(from), pool_(std::make_shared<pool>(s, blocks_for(capacity), from)) {
    table_.reserve(static_cast<std::size_t>(blocks_for(capacity)));
  }
  pages(std::shared_ptr<pool> common, int capacity) : capacity_(capacity), pool_(std::move(common)) {
    check_positive(capacity, "kv_cache capacity");
    table_.reserve(static_cast<std::size_t>(blocks_for(capacity)));
  }
  pages(const pages& other)
      : capacity_(other.capacity_),
        from_(other.from_),
        pool_(other.owns() ? std::make_shared<pool>(other.model_shape(), blocks_for(other.capacity_), other.from_)
                           : other.pool_) {
    table_.reserve(static_cast<std::size_t>(blocks_for(capacity_)));
    become(other, 0);
  }
  pages(pages&& other) noexcept { swap(other); }
  pages& operator=(pages other) noexcept {
    swap(other);
    return *this;
  }
  ~pages() { release_from(0); }

  /// Becomes a copy of `other`, a cache of the same shape whose first `common` tokens were those of this one. In a common pool the
  /// blocks are shared; else what both hold isn't copied again. Error: `context_overflow`.
  void become(const pages& other, int common) {
    if (this == &other) return;
    const auto held = static_cast<std::size_t>(blocks_for(other.length_));
    if (!owns() && pool_ == other.pool_) {
      const std::span<const int> shared(other.table_.data(), held);
      pool_->share(shared);
      release_from(0);
      table_.assign(shared.begin(), shared.end());
      length_ = other.length_;
      return;
    }
    length_ = std::min(common, length_);
    release_from(static_cast<std::size_t>(blocks_for(length_)));
    grow(other.length_);
    const int first = length_;
    length_ = other.length_;
    other.for_each_run(first, length_, [&](int layer, std::ptrdiff_t head, int position, const T* from, std::size_t n) {
      std::memcpy(row(layer, head, position), from, n * sizeof(T));
    });
  }

  [[nodiscard]] const shape& model_shape() const { return pool_->model_shape(); }
  [[nodiscard]] int length() const { return length_; }
  /// The oldest position held.
  [[nodiscard]] int first() const { return 0; }
  /// The most positions that it takes.
  [[nodiscard]] int capacity() const { return capacity_; }
  /// Bytes of the pool where it is this cache's own, else of the blocks that it holds, shared ones too.
  [[nodiscard]] std::uint64_t bytes() const {
    return owns() ? pool_->bytes() : pool_->bytes() / static_cast<std::uint64_t>(pool_->blocks()) * table_.size();
  }
  /// The blocks that positions lie in, in their order.
  [[nodiscard]] std::span<const int> table() const { return table_; }

  /// The most tokens that one `write` takes now; fewer, where others take blocks of a common pool in the meantime.
  [[nodiscard]] int room() const {
    const int wanted = capacity_ - length_;
    if (owns()) return wanted;
    const std::int64_t blocks = pool_->free_blocks() - (must_copy() ? 1 : 0);
    if (blocks < 0) return 0;
    const std::int64_t fits = (blocks + static_cast<std::int64_t>(table_.size())) * Block - length_;
    return static_cast<int>(std::min<std::int64_t>(wanted, fits));
  }

  /// Keys and values of `layer` as they stand. A view holds until the next write, truncate, copy to this cache, or its end.
  [[nodiscard]] paged_view<T> view(int layer) const { return view_of(layer, length_); }

  /// Puts the next T tokens' keys and values of one layer behind those held, and returns what `attend` reads, these
  /// tokens included. Every layer writes the same T; `commit(T)` then makes them part of the sequence, else they are
  /// as if never written.
  ///
  /// Shapes: key, value [T, K*D]. Errors: `mismatch` (shapes), `context_overflow` (T > room()).
  paged_view<T> write(const execution::cpu::context& exec, int layer, matrix_view<const float> key,
                      matrix_view<const float> value) {
    const shape& s = model_shape();
    const std::ptrdiff_t columns = std::ptrdiff_t{s.kv_heads} * s.head_size;
    if (layer < 0 || layer >= s.layers || key.columns != columns || value.columns != columns ||
        key.rows != value.rows) {
      throw error(error_code::mismatch, "kv_cache.write",
                  "layer " + std::to_string(layer) + ", key [" + std::to_string(key.rows) + ", " +
                      std::to_string(key.columns) + "], value [" + std::to_string(value.rows) + ", " +
                      std::to_string(value.columns) + "] for " + std::to_string(s.layers) + " layers of [T, " +
                      std::to_string(columns) + "]");
    }
    if (key.rows > capacity_ - length_) {
      throw error(error_code::context_overflow, "kv_cache.write",
                  std::to_string(key.rows) + " tokens, room for " + std::to_string(capacity_ - length_),
                  "make the cache with a larger capacity");
    }
    const int tokens = static_cast<int>(key.rows), start = length_, d = s.head_size;
    grow(length_ + tokens);
    const auto set = exec.set();
    const std::ptrdiff_t rows_a_part = std::max(1, (1 << 14) / (d * s.kv_heads));
    exec.parallel_for(tokens, rows_a_part, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
      for (auto t = begin; t < end; ++t) {
        for (std::ptrdiff_t head = 0; head < s.kv_heads; ++head) {
          const int p = start + static_cast<int>(t);
          const float *const k = key.row(t) + head * d, *const v = value.row(t) + head * d;
          execution::dispatch<convert_row<T>>(set, k, row(layer, head, p), std::ptrdiff_t{d});
          execution::dispatch<convert_row<T>>(set, v, row(layer, head + s.kv_heads, p), std::ptrdiff_t{d});
        }
      }
    });
    return view_of(layer, length_ + tokens);
  }

  /// `tokens` tokens, written in every layer, are now part of the sequence.
  void commit(int tokens) { length_ += tokens; }

  /// Every length can be gone back to.
  [[nodiscard]] int truncation_limit() const { return 0; }
  /// Forgets all tokens from position n on and gives back blocks that hold none else; true. Errors: `invalid_argument` (n outside [0,
  /// length()]).
  bool truncate(int n) {
    if (n < 0 || n > length_) {
      throw error(error_code::invalid_argument, "kv_cache.truncate",
                  std::to_string(n) + " is not in [0, " + std::to_string(length_) + "]");
    }
    length_ = n;
    release_from(static_cast<std::size_t>(blocks_for(n)));
    return true;
  }

  /// A point to come back to. Cost: nothing.
  struct mark {
    int length = 0;
  };
  [[nodiscard]] mark snapshot() const { return {length_}; }
  /// Forgets what was written since.
  bool rollback(mark m) { return truncate(m.length); }

  /// No tokens, no blocks.
  void clear() { truncate(0); }

  /// Bytes that `save` appends.
  [[nodiscard]] std::uint64_t saved_bytes() const { return sizeof(saved_header) + held_bytes(length_); }
  /// Appends the positions held to `out`, little-endian: what a contiguous cache of them saves.
  void save(std::vector<std::byte>& out) const {
    const shape& s = model_shape();
    const saved_header h{saved_header::of_positions, element_code<T>, s.layers, s.kv_heads, s.head_size, 0, length_};
    append_bytes(out, &h, sizeof h);
    for_each_run(0, length_, [&](int, std::ptrdiff_t, int, const T* from, std::size_t n) {
      append_bytes(out, from, n * sizeof(T));
    });
  }
  /// Becomes what `save` wrote, of this or a contiguous cache; `in` may go on behind it. Returns how many bytes that were.
  ///
  /// Errors, with nothing changed: `malformed` (not such bytes, or cut short), `mismatch` (another shape or number
  /// type, or more positions than fit), `context_overflow` (the pool has too few blocks left).
  std::size_t load(std::span<const std::byte> in) {
    const saved_header h = read_header(in, saved_header::of_positions);
    const shape& s = model_shape();
    check_field(h.element, element_code<T>, "number type");
    check_field(h.layers, s.layers, "layers");
    check_field(h.heads, s.kv_heads, "kv_heads");
    check_field(h.head_size, s.head_size, "head_size");
    if (h.first < 0 || h.length < h.first)
      throw error(error_code::malformed, "kv_cache.load", "impossible positions in the header");
    if (h.length > capacity_ || h.first > 0) {
      throw error(error_code::mismatch, "kv_cache.load",
                  "positions [" + std::to_string(h.first) + ", " + std::to_string(h.length) + ") were saved, " +
                      std::to_string(capacity_) + " fit");
    }
    const std::uint64_t payload = held_bytes(h.length);
    if (in.size() - sizeof h < payload)
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the positions");
    std::vector<int> fresh;
    if (!owns()) {
      fresh.reserve(table_.capacity());
      fresh.resize(static_cast<std::size_t>(blocks_for(h.length)));
      if (!pool_->take(fresh)) throw_full(fresh.size());
    }
    clear();
    if (!owns()) table_.swap(fresh);
    grow(h.length);
    length_ = h.length;
    const std::byte* from = in.data() + sizeof h;
    for_each_run(0, length_, [&](int layer, std::ptrdiff_t head, int position, const T*, std::size_t n) {
      std::memcpy(row(layer, head, position), from, n * sizeof(T));
      from += n * sizeof(T);
    });
    return static_cast<std::size_t>(sizeof h + payload);
  }

 protected:
  static int blocks_for(int positions) { return positions / Block + (positions % Block != 0 ? 1 : 0); }

 private:
  [[nodiscard]] bool owns() const { return from_ != nullptr; }

  void swap(pages& other) noexcept {
    std::swap(capacity_, other.capacity_);
    std::swap(length_, other.length_);
    std::swap(from_, other.from_);
    pool_.swap(other.pool_);
    table_.swap(other.table_);
  }

  /// The last block is in part others' and would be written.
  [[nodiscard]] bool must_copy() const {
    return length_ % Block != 0 && pool_->is_shared(table_[static_cast<std::size_t>(length_ / Block)]);
  }

  void release_from(std::size_t block) noexcept {
    if (block >= table_.size()) return;
    pool_->release(std::span(table_).subspan(block));
    table_.resize(block);
  }

  [[noreturn]] void throw_full(std::size_t wanted) const {
    throw error(error_code::context_overflow, "kv_cache::paged",
                std::to_string(wanted) + " blocks are needed, " + std::to_string(pool_->free_blocks()) + " of " +
                    std::to_string(pool_->blocks()) + " are free",
                "end or truncate other sequences of the pool, or make it larger");
  }

  /// Blocks of this cache alone for all positions from length() up to `end`. Nothing changes where there are too few.
  void grow(int end) {
    const bool copy = end > length_ && must_copy();
    const auto needed = static_cast<std::size_t>(blocks_for(end)), held = table_.size();
    const std::size_t added = needed > held ? needed - held : 0;
    if (!copy && added == 0) return;
    std::vector<int> fresh(added + (copy ? 1 : 0));
    if (!pool_->take(fresh)) throw_full(fresh.size());
    if (copy) {
      int& block = table_[static_cast<std::size_t>(length_ / Block)];
      const std::ptrdiff_t n = pool_->block_elements();
      for (int layer = 0; layer < model_shape().layers; ++layer) {
        std::memcpy(pool_->layer(layer) + fresh.back() * n, pool_->layer(layer) + block * n,
                    static_cast<std::size_t>(n) * sizeof(T));
      }
      pool_->release(std::span(&block, 1));  // only now: nobody writes where two hold a block
      block = fresh.back();
      fresh.pop_back();
    }
    table_.insert(table_.end(), fresh.begin(), fresh.end());
  }

  /// Heads [0, K) are those of keys, [K, 2K) of values.
  [[nodiscard]] T* row(int layer, std::ptrdiff_t head, int position) const {
    return pool_->layer(layer) + table_[static_cast<std::size_t>(position / Block)] * pool_->block_elements() +
           (head * Block + position % Block) * row_elements<T>(model_shape().head_size);
  }

  [[nodiscard]] paged_view<T> view_of(int layer, int length) const {
    paged_view<T> v;
    v.row_stride = row_elements<T>(model_shape().head_size);
    v.head_stride = Block * v.row_stride;
    v.block_stride = pool_->block_elements();
    v.keys = pool_->layer(layer);
    v.values = v.keys + v.block_stride / 2;
    v.table = table_.data();
    v.block_shift = std::countr_zero(static_cast<unsigned>(Block));
    v.length = length;
    return v;
  }

  [[nodiscard]] std::uint64_t held_bytes(int length) const {
    return cache_bytes<T>(model_shape(), 1) * static_cast<std::uint64_t>(length);
  }

  /// f(layer, head, position, first element, elements) for each piece of memory that positions [first, end) take up: layer by layer,
  /// keys before values, head by head, as a contiguous cache has them.
  template <class F>
  void for_each_run(int first, int end, const F& f) const {
    const shape& s = model_shape();
    const auto d = static_cast<std::size_t>(row_elements<T>(s.head_size));
    for (int layer = 0; layer < s.layers; ++layer) {
      for (std::ptrdiff_t head = 0; head < 2 * s.kv_heads; ++head) {
        for (int p = first; p < end;) {
          const int n = std::min(end - p, Block - p % Block);
          f(layer, head, p, row(layer, head, p), static_cast<std::size_t>(n) * d);
          p += n;
        }
      }
    }
  }

  int capacity_ = 0;
  int length_ = 0;
  std::pmr::memory_resource* from_ = nullptr;  // where the pool is this cache's own
  std::shared_ptr<pool> pool_;
  std::vector<int> table_;
};

}  // namespace detail

/// Policy. T: float, f16, bf16, int8 or fp8_e4m3; Block: positions of a block, a power of two, at least 64.
template <element T = f16, int Block = 64>
struct paged {
  using slot = effinfer::slot::kv_cache;
  using element_type = T;
  using view = kv_cache::paged_view<T>;
  using pool = block_pool<T, Block>;

  /// Keys and values of one sequence; see detail::pages for what it does.
  class cache : public detail::pages<T, Block> {
   public:
    /// Bytes that a cache with a pool of its own takes, before it is made: those of a contiguous cache of whole blocks. Errors:
    /// `invalid_argument`, `limit`.
    static std::uint64_t footprint(const shape& s, int capacity) {
      detail::check_positive(capacity, "kv_cache capacity");
      return pool::footprint(s, cache::blocks_for(capacity));
    }
    /// Room for `capacity` tokens in a pool of its own, in memory of `from`, which must outlive it. Errors: as `footprint`,
    /// std::bad_alloc.
    cache(const shape& s, int capacity, std::pmr::memory_resource* from = std::pmr::get_default_resource())
        : detail::pages<T, Block>(checked(s, capacity), capacity, from) {}
    /// Up to `capacity` tokens in a common pool, of which it takes blocks as it writes. Error: `invalid_argument`.
    cache(std::shared_ptr<pool> common, int capacity) : detail::pages<T, Block>(std::move(common), capacity) {}

   private:
    static const shape& checked(const shape& s, int capacity) { return (void)footprint(s, capacity), s; }
  };
};

static_assert(check_kv_cache<paged<>>::complete && kv_cache_policy<paged<float, 128>>);

}  // namespace effinfer::inline v0::kv_cache
