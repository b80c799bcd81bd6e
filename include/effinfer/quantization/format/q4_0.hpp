#pragma once
// Q4_0: 32 codes of 4 bits and a scale, 18 bytes. w[i] = d * (q[i] - 8).
// Block: f16 d; byte qs[16], q[i] in the low nibble of qs[i] and q[i + 16] in the high one.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_0 : block_format<q4_0, weight_format::q4_0> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;
  static constexpr int columns_a_scale = 32;
  static constexpr int code_offset = 8;
  static constexpr int columns_a_unit = 64;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[2 + i]) - 8);
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[2 + i]) - 8);
    }
  }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load_scales(const weight_matrix& w, std::ptrdiff_t row, int first, int columns,
                                                 const scale_row& out) {
    const std::byte* p = block(w, row, first);
    unpacking::gather_halves<Set, bytes_a_block>(p, columns / 32, out.scales);
  }

  /// Of two blocks, or of one twice where it is the row's last.
  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t columns_left,
                                                code_vector<Set>& v) {
    const std::byte* second = unit + (columns_left > 32 ? bytes_a_block : 0);
    unpacking::load_nibble_pair<Set>(v, unit + 2, second + 2);
  }
};

}  // namespace effinfer::inline v0::quantization::format
