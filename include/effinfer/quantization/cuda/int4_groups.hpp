#pragma once
// Floats to the int4 groups of a GPU, w = scale (q - zero) with a whole zero in [0, 15]: as AWQ and GPTQ have them, since the unpacking of
// weights.hpp subtracts the zero exactly. (The CPU's int4 has a minimum in f16 instead; the two differ by their rounding.)
//
// Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), equation 1;
// the range is the best in squared error of six that cut its ends, as in AWQ's search (Lin et al. 2023).

#include <effinfer/core/dtype.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace effinfer::inline v0::quantization::cuda {

struct int4_group {
  f16 scale{};
  std::uint8_t zero = 8;
};

/// Encodes `count` values. False where one isn't finite or the scale doesn't fit f16.
inline bool encode_int4_group(const float* values, int count, std::uint8_t* codes, int4_group& group) {
  float low = 0, high = 0, poison = 0;
  for (int i = 0; i < count; ++i) {
    low = std::min(low, values[i]), high = std::max(high, values[i]);
    poison += values[i] - values[i];
  }
  if (poison != 0 || !(high - low <= 15 * 65504.0F)) return false;  // NaN - NaN, infinity - infinity are NaN
  group = {f16(0.0F), 8};
  const auto zero_of = [&] { return std::rint(-low / (high - low) * 15.0F); };
  const float zero = high > low ? zero_of() : 8.0F;
  const auto code = [&](float v, float inverse) {
    return std::min(std::max(std::rint(v * inverse) + zero, 0.0F), 15.0F);
  };
  float best = std::numeric_limits<float>::max();
  const auto try_scale = [&](float wanted) {
    const f16 scale(wanted);
    const auto d = static_cast<float>(scale), inverse = d > 0 ? 1.0F / d : 0.0F;
    if (!(inverse <= std::numeric_limits<float>::max())) return;
    float error = 0;
    for (int i = 0; i < count; ++i) {
      const float rest = values[i] - d * (code(values[i], inverse) - zero);
      error += rest * rest;
    }
    if (error < best) best = error, group = {scale, static_cast<std::uint8_t>(zero)};
  };
  for (int cut = 0; cut < 6; ++cut) try_scale((high - low) / 15.0F * (1.0F - 0.04F * static_cast<float>(cut)));
  const auto d = static_cast<float>(group.scale), inverse = d > 0 ? 1.0F / d : 0.0F;
  for (int i = 0; i < count; ++i) codes[i] = static_cast<std::uint8_t>(code(values[i], inverse));
  return true;
}

}  // namespace effinfer::inline v0::quantization::cuda
