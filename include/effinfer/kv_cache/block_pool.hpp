#pragma once
// Memory for keys and values in blocks of equal size that sequences take, share and give back: paged.hpp is the cache on it.
//
// Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), sections 4.1 and 4.4.

#include <effinfer/kv_cache/positions.hpp>
#include <effinfer/kv_cache/shape.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <mutex>
#include <span>
#include <vector>

namespace effinfer::inline v0::kv_cache {

/// Blocks of `Block` positions of all layers, `[layer][block][key or value][K][Block][row]`, each with a count of the caches that hold
/// it. Caches in different threads may use one pool at the same time. The counts, 8 bytes a block, come from the heap.
template <element T, int Block>
class block_pool {
  static_assert(
      Block >= tile_positions && (Block & (Block - 1)) == 0,
      "effinfer: kv_cache::paged needs blocks of a power of two positions, at least 64: kernels read tiles of 64");

 public:
  /// Bytes of `blocks` blocks. Errors: `invalid_argument`, `limit`.
  static std::uint64_t footprint(const shape& s, int blocks) {
    detail::check_positive(blocks, "kv_cache::block_pool blocks");
    return detail::product(detail::cache_bytes<T>(s, Block), static_cast<std::uint64_t>(blocks),
                           "kv_cache::block_pool");
  }
  /// Memory comes from `from`, which must outlive the pool. Errors: as `footprint`, std::bad_alloc.
  block_pool(const shape& s, int blocks, std::pmr::memory_resource* from = std::pmr::get_default_resource())
      : shape_(s),
        bytes_(static_cast<std::size_t>(footprint(s, blocks))),
        counts_(static_cast<std::size_t>(blocks)),
        data_(static_cast<T*>(from->allocate(bytes_, 64)), release_memory{from, bytes_}) {
    for (int b = blocks; b > 0; --b) free_.push_back(b - 1);
  }
  block_pool(const block_pool&) = delete;
  block_pool& operator=(const block_pool&) = delete;

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
  /// Block 0 of a layer; block b is b block_elements() further.
  [[nodiscard]] T* layer(int layer) const { return data_.get() + std::ptrdiff_t{layer} * blocks() * block_elements(); }

 private:
  struct release_memory {
    std::pmr::memory_resource* from;
    std::size_t bytes;
    void operator()(T* p) const { from->deallocate(p, bytes, 64); }
  };

  shape shape_;
  std::size_t bytes_;
  mutable std::mutex mutex_;
  std::vector<int> counts_;
  std::vector<int> free_;
  std::unique_ptr<T[], release_memory> data_;
};

}  // namespace effinfer::inline v0::kv_cache
