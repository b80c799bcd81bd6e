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
  static constexpr bool has_minimum = false;

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

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void unpack(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                            const integer_row& out) {
    const std::byte* p = block(w, row, first);
    const int blocks = columns / 256;
    float d[integer_panel_columns / 32];
    unpacking::gather_halves<Set, bytes_a_block>(p + 208, blocks, d);
    for (int b = 0; b < blocks; ++b, p += bytes_a_block) {
      for (int i = 0; i < 16; ++i) {
        out.scales[b * 16 + i] = d[b] * static_cast<float>(unpacking::load_as<std::int8_t>(p + 192 + i));
      }
      for (int half = 0; half < 2; ++half) {
        std::int8_t* codes = out.codes + b * 256 + half * 128;
        unpacking::bytes_of<32> first_low, second_low, high;
        unpacking::load_bytes<32>(first_low, p + half * 64);
        unpacking::load_bytes<32>(second_low, p + half * 64 + 32);
        unpacking::load_bytes<32>(high, p + 128 + half * 32);
        unpacking::store_bytes<32>(codes, ((first_low & 15) | ((high & 3) << 4)) - 32);
        unpacking::store_bytes<32>(codes + 32, ((second_low & 15) | ((high & 12) << 2)) - 32);
        unpacking::store_bytes<32>(codes + 64, ((first_low >> 4) | (high & 48)) - 32);
        unpacking::store_bytes<32>(codes + 96, ((second_low >> 4) | ((high & 192) >> 2)) - 32);
      }
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
