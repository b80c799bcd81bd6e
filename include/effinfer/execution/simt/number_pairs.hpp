#pragma once
// Two numbers of 16 bits in a register: what matrix instructions take and packed arithmetic works on.

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::execution::simt {

/// Two floats, each rounded to T (bf16 or f16), in a register.
template <class T>
EFFINFER_HOST_DEVICE std::uint32_t round_pair(float low, float high) {
#if defined(__CUDA_ARCH__)
  std::uint32_t both;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  }
  return both;
#else
  return static_cast<std::uint32_t>(T(low).bits) | static_cast<std::uint32_t>(T(high).bits) << 16;
#endif
}

/// a b + c of pairs of T, rounded once.
template <class T>
EFFINFER_HOST_DEVICE std::uint32_t multiply_add_pairs(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
#if defined(__CUDA_ARCH__)
  std::uint32_t sum;
  if constexpr (std::is_same_v<T, bf16>) {
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  } else {
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  }
  return sum;
#else
  const auto half = [](std::uint32_t v, int shift) {
    return static_cast<float>(T::from_bits(static_cast<std::uint16_t>(v >> shift)));
  };
  return round_pair<T>(std::fma(half(a, 0), half(b, 0), half(c, 0)), std::fma(half(a, 16), half(b, 16), half(c, 16)));
#endif
}

template <class T>
EFFINFER_HOST_DEVICE void store_pair(T* to, std::uint32_t both) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<std::uint32_t*>(to) = both;
#else
  __builtin_memcpy(to, &both, sizeof both);
#endif
}

}  // namespace effinfer::inline v0::execution::simt
