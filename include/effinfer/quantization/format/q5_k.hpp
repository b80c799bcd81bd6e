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
  static constexpr bool has_minimum = true;
  static constexpr int columns_a_scale = 32;
  static constexpr int code_offset = 0;
  static constexpr int columns_a_unit = 256;

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

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                                 const scale_row& out) {
    const std::byte* p = block(w, row, first);
    const int blocks = columns / 256;
    for (int b = 0; b < blocks; ++b)
      load_k_scales<Set>(p + b * bytes_a_block, out.scales + b * 8, out.minimums + b * 8);
    for (int i = blocks * 8; i % 16 != 0; ++i) out.minimums[i] = 0;
  }

  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t /*columns_left*/,
                                                code_vector<Set>& v) {
    unpacking::load_nibbles<Set>(v, unit + 48 + Chunk * 32);
    unpacking::add_planes<Set, 2 * Chunk, 2 * Chunk + 1, 1>(v, unit + 16);
  }
};

}  // namespace effinfer::inline v0::quantization::format
