#pragma once
// out = x w^T for any number of rows of x: which kernels, in which order. `start` is what starts one, on a GPU execution::simt::launch
// (matmul.cuh), in tests the host context.

#include <effinfer/core/error.hpp>
#include <effinfer/quantization/cuda/integer_product.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/tiled_product.hpp>

#include <string>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

/// The plan of a product with 16-bit activations: plan_skinny up to 16 rows, plan_tiled beyond. Which of them doesn't show in the result.
template <class Weights, class T, class Out>
product_plan plan_matmul(const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out,
                         const device_limits& device) {
  return x.rows <= most_skinny_rows ? plan_skinny(x, w, out, device.multiprocessors) : plan_tiled(x, w, out, device);
}

/// Calls start(std::type_identity<Kernel>{}, args) for each kernel of a.plan. Errors: `invalid_argument` (a plan of nobody's), those of the kernels' plans.
template <class Weights, class T, class Out, class Start>
void start_matmul(const product_args<Weights, T, Out>& a, const Start& start) {
  switch (a.plan.tiles) {
    case 1:
      start(std::type_identity<skinny_product<Weights, T, 1, Out>>{}, a);
      start(std::type_identity<sum_chunks<Weights, T, 1, Out>>{}, a);
      return;
    case 2:
      start(std::type_identity<skinny_product<Weights, T, 2, Out>>{}, a);
      start(std::type_identity<sum_chunks<Weights, T, 2, Out>>{}, a);
      return;
    case 4: start(std::type_identity<tiled_product<Weights, T, 32, Out>>{}, a); break;
    case 8: start(std::type_identity<tiled_product<Weights, T, 64, Out>>{}, a); break;
    case 16: start(std::type_identity<tiled_product<Weights, T, 128, Out>>{}, a); break;
    default:
      throw error(error_code::invalid_argument, "quantization::cuda::matmul",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows");
  }
  start(std::type_identity<sum_tiled_chunks<Weights, T, Out>>{}, a);
}

/// The same for 8-bit activations (plan_integer).
template <class T, class Start>
void start_matmul(const integer_product_args<T>& a, const Start& start) {
  switch (a.plan.tiles) {
    case 4: start(std::type_identity<integer_product<T, 32>>{}, a); break;
    case 8: start(std::type_identity<integer_product<T, 64>>{}, a); break;
    case 16: start(std::type_identity<integer_product<T, 128>>{}, a); break;
    default:
      throw error(error_code::invalid_argument, "quantization::cuda::matmul",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows");
  }
  start(std::type_identity<sum_integer_splits<T>>{}, a);
}

}  // namespace effinfer::inline v0::quantization::cuda
