#pragma once
// What attention kernels read: keys and values of one layer and one sequence, owned by somebody else.

#include <effinfer/core/dtype.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

namespace effinfer::inline v0::kv_cache {

/// Positions that always lie one after another in memory, from each multiple of this on; kernels go from tile to tile.
inline constexpr int tile_positions = 64;

/// Eight bits a number: a row of D numbers is D bytes `code` and then four that are a float `scale`, and number i is
/// scale (code[i] - 128). Its error is at most max |row| / 254.
/// Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018),
/// equation 1 with the zero point in the middle; one scale a token and head.
struct int8 {
  std::uint8_t byte;
};

/// Types that a cache stores.
template <class T>
concept element = std::same_as<T, float> || std::same_as<T, f16> || std::same_as<T, bf16> || std::same_as<T, int8> ||
    std::same_as<T, fp8_e4m3>;

/// Elements that a row of D numbers takes.
template <element T>
constexpr int row_elements(int head_size) {
  return std::same_as<T, int8> ? head_size + 4 : head_size;
}

namespace detail {
inline bool is_multiple(int bytes, const void* a, const void* b) {
  return reinterpret_cast<std::uintptr_t>(a) % static_cast<unsigned>(bytes) == 0 &&
         reinterpret_cast<std::uintptr_t>(b) % static_cast<unsigned>(bytes) == 0;
}
template <class T>
bool is_multiple(int bytes, std::initializer_list<std::ptrdiff_t> elements) {
  for (const std::ptrdiff_t n : elements) {
    if (n * static_cast<std::ptrdiff_t>(sizeof(T)) % bytes != 0) return false;
  }
  return true;
}
}  // namespace detail

/// Keys and values where position p of key head k begins at `keys + k * head_stride + (p % capacity) * row_stride`,
/// row_elements<T>(D) elements each.
///
/// Plain row-major arrays [S, K*D] of any origin: view<T>::of_rows.
template <element T>
struct view {
  using element_type = T;

  const T* keys = nullptr;
  const T* values = nullptr;
  std::ptrdiff_t head_stride = 0;  ///< elements from a key head to the next
  std::ptrdiff_t row_stride = 0;   ///< elements from a position to the next, >= row_elements<T>(D)
  int capacity = 0;  ///< positions; less than `length` only in a ring, and then a multiple of tile_positions
  int first = 0;     ///< the oldest position held
  int length = 0;    ///< one past the newest position held: S

  /// S positions in row-major arrays [S, K*D].
  static constexpr view of_rows(const T* key_rows, const T* value_rows, int kv_heads, int head_size, int length) {
    view v;
    v.keys = key_rows, v.values = value_rows;
    v.head_stride = row_elements<T>(head_size), v.row_stride = std::ptrdiff_t{kv_heads} * v.head_stride;
    v.capacity = length, v.length = length;
    return v;
  }

  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr const T* key(int kv_head, int position) const {
    return keys + offset(kv_head, position);
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr const T* value(int kv_head, int position) const {
    return values + offset(kv_head, position);
  }

  /// True where every row begins at a multiple of `bytes`.
  [[nodiscard]] bool has_aligned_rows(int kv_heads, int bytes) const {
    return detail::is_multiple(bytes, keys, values) &&
           detail::is_multiple<T>(bytes, {kv_heads > 1 ? head_stride : 0, row_stride});
  }

 private:
  [[nodiscard]] EFFINFER_HOST_DEVICE constexpr std::ptrdiff_t offset(int kv_head, int position) const {
    const int slot = position < capacity ? position : position % capacity;
    return kv_head * head_stride + slot * row_stride;
  }
};

/// What kernels ask of a view: rows of D elements, consecutive rows `row_stride` apart up to the next multiple of
/// tile_positions, for positions in [first, length). A paged cache is one if its pages hold whole tiles.
template <class V>
concept cache_view = std::is_trivially_copyable_v<V> && element<typename V::element_type> && requires(const V& v) {
  { v.key(0, 0) } -> std::convertible_to<const typename V::element_type*>;
  { v.value(0, 0) } -> std::convertible_to<const typename V::element_type*>;
  { v.row_stride } -> std::convertible_to<std::ptrdiff_t>;
  { v.first } -> std::convertible_to<int>;
  { v.length } -> std::convertible_to<int>;
};

static_assert(cache_view<view<float>> && cache_view<view<f16>> && cache_view<view<bf16>> && cache_view<view<int8>> &&
              cache_view<view<fp8_e4m3>>);

}  // namespace effinfer::inline v0::kv_cache
