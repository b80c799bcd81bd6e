#pragma once
// 16-bit and 8-bit storage types. They hold bits and convert; arithmetic is done in float. (g++ 12 has no __bf16
// and clang no portable _Float16, so both are our own; the bits equal CUDA's __nv_bfloat16 and __half.)

#include <effinfer/core/config.hpp>

#include <bit>
#include <cstdint>

namespace effinfer::inline v0 {

/// bfloat16: the upper half of a float (8 exponent bits, 7 fraction bits).
struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  /// Rounds to nearest, ties to even; a NaN stays a NaN.
  EFFINFER_HOST_DEVICE constexpr explicit bf16(float value) : bits(0) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    if (!__builtin_is_constant_evaluated()) {
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      return;
    }
#endif
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((u >> 16) | 0x40u);
    } else {
      bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  EFFINFER_HOST_DEVICE constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  static constexpr bf16 from_bits(std::uint16_t b) {
    bf16 r{};
    r.bits = b;
    return r;
  }
  friend bool operator==(const bf16&, const bf16&) = default;
};

/// IEEE binary16 (5 exponent bits, 10 fraction bits, subnormals kept).
struct f16 {
  std::uint16_t bits;

  f16() = default;
  /// Rounds to nearest, ties to even; overflows to infinity; a NaN stays a NaN.
  EFFINFER_HOST_DEVICE constexpr explicit f16(float value) : bits(0) {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
      return;
    }
#endif
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 16) & 0x8000u;
    const std::uint32_t magnitude = u & 0x7fffffffu;
    std::uint32_t half = 0;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u;
    } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
      half = 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal
      half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else if (magnitude >= 0x33000000u) {  // subnormal: units of 2^-24
      const std::uint32_t exponent = magnitude >> 23;
      const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
      const std::uint32_t shift = 126u - exponent;
      const std::uint32_t kept = fraction >> shift;
      const std::uint32_t rest = fraction & ((1u << shift) - 1u);
      const std::uint32_t tie = 1u << (shift - 1u);
      half = kept + ((rest > tie || (rest == tie && (kept & 1u))) ? 1u : 0u);
    }
    bits = static_cast<std::uint16_t>(sign | half);
  }
  EFFINFER_HOST_DEVICE constexpr explicit operator float() const {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
      return value;
    }
#endif
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fu;
    const std::uint32_t fraction = bits & 0x3ffu;
    if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  static constexpr f16 from_bits(std::uint16_t b) {
    f16 r{};
    r.bits = b;
    return r;
  }
  friend bool operator==(const f16&, const f16&) = default;
};

/// FP8 E4M3: 4 exponent bits with bias 7, 3 fraction bits, subnormals, no infinity; magnitudes up to 448, from 2^-9 on.
/// Source: Micikevicius et al., "FP8 Formats for Deep Learning" (2022), table 1; CUDA's __nv_fp8_e4m3 has the same bits.
struct fp8_e4m3 {
  std::uint8_t bits;

  fp8_e4m3() = default;
  /// Rounds to nearest, ties to even; what is beyond 448, an infinity too, becomes 448; a NaN stays a NaN.
  EFFINFER_HOST_DEVICE constexpr explicit fp8_e4m3(float value) : bits(0) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (u >> 24) & 0x80u, magnitude = u & 0x7fffffffu;
    std::uint32_t code = 0;
    if (magnitude > 0x7f800000u) {
      code = 0x7fu;
    } else if (magnitude >= 0x43e00000u) {  // 448
      code = 0x7eu;
    } else if (magnitude >= 0x3c800000u) {  // 2^-6: normal
      code = (magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20;
    } else {  // in units of 2^-9: those of a float between 2^14 and 2^15
      code = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 16384.0f) - 0x46800000u;
    }
    bits = static_cast<std::uint8_t>(sign | code);
  }
  EFFINFER_HOST_DEVICE constexpr explicit operator float() const {
    const std::uint32_t sign = (bits & 0x80u) << 24, magnitude = bits & 0x7fu;
    if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
#if defined(__CUDA_ARCH__)
    // By f16, whose exponent is then 8 too small: no subnormal float, which a GPU may be told to take for zero.
    if (!__builtin_is_constant_evaluated()) {
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<std::uint16_t>(sign >> 16 | magnitude << 7)));
      return value * 256.0f;
    }
#endif
    // The bits in their places have an exponent that is 120 too small; as a subnormal too.
    return std::bit_cast<float>(sign | magnitude << 20) * 0x1p120f;
  }
  EFFINFER_HOST_DEVICE static constexpr fp8_e4m3 from_bits(std::uint8_t b) {
    fp8_e4m3 r{};
    r.bits = b;
    return r;
  }
  friend bool operator==(const fp8_e4m3&, const fp8_e4m3&) = default;
};

static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);
static_assert(float(f16(65504.0f)) == 65504.0f && float(f16(0x1p-24f)) == 0x1p-24f && float(bf16(1.0f)) == 1.0f);
static_assert(sizeof(fp8_e4m3) == 1 && float(fp8_e4m3(448.0f)) == 448.0f && float(fp8_e4m3(0x1p-9f)) == 0x1p-9f);

}  // namespace effinfer::inline v0
