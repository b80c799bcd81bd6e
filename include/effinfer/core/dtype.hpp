#pragma once
// 16-bit storage types. They hold bits and convert; arithmetic is done in float. (g++ 12 has no __bf16
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

static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);
static_assert(float(f16(65504.0f)) == 65504.0f && float(f16(0x1p-24f)) == 0x1p-24f && float(bf16(1.0f)) == 1.0f);

}  // namespace effinfer::inline v0
