#pragma once
// Q8_0: 32 codes of 8 bits and a scale, 34 bytes. w[i] = d * q[i].
// Block: f16 d; int8 q[32].
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q8_0 : block_format<q8_0, weight_format::q8_0> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(unpacking::load_as<std::int8_t>(block + 2 + i));
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
      unpacking::bytes_of<32> codes;
      unpacking::load_bytes<32>(codes, p + b * bytes_a_block + 2);
      unpacking::store_bytes<32>(out.codes + b * 32, codes);
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
