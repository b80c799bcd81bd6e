#pragma once
// What the formats of files share: a row is a run of equal blocks (core/weight_format.hpp has their sizes).

#include <effinfer/core/dtype.hpp>
#include <effinfer/quantization/cpu/codes.hpp>
#include <effinfer/quantization/cpu/scales.hpp>
#include <effinfer/quantization/packed_matrix.hpp>
#include <effinfer/quantization/weight_matrix.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization {

namespace unpacking {

template <class T>
EFFINFER_ALWAYS_INLINE T load_as(const std::byte* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}
EFFINFER_ALWAYS_INLINE int low_nibble(std::byte b) { return static_cast<int>(b) & 15; }
EFFINFER_ALWAYS_INLINE int high_nibble(std::byte b) { return static_cast<int>(b) >> 4; }
/// A little-endian f16 at any address, as it stands in a file.
EFFINFER_ALWAYS_INLINE float load_half(const std::byte* p) {
  return static_cast<float>(f16::from_bits(load_as<std::uint16_t>(p)));
}
/// Sixteen bytes. As vectors, since loops over bytes stay loops at -O2.
using sixteen = execution::detail::lanes_of<std::uint8_t, 16>::type;
EFFINFER_ALWAYS_INLINE void store(std::uint8_t* to, const sixteen& v) { __builtin_memcpy(to, &v, 16); }
/// The low nibbles of `Bytes` bytes, then the high ones.
template <int Bytes>
EFFINFER_ALWAYS_INLINE void nibbles_apart(const std::byte* p, std::uint8_t* codes) {
  for (int i = 0; i < Bytes; i += 16) {
    const auto both = load_as<sixteen>(p + i);
    store(codes + i, both & 15), store(codes + Bytes + i, both >> 4);
  }
}
/// Of each of sixteen bytes at p, the bits of `mask` above bit `shift`. Shifted in pairs, as x86 can: `mask` leaves none of what comes
/// from the byte above.
EFFINFER_ALWAYS_INLINE sixteen bits_of_16(const std::byte* p, int shift, std::uint8_t mask) {
  using pairs = execution::detail::lanes_of<std::uint16_t, 8>::type;
  return reinterpret_cast<sixteen>(load_as<pairs>(p) >> static_cast<std::uint16_t>(shift)) & mask;
}
/// Bit i of `bits` becomes the fifth of code i.
EFFINFER_ALWAYS_INLINE void add_fifth_bits(std::uint32_t bits, std::uint8_t* codes) {
  for (int i = 0; i < 32; i += 8) {
    // The eight bits in each of eight bytes; byte j keeps bit j, and is 0x10 where that is set.
    const std::uint64_t one_a_byte = ((bits >> i) & 255u) * 0x0101010101010101u & 0x8040201008040201u;
    const std::uint64_t fifth = ((one_a_byte + 0x7f7f7f7f7f7f7f7fu) >> 3) & 0x1010101010101010u;
    std::uint64_t eight;
    __builtin_memcpy(&eight, codes + i, 8);
    eight |= fifth;
    __builtin_memcpy(codes + i, &eight, 8);
  }
}

}  // namespace unpacking

namespace format {

/// Base of a format `Format` that has `name` and `decode(const std::byte* block, float* out)`, which writes
/// block_size(name) values; integer formats also `unpack(block, first column, row)`.
template <class Format, weight_format Name>
struct block_format {
  static constexpr weight_format name = Name;
  static constexpr int columns_a_block = block_size(Name);
  static constexpr int bytes_a_block = block_bytes(Name);
  /// Columns that share a stored scale.
  static int scale_columns(const packed_matrix&) { return 32; }

  /// All values of a row.
  static void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
    const std::byte* block = w.row(row);
    for (std::ptrdiff_t c = 0; c < w.columns; c += columns_a_block, block += bytes_a_block)
      Format::decode(block, out + c);
  }
  /// A row's codes and scales, apart.
  static void unpack_row(const weight_matrix& w, std::ptrdiff_t row, unpacked_row& r) {
    const std::byte* block = w.row(row);
    for (std::ptrdiff_t c = 0; c < w.columns; c += columns_a_block, block += bytes_a_block) Format::unpack(block, c, r);
  }
};

/// Base of the formats with blocks of 32 columns, f16 d first, then f16 m where they have a minimum: these have
/// `unpack_codes(block, codes)`.
template <class Format, weight_format Name>
struct block_of_32 : block_format<Format, Name> {
  static constexpr bool is_float = false;

  static void unpack(const std::byte* block, std::ptrdiff_t first, const unpacked_row& r) {
    r.scales[first / 32] = unpacking::load_as<std::uint16_t>(block);
    if constexpr (Format::scales::has_minimum) r.minimums[first / 32] = unpacking::load_as<std::uint16_t>(block + 2);
    Format::unpack_codes(block, r.codes + first);
  }
};

}  // namespace format
}  // namespace effinfer::inline v0::quantization
