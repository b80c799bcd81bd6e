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
  static constexpr int columns_a_scale = 16;
  static constexpr int code_offset = 32;
  static constexpr int columns_a_unit = 256;

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
  static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                                 const scale_row& out) {
    const std::byte* p = block(w, row, first);
    const int blocks = columns / 256;
    float d[16];
    unpacking::gather_halves<Set, bytes_a_block>(p + 208, blocks, d);
    for (int b = 0; b < blocks; ++b) {
      const auto* s = reinterpret_cast<const std::int8_t*>(p + b * bytes_a_block + 192);
      unpacking::eight_products<Set>(s, d[b], out.scales + b * 16);
      unpacking::eight_products<Set>(s + 8, d[b], out.scales + b * 16 + 8);
    }
  }

  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t /*columns_left*/,
                                                code_vector<Set>& v) {
    constexpr int half = Chunk / 2, high = Chunk % 2;
    unpacking::load_pair<Set>(v, unit + 64 * half, unit + 64 * half + 32);
    unpacking::keep_nibbles<Set, high == 1>(v);
    unpacking::add_planes<Set, 4 * high, 4 * high + 2, 3>(v, unit + 128 + 32 * half);
  }
};

}  // namespace effinfer::inline v0::quantization::format
