#pragma once
// A CUDA device as a place to run. This header is plain C++; what runs stands in cuda.cuh, which nvcc compiles.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/slot.hpp>
#include <effinfer/execution/simt/device.hpp>

#include <memory_resource>

struct CUstream_st;  // cudaStream_t points to it

namespace effinfer::inline v0::execution {

/// Policy: run on a CUDA device of compute capability 8.0 or newer, with activations in Activation, bf16 or f16. Sums are in float, as is what
/// layers add to, and so are logits. With HeadSizes attention is compiled for heads of these sizes alone, of 32, 64, 96, 128 and 256: less to
/// compile where the models are known (on_cuda<bf16, 128>).
template <class Activation, int... HeadSizes>
struct on_cuda {
  using slot = effinfer::slot::execution;
  using activation = Activation;
  using head_sizes = simt::head_sizes<HeadSizes...>;
  int device = 0;
  /// Where everything runs, a cudaStream_t of the device, which must outlive the model; null: a stream of the model's own. Sessions of
  /// one model share it.
  CUstream_st* stream = nullptr;
  /// Of weights, caches and workspaces: device memory, aligned as asked for (256); must outlive the model. Null: cudaMalloc.
  std::pmr::memory_resource* memory = nullptr;
  /// Starts each kernel while the one before it ends, where the device and the program are of compute capability 9.0 (programmatic dependent
  /// launch, execution/simt/launch.cuh); results are the same bits.
  bool overlap_kernels = true;

  class context;
};

/// For checkpoints in BF16, FP8 or the blocks of GGUF files, and for all that are quantized on load.
using cuda = on_cuda<bf16>;
/// For checkpoints in F16 whose matrices are kept as stored.
using cuda_f16 = on_cuda<f16>;

static_assert(simt::device_policy<cuda> && simt::device_policy<cuda_f16>);

}  // namespace effinfer::inline v0::execution
