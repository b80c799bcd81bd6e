#pragma once
// F32: IEEE binary32, as stored. w[i] = value[i].

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct f32 : block_format<f32, weight_format::f32> {
  static constexpr bool is_float = true;
  static constexpr int bytes_a_column = 4;

  static void decode(const std::byte* block, float* out) {
    *out = static_cast<float>(unpacking::load_as<float>(block));
  }
};

}  // namespace effinfer::inline v0::quantization::format
