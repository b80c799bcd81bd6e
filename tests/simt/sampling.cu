// The sampling kernels, compiled as instantiations.cu is.

#include <effinfer/decoding/cuda/sample.hpp>
#include <effinfer/execution/simt/launch.cuh>

template <class K>
void use() {
  effinfer::execution::simt::launch<K>(typename K::args{}, nullptr);
}

template <class T>
void use_parts() {
  use<effinfer::decoding::cuda::sample_greatest<T>>();
  use<effinfer::decoding::cuda::sample_bins<T>>();
  use<effinfer::decoding::cuda::sample_kept<T>>();
}

void use_sampling() {
  use_parts<float>();
  use_parts<effinfer::bf16>();
  use_parts<effinfer::f16>();
  use<effinfer::decoding::cuda::sample<float>>();
  use<effinfer::decoding::cuda::sample<effinfer::bf16>>();
  use<effinfer::decoding::cuda::sample<effinfer::f16>>();
}
