// Every quantized product for every combination that is supported, compiled as instantiations.cu is.

#include <effinfer/execution/simt/launch.cuh>
#include <effinfer/quantization/cuda/activations.hpp>
#include <effinfer/quantization/cuda/integer_product.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/tiled_product.hpp>

namespace ei = effinfer;
namespace cuda = ei::quantization::cuda;

template <class K>
void use() {
  ei::execution::simt::launch<K>(typename K::args{}, nullptr);
}

template <class Weights, class T>
void use_products() {
  use<cuda::skinny_product<Weights, T, 1>>();
  use<cuda::skinny_product<Weights, T, 2>>();
  use<cuda::sum_chunks<Weights, T, 1>>();
  use<cuda::sum_chunks<Weights, T, 2>>();
  use<cuda::tiled_product<Weights, T, 32>>();
  use<cuda::tiled_product<Weights, T, 64>>();
  use<cuda::tiled_product<Weights, T, 128>>();
  use<cuda::sum_tiled_chunks<Weights, T>>();
}

template <class T>
void use_all_weights() {
  use_products<cuda::float_weights<T>, T>();
  use_products<cuda::int8_weights, T>();
  use_products<cuda::int4_weights<32>, T>();
  use_products<cuda::int4_weights<64>, T>();
  use_products<cuda::int4_weights<128>, T>();
}

template <class T>
void use_integer_products() {
  use<cuda::reorder_columns<T>>();
  use<cuda::quantize_rows<T>>();
  use<cuda::integer_product<T, 32>>();
  use<cuda::integer_product<T, 64>>();
  use<cuda::integer_product<T, 128>>();
  use<cuda::sum_integer_splits<T>>();
}

void use_all_products() {
  use_integer_products<ei::bf16>();
  use_integer_products<ei::f16>();
  use_all_weights<ei::bf16>();
  use_all_weights<ei::f16>();
}
