#pragma once
// Q5_1: 32 codes of 5 bits, a scale and a minimum, 24 bytes. w[i] = d * q[i] + m.
// Block: f16 d; f16 m; u32 qh, bit i the fifth bit of q[i]; byte qs[16] as in Q4_0.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q5_1 : block_of_32<q5_1, weight_format::q5_1> {
  using codes = codes_5_bit;
  using scales = scale_a_block<true, 64>;
  static constexpr int code_offset = 0;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block), m = unpacking::load_half(block + 2);
    const auto high = unpacking::load_as<std::uint32_t>(block + 4);
    for (int i = 0; i < 16; ++i) {
      const int a = unpacking::low_nibble(block[8 + i]) | static_cast<int>(((high >> i) & 1u) << 4);
      const int b = unpacking::high_nibble(block[8 + i]) | static_cast<int>(((high >> (i + 16)) & 1u) << 4);
      out[i] = d * static_cast<float>(a) + m;
      out[i + 16] = d * static_cast<float>(b) + m;
    }
  }

  static void unpack_codes(const std::byte* block, std::uint8_t* codes) {
    unpacking::nibbles_apart<16>(block + 8, codes);
    unpacking::add_fifth_bits(unpacking::load_as<std::uint32_t>(block + 4), codes);
  }
};

}  // namespace effinfer::inline v0::quantization::format
