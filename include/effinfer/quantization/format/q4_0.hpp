#pragma once
// Q4_0: 32 codes of 4 bits and a scale, 18 bytes. w[i] = d * (q[i] - 8).
// Block: f16 d; byte qs[16], q[i] in the low nibble of qs[i] and q[i + 16] in the high one.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_0 : block_of_32<q4_0, weight_format::q4_0, false> {
  static constexpr int code_offset = 8;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[2 + i]) - 8);
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[2 + i]) - 8);
    }
  }

  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t columns_left,
                                                code_vector<Set>& v) {
    const std::byte* second = second_block(unit, columns_left);
    unpacking::load_nibble_pair<Set>(v, unit + 2, second + 2);
  }
};

}  // namespace effinfer::inline v0::quantization::format
