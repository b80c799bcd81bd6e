#pragma once
// Instruction sets of the CPU, chosen at run time with no compiler flag from the user.
//
// A kernel is written once, as a struct with an always-inline `run<Set>(args...)` in plain C++ (loops, or
// the GNU vector types of execution/vector.hpp); `dispatch` calls it from a wrapper that carries the `target`
// attribute, into which the body is inlined and so compiled for that set. Where a set has an
// instruction with no plain form (int8 dot products), `run` branches on `Set` with `if constexpr`
// into a plain `inline` function (not always-inline) that carries the same attribute (EFFINFER_TARGET_AVX512)
// and takes vectors by reference; it is inlined from -O1 on.

#include <effinfer/core/config.hpp>

#include <string_view>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)
#define EFFINFER_X86 1
#define EFFINFER_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi2")))
#define EFFINFER_TARGET_AVX512 \
  __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#else
#define EFFINFER_X86 0
#define EFFINFER_TARGET_AVX2
#define EFFINFER_TARGET_AVX512
#endif

namespace effinfer::inline v0::execution {

/// In rising order: a machine that runs one runs all before it.
enum class instruction_set {
  portable,  ///< what the compiler targets without flags (SSE2, NEON)
  avx2,      ///< AVX2, FMA, F16C, BMI2
  avx512,    ///< AVX-512 F, BW, DQ, VL and VNNI
};

constexpr std::string_view to_string(instruction_set set) noexcept {
  switch (set) {
    case instruction_set::avx2: return "avx2";
    case instruction_set::avx512: return "avx512";
    default: return "portable";
  }
}

/// The best set that this machine runs. Cost: a few loads; the compiler's runtime caches cpuid.
inline instruction_set best_instruction_set() noexcept {
#if EFFINFER_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
      return instruction_set::avx512;
    }
    return instruction_set::avx2;
  }
#endif
  return instruction_set::portable;
}

namespace detail {

#if EFFINFER_X86
// flatten: g++ weighs inlining of the functions with intrinsics only after their callers, which have no such target.
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_AVX2 void run_avx2(const Args&... args) {
  Kernel::template run<instruction_set::avx2>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_AVX512 void run_avx512(const Args&... args) {
  Kernel::template run<instruction_set::avx512>(args...);
}
#endif

}  // namespace detail

/// Calls `Kernel::run<set>(args...)`, compiled for `set`. `run` must be EFFINFER_ALWAYS_INLINE and
/// return nothing (results go through pointers), and so must all that it calls.
template <class Kernel, class... Args>
void dispatch(instruction_set set, const Args&... args) {
#if EFFINFER_X86
  switch (set) {
    case instruction_set::avx512: return detail::run_avx512<Kernel>(args...);
    case instruction_set::avx2: return detail::run_avx2<Kernel>(args...);
    case instruction_set::portable: break;
  }
#else
  (void)set;
#endif
  Kernel::template run<instruction_set::portable>(args...);
}

}  // namespace effinfer::inline v0::execution
