#pragma once
// Q8_0: 32 codes of 8 bits and a scale, 34 bytes. w[i] = d * q[i].
// Block: f16 d; int8 q[32].
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct q8_0 : block_of_32<q8_0, weight_format::q8_0> {
  using codes = codes_8_bit;
  using scales = scale_a_block<false, 64>;
  static constexpr int code_offset = 128;

  static void decode(const std::byte* block, float* out) {
    const float d = unpacking::load_half(block);
    for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(unpacking::load_as<std::int8_t>(block + 2 + i));
  }

  static void unpack_codes(const std::byte* block, std::uint8_t* codes) {
    for (int i = 0; i < 32; i += 16) {
      unpacking::store(codes + i, unpacking::load_as<unpacking::sixteen>(block + 2 + i) ^ std::uint8_t{0x80});
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
