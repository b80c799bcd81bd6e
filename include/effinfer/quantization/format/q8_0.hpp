#pragma once
// Q8_0: 32 codes of 8 bits and a scale, 34 bytes. w[i] = d * q[i].
// Block: f16 d; int8 q[32].
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q8_0 : block_format<q8_0, weight_format::q8_0> {
  static constexpr bool is_float = false;
  static constexpr bool has_minimum = false;
  static constexpr int columns_a_scale = 32;
  static constexpr int code_offset = 128;
  static constexpr int columns_a_unit = 64;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(unpacking::load_as<std::int8_t>(block + 2 + i));
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
    unpacking::load_pair<Set>(v, unit + 2, second + 2);
  }
};

}  // namespace effinfer::inline v0::quantization::format
