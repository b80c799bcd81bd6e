#pragma once
// The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums in 12 bytes.
// Bytes 0-3 hold scales 0-3 in their low six bits, bytes 4-7 minimums 0-3; bytes 8-11 hold the low four bits
// of scale (low nibble) and minimum (high nibble) 4-7, whose top two bits are the top two of bytes 0-3 and 4-7.
// Source: the GGUF specification and ggml's block layouts (ggml-common.h), by their field names.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct k_scales {
  std::uint8_t scale[8], minimum[8];

  EFFINFER_ALWAYS_INLINE explicit k_scales(const std::byte* packed) {
    const auto a = unpacking::load_as<std::uint32_t>(packed), b = unpacking::load_as<std::uint32_t>(packed + 4),
               c = unpacking::load_as<std::uint32_t>(packed + 8);
    const std::uint32_t words[4] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u), b & 0x3f3f3f3fu,
                                    ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u)};
    __builtin_memcpy(scale, words, 8);
    __builtin_memcpy(minimum, words + 2, 8);
  }
};

}  // namespace effinfer::inline v0::quantization::format
