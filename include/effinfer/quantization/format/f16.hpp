#pragma once
// F16: IEEE binary16, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct f16 : block_format<f16, weight_format::f16> {
  static constexpr bool is_float = true;
  static constexpr int bytes_a_column = 2;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<effinfer::f16>(block));
  }
};

}  // namespace effinfer::inline v0::quantization::format
