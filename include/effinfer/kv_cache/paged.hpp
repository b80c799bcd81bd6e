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
#include <effinfer/kv_cache/held_blocks.hpp>
#include <effinfer/kv_cache/paged_view.hpp>
#include <effinfer/kv_cache/policy.hpp>
#include <effinfer/kv_cache/saved_bytes.hpp>

#include <algorithm>
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
class pages : public held_blocks<block_pool<T, Block>> {
  using held = held_blocks<block_pool<T, Block>>;

 public:
  using pool = block_pool<T, Block>;
  using held::model_shape;

  /// Memory comes from `from`, as does that of copies, which share none.
  pages(const shape& s, int capacity, std::pmr::memory_resource* from)
      : held(std::make_shared<pool>(s, held::blocks_for(capacity), from), capacity, true), from_(from) {}
  pages(std::shared_ptr<pool> common, int capacity) : held(std::move(common), capacity, false) {}
  pages(const pages& other)
      : held(other.owns() ? std::make_shared<pool>(other.model_shape(), held::blocks_for(other.capacity()), other.from_)
                          : other.common(),
             other.capacity(), other.owns()),
        from_(other.from_) {
    become(other, 0);
  }
  pages(pages&& other) noexcept { swap(other); }
  pages& operator=(pages other) noexcept {
    swap(other);
    return *this;
  }
  ~pages() = default;

  /// Becomes a copy of `other`, a cache of the same shape whose first `common` tokens were those of this one. In a common pool the
  /// blocks are shared; else what both hold isn't copied again. Error: `context_overflow`.
  void become(const pages& other, int common) {
    if (this == &other) return;
    const int first = held::take_over(other, common);
    other.for_each_run(first, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      std::memcpy(row(layer, head, position), other.row(layer, head, position), n * sizeof(T));
    });
  }

  /// Bytes of the pool where it is this cache's own, else of the blocks that it holds, shared ones too.
  [[nodiscard]] std::uint64_t bytes() const {
    const pool& p = held::blocks();
    return held::owns() ? p.bytes() : p.bytes() / static_cast<std::uint64_t>(p.blocks()) * held::table().size();
  }

  /// Keys and values of `layer` as they stand. A view holds until the next write, truncate, copy to this cache, or its end.
  [[nodiscard]] paged_view<T> view(int layer) const { return view_of(layer, held::length()); }

  /// Puts the next T tokens' keys and values of one layer behind those held, and returns what `attend` reads, these
  /// tokens included. Every layer writes the same T; `commit(T)` then makes them part of the sequence, else they are
  /// as if never written. With `behind` they are put behind the first so many of those written before and not committed, in place of
  /// what stood there: the branches of a tree, one after the other.
  ///
  /// Shapes: key, value [T, K*D]. Errors: `mismatch` (shapes), `context_overflow` (behind + T > room()).
  paged_view<T> write(const execution::cpu::context& exec, int layer, matrix_view<const float> key,
                      matrix_view<const float> value, int behind = 0) {
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
    held::check_room(behind, key.rows);
    const int tokens = static_cast<int>(key.rows), start = held::length() + behind, d = s.head_size;
    held::grow(start + tokens, [this](int from, int to) { copy_block(from, to); });
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
    return view_of(layer, start + tokens);
  }

  /// Bytes that `save` appends.
  [[nodiscard]] std::uint64_t saved_bytes() const { return sizeof(saved_header) + held::held_bytes(held::length()); }
  /// Appends the positions held to `out`, little-endian: what a contiguous cache of them saves.
  void save(std::vector<std::byte>& out) const {
    const shape& s = model_shape();
    const saved_header h{
        saved_header::of_positions, element_code<T>, s.layers, s.kv_heads, s.head_size, 0, held::length()};
    append_bytes(out, &h, sizeof h);
    held::for_each_run(0, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      append_bytes(out, row(layer, head, position), n * sizeof(T));
    });
  }
  /// Becomes what `save` wrote, of this or a contiguous cache; `in` may go on behind it. Returns how many bytes that were.
  ///
  /// Errors, with nothing changed: `malformed` (not such bytes, or cut short), `mismatch` (another shape or number
  /// type, or more positions than fit), `context_overflow` (the pool has too few blocks left).
  std::size_t load(std::span<const std::byte> in) {
    const saved_header h = read_header(in, saved_header::of_positions);
    held::take_saved(h, in.size());
    const std::byte* from = in.data() + sizeof h;
    held::for_each_run(0, held::length(), [&](int layer, std::ptrdiff_t head, int position, std::size_t n) {
      std::memcpy(row(layer, head, position), from, n * sizeof(T));
      from += n * sizeof(T);
    });
    return static_cast<std::size_t>(sizeof h + held::held_bytes(held::length()));
  }

 private:
  void swap(pages& other) noexcept {
    held::swap(other);
    std::swap(from_, other.from_);
  }
  void copy_block(int from, int to) const {
    const std::ptrdiff_t n = held::blocks().block_elements();
    for (int layer = 0; layer < model_shape().layers; ++layer) {
      T* const first = held::blocks().layer(layer);
      std::memcpy(first + to * n, first + from * n, static_cast<std::size_t>(n) * sizeof(T));
    }
  }
  [[nodiscard]] T* row(int layer, std::ptrdiff_t head, int position) const {
    return held::blocks().data() + held::place_of(layer, head, position);
  }
  [[nodiscard]] paged_view<T> view_of(int layer, int length) const {
    return held::view_at(held::blocks().layer(layer), held::table().data(), length);
  }

  std::pmr::memory_resource* from_ = nullptr;  // where the pool is this cache's own
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
