#pragma once
// The numbers that a model's memory of a sequence depends on, and the exact bytes that they come to.

#include <effinfer/core/config.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstdint>
#include <limits>
#include <string>

namespace effinfer::inline v0::kv_cache {

/// Of one model: layers, key heads K, head size D.
struct shape {
  int layers = 0;
  int kv_heads = 0;
  int head_size = 0;
  friend bool operator==(const shape&, const shape&) = default;
};

namespace detail {

/// a * b. Errors: `limit` where that is more than any machine's memory.
inline std::uint64_t product(std::uint64_t a, std::uint64_t b, const char* where) {
  if (a != 0 && b > (std::uint64_t{1} << 56) / a) {
    throw error(error_code::limit, where, "the sizes multiply to more than 2^56 bytes");
  }
  return a * b;
}

/// Errors: `invalid_argument` naming the field.
inline void check_positive(int value, const char* where) {
  if (value < 1) throw error(error_code::invalid_argument, where, std::to_string(value) + " is below 1");
}

/// Bytes of keys and values. Errors: `invalid_argument`, `limit`.
inline std::uint64_t cache_bytes(const shape& s, int capacity, std::uint64_t element_bytes) {
  check_positive(s.layers, "kv_cache::shape.layers");
  check_positive(s.kv_heads, "kv_cache::shape.kv_heads");
  check_positive(s.head_size, "kv_cache::shape.head_size");
  check_positive(capacity, "kv_cache capacity");
  std::uint64_t bytes = 2 * element_bytes;
  for (const int factor : {s.layers, s.kv_heads, s.head_size, capacity}) {
    bytes = product(bytes, static_cast<std::uint64_t>(factor), "kv_cache::footprint");
  }
  return bytes;
}
/// The same in numbers of type T.
template <element T>
std::uint64_t cache_bytes(shape s, int capacity) {
  if (s.head_size > 0 && s.head_size < (1 << 30)) s.head_size = row_elements<T>(s.head_size);
  return cache_bytes(s, capacity, sizeof(T));
}

}  // namespace detail
}  // namespace effinfer::inline v0::kv_cache
