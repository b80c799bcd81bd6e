#pragma once
// Q4_0: 32 codes of 4 bits and a scale, 18 bytes. w[i] = d * (q[i] - 8).
// Block: f16 d; byte qs[16], q[i] in the low nibble of qs[i] and q[i + 16] in the high one.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q4_0 : block_of_32<q4_0, weight_format::q4_0> {
  using codes = codes_4_bit;
  using scales = scale_a_block<false, 64>;
  static constexpr int code_offset = 8;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(unpacking::low_nibble(block[2 + i]) - 8);
      out[i + 16] = d * static_cast<float>(unpacking::high_nibble(block[2 + i]) - 8);
    }
  }

  static void unpack_codes(const std::byte* block, std::uint8_t* codes) {
    unpacking::nibbles_apart<16>(block + 2, codes);
  }
};

}  // namespace effinfer::inline v0::quantization::format
