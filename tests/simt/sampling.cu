// The sampling kernels, compiled as instantiations.cu is.

#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/execution/simt/launch.cuh>

template <class K>
void use() {
  effinfer::execution::simt::launch<K>(typename K::args{}, nullptr);
}

void use_sampling() {
  use<effinfer::decoding::cuda::sample<float>>();
  use<effinfer::decoding::cuda::sample<effinfer::bf16>>();
  use<effinfer::decoding::cuda::sample<effinfer::f16>>();
}
