#pragma once
// What every format is unpacked into before a product: a few rows by a few thousand columns, in the first-level cache.
// A format has to write nothing but this step (quantization/policy.hpp); the products themselves know two kinds of
// panel and no format.
//
//   float:    w = value
//   integer:  w = scale[column / 16] * code + minimum[column / 32], code in [-128, 127]

#include <effinfer/execution/vector.hpp>
#include <effinfer/quantization/weight_matrix.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace effinfer::inline v0::quantization {

/// One row of an integer panel. Columns that the matrix doesn't have are zero.
struct integer_row {
  std::int8_t* codes;  ///< [columns]
  float* scales;       ///< [columns / 16]
  float* minimums;     ///< [columns / 32]; written only by formats with has_minimum
};

/// Columns of a panel. Sums are formed panel by panel, so this is a constant of the results, not a tuning knob of a
/// call: 2048 codes (or 1024 floats) of four rows, with the activations beside them, fit 32 KiB.
inline constexpr int integer_panel_columns = 2048;
inline constexpr int float_panel_columns = 1024;

/// The steps that formats are unpacked with.
namespace unpacking {

using execution::instruction_set;

template <int Lanes>
using bytes_of = typename execution::detail::lanes_of<std::uint8_t, Lanes>::type;

template <int Lanes>
EFFINFER_ALWAYS_INLINE void load_bytes(bytes_of<Lanes>& v, const void* p) {
  v = *static_cast<const typename execution::detail::lanes_of<std::uint8_t, Lanes>::unaligned*>(p);
}
template <int Lanes>
EFFINFER_ALWAYS_INLINE void store_bytes(void* p, const bytes_of<Lanes>& v) {
  *static_cast<typename execution::detail::lanes_of<std::uint8_t, Lanes>::unaligned*>(p) = v;
}

EFFINFER_ALWAYS_INLINE void copy_64_bytes(const void* from, void* to) {
  bytes_of<64> v;
  load_bytes<64>(v, from);
  store_bytes<64>(to, v);
}

#if EFFINFER_X86
// 16 bytes to 32 codes, 32 bytes to 64: one copy of the bytes as they are beside one shifted right by 4, masked.
inline EFFINFER_TARGET_AVX2 void split_nibbles_avx2(const void* p, int offset, void* out) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  const __m256i low = _mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0));
  const __m256i codes = _mm256_and_si256(low, _mm256_set1_epi8(15));
  _mm256_storeu_si256(static_cast<__m256i*>(out), _mm256_sub_epi8(codes, _mm256_set1_epi8(static_cast<char>(offset))));
}
inline EFFINFER_TARGET_AVX512 void split_nibbles_avx512(const void* p, void* out) {
  const __m512i both = _mm512_maskz_broadcast_i64x4(0xff, _mm256_loadu_si256(static_cast<const __m256i*>(p)));
  const __m512i low = _mm512_maskz_srlv_epi64(0xff, both, _mm512_set_epi64(4, 4, 4, 4, 0, 0, 0, 0));
  _mm512_storeu_si512(out, _mm512_and_si512(low, _mm512_set1_epi8(15)));
}
// out[2 i] = out[2 i + 1] = factor * s[i], i < 8.
inline EFFINFER_TARGET_AVX2 void scales_in_pairs_avx2(const std::uint8_t* s, const float& factor, float* out) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(s)));
  const __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor));
  const __m256 even = _mm256_unpacklo_ps(f, f), odd = _mm256_unpackhi_ps(f, f);
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(even, odd, 0x20));
  _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(even, odd, 0x31));
}
#endif

/// 16 bytes to 32 codes: the low nibbles, then the high ones, less `offset`.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void split_16_nibbles(const std::byte* p, int offset, std::int8_t* out) {
  if constexpr (Set != instruction_set::portable) {
    split_nibbles_avx2(p, offset, out);
  } else {
    bytes_of<16> q;
    load_bytes<16>(q, p);
    const auto less = static_cast<std::uint8_t>(offset);
    store_bytes<16>(out, (q & 15) - less);
    store_bytes<16>(out + 16, (q >> 4) - less);
  }
}
/// 32 bytes to 64 codes: the low nibbles, then the high ones.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void split_32_nibbles(const std::byte* p, std::int8_t* out) {
  if constexpr (Set == instruction_set::avx512) {
    split_nibbles_avx512(p, out);
  } else {
    bytes_of<32> q;
    load_bytes<32>(q, p);
    store_bytes<32>(out, q & 15);
    store_bytes<32>(out + 32, q >> 4);
  }
}
/// codes[i] += 16 where bit i of the 32 at `p` is set.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void add_fifth_bits(const std::byte* p, std::int8_t* codes) {
  // Each byte of the bits to eight lanes, the lane's own bit kept, and compared with itself: -1 where it is set.
  bytes_of<32> spread, code;
  for (int i = 0; i < 32; ++i) spread[i] = static_cast<std::uint8_t>(p[i / 8]);
  constexpr bytes_of<32> own_bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                                    1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  load_bytes<32>(code, codes);
  store_bytes<32>(codes, code + (reinterpret_cast<bytes_of<32>>((spread & own_bit) == own_bit) & 16));
}
/// out[2 i] = out[2 i + 1] = factor * s[i], i < 8: the scales of eight blocks of 32, for each 16 columns.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void scales_in_pairs(const std::uint8_t* s, float factor, float* out) {
  if constexpr (Set != instruction_set::portable) {
    scales_in_pairs_avx2(s, factor, out);
  } else {
    for (int i = 0; i < 16; ++i) out[i] = factor * static_cast<float>(s[i / 2]);
  }
}

template <class T>
EFFINFER_ALWAYS_INLINE T load_as(const std::byte* p) {
  T value;
  __builtin_memcpy(&value, p, sizeof(T));
  return value;
}
EFFINFER_ALWAYS_INLINE int low_nibble(std::byte b) { return static_cast<int>(b) & 15; }
EFFINFER_ALWAYS_INLINE int high_nibble(std::byte b) { return static_cast<int>(b) >> 4; }

/// A little-endian f16 at any address, as it stands in a file.
EFFINFER_ALWAYS_INLINE std::uint16_t load_half_bits(const std::byte* p) {
  std::uint16_t bits;
  __builtin_memcpy(&bits, p, 2);
  return bits;
}
EFFINFER_ALWAYS_INLINE float load_half(const std::byte* p) {
  return static_cast<float>(f16::from_bits(load_half_bits(p)));
}

/// out[i * Repeat + j] = in[i]: the scale of a block, for each 16 (or 32) columns of it.
template <int Repeat>
EFFINFER_ALWAYS_INLINE void repeat_each(const float* in, std::ptrdiff_t count, float* out) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    for (int j = 0; j < Repeat; ++j) out[i * Repeat + j] = in[i];
  }
}

/// The f16 at `first` + i * Stride, for i < count <= integer_panel_columns / 32. Collected first and converted
/// 16 at a time: one conversion is dearer than the 32 codes that the scale belongs to.
template <instruction_set Set, int Stride>
EFFINFER_ALWAYS_INLINE void gather_halves(const std::byte* first, std::ptrdiff_t count, float* out) {
  f16 halves[integer_panel_columns / 32];
  for (std::ptrdiff_t i = 0; i < count; ++i) halves[i].bits = load_half_bits(first + i * Stride);
  for (std::ptrdiff_t i = count; i < (count + 15) / 16 * 16; ++i) halves[i].bits = 0;
  for (std::ptrdiff_t i = 0; i < count; i += 16) execution::f32x16<Set>::load(halves + i).store(out + i);
}

}  // namespace unpacking
}  // namespace effinfer::inline v0::quantization
