#pragma once
// Q4_1: 32 codes of 4 bits, a scale and a minimum, 20 bytes. w[i] = d * q[i] + m.
// Block: f16 d; f16 m; byte qs[16] as in Q4_0.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_1 : block_format<q4_1, weight_format::q4_1> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = true;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block), m = unpacking::load_half(block + 2);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[4 + i])) + m;
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[4 + i])) + m;
    }
  }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void unpack(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                            const integer_row& out) {
    const std::byte* p = block(w, row, first);
    const int blocks = columns / 32;
    float scales[integer_panel_columns / 32];
    unpacking::gather_halves<Set, bytes_a_block>(p, blocks, scales);
    unpacking::repeat_each<2>(scales, blocks, out.scales);
    unpacking::gather_halves<Set, bytes_a_block>(p + 2, blocks, out.minimums);
    for (int b = 0; b < blocks; ++b) {
      unpacking::split_16_nibbles<Set>(p + b * bytes_a_block + 4, 0, out.codes + b * 32);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
