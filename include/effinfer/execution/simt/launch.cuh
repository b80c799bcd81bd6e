#pragma once
// Starts a kernel on a caller's stream. Nothing is allocated or waited for, so it can be captured into a graph.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/device_context.cuh>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.cuh>

#include <cuda_runtime_api.h>

#include <string>

namespace effinfer::inline v0::execution::simt {

/// Throws what CUDA says of `asked`. Error: `device`.
inline void check(cudaError_t status, const char* asked) {
  if (status == cudaSuccess) return;
  int device = -1;
  cudaGetDevice(&device);
  throw error(error_code::device, "cuda: " + std::string(asked),
              std::string(cudaGetErrorName(status)) + " on device " + std::to_string(device) + ": " +
                  cudaGetErrorString(status));
}

/// K::run for each thread of K::plan(args), on the current device. Error: `device` (what CUDA refuses).
template <class K>
void launch(const typename K::args& args, cudaStream_t stream) {
  const grid g = K::plan(args);
  if (g.blocks < 1 || g.blocks_y < 1) return;
  // Each time: what a static flag remembers is true of one translation unit's kernel and one device only.
  if (g.shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(entry_of<K>(), cudaFuncAttributeMaxDynamicSharedMemorySize, g.shared_bytes),
          "shared memory of a kernel");
  }
  const dim3 blocks(static_cast<unsigned>(g.blocks), static_cast<unsigned>(g.blocks_y));
  const auto threads = static_cast<unsigned>(g.threads);
  if constexpr (hopper_kernel<K>) {
    enter_alone<K><<<blocks, threads, static_cast<std::size_t>(g.shared_bytes), stream>>>(args);
  } else {
    enter<K><<<blocks, threads, static_cast<std::size_t>(g.shared_bytes), stream>>>(args);
  }
  check(cudaGetLastError(), "start of a kernel");
}

}  // namespace effinfer::inline v0::execution::simt
