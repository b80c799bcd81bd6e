#pragma once
// Q4_1: 32 codes of 4 bits, a scale and a minimum, 20 bytes. w[i] = d * q[i] + m.
// Block: f16 d; f16 m; byte qs[16] as in Q4_0.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_1 : block_of_32<q4_1, weight_format::q4_1> {
  using codes = codes_4_bit;
  using scales = scale_a_block<true, 64>;
  static constexpr int code_offset = 0;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block), m = unpacking::load_half(block + 2);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[4 + i])) + m;
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[4 + i])) + m;
    }
  }

  static void unpack_codes(const std::byte* block, std::uint8_t* codes) {
    unpacking::nibbles_apart<16>(block + 4, codes);
  }
};

}  // namespace effinfer::inline v0::quantization::format
