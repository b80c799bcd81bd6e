#pragma once
// BF16: bfloat16, the upper half of a float, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct bf16 : block_format<bf16, weight_format::bf16> {
  static constexpr bool is_float = true;
  static constexpr int bytes_a_column = 2;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<effinfer::bf16>(block));
  }
};

}  // namespace effinfer::inline v0::quantization::format
