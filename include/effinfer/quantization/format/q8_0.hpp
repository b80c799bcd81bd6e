#pragma once
// Q8_0: 32 codes of 8 bits and a scale, 34 bytes. w[i] = d * q[i].
// Block: f16 d; int8 q[32].
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q8_0 : block_of_32<q8_0, weight_format::q8_0, false> {
  static constexpr int code_offset = 128;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(unpacking::load_as<std::int8_t>(block + 2 + i));
  }

  template <execution::instruction_set Set, int Chunk>
  static EFFINFER_ALWAYS_INLINE void load_codes(const std::byte* unit, std::ptrdiff_t columns_left,
                                                code_vector<Set>& v) {
    const std::byte* second = second_block(unit, columns_left);
    unpacking::load_pair<Set>(v, unit + 2, second + 2);
  }
};

}  // namespace effinfer::inline v0::quantization::format
