#pragma once
// Which blocks of a pool hold a sequence's positions, wherever the pool's memory is.
//
// Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), sections 4.1 to 4.4.

#include <effinfer/core/error.hpp>
#include <effinfer/kv_cache/paged_view.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace effinfer::inline v0::kv_cache::detail {

/// Blocks of `Block` positions of all layers, `[layer][block][key or value][K][Block][row]`, each with a count of the caches that hold
/// it. Caches in different threads may use one pool at the same time. The counts, 8 bytes a block, come from the heap.
template <element T, int Block>
class counted_blocks {
  static_assert(
      Block >= tile_positions && (Block & (Block - 1)) == 0,
      "effinfer: kv_cache::paged needs blocks of a power of two positions, at least 64: kernels read tiles of 64");

 public:
  using element_type = T;
  static constexpr int block_positions = Block;

  /// Bytes of `blocks` blocks. Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(const shape& s, int blocks) {
    check_positive(blocks, "kv_cache::block_pool blocks");
    return product(cache_bytes<T>(s, Block), static_cast<std::uint64_t>(blocks), "kv_cache::block_pool");
  }
  /// Errors: as `footprint`.
  counted_blocks(const shape& s, int blocks)
      : shape_(s), bytes_(footprint(s, blocks)), counts_(static_cast<std::size_t>(blocks)) {
    for (int b = blocks; b > 0; --b) free_.push_back(b - 1);
  }
  counted_blocks(const counted_blocks&) = delete;
  counted_blocks& operator=(const counted_blocks&) = delete;

  [[nodiscard]] const shape& model_shape() const { return shape_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  [[nodiscard]] int blocks() const { return static_cast<int>(counts_.size()); }
  /// Blocks that no cache holds now.
  [[nodiscard]] int free_blocks() const {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(free_.size());
  }

  /// Fills `to` with blocks that nobody else holds; false, and none is taken, where there are fewer.
  [[nodiscard]] bool take(std::span<int> to) {
    const std::lock_guard lock(mutex_);
    if (to.size() > free_.size()) return false;
    for (int& block : to) {
      block = free_.back();
      free_.pop_back();
      counts_[static_cast<std::size_t>(block)] = 1;
    }
    return true;
  }
  /// One more cache holds these.
  void share(std::span<const int> blocks) {
    const std::lock_guard lock(mutex_);
    for (const int block : blocks) ++counts_[static_cast<std::size_t>(block)];
  }
  /// One cache less; blocks that none holds are free.
  void release(std::span<const int> blocks) noexcept {
    const std::lock_guard lock(mutex_);
    for (const int block : blocks) {
      if (--counts_[static_cast<std::size_t>(block)] == 0) free_.push_back(block);
    }
  }
  /// Do others hold it too?
  [[nodiscard]] bool is_shared(int block) const {
    const std::lock_guard lock(mutex_);
    return counts_[static_cast<std::size_t>(block)] > 1;
  }

  /// Elements of one layer of a block.
  [[nodiscard]] std::ptrdiff_t block_elements() const {
    return 2 * std::ptrdiff_t{shape_.kv_heads} * Block * row_elements<T>(shape_.head_size);
  }
  /// And of all blocks.
  [[nodiscard]] std::ptrdiff_t layer_elements() const { return blocks() * block_elements(); }

 private:
  shape shape_;
  std::uint64_t bytes_;
  mutable std::mutex mutex_;
  std::vector<int> counts_;
  std::vector<int> free_;
};

/// Positions [0, length()) of one sequence in blocks of a `Pool`, counted_blocks with memory: one of its own, where copies share none, or
/// a common one.
template <class Pool>
class held_blocks {
 public:
  using pool = Pool;

  held_blocks(const held_blocks&) = delete;
  held_blocks& operator=(const held_blocks&) = delete;

  [[nodiscard]] const shape& model_shape() const { return pool_->model_shape(); }
  [[nodiscard]] int length() const { return length_; }
  /// The oldest position held.
  [[nodiscard]] int first() const { return 0; }
  /// The most positions that it takes.
  [[nodiscard]] int capacity() const { return capacity_; }
  /// The blocks that positions lie in, in their order.
  [[nodiscard]] std::span<const int> table() const { return table_; }

  /// The most tokens that one `write` takes now; fewer, where others take blocks of a common pool in the meantime.
  [[nodiscard]] int room() const {
    const int wanted = capacity_ - length_;
    if (owns_) return wanted;
    const std::int64_t blocks = pool_->free_blocks() - (must_copy() ? 1 : 0);
    if (blocks < 0) return 0;
    const std::int64_t fits = (blocks + static_cast<std::int64_t>(table_.size())) * block - length_;
    return static_cast<int>(std::min<std::int64_t>(wanted, fits));
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

 protected:
  using element_type = typename Pool::element_type;
  static constexpr int block = Pool::block_positions;
  static int blocks_for(int positions) { return positions / block + (positions % block != 0 ? 1 : 0); }

  held_blocks() = default;
  /// Errors: `invalid_argument`.
  held_blocks(std::shared_ptr<Pool> of, int capacity, bool owns)
      : capacity_(capacity), owns_(owns), pool_(std::move(of)) {
    check_positive(capacity, "kv_cache capacity");
    table_.reserve(static_cast<std::size_t>(blocks_for(capacity)));
  }
  ~held_blocks() { release_from(0); }

  void swap(held_blocks& other) noexcept {
    std::swap(capacity_, other.capacity_);
    std::swap(length_, other.length_);
    std::swap(owns_, other.owns_);
    pool_.swap(other.pool_);
    table_.swap(other.table_);
  }

  [[nodiscard]] bool owns() const { return owns_; }
  [[nodiscard]] Pool& blocks() const { return *pool_; }
  [[nodiscard]] const std::shared_ptr<Pool>& common() const { return pool_; }

  /// Becomes a copy of `other`, a cache of the same shape whose first `common` tokens were those of this one. In a common pool the
  /// blocks are shared. Else there are blocks for all of it then, and the positions from what it returns on are to be copied. Error:
  /// `context_overflow`.
  int take_over(const held_blocks& other, int common) {
    const auto held = static_cast<std::size_t>(blocks_for(other.length_));
    if (!owns_ && pool_ == other.pool_) {
      const std::span<const int> shared(other.table_.data(), held);
      pool_->share(shared);
      release_from(0);
      table_.assign(shared.begin(), shared.end());
      return length_ = other.length_;
    }
    length_ = std::min(common, length_);
    release_from(static_cast<std::size_t>(blocks_for(length_)));
    grow(other.length_, [](int, int) {});
    const int first = length_;
    length_ = other.length_;
    return first;
  }

  /// Blocks of this cache alone for all positions from length() up to `end`; copy(from, to) for one that was shared. Nothing changes
  /// where there are too few. Error: `context_overflow`.
  template <class Copy>
  void grow(int end, const Copy& copy) {
    const bool copies = end > length_ && must_copy();
    const auto needed = static_cast<std::size_t>(blocks_for(end)), held = table_.size();
    const std::size_t added = needed > held ? needed - held : 0;
    if (!copies && added == 0) return;
    std::vector<int> fresh(added + (copies ? 1 : 0));
    if (!pool_->take(fresh)) throw_full(fresh.size());
    if (copies) {
      int& shared = table_[static_cast<std::size_t>(length_ / block)];
      copy(shared, fresh.back());
      pool_->release(std::span(&shared, 1));  // only now: nobody writes where two hold a block
      shared = fresh.back();
      fresh.pop_back();
    }
    table_.insert(table_.end(), fresh.begin(), fresh.end());
  }

  /// Room for `tokens` tokens behind the first `behind` of those written and not committed? Error: `context_overflow`.
  void check_room(int behind, std::ptrdiff_t tokens) const {
    if (behind >= 0 && behind + tokens <= capacity_ - length_) return;
    throw error(error_code::context_overflow, "kv_cache.write",
                std::to_string(behind + tokens) + " tokens, room for " + std::to_string(capacity_ - length_),
                "make the cache with a larger capacity");
  }

  /// Blocks for what `h` says, and none else; then it has h.length tokens. Errors, with nothing changed: `malformed`, `mismatch` (another
  /// shape or number type, or more positions than fit), `context_overflow` (the pool has too few blocks left).
  void take_saved(const saved_header& h, std::uint64_t bytes) {
    const shape& s = model_shape();
    check_field(h.element, element_code<element_type>, "number type");
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
    if (bytes < sizeof h + held_bytes(h.length))
      throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the positions");
    std::vector<int> fresh;
    if (!owns_) {
      fresh.reserve(table_.capacity());
      fresh.resize(static_cast<std::size_t>(blocks_for(h.length)));
      if (!pool_->take(fresh)) throw_full(fresh.size());
    }
    clear();
    if (!owns_) table_.swap(fresh);
    grow(h.length, [](int, int) {});
    length_ = h.length;
  }
  [[nodiscard]] std::uint64_t held_bytes(int length) const {
    return cache_bytes<element_type>(model_shape(), 1) * static_cast<std::uint64_t>(length);
  }

  /// Where a row begins in the pool's memory. Heads [0, K) are those of keys, [K, 2K) of values.
  [[nodiscard]] std::ptrdiff_t place_of(int layer, std::ptrdiff_t head, int position) const {
    return layer * pool_->layer_elements() +
           table_[static_cast<std::size_t>(position / block)] * pool_->block_elements() +
           (head * block + position % block) * row_elements<element_type>(model_shape().head_size);
  }
  /// f(layer, head, position, elements) for each piece of memory that positions [first, end) take up: layer by layer, keys before
  /// values, head by head, as a contiguous cache has them.
  template <class F>
  void for_each_run(int first, int end, const F& f) const {
    const shape& s = model_shape();
    const auto d = static_cast<std::size_t>(row_elements<element_type>(s.head_size));
    for (int layer = 0; layer < s.layers; ++layer) {
      for (std::ptrdiff_t head = 0; head < 2 * s.kv_heads; ++head) {
        for (int p = first; p < end;) {
          const int n = std::min(end - p, block - p % block);
          f(layer, head, p, static_cast<std::size_t>(n) * d);
          p += n;
        }
      }
    }
  }

  /// A view whose block 0 of the layer begins at `keys`.
  [[nodiscard]] paged_view<element_type> view_at(const element_type* keys, const int* table, int length) const {
    paged_view<element_type> v;
    v.row_stride = row_elements<element_type>(model_shape().head_size);
    v.head_stride = block * v.row_stride;
    v.block_stride = pool_->block_elements();
    v.keys = keys;
    v.values = v.keys + v.block_stride / 2;
    v.table = table;
    v.block_shift = std::countr_zero(static_cast<unsigned>(block));
    v.length = length;
    return v;
  }

 private:
  /// The last block is in part others' and would be written.
  [[nodiscard]] bool must_copy() const {
    return length_ % block != 0 && pool_->is_shared(table_[static_cast<std::size_t>(length_ / block)]);
  }
  void release_from(std::size_t first) noexcept {
    if (first >= table_.size()) return;
    pool_->release(std::span(table_).subspan(first));
    table_.resize(first);
  }
  [[noreturn]] void throw_full(std::size_t wanted) const {
    throw error(error_code::context_overflow, "kv_cache::paged",
                std::to_string(wanted) + " blocks are needed, " + std::to_string(pool_->free_blocks()) + " of " +
                    std::to_string(pool_->blocks()) + " are free",
                "end or truncate other sequences of the pool, or make it larger");
  }

  int capacity_ = 0;
  int length_ = 0;
  bool owns_ = false;
  std::shared_ptr<Pool> pool_;
  std::vector<int> table_;
};

}  // namespace effinfer::inline v0::kv_cache::detail
