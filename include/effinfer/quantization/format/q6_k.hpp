#pragma once
// Q6_K: 256 codes of 6 bits in sixteen blocks of 16 with 8-bit scales, 210 bytes. w[i] = d * scale[i / 16] * (q[i] - 32).
// Block: byte ql[128]; byte qh[64]; int8 scales[16]; f16 d. Each half of 128 codes takes 64 bytes of ql and 32 of
// qh: code 32 k + l of it has its low four bits in ql[l + 32 (k % 2)], in the low nibble for k < 2 and else in the
// high one, and its top two in bits 2 k, 2 k + 1 of qh[l].
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q6_k : block_format<q6_k, weight_format::q6_k> {
  static constexpr bool is_float = false;
  using codes = codes_6_bit;
  using scales = scales_k_signed;
  static constexpr int code_offset = 32;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block + 208);
    for (int i = 0; i < 256; ++i) {
      const int half = i / 128, part = i / 32 % 4, l = i % 32;
      const std::byte low = block[half * 64 + part % 2 * 32 + l];
      const int high = (static_cast<int>(block[128 + half * 32 + l]) >> (2 * part)) & 3;
      const int q = (part < 2 ? unpacking::low_nibble(low) : unpacking::high_nibble(low)) | (high << 4);
      out[i] =
          d * static_cast<float>(unpacking::load_as<std::int8_t>(block + 192 + i / 16)) * static_cast<float>(q - 32);
    }
  }

  static void unpack(const std::byte* block, std::ptrdiff_t first, const unpacked_row& r) {
    r.scales[first / 256] = unpacking::load_as<std::uint16_t>(block + 208);
    __builtin_memcpy(r.block_scales + first / 16, block + 192, 16);
    for (int i = 0; i < 256; i += 16) {
      const int half = i / 128, part = i / 32 % 4, l = i % 32;
      const unpacking::sixteen low = unpacking::bits_of_16(block + half * 64 + part % 2 * 32 + l, part / 2 * 4, 15);
      const unpacking::sixteen high = unpacking::bits_of_16(block + 128 + half * 32 + l, 2 * part, 3);
      unpacking::store(r.codes + first + i, low | high << 4);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
