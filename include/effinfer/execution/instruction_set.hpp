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
#include <cpuid.h>
#define EFFINFER_X86 1
#define EFFINFER_ARM64 0
#define EFFINFER_TARGET_AVX2 __attribute__((target("avx2,fma,f16c,bmi2")))
#define EFFINFER_TARGET_AVX512 \
  __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define EFFINFER_TARGET_AVX2_VNNI __attribute__((target("avx2,fma,f16c,bmi2,avxvnni")))
#define EFFINFER_TARGET_AVX512_BF16 \
  __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")))
#define EFFINFER_TARGET_AMX \
  __attribute__((           \
      target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16")))
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#else
#define EFFINFER_X86 0
#define EFFINFER_TARGET_AVX2
#define EFFINFER_TARGET_AVX512
#define EFFINFER_TARGET_AVX2_VNNI
#define EFFINFER_TARGET_AVX512_BF16
#define EFFINFER_TARGET_AMX
#if defined(__aarch64__) && defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define EFFINFER_ARM64 1
#include <effinfer/execution/arm64_features.hpp>
#else
#define EFFINFER_ARM64 0
#endif
#endif

namespace effinfer::inline v0::execution {

/// In rising order of speed on each architecture.
enum class instruction_set {
  portable,      ///< what the compiler targets without flags, in plain C++
  neon,          ///< Arm, 64 bits: Advanced SIMD, which all of these processors have
  neon_dotprod,  ///< and its 8-bit dot products (Armv8.2 on; Cortex-A76, Neoverse N1, Apple M1)
  neon_i8mm,     ///< and those of unsigned by signed bytes (Armv8.6 on; Cortex-X2, Neoverse V1, Apple M2)
  neon_bf16,     ///< and those of bf16 (the same processors but for a few)
  avx2,          ///< AVX2, FMA, F16C, BMI2
  avx2_vnni,     ///< and the 8-bit dot products of AVX-VNNI
  avx512,        ///< AVX-512 F, BW, DQ, VL and VNNI
  avx512_bf16,   ///< and the dot products of AVX512-BF16
  amx,           ///< and the tiles of AMX with their products of bf16 (Sapphire Rapids on), on Linux
};

/// Every set, those of other architectures too: is_supported tells.
inline constexpr instruction_set all_instruction_sets[] = {
    instruction_set::portable,    instruction_set::neon, instruction_set::neon_dotprod, instruction_set::neon_i8mm,
    instruction_set::neon_bf16,   instruction_set::avx2, instruction_set::avx2_vnni,    instruction_set::avx512,
    instruction_set::avx512_bf16, instruction_set::amx};

constexpr std::string_view to_string(instruction_set set) noexcept {
  switch (set) {
    case instruction_set::neon: return "neon";
    case instruction_set::neon_dotprod: return "neon_dotprod";
    case instruction_set::neon_i8mm: return "neon_i8mm";
    case instruction_set::neon_bf16: return "neon_bf16";
    case instruction_set::avx2: return "avx2";
    case instruction_set::avx2_vnni: return "avx2_vnni";
    case instruction_set::avx512: return "avx512";
    case instruction_set::avx512_bf16: return "avx512_bf16";
    case instruction_set::amx: return "amx";
    default: return "portable";
  }
}

/// The set without its dot products: what kernels that have no use for them are compiled for.
constexpr instruction_set base_of(instruction_set set) noexcept {
  switch (set) {
    case instruction_set::neon_dotprod: return instruction_set::neon;
    case instruction_set::neon_i8mm: return instruction_set::neon;
    case instruction_set::neon_bf16: return instruction_set::neon;
    case instruction_set::avx2_vnni: return instruction_set::avx2;
    case instruction_set::avx512_bf16: return instruction_set::avx512;
    case instruction_set::amx: return instruction_set::avx512;
    default: return set;
  }
}

/// Whether a set multiplies pairs of bf16 and adds them in f32.
constexpr bool has_bf16_dot_products(instruction_set set) noexcept {
  return set == instruction_set::avx512_bf16 || set == instruction_set::amx || set == instruction_set::neon_bf16;
}

#if EFFINFER_X86
namespace detail {

/// Whether processor and system have tiles and this process may use them. Linux gives their 8 KiB of state to a process that
/// asks, once for all of its threads; to ask again changes nothing. (It refuses where a thread has an alternate signal
/// stack too small for them.)
inline bool has_tiles() noexcept {
#if defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // leaf 7: bit 22 of edx is AMX-BF16, bit 24 AMX-TILE
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0 || ((edx >> 22) & 5u) != 5) return false;
  __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));          // bits 17 and 18: the system saves tiles
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return ((eax >> 17) & 3u) == 3 && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace detail
#endif

/// Whether this machine runs `set`. Cost: a few cpuid instructions at most, about 100 ns each (more on a virtual machine); for AMX
/// and on a Mac also a system call. If it says yes to AMX, this process has the system's permission for it, whose one
/// effect elsewhere is that signal handlers need some 8 KiB more of stack.
inline bool is_supported(instruction_set set) noexcept {
  if (set == instruction_set::portable) return true;
#if EFFINFER_X86
  if (base_of(set) == instruction_set::neon) return false;
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
    return false;
  if (base_of(set) == instruction_set::avx512 &&
      !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))) {
    return false;
  }
  if (set == base_of(set)) return true;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;  // leaf 7, subleaf 1: bit 4 of eax is AVX-VNNI, bit 5 AVX512-BF16
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0) return false;
  if (((eax >> (set == instruction_set::avx2_vnni ? 4 : 5)) & 1u) == 0) return false;
  return set != instruction_set::amx || detail::has_tiles();
#elif EFFINFER_ARM64
  switch (set) {
    case instruction_set::neon: return true;
    case instruction_set::neon_dotprod: return detail::has_arm64_dotprod();
    case instruction_set::neon_i8mm: return detail::has_arm64_dotprod() && detail::has_arm64_i8mm();
    case instruction_set::neon_bf16: return is_supported(instruction_set::neon_i8mm) && detail::has_arm64_bf16();
    default: return false;
  }
#else
  return false;
#endif
}

/// The best set that this machine runs and that is no better than `limit`.
inline instruction_set best_instruction_set(instruction_set limit = instruction_set::amx) noexcept {
  for (int i = static_cast<int>(limit); i > 0; --i) {
    if (is_supported(static_cast<instruction_set>(i))) return static_cast<instruction_set>(i);
  }
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
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_AVX2_VNNI void run_avx2_vnni(const Args&... args) {
  Kernel::template run<instruction_set::avx2_vnni>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_AVX512_BF16 void run_avx512_bf16(const Args&... args) {
  Kernel::template run<instruction_set::avx512_bf16>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_AMX void run_amx(const Args&... args) {
  Kernel::template run<instruction_set::amx>(args...);
}
#elif EFFINFER_ARM64
template <class Kernel, class... Args>
__attribute__((flatten)) void run_neon(const Args&... args) {
  Kernel::template run<instruction_set::neon>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_NEON_DOTPROD void run_neon_dotprod(const Args&... args) {
  Kernel::template run<instruction_set::neon_dotprod>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_NEON_I8MM void run_neon_i8mm(const Args&... args) {
  Kernel::template run<instruction_set::neon_i8mm>(args...);
}
template <class Kernel, class... Args>
__attribute__((flatten)) EFFINFER_TARGET_NEON_BF16 void run_neon_bf16(const Args&... args) {
  Kernel::template run<instruction_set::neon_bf16>(args...);
}
#endif

}  // namespace detail

/// Calls `Kernel::run<set>(args...)`, compiled for `set`. `run` must be EFFINFER_ALWAYS_INLINE and
/// return nothing (results go through pointers), and so must all that it calls. The sets with dot products
/// are for kernels that have a member `uses_byte_dot_products` or `uses_bf16_dot_products`; others run as base_of(set).
template <class Kernel, class... Args>
void dispatch(instruction_set set, const Args&... args) {
#if EFFINFER_X86
  if constexpr (requires { Kernel::uses_bf16_dot_products; }) {
    if (set >= instruction_set::avx512_bf16) return detail::run_avx512_bf16<Kernel>(args...);
  }
  if constexpr (requires { Kernel::uses_byte_dot_products; }) {
    if (set == instruction_set::avx2_vnni) return detail::run_avx2_vnni<Kernel>(args...);
  }
  switch (base_of(set)) {
    case instruction_set::avx512: return detail::run_avx512<Kernel>(args...);
    case instruction_set::avx2: return detail::run_avx2<Kernel>(args...);
    default: break;
  }
#elif EFFINFER_ARM64
  if constexpr (requires { Kernel::uses_bf16_dot_products; }) {
    if (set == instruction_set::neon_bf16) return detail::run_neon_bf16<Kernel>(args...);
  }
  if constexpr (requires { Kernel::uses_byte_dot_products; }) {
    if (set == instruction_set::neon_i8mm || set == instruction_set::neon_bf16)
      return detail::run_neon_i8mm<Kernel>(args...);
    if (set == instruction_set::neon_dotprod) return detail::run_neon_dotprod<Kernel>(args...);
  }
  if (base_of(set) == instruction_set::neon) return detail::run_neon<Kernel>(args...);
#else
  (void)set;
#endif
  Kernel::template run<instruction_set::portable>(args...);
}

}  // namespace effinfer::inline v0::execution
