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

/// out[i * Repeat + j] = in[i].
template <int Repeat>
EFFINFER_ALWAYS_INLINE void repeat_each(const float* in, std::ptrdiff_t count, float* out) {
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    for (int j = 0; j < Repeat; ++j) out[i * Repeat + j] = in[i];
  }
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

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX2 void eight_products_avx2(const std::uint8_t* s, const float& factor, float* out) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(s)));
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor)));
}
inline EFFINFER_TARGET_AVX2 void eight_products_avx2(const std::int8_t* s, const float& factor, float* out) {
  const __m256i wide = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(s)));
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(factor)));
}
#endif
/// out[i] = factor * s[i], i < 8, s bytes.
template <instruction_set Set, class Byte>
EFFINFER_ALWAYS_INLINE void eight_products(const Byte* s, float factor, float* out) {
  if constexpr (Set != instruction_set::portable) {
    eight_products_avx2(s, factor, out);
  } else {
    for (int i = 0; i < 8; ++i) out[i] = factor * static_cast<float>(s[i]);
  }
}
/// Zeros from out[count] up to the next multiple of 16.
EFFINFER_ALWAYS_INLINE void zero_to_16(float* out, std::ptrdiff_t count) {
  for (; count % 16 != 0; ++count) out[count] = 0;
}

}  // namespace unpacking
}  // namespace effinfer::inline v0::quantization
