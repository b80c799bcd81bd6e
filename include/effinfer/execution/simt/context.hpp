#pragma once
// What CUDA kernels are written against. A kernel is a plain template over a SIMT context,
//
//   template <class Simt>
//   EFFINFER_HOST_DEVICE void scale(Simt& t, float* x, int n, float by) {
//     for (int i = t.block() * t.threads() + t.thread(); i < n; i += t.blocks() * t.threads()) x[i] *= by;
//   }
//
// On a GPU the context is empty and its members are the intrinsics (device_context.cuh). In tests it is that of
// tests/simt/host.hpp: the threads of a block are fibers, and what CUDA leaves undefined is an error that says who did it: a barrier that not all reach,
// shared memory read before it was written, out of bounds, or without a barrier between two threads, a copy read before its wait.
//
//   t.thread(), t.threads()       in the block, and how many; whole warps
//   t.block(), t.block_y(), t.blocks()   the block's place in the grid, and how many blocks along x
//   t.lane(), t.warp()            thread() % 32, thread() / 32
//   t.barrier()                   __syncthreads: all threads of the block
//   t.warp_barrier()              __syncwarp: orders what the lanes of a warp do to shared memory
//   t.shuffle(v, lane), t.shuffle_xor(v, mask), t.shuffle_down(v, by)   the v of another lane; all lanes of a warp call it
//   t.any(b), t.ballot(b)         over the warp
//   t.shared<T>(count)            the next `count` elements of the block's shared memory, 16-byte aligned. Every thread asks for the
//                                 same, in the same order. An array: a[i], a + i
//   t.kept(a)                     the same shared memory, whose address compilers then don't compute anew where it is used
//   t.as<U>(a)                    the same shared memory as elements of another type, as far as its end
//   t.copy_async(a, i, p)         16 bytes from global p (16-byte aligned) to a[i], in the background (cp.async)
//                                 t.copy_async<4>, <8>: of so many bytes, so aligned
//   t.commit(); t.wait<N>()       a thread's copies form groups; wait until all but the last N groups are there. A barrier must
//                                 follow before other threads read them
//   t.mma(d, a, b, T{})           d += a b of matrices 16 x 16 and 16 x 8 of bf16 or f16, spread over a warp: fragments.hpp
//   t.load_matrices(a, i, r)      four matrices 8 x 8 of 16 bits as mma's operands lie (ldmatrix): lane 8 m + j says where row j of matrix m
//                                 is, 16 aligned bytes from a[i] on; r[m] becomes elements 2 (lane % 4) and the next of its row lane / 4.
//                                 load_matrices_transposed: of its column lane / 4
//   t.exp2(x)                     2^x, with a relative error below 2^-21; 0 below 2^-126, and for minus infinity
//   t.mma(d, a, b, std::int8_t{}) the same of 16 x 32 and 32 x 8 of 8-bit integers, exact in 32 bits
//   t.atomic_add(p, v)            on global memory; returns what was there
//   t.fence()                     fence.acq_rel of the device: whoever sees what the thread writes to global memory after it sees what it wrote before, and
//                                 the thread reads behind it what those wrote whose writes it has seen
//   t.atomic_add(a, i, v)         on shared memory; no result. Barriers stand between these and other reads and writes
//   t.await_predecessors()        until the kernels before it on its stream are done and seen, where it was started while they ran
//                                 (launch.cuh). A kernel begins with it, unless it says `static constexpr bool awaits_predecessors = true`:
//                                 then every thread calls it in `run`, before it writes global memory or reads what another kernel wrote
//   t.prefetch(p)                 the 64 bytes around global p will be read soon; of what no kernel writes. May do nothing

#include <effinfer/core/config.hpp>

namespace effinfer::inline v0::execution::simt {

/// Threads that run in step.
inline constexpr int warp_size = 32;

/// Warps that `threads` are.
EFFINFER_HOST_DEVICE constexpr int warps(int threads) { return (threads + warp_size - 1) / warp_size; }

/// A kernel that calls await_predecessors by itself, with something to do before.
template <class K>
inline constexpr bool awaits_predecessors = requires {
  requires K::awaits_predecessors;
};

/// A kernel as it is started.
template <class K, class Simt>
EFFINFER_HOST_DEVICE void run_kernel(Simt& t, const typename K::args& a) {
  if constexpr (!awaits_predecessors<K>) t.await_predecessors();
  K::run(t, a);
}

/// The sum over a warp, in all lanes; always in the same order. All lanes call it.
template <class Simt>
EFFINFER_HOST_DEVICE float warp_sum(Simt& t, float v) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) v += t.shuffle_xor(v, mask);
  return v;
}

/// The greatest over a warp, in all lanes.
template <class Simt>
EFFINFER_HOST_DEVICE float warp_max(Simt& t, float v) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    const float other = t.shuffle_xor(v, mask);
    v = other > v ? other : v;
  }
  return v;
}

/// The sum over a block, in all threads; `scratch`: a float a warp. All threads call it; it begins with a barrier, so that
/// scratch may be used again.
template <class Simt, class Shared>
EFFINFER_HOST_DEVICE float block_sum(Simt& t, float v, Shared scratch) {
  v = warp_sum(t, v);
  t.barrier();
  if (t.lane() == 0) scratch[t.warp()] = v;
  t.barrier();
  float sum = 0;
  for (int w = 0; w < warps(t.threads()); ++w) sum += scratch[w];
  return sum;
}

}  // namespace effinfer::inline v0::execution::simt
