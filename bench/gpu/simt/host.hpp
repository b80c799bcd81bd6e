#pragma once
// In place of tests/simt/host.hpp: the kernel tests run on the GPU. Their vectors and what stands on their stack lie in page-locked memory
// (test_main.cpp), so kernels and tests see the same numbers.

#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/launch.cuh>

#include <cuda_runtime_api.h>

namespace simt_host {

namespace simt = effinfer::execution::simt;

enum class thread_order { forward, reverse, shuffled };  // as the GPU likes

/// Runs K::run over K::plan(a) and waits for it.
template <class K>
void start(const typename K::args& a, thread_order = thread_order::shuffled) {
  simt::launch<K>(a, nullptr);
  simt::check(cudaDeviceSynchronize(), "a kernel");
}

}  // namespace simt_host
