#pragma once
// How the keys and values of any cache come into a block's shared memory, and what the words there mean.

#include <effinfer/attention/sequence.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::attention::cuda {

/// A row of D numbers as a cache stores them: 32-bit words, the last of which may be a scale.
template <class Element, int D>
struct cache_row {
  static constexpr bool scaled = std::is_same_v<Element, kv_cache::int8>;
  static constexpr int per_word = 4 / static_cast<int>(sizeof(Element));
  static constexpr int words = D / per_word + (scaled ? 1 : 0);
  /// Bytes that one copy moves, and a multiple of which every row begins at: rows of int8 are D + 4 bytes.
  static constexpr int copy_bytes = scaled ? 4 : 16;
  /// From a row to the next in shared memory, so that rows below each other begin in other banks.
  static constexpr int pitch = scaled ? words : words + 4;

  /// Number i of a word; of int8 the code, which the scale is still to be multiplied with. Exact.
  EFFINFER_HOST_DEVICE static float number(std::uint32_t word, int i) {
    if constexpr (scaled) {
      // 2^23 + byte is a float with the byte in its lowest bits.
      return std::bit_cast<float>(0x4b000000U | (word >> (i * 8) & 0xffU)) - 8388736.0F;
    } else if constexpr (std::is_same_v<Element, float>) {
      return std::bit_cast<float>(word);
    } else if constexpr (std::is_same_v<Element, fp8_e4m3>) {
      return static_cast<float>(fp8_e4m3::from_bits(static_cast<std::uint8_t>(word >> (i * 8))));
    } else {
      return static_cast<float>(Element::from_bits(static_cast<std::uint16_t>(word >> (i * 16))));
    }
  }

  /// The scale of row r of a tile.
  template <class Shared>
  EFFINFER_HOST_DEVICE static float scale(const Shared& tile, int r) {
    if constexpr (scaled) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(tile[r * pitch + words - 1]));
    } else {
      return 1.0F;
    }
  }
};

/// Copies the rows of positions [key, key + Keys) of one head to keys and values in shared memory, Pitch words apart, in the background. Positions outside
/// [begin, end), which isn't empty there: any row of it. No tile of Keys crosses a multiple of kv_cache::tile_positions.
template <int Keys, int D, int Threads, int Pitch, class Simt, class View, class Shared>
EFFINFER_HOST_DEVICE void fetch_rows(Simt& t, const View& cache, int kv_head, int key, int begin, int end, Shared keys,
                                     Shared values) {
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  static_assert(kv_cache::tile_positions % Keys == 0);
  constexpr int copy_words = row::copy_bytes / 4, pieces = row::words / copy_words;
  constexpr int copy_elements = row::copy_bytes / static_cast<int>(sizeof(element));
  const int low = key > begin ? key : begin, past = key + Keys < end ? key + Keys : end;
  const element *const key_rows = cache.key(kv_head, low), *const value_rows = cache.value(kv_head, low);
  EFFINFER_KEEP_ROLLED
  for (int i = t.thread(); i < Keys * pieces; i += Threads) {
    const int r = i / pieces, q = i % pieces;
    int p = key + r < low ? low : key + r;
    if (p >= past) p = past - 1;
    const std::ptrdiff_t from = (p - low) * cache.row_stride + q * copy_elements;
    const int to = r * Pitch + q * copy_words;
    t.template copy_async<row::copy_bytes>(keys, to, reinterpret_cast<const std::uint32_t*>(key_rows + from));
    t.template copy_async<row::copy_bytes>(values, to, reinterpret_cast<const std::uint32_t*>(value_rows + from));
  }
}

/// True where a tile's rows before position `end` are row_stride apart.
template <class View>
EFFINFER_HOST_DEVICE bool are_rows_apart(const View&, int /*end*/) {
  return true;
}

namespace detail {

inline bool is_aligned(const void* p, int bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % static_cast<unsigned>(bytes) == 0;
}

/// Errors: `invalid_argument`, `unsupported`.
inline void check_heads(const char* who, const head_layout& h) {
  if (h.heads < 1 || h.kv_heads < 1 || h.heads % h.kv_heads != 0) {
    throw error(error_code::invalid_argument, who,
                std::to_string(h.heads) + " heads, " + std::to_string(h.kv_heads) + " key heads");
  }
  if (h.head_size != 32 && h.head_size != 64 && h.head_size != 96 && h.head_size != 128 && h.head_size != 256) {
    throw error(error_code::unsupported, who,
                "head_size = " + std::to_string(h.head_size) + " is not compiled in; have {32, 64, 96, 128, 256}");
  }
  if (!(h.scale > 0.0F) || h.scale > std::numeric_limits<float>::max()) {
    throw error(error_code::invalid_argument, who, "scale = " + std::to_string(h.scale) + " is not above 0");
  }
}

/// Error: `unsupported`: rows that a copy can't begin at.
template <class View>
void check_rows(const char* who, const std::string& which, const View& cache, int kv_heads) {
  constexpr int bytes = cache_row<typename View::element_type, 64>::copy_bytes;
  if (!cache.has_aligned_rows(kv_heads, bytes)) {
    throw error(error_code::unsupported, who,
                which + "rows of keys or values are not " + std::to_string(bytes) + "-byte aligned");
  }
}

}  // namespace detail
}  // namespace effinfer::inline v0::attention::cuda
