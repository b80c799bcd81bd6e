#pragma once
// Q4_0: 32 codes of 4 bits and a scale, 18 bytes. w[i] = d * (q[i] - 8).
// Block: f16 d; byte qs[16], q[i] in the low nibble of qs[i] and q[i + 16] in the high one.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_0 : block_format<q4_0, weight_format::q4_0> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[2 + i]) - 8);
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[2 + i]) - 8);
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
    for (int b = 0; b < blocks; ++b) {
      unpacking::split_16_nibbles<Set>(p + b * bytes_a_block + 2, 8, out.codes + b * 32);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
