#pragma once
// What GPUs of compute capability 9.0 have beyond the SIMT context: barriers in shared memory that count bytes, an engine that
// copies boxes of matrices, products of 128 threads in the background. A kernel asks for it by `hopper<Simt> h(t)`; on a GPU
// that is hopper.cuh, whose kernels are code for sm_90a, in tests the host (tests/simt/hopper.hpp), where what PTX leaves
// undefined is an error that says who did it.
//
// Barriers in shared memory, `const auto b = t.template shared<mbarrier>(n)`. Each is in a phase, which completes when the
// arrivals that it was told of and all bytes that it was told to expect have come; then the next begins.
//   h.init(b, i, arrivals)        by one thread; then h.publish() by the same, and t.barrier()
//   h.arrive(b, i)                one of the arrivals; what the thread did before is seen by those who wait
//   h.arrive_expect(b, i, bytes)  the same, and the phase waits for so many bytes of copies
//   h.wait(b, i, parity)          until the phase of this parity is complete: the first is 0, then 1, 0, ...; 1 at first returns at once
//
// Copies in the background.
//   h.copy_box(a, j, map, x, y, b, i)   one thread: the map's box whose first element is in row y, column x goes to a[j], 1024-byte
//                                 aligned; its bytes count for b[i]. Each row of 128 bytes begins 128 bytes behind the one above,
//                                 swizzled; elements outside the matrix are 0, and count too
//   h.acquire(map)                before the first copy by a map in device memory
//   h.fence_async()               what the thread wrote to shared memory (copy_async that was waited for included) may be read by
//                                 products; it precedes the barrier that tells them
//
// Products of a warpgroup, four warps from a multiple of four on: d += a b of matrices 64 x 16 and 16 x N, N = 64, 128 or 256,
// of bf16 or f16. All threads of the warpgroup call these. Until `finish` d is theirs, and so is what they read in shared
// memory.
//   h.multiply<Transposed>(d, a, b, T{}, accumulate)
//                                 d: float[N / 8][4], rows 16 (warp % 4) and on, in each a 16 x 8 matrix as d_element says. a: a
//                                 matrix_descriptor, or the registers of a_element. b: a matrix_descriptor; its rows in shared memory
//                                 are its columns (k side by side), or if Transposed its rows (n side by side). Without accumulate
//                                 d = a b
//   h.describe(a, j, leading, stride)   the descriptor of the matrix at a[j]: see matrix_descriptor::of
//   h.begin(a...)                 before the first of them, and whenever registers of d or a have been written: wgmma.fence. These registers
//                                 a, [..][4], are written by then, not later where the compiler would like to, which makes products wait
//   h.commit()                    they form groups
//   h.keep(a...)                  behind the wait for products that read these registers a, [..][4]: until then nothing else may be put there
//   h.template finish<N>(d...)    waits until all but the last N groups are complete; these d may be read
//
//   h.sync(id, n), h.arrive(id, n)   named barriers of n threads, whole warps; arrive doesn't wait. id in [1, 16)
//   h.template take_registers<N>(), give_registers<N>()   a warpgroup has N registers a thread from here on, more or fewer than before:
//                                 a multiple of 8
//
// Source: PTX ISA 8.5: "mbarrier", "cp.async.bulk.tensor", "Asynchronous Warpgroup Level Matrix Instructions", "setmaxnreg".

#include <effinfer/core/config.hpp>

#include <cstdint>

namespace effinfer::inline v0::execution::simt {

/// As above, for each context.
template <class Simt>
class hopper;

/// Lies in shared memory; its bits are the GPU's affair.
using mbarrier = std::uint64_t;

inline constexpr int warpgroup_size = 128;

/// Where a byte of a swizzled matrix lies: pieces of 16 bytes change places within 128, by which of 8 rows of 128 bytes it is.
/// Of offsets from a multiple of 1024.
EFFINFER_HOST_DEVICE constexpr int swizzled(int offset) { return offset ^ (offset >> 3 & 0x70); }

/// Tells a product where a matrix of 16-bit elements lies in shared memory: rows of 64 elements (128 bytes), swizzled, 8 of
/// which are 1024 bytes, from a multiple of 1024 on.
struct matrix_descriptor {
  std::uint64_t bits;

  /// `bytes` further: rows times 128, or within 128 (a multiple of 16).
  EFFINFER_HOST_DEVICE constexpr matrix_descriptor operator+(int bytes) const {
    return {bits + static_cast<std::uint64_t>(bytes >> 4)};
  }

  /// `leading`: bytes from the first 64 columns of a transposed matrix to the next; `stride`: from 8 rows to the next.
  /// Source: PTX ISA 8.5, "Matrix Descriptor Format" of wgmma; swizzle mode 1 is that of 128 bytes.
  EFFINFER_HOST_DEVICE static constexpr matrix_descriptor of(std::uint32_t address, int leading, int stride) {
    return {std::uint64_t{(address & 0x3ffffU) >> 4} | std::uint64_t{static_cast<std::uint32_t>(leading) >> 4} << 16 |
            std::uint64_t{static_cast<std::uint32_t>(stride) >> 4} << 32 | std::uint64_t{1} << 62};
  }
};

/// A row-major matrix of 16-bit elements in device memory, as the copying engine sees it: boxes of `box_rows` rows (at most
/// 256) of 64 columns.
struct box_source {
  const void* data = nullptr;  ///< 16-byte aligned
  std::int64_t rows = 0, columns = 0;
  std::int64_t stride = 0;  ///< elements from a row to the next, a multiple of 8
  int box_rows = 64;
};

/// What the engine is told in its own words; made from a box_source by `make_tensor_map` (hopper.cuh), copied to device memory
/// by who made it.
struct alignas(128) tensor_map {
  std::uint64_t words[16];
};

}  // namespace effinfer::inline v0::execution::simt
