#pragma once
// What formats are made of, for the CPU. An integer format states two things for 2048 columns of a row at a time: its
// scales and minimums as floats, and 64 codes in registers; a float format, 16 values. From these the kernels build
// the product of one token, straight from memory, and panels in the first-level cache that many tokens share
// (cpu/row_product.hpp).
//
//   w = scale[column / columns_a_scale] * (code - code_offset) + minimum[column / 32]

#include <effinfer/quantization/cpu/codes.hpp>
#include <effinfer/quantization/weight_matrix.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization {

/// Columns of a panel. Minimums are added panel by panel, so 2048 is a constant of the results, not a tuning knob of a
/// call: codes (or 1024 floats) of four rows, with the activations beside them, fit 32 KiB.
inline constexpr int integer_panel_columns = 2048;
inline constexpr int float_panel_columns = 1024;

/// The scales of up to integer_panel_columns columns of one row.
struct scale_row {
  float* scales;    ///< one for each `columns_a_scale` columns, written in whole vectors of 16
  float* minimums;  ///< one for each 32, likewise; null for formats without
};

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

/// The f16 at `first` + i * Stride for i < count, then zeros up to a multiple of 16. Collected first and converted 16
/// at a time: one conversion is dearer than the 32 codes that the scale belongs to.
template <instruction_set Set, int Stride>
EFFINFER_ALWAYS_INLINE void gather_halves(const std::byte* first, std::ptrdiff_t count, float* out) {
  f16 halves[integer_panel_columns / 32];
  std::ptrdiff_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const std::byte* p = first + i * Stride;
    halves[i].bits = load_as<std::uint16_t>(p);
    halves[i + 1].bits = load_as<std::uint16_t>(p + Stride);
    halves[i + 2].bits = load_as<std::uint16_t>(p + 2 * Stride);
    halves[i + 3].bits = load_as<std::uint16_t>(p + 3 * Stride);
    halves[i + 4].bits = load_as<std::uint16_t>(p + 4 * Stride);
    halves[i + 5].bits = load_as<std::uint16_t>(p + 5 * Stride);
    halves[i + 6].bits = load_as<std::uint16_t>(p + 6 * Stride);
    halves[i + 7].bits = load_as<std::uint16_t>(p + 7 * Stride);
  }
  for (; i < count; ++i) halves[i].bits = load_as<std::uint16_t>(first + i * Stride);
  for (; i % 16 != 0; ++i) halves[i].bits = 0;
  for (i = 0; i < count; i += 16) execution::f32x16<Set>::load(halves + i).store(out + i);
}

/// The `count` f16 at p as floats, then zeros up to a multiple of 16.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void widen_halves(const std::byte* p, std::ptrdiff_t count, float* out) {
  using vector = execution::f32x16<Set>;
  const auto* halves = reinterpret_cast<const f16*>(p);
  for (; count >= 16; count -= 16, halves += 16, out += 16) vector::load(halves).store(out);
  if (count > 0) vector::load_first(halves, count).store(out);
}

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void halves_to_lanes_avx512(execution::detail::f32x16_memory& v, const std::byte* a,
                                                          const std::byte* b) {
  const __m256i first = _mm256_set1_epi16(load_as<short>(a));
  const __m256i both = _mm256_mask_set1_epi16(first, 0xff00, load_as<short>(b));
  v = _mm512_maskz_cvtph_ps(0xffff, both);
}
inline EFFINFER_TARGET_AVX2 void half_to_lanes_avx2(execution::detail::f32x8_memory& v, const std::byte* p) {
  v = _mm256_cvtph_ps(_mm_set1_epi16(load_as<short>(p)));
}
inline EFFINFER_TARGET_AVX2 void eight_products_avx2(const std::int8_t* s, const float& factor, float* out) {
  const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(s)));
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor)));
}
inline EFFINFER_TARGET_AVX2 void twice_each_avx2(const float* in, float* out) {
  const __m256 v = _mm256_loadu_ps(in);
  const __m256 even = _mm256_unpacklo_ps(v, v), odd = _mm256_unpackhi_ps(v, v);
  _mm256_storeu_ps(out, _mm256_permute2f128_ps(even, odd, 0x20));
  _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(even, odd, 0x31));
}
inline EFFINFER_TARGET_AVX2 void four_each_avx2(const float* in, float* out) {
  const __m256 v = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(in));
  _mm256_storeu_ps(out, _mm256_permutevar8x32_ps(v, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0)));
  _mm256_storeu_ps(out + 8, _mm256_permutevar8x32_ps(v, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2)));
}
#endif
/// Lanes 0 to 7 are the f16 at a, lanes 8 to 15 the one at b.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void halves_to_lanes(execution::f32x16<Set>& v, const std::byte* a, const std::byte* b) {
  if constexpr (Set == instruction_set::avx512) {
    halves_to_lanes_avx512(v.lanes.v, a, b);
  } else if constexpr (Set == instruction_set::avx2) {
    half_to_lanes_avx2(v.lanes.low.v, a);
    half_to_lanes_avx2(v.lanes.high.v, b);
  } else {
    v.lanes.low.set(load_half(a));
    v.lanes.high.set(load_half(b));
  }
}
/// out[i] = factor * s[i], i < 8.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void eight_products(const std::int8_t* s, float factor, float* out) {
  if constexpr (Set != instruction_set::portable) {
    eight_products_avx2(s, factor, out);
  } else {
    for (int i = 0; i < 8; ++i) out[i] = factor * static_cast<float>(s[i]);
  }
}
/// out[i] = in[i / Times], for `count` values of `in` and on to a whole number of vectors of 16, for which `in` has room.
template <instruction_set Set, int Times>
EFFINFER_ALWAYS_INLINE void repeat_each(const float* in, std::ptrdiff_t count, float* out) {
  static_assert(Times == 2 || Times == 4);
  for (std::ptrdiff_t i = 0; i < count; i += 16 / Times) {
    if constexpr (Set == instruction_set::portable) {
      for (int j = 0; j < 16; ++j) out[i * Times + j] = in[i + j / Times];
    } else if constexpr (Times == 2) {
      twice_each_avx2(in + i, out + i * 2);
    } else {
      four_each_avx2(in + i, out + i * 4);
    }
  }
}

}  // namespace unpacking
}  // namespace effinfer::inline v0::quantization
