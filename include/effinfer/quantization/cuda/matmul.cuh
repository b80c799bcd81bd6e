#pragma once
// The products of matmul.hpp on a stream.

#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/quantization/cuda/matmul.hpp>

#include <cuda_runtime_api.h>

namespace effinfer::inline v0::quantization::cuda {

/// What plans must know of a device. Error: `device`.
inline device_limits limits_of(int device) {
  device_limits limits;
  execution::simt::check(cudaDeviceGetAttribute(&limits.multiprocessors, cudaDevAttrMultiProcessorCount, device),
                         "multiprocessors");
  execution::simt::check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
                         "shared memory of a block");
  return limits;
}

/// out = x w^T as a.plan says, on the current device. Allocates nothing, waits for nothing. Errors: as start_matmul's and launch's.
template <class Args>
void matmul(const Args& a, cudaStream_t stream) {
  start_matmul(a, [stream](auto kernel, const Args& args) {
    execution::simt::launch<typename decltype(kernel)::type>(args, stream);
  });
}

}  // namespace effinfer::inline v0::quantization::cuda
