#pragma once
// Starts a kernel on a caller's stream. Nothing is allocated or waited for, so it can be captured into a graph.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/device_context.cuh>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.cuh>

#include <cuda_runtime_api.h>

#include <cstddef>
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

/// True where this program's kernels can be started while the one before them on their stream still runs: on devices of compute capability 9.0,
/// and compiled for them, as older code doesn't wait. `of`: the attributes of any kernel. Source: CUDA C++ Programming Guide, "Programmatic
/// Dependent Launch and Synchronization".
inline bool kernels_overlap(int major, const cudaFuncAttributes& of) { return major >= 9 && of.ptxVersion >= 90; }

/// K::run for each thread of K::plan(args), on the current device; with `overlaps` (kernels_overlap) from when the kernel before it on the
/// stream has begun its last blocks: it awaits that one's end itself. Error: `device` (what CUDA refuses).
template <class K>
void launch(const typename K::args& args, cudaStream_t stream, bool overlaps = false) {
  const grid g = K::plan(args);
  if (g.blocks < 1 || g.blocks_y < 1) return;
  // Each time: what a static flag remembers is true of one translation unit's kernel and one device only.
  if (g.shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(entry_of<K>(), cudaFuncAttributeMaxDynamicSharedMemorySize, g.shared_bytes),
          "shared memory of a kernel");
  }
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how{};
  how.gridDim = dim3(static_cast<unsigned>(g.blocks), static_cast<unsigned>(g.blocks_y));
  how.blockDim = dim3(static_cast<unsigned>(g.threads));
  how.dynamicSmemBytes = static_cast<std::size_t>(g.shared_bytes);
  how.stream = stream;
  how.attrs = &overlap;
  how.numAttrs = overlaps ? 1 : 0;
  void* with[] = {const_cast<void*>(static_cast<const void*>(&args))};  // it is copied
  check(cudaLaunchKernelExC(&how, entry_of<K>(), with), "start of a kernel");
}

}  // namespace effinfer::inline v0::execution::simt
