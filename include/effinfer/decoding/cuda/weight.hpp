#pragma once
// The weight of a token, one at a time: the numbers of decoding/cpu/weights.hpp, bit for bit (its instruction sets with fused
// multiplication, that is all but the portable).

#include <effinfer/core/config.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace effinfer::inline v0::decoding::cuda {

inline constexpr int weight_bits = 42;

/// floor(2^42 e^x) for x <= 0, x the token's logit less the greatest; e^x as execution::exp forms it, step by step.
EFFINFER_HOST_DEVICE inline std::uint64_t weight(float x) {
  if (!(x >= -30.0F)) return 0;  // below 2^-42; or a NaN
  const float shifted =
      std::fma(x, 1.44269504088896341F, 12582912.0F);  // 1.5 * 2^23: the nearest integer in the low bits
  const std::int32_t n = std::bit_cast<std::int32_t>(shifted) - 0x4b400000;
  const auto minus_n = static_cast<float>(-n);
  const float r = std::fma(minus_n, 1.428606820309417e-6F, std::fma(minus_n, 0.693145751953125F, x));
  float e = 1.0F / 5040;
  for (const float coefficient : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    e = std::fma(e, r, coefficient);
  e *= std::bit_cast<float>(static_cast<std::uint32_t>(n + 127) << 23);
  const float scaled = e * 0x1p24F;
  const auto upper = static_cast<std::int32_t>(scaled);
  const auto lower = static_cast<std::int32_t>((scaled - static_cast<float>(upper)) * 0x1p18F);
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(upper)) << 18) + static_cast<std::uint32_t>(lower);
}

}  // namespace effinfer::inline v0::decoding::cuda
