#pragma once
// out = x w^T for any number of rows of x: which kernels, in which order. `start` is what starts one, on a GPU execution::simt::launch
// (matmul.cuh), in tests the host context.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/batch_product.hpp>
#include <effinfer/quantization/cuda/integer_product.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/tiled_product.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

/// The plan of a product with 16-bit activations: skinny_product up to 16 rows, batch_product up to 64, tiled_product beyond; batch_product too where
/// a block of the device has too little shared memory for either other. Which of them doesn't show in the result. Few blocks of many rows are split
/// along the inputs. Errors: as plan_skinny's; `unsupported`, where there is too little for any; `limit` (65535 tiles of rows).
template <class Weights, class T, class Out>
product_plan plan_matmul(const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out,
                         const device_limits& device) {
  const char* const who = "quantization::cuda::plan_matmul";
  if (device.multiprocessors < 1) throw error(error_code::invalid_argument, who, "a device without multiprocessors");
  if (x.rows <= most_skinny_rows && detail::skinny_bytes<Weights, T, 1>(x.rows) <= device.shared_bytes)
    return plan_skinny(x, w, out, device);
  detail::check_product(who, x, w, out);
  product_plan plan;
  if (x.rows == 0) return plan;
  const bool tiled = x.rows > 64 && tile_shape<Weights>::shared_bytes <= device.shared_bytes;
  plan.tiles = tiled ? tile_shape<Weights>::tokens / 8 : x.rows > 32 ? 8 : 4;
  if (!tiled) {
    execution::simt::check_shared(who,
                                  plan.tiles == 8 ? batch_product<Weights, T, 8, Out>::shared_bytes
                                                  : batch_product<Weights, T, 4, Out>::shared_bytes,
                                  device);
  }
  const std::ptrdiff_t across = (x.rows + plan.tiles * 8 - 1) / (plan.tiles * 8), along = (w.rows + 127) / 128;
  const int most = parts(w.columns / unit_inputs);
  const std::ptrdiff_t wanted = device.multiprocessors / (across * along);
  if (wanted > 1) plan.splits = static_cast<int>(wanted < most ? wanted : most);
  if (across * plan.splits > 65535)
    throw error(error_code::limit, who, std::to_string(x.rows) + " rows of x are more than a grid holds");
  if (plan.splits > 1) {
    plan.workspace_bytes = static_cast<std::size_t>(most) * static_cast<std::size_t>(x.rows) *
                           static_cast<std::size_t>(w.rows) * sizeof(float);
  }
  return plan;
}

/// Calls start(std::type_identity<Kernel>{}, args) for each kernel of a.plan. Errors: `invalid_argument` (a plan of nobody's), those of the kernels' plans.
template <class Weights, class T, class Out, class Start>
void start_matmul(const product_args<Weights, T, Out>& a, const Start& start) {
  switch (a.plan.tiles) {
    case 1: return start(std::type_identity<skinny_product<Weights, T, 1, Out>>{}, a);
    case 2: return start(std::type_identity<skinny_product<Weights, T, 2, Out>>{}, a);
    case 4: start(std::type_identity<batch_product<Weights, T, 4, Out>>{}, a); break;
    case 8: start(std::type_identity<batch_product<Weights, T, 8, Out>>{}, a); break;
    case 16: start(std::type_identity<tiled_product<Weights, T, Out>>{}, a); break;
    default:
      throw error(error_code::invalid_argument, "quantization::cuda::matmul",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows");
  }
  start(std::type_identity<sum_parts<Weights, T, Out>>{}, a);
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
