#pragma once
// What every header of the library stands on: the language version and the few macros.

#include <effinfer/version.hpp>

#if !defined(__cplusplus) || __cplusplus < 202002L
#error "effinfer needs C++20: compile with -std=c++20 (CMake: target_compile_features(your_target PRIVATE cxx_std_20))"
#endif

/// Marks a function that the CPU and the CUDA backend both call. Empty without nvcc.
#if defined(__CUDACC__)
#define EFFINFER_HOST_DEVICE __host__ __device__
#else
#define EFFINFER_HOST_DEVICE
#endif

/// Forces inlining: a plain C++ kernel body takes on the instruction set of the wrapper that it is
/// inlined into (see execution/instruction_set.hpp).
#define EFFINFER_ALWAYS_INLINE inline __attribute__((always_inline))

/// Before a loop of a constant number of rounds whose arrays must end up in a GPU's registers: nvcc unrolls it, whatever is inside; or
/// leaves it, where unrolling would take registers from a loop around it.
#if defined(__CUDA_ARCH__)
#define EFFINFER_UNROLL _Pragma("unroll")
#define EFFINFER_KEEP_ROLLED _Pragma("unroll 1")
#else
#define EFFINFER_UNROLL
#define EFFINFER_KEEP_ROLLED
#endif
