#pragma once
// AMX: eight tile registers of up to 16 rows of 64 bytes, and products of them. A thread configures its tiles where a kernel
// begins and releases them where it ends: between kernels no state is left that the system would have to save.
//
// In assembly, as the intrinsics of g++ 12 and clang 14 differ, and g++'s loads don't say that they read memory. No compiler
// allocates tiles by itself, so what is written to them stays.

#include <effinfer/execution/instruction_set.hpp>

#include <cstddef>
#include <cstdint>

#if EFFINFER_X86
namespace effinfer::inline v0::execution::tiles {

/// The shapes of the eight tiles, as LDTILECFG reads them.
struct alignas(64) shapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, int row_count, int bytes) {
    rows[tile] = static_cast<std::uint8_t>(row_count), row_bytes[tile] = static_cast<std::uint16_t>(bytes);
  }
};

/// Shapes all tiles anew; they hold zeros then.
inline EFFINFER_TARGET_AMX void configure(const shapes& s) { __asm__ volatile("ldtilecfg %0" ::"m"(s)); }
inline EFFINFER_TARGET_AMX void release() { __asm__ volatile("tilerelease"); }

template <int Tile>
inline EFFINFER_TARGET_AMX void zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
/// Rows of the tile from p on, `Stride` bytes apart. The stride is loaded here each time: g++ would keep it in a vector register,
/// from where it comes by way of a port on which operations on floats queue.
template <int Tile, int Stride>
inline EFFINFER_TARGET_AMX void load(const void* p) {
  __asm__ volatile("movl %1, %%eax\n\ttileloadd (%0,%%rax,1), %%tmm%c2" ::"r"(p), "i"(Stride), "i"(Tile)
                   : "rax", "memory");
}
/// The same with a stride that only the running program knows; and rows of the tile to memory.
template <int Tile>
inline EFFINFER_TARGET_AMX void load(const void* p, std::ptrdiff_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(Tile) : "memory");
}
template <int Tile>
inline EFFINFER_TARGET_AMX void store(void* p, std::ptrdiff_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(Tile) : "memory");
}
/// sums[m][n] += sum over k of a[m][2 k] b[k][2 n] + a[m][2 k + 1] b[k][2 n + 1], a and b of bf16, sums in f32.
/// Exact: the even and the odd products are summed apart, in order, from zero; then both sums are added, and that to sums[m][n],
/// whatever the other rows and columns are. Each step rounds to nearest; subnormal numbers count as zero.
/// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, TDPBF16PS.
template <int Sums, int A, int B>
inline EFFINFER_TARGET_AMX void add_bf16_products() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sums), "i"(A), "i"(B));
}

}  // namespace effinfer::inline v0::execution::tiles
#endif
