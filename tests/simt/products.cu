// Every quantized product for every combination that is supported, compiled as instantiations.cu is.

#include <effinfer/quantization/cuda/activations.hpp>
#include <effinfer/quantization/cuda/block_weights.hpp>
#include <effinfer/quantization/cuda/gated_product.hpp>
#include <effinfer/quantization/cuda/matmul.cuh>

namespace ei = effinfer;
namespace cuda = ei::quantization::cuda;

template <class K>
void use() {
  ei::execution::simt::launch<K>(typename K::args{}, nullptr);
}

template <class Weights, class T>
void use_gated() {
  use<cuda::gated_product<Weights, T, 1>>();
  use<cuda::gated_product<Weights, T, 2>>();
}

template <class T>
void use_all_weights() {
  use_gated<cuda::int8_weights, T>();
  use_gated<cuda::int4_weights<32>, T>();
  use_gated<cuda::int4_weights<64>, T>();
  use_gated<cuda::int4_weights<128>, T>();
  use_gated<cuda::block_weights<4>, T>();
  use_gated<cuda::block_weights<5>, T>();
  use_gated<cuda::block_weights<6>, T>();
  use_gated<cuda::block_weights<8>, T>();
  use_gated<cuda::fp8_weights<0>, T>();
  use_gated<cuda::fp8_weights<128>, T>();
  cuda::matmul(cuda::product_args<cuda::float_weights<T>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::int8_weights, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::int4_weights<32>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::int4_weights<64>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::int4_weights<128>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::block_weights<4>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::block_weights<5>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::block_weights<6>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::block_weights<8>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::fp8_weights<0>, T>{}, nullptr);
  cuda::matmul(cuda::product_args<cuda::fp8_weights<128>, T>{}, nullptr);
  cuda::matmul(cuda::integer_product_args<T>{}, nullptr);
  use<cuda::reorder_columns<T>>();
  use<cuda::quantize_rows<T>>();
}

void use_all_products() {
  (void)cuda::limits_of(0);
  use_all_weights<ei::bf16>();
  use_all_weights<ei::f16>();
}
