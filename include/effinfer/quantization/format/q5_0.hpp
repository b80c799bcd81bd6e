#pragma once
// Q5_0: 32 codes of 5 bits and a scale, 22 bytes. w[i] = d * (q[i] - 16).
// Block: f16 d; u32 qh, bit i the fifth bit of q[i]; byte qs[16] as in Q4_0.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q5_0 : block_format<q5_0, weight_format::q5_0> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    const auto high = unpacking::load_as<std::uint32_t>(block + 2);
    for (int i = 0; i < 16; ++i) {
      const int a = unpacking::low_nibble(block[6 + i]) | static_cast<int>(((high >> i) & 1u) << 4);
      const int b = unpacking::high_nibble(block[6 + i]) | static_cast<int>(((high >> (i + 16)) & 1u) << 4);
      out[i] = d * static_cast<float>(a - 16);
      out[i + 16] = d * static_cast<float>(b - 16);
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
      std::int8_t* codes = out.codes + b * 32;
      unpacking::split_16_nibbles<Set>(p + b * bytes_a_block + 6, 16, codes);
      unpacking::add_fifth_bits<Set>(p + b * bytes_a_block + 2, codes);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
