#pragma once
// What an Arm processor of 64 bits has beyond Advanced SIMD: asked at run time, and how a function is compiled for it.

#include <effinfer/core/config.hpp>

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>

#include <cstddef>
#endif

// clang takes the name of an extension, g++ an architecture: Debian 12's assembler knows dot products from Armv8.2 on only.
// Naming one takes away what the user's flags allow beyond it, and always-inline functions of those flags could
// not be inlined then: so where the flags have dot products none is named, and what may come without them is named too.
#if defined(__ARM_FEATURE_DOTPROD)
#define EFFINFER_TARGET_NEON_DOTPROD
#elif defined(__clang__)
#define EFFINFER_TARGET_NEON_DOTPROD __attribute__((target("dotprod")))
#else
#if defined(__ARM_FEATURE_CRYPTO)
#define EFFINFER_ARM64_CRYPTO "+crypto"
#else
#define EFFINFER_ARM64_CRYPTO ""
#endif
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define EFFINFER_ARM64_FP16 "+fp16"
#else
#define EFFINFER_ARM64_FP16 ""
#endif
#if defined(__ARM_FEATURE_SVE)
#define EFFINFER_ARM64_SVE "+sve"
#else
#define EFFINFER_ARM64_SVE ""
#endif
#define EFFINFER_ARM64_8_2 "arch=armv8.2-a+dotprod" EFFINFER_ARM64_CRYPTO EFFINFER_ARM64_FP16 EFFINFER_ARM64_SVE
#define EFFINFER_TARGET_NEON_DOTPROD __attribute__((target(EFFINFER_ARM64_8_2)))
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define EFFINFER_TARGET_NEON_I8MM
#elif defined(__clang__)
#define EFFINFER_TARGET_NEON_I8MM __attribute__((target("dotprod,i8mm")))
#elif defined(__ARM_FEATURE_DOTPROD)
#define EFFINFER_TARGET_NEON_I8MM __attribute__((target("+i8mm")))
#else
#define EFFINFER_TARGET_NEON_I8MM __attribute__((target(EFFINFER_ARM64_8_2 "+i8mm")))
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define EFFINFER_TARGET_NEON_BF16
#elif defined(__clang__)
#define EFFINFER_TARGET_NEON_BF16 __attribute__((target("dotprod,i8mm,bf16")))
#elif defined(__ARM_FEATURE_DOTPROD)
#define EFFINFER_TARGET_NEON_BF16 __attribute__((target("+i8mm+bf16")))
#else
#define EFFINFER_TARGET_NEON_BF16 __attribute__((target(EFFINFER_ARM64_8_2 "+i8mm+bf16")))
#endif

namespace effinfer::inline v0::execution::detail {

#if defined(__APPLE__)
inline bool has_arm64_feature(const char* name) noexcept {
  int value = 0;
  std::size_t size = sizeof value;
  return ::sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

/// sdot and udot. Where there is no way to ask, what the compiler's flags promise.
inline bool has_arm64_dotprod() noexcept {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;
#elif defined(__linux__)
  return ((::getauxval(AT_HWCAP) >> 20) & 1u) != 0;   // HWCAP_ASIMDDP, which old headers lack
#elif defined(__APPLE__)
  return has_arm64_feature("hw.optional.arm.FEAT_DotProd");
#else
  return false;
#endif
}

/// usdot, smmla and their like.
inline bool has_arm64_i8mm() noexcept {
#if defined(__ARM_FEATURE_MATMUL_INT8)
  return true;
#elif defined(__linux__)
  return ((::getauxval(AT_HWCAP2) >> 13) & 1u) != 0;  // HWCAP2_I8MM
#elif defined(__APPLE__)
  return has_arm64_feature("hw.optional.arm.FEAT_I8MM");
#else
  return false;
#endif
}

/// bfdot and its like.
inline bool has_arm64_bf16() noexcept {
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
  return true;
#elif defined(__linux__)
  return ((::getauxval(AT_HWCAP2) >> 14) & 1u) != 0;  // HWCAP2_BF16
#elif defined(__APPLE__)
  return has_arm64_feature("hw.optional.arm.FEAT_BF16");
#else
  return false;
#endif
}

}  // namespace effinfer::inline v0::execution::detail
