#pragma once
// Keys and values whose positions lie in blocks of a pool, in any order, which a table names: sequences share a pool, and blocks.
//
// Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention" (2023), section 4.1.

#include <effinfer/kv_cache/view.hpp>

#include <cstddef>

namespace effinfer::inline v0::kv_cache {

/// Position p of key head k begins at  keys + table[p / B] * block_stride + k * head_stride + (p % B) * row_stride,  where a block
/// holds B = 2^block_shift positions, at least tile_positions. A kernel on a GPU is given a table in device memory.
template <element T>
struct paged_view {
  using element_type = T;

  const T* keys = nullptr;          ///< of block 0
  const T* values = nullptr;        ///< of block 0
  const int* table = nullptr;       ///< [(length + B - 1) / B] blocks; those before `first` aren't looked at
  std::ptrdiff_t block_stride = 0;  ///< elements from a block to the next
  std::ptrdiff_t head_stride = 0;   ///< elements from a key head to the next
  std::ptrdiff_t row_stride = 0;    ///< elements from a position to the next of its block, >= row_elements<T>(D)
  int block_shift = 6;              ///< log2 B
  int first = 0;                    ///< the oldest position held
  int length = 0;                   ///< one past the newest position held: S

  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr const T* key(int kv_head, int position) const {
    return keys + offset(kv_head, position);
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr const T* value(int kv_head, int position) const {
    return values + offset(kv_head, position);
  }

  /// True where every row begins at a multiple of `bytes`; the table isn't looked at.
  [[nodiscard]] bool has_aligned_rows(int kv_heads, int bytes) const {
    return detail::is_multiple(bytes, keys, values) &&
           detail::is_multiple<T>(bytes, {kv_heads > 1 ? head_stride : 0, row_stride, block_stride});
  }

 private:
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr std::ptrdiff_t offset(int kv_head, int position) const {
    return table[position >> block_shift] * block_stride + kv_head * head_stride +
           (position & ((1 << block_shift) - 1)) * row_stride;
  }
};

static_assert(cache_view<paged_view<float>> && cache_view<paged_view<f16>> && cache_view<paged_view<bf16>> &&
              cache_view<paged_view<int8>>);

}  // namespace effinfer::inline v0::kv_cache
