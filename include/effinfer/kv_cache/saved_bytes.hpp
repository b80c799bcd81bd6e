#pragma once
// The header in front of a saved cache or recurrent state, and its checks.

#include <effinfer/core/error.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace effinfer::inline v0::kv_cache::detail {

/// 32 bytes, little-endian.
struct saved_header {
  static constexpr std::int32_t of_positions = 1, of_recurrent_state = 2;

  std::int32_t kind;
  std::int32_t element;
  std::int32_t layers;
  std::int32_t heads;
  std::int32_t head_size;
  std::int32_t first;
  std::int32_t length;
  std::uint32_t magic = 0x31564b45;  // "EKV1"
};
static_assert(sizeof(saved_header) == 32);

template <element T>
inline constexpr std::int32_t element_code = std::same_as<T, float>  ? 1
                                             : std::same_as<T, f16>  ? 2
                                             : std::same_as<T, bf16> ? 3
                                             : std::same_as<T, int8> ? 4
                                                                     : 5;

inline void append_bytes(std::vector<std::byte>& out, const void* data, std::uint64_t size) {
  const auto* first = static_cast<const std::byte*>(data);
  out.insert(out.end(), first, first + size);
}

/// Errors: `malformed`.
inline saved_header read_header(std::span<const std::byte> in, std::int32_t kind) {
  saved_header h{};
  if (in.size() < sizeof h) throw error(error_code::malformed, "kv_cache.load", "the bytes end inside the header");
  std::memcpy(&h, in.data(), sizeof h);
  if (h.magic != saved_header{}.magic || h.kind != kind) {
    throw error(error_code::malformed, "kv_cache.load",
                kind == saved_header::of_positions ? "these bytes are no saved keys and values"
                                                   : "these bytes are no saved recurrent state");
  }
  return h;
}

/// Errors: `mismatch` naming both values.
inline void check_field(std::int32_t saved, std::int32_t here, const char* what) {
  if (saved != here) {
    throw error(error_code::mismatch, "kv_cache.load",
                std::string(what) + ": saved " + std::to_string(saved) + ", here " + std::to_string(here));
  }
}

/// Of a recurrent state. Errors: `mismatch` (another shape), `malformed`.
inline void check_recurrent(const saved_header& h, int layers, int heads, int head_size) {
  check_field(h.element, element_code<float>, "number type");
  check_field(h.layers, layers, "layers");
  check_field(h.heads, heads, "heads");
  check_field(h.head_size, head_size, "head_size");
  if (h.length < 0) throw error(error_code::malformed, "kv_cache.load", "impossible length in the header");
}

}  // namespace effinfer::inline v0::kv_cache::detail
