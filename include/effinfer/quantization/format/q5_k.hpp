#pragma once
// Q5_K: 256 codes of 5 bits in eight blocks of 32 with 6-bit scales and minimums, 176 bytes.
// w[i] = d * scale[i / 32] * q[i] - dmin * minimum[i / 32].
// Block: f16 d; f16 dmin; byte scales[12] (k_scales.hpp); byte qh[32], bit k of qh[i] the fifth bit of code 32 k + i;
// byte qs[128] as in Q4_K.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/k_scales.hpp>

namespace effinfer::inline v0::quantization::format {

struct q5_k : block_format<q5_k, weight_format::q5_k> {
  static constexpr bool is_float = false;
  using codes = codes_5_bit;
  using scales = scales_k;
  static constexpr int code_offset = 0;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block), m = unpacking::load_half(block + 2);
    const k_scales s(block + 4);
    for (int i = 0; i < 256; ++i) {
      const std::byte b = block[48 + i / 64 * 32 + i % 32];
      const int low = i / 32 % 2 == 0 ? unpacking::low_nibble(b) : unpacking::high_nibble(b);
      const int q = low | (((static_cast<int>(block[16 + i % 32]) >> (i / 32)) & 1) << 4);
      out[i] =
          d * static_cast<float>(s.scale[i / 32]) * static_cast<float>(q) - m * static_cast<float>(s.minimum[i / 32]);
    }
  }

  static void unpack(const std::byte* block, std::ptrdiff_t first, const unpacked_row& r) {
    r.scales[first / 256] = unpacking::load_as<std::uint16_t>(block);
    r.minimums[first / 256] = unpacking::load_as<std::uint16_t>(block + 2);
    const k_scales s(block + 4);
    __builtin_memcpy(r.block_scales + first / 32, s.scale, 8);
    __builtin_memcpy(r.block_minimums + first / 32, s.minimum, 8);
    for (int i = 0; i < 256; i += 16) {
      const int part = i / 32, l = i % 32;
      const unpacking::sixteen low = unpacking::bits_of_16(block + 48 + part / 2 * 32 + l, part % 2 * 4, 15);
      const unpacking::sixteen high = unpacking::bits_of_16(block + 16 + l, part, 1);
      unpacking::store(r.codes + first + i, low | high << 4);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
