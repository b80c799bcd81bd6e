#pragma once
// The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums in 12 bytes.
// Bytes 0-3 hold scales 0-3 in their low six bits, bytes 4-7 minimums 0-3; bytes 8-11 hold the low four bits
// of scale (low nibble) and minimum (high nibble) 4-7, whose top two bits are the top two of bytes 0-3 and 4-7.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct k_scales {
  std::uint8_t scale[8], minimum[8];

  EFFINFER_ALWAYS_INLINE explicit k_scales(const std::byte* packed) {
    const auto a = unpacking::load_as<std::uint32_t>(packed), b = unpacking::load_as<std::uint32_t>(packed + 4),
               c = unpacking::load_as<std::uint32_t>(packed + 8);
    const std::uint32_t words[4] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u), b & 0x3f3f3f3fu,
                                    ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u)};
    __builtin_memcpy(scale, words, 8);
    __builtin_memcpy(minimum, words + 2, 8);
  }
};

#if EFFINFER_X86
/// The same as below, in one register: the words (a, c, b, c) and (a, a, b, b) of the 12 bytes, shifted and masked.
inline EFFINFER_TARGET_AVX2 void k_scales_avx2(const std::byte* block, float* scales, float* minimums) {
  const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 4));
  const __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(packed, 0x98), _mm_set_epi32(4, 0, 0, 0));
  const __m128i high = _mm_srli_epi32(_mm_shuffle_epi32(packed, 0x50), 2);
  const __m128i low_mask = _mm_set_epi32(0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f);
  const __m128i high_mask = _mm_set_epi32(0x30303030, 0, 0x30303030, 0);
  const __m128i bytes = _mm_or_si128(_mm_and_si128(low, low_mask), _mm_and_si128(high, high_mask));
  const __m256 s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  const __m256 m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes)));
  const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128(unpacking::load_as<std::int32_t>(block)));  // d, dmin
  _mm256_storeu_ps(scales, _mm256_mul_ps(s, _mm256_broadcastss_ps(d)));
  const __m128 minus_m = _mm_xor_ps(_mm_movehdup_ps(d), _mm_set1_ps(-0.0f));
  _mm256_storeu_ps(minimums, _mm256_mul_ps(m, _mm256_broadcastss_ps(minus_m)));
}
#endif

/// d * scale[i] and -dmin * minimum[i], i < 8, of a block of Q4_K or Q5_K.
template <execution::instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_k_scales(const std::byte* block, float* scales, float* minimums) {
  if constexpr (Set != execution::instruction_set::portable) {
    k_scales_avx2(block, scales, minimums);
  } else {
    const k_scales s(block + 4);
    const float d = unpacking::load_half(block), m = -unpacking::load_half(block + 2);
    for (int i = 0; i < 8; ++i) {
      scales[i] = d * static_cast<float>(s.scale[i]);
      minimums[i] = m * static_cast<float>(s.minimum[i]);
    }
  }
}

}  // namespace effinfer::inline v0::quantization::format
