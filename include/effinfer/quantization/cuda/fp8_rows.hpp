#pragma once
// Floats to FP8 E4M3 with one scale a row: w = scale * code, scale = max |w| / 448, so that the greatest is the greatest code.
// Source: Micikevicius et al., "FP8 Formats for Deep Learning" (2022), section 3.

#include <effinfer/core/dtype.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace effinfer::inline v0::quantization::cuda {

inline constexpr float greatest_fp8 = 448.0F;
inline constexpr std::uint8_t fp8_nan = 0x7f;  ///< without its sign

/// Encodes a row of `count` values. False where one isn't finite.
inline bool encode_fp8_row(const float* values, int count, std::uint8_t* codes, float& scale) {
  float greatest = 0;
  for (int i = 0; i < count; ++i) {
    const float magnitude = std::fabs(values[i]);
    if (!(magnitude <= std::numeric_limits<float>::max())) return false;
    greatest = std::max(greatest, magnitude);
  }
  // A row of subnormals: 448 / greatest would be infinite.
  const float inverse = greatest > 0x1p-118F ? greatest_fp8 / greatest : 0.0F;
  scale = inverse > 0 ? greatest / greatest_fp8 : 0.0F;
  for (int i = 0; i < count; ++i) codes[i] = fp8_e4m3(values[i] * inverse).bits;
  return true;
}

}  // namespace effinfer::inline v0::quantization::cuda
