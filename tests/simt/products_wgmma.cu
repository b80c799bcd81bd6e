// Every product by wgmma, for all weights and tiles, compiled as instantiations.cu is.

#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/wgmma_product.hpp>

namespace ei = effinfer;
namespace cuda = ei::quantization::cuda;
namespace simt = ei::execution::simt;

template <class Weights, class T>
void use() {
  cuda::start_wgmma(cuda::wgmma_args<Weights, T>{}, simt::make_tensor_map, [](auto kernel, const auto& args) {
    simt::launch<typename decltype(kernel)::type>(args, nullptr);
  });
}

template <class T>
void use_all_weights() {
  simt::launch<cuda::order_inputs<T>>({}, nullptr);
  use<cuda::float_weights<T>, T>();
  use<cuda::int8_weights, T>();
  use<cuda::int4_weights<32>, T>();
  use<cuda::int4_weights<64>, T>();
  use<cuda::int4_weights<128>, T>();
  use<cuda::block_weights<4>, T>();
  use<cuda::block_weights<5>, T>();
  use<cuda::block_weights<6>, T>();
  use<cuda::block_weights<8>, T>();
  use<cuda::fp8_weights<0>, T>();
  use<cuda::fp8_weights<128>, T>();
}

void use_all_products() {
  use_all_weights<ei::bf16>();
  use_all_weights<ei::f16>();
}
