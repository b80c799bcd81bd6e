#pragma once
// The products of a pass with a decoder's weights: which kernels each takes, and the memory that these need.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/device.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/layers/cuda/elementwise.hpp>
#include <effinfer/models/cuda/device_matrix.hpp>
#include <effinfer/models/cuda/weights.hpp>
#include <effinfer/quantization/cuda/gated_product.hpp>
#include <effinfer/quantization/cuda/input_order.hpp>
#include <effinfer/quantization/cuda/matmul.hpp>
#include <effinfer/quantization/cuda/wgmma_product.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace effinfer::inline v0::models::cuda {

/// Bytes of device memory that products of up to `tokens` rows with these weights need, with the output head of up to `logit_rows`.
template <class Products, class T, class Device>
std::size_t product_workspace_bytes(const device_weights<Device>& weights, const execution::simt::device_limits& limits,
                                    int tokens, int logit_rows) {
  std::size_t bytes = 0;
  std::vector<device_matrix> seen;
  const auto meet = [&](const device_matrix& m, int most, auto out_type) {
    using out = typename decltype(out_type)::type;
    const auto same = [&](const device_matrix& o) {
      return o.format == m.format && o.group == m.group && o.rows == m.rows && o.columns == m.columns;
    };
    if (std::is_same_v<out, T> && std::any_of(seen.begin(), seen.end(), same)) return;
    if (std::is_same_v<out, T>) seen.push_back(m);
    (void)with_weights(Products(), m, [&](auto w) {
      w = decltype(w){};  // only the shape counts
      w.rows = m.rows, w.columns = m.columns;
      if constexpr (requires { w.stride; }) w.stride = m.columns;
      for (int rows = 1; rows <= most; ++rows) {
        const auto plan = quantization::cuda::plan_matmul(matrix_view<const T>(nullptr, rows, m.columns), w,
                                                          matrix_view<out>(nullptr, rows, m.rows), limits);
        bytes = std::max(bytes, plan.workspace_bytes);
      }
      if constexpr (std::is_same_v<out, T>) {
        if (quantization::cuda::has_wgmma<decltype(w), T>(limits))
          bytes = std::max(bytes, static_cast<std::size_t>(most) * static_cast<std::size_t>(m.columns) * sizeof(T));
      }
    });
  };
  for (const device_block& b : weights.blocks) {
    for (const device_linear* l : {&b.query_key_value, &b.mixer_output, &b.gate_up, &b.down})
      for (const device_matrix& m : l->weights) meet(m, tokens, std::type_identity<T>());
  }
  for (const device_matrix& m : weights.output.weights)
    meet(m, std::min(tokens, logit_rows), std::type_identity<float>());
  return bytes;
}

/// `Products`: the weight_list that they are compiled for. T: the type of activations.
template <class Products, class T, execution::simt::device Device>
class weight_products {
  using input_order = quantization::cuda::input_order;

 public:
  /// `workspace`: of product_workspace_bytes.
  weight_products(const Device& device, bool is_long_read, float* workspace)
      : device_(device), is_long_read_(is_long_read), workspace_(workspace) {}

  /// The order that all of a linear layer's products want x in; as they are, where they don't agree.
  [[nodiscard]] input_order order_for(const device_linear& l) const {
    input_order order = {};
    bool first = true;
    for (const device_matrix& m : l.weights) {
      (void)with_weights(Products(), m, [&](auto weights) {
        using W = decltype(weights);
        const input_order own = by_wgmma<W>() ? quantization::cuda::order_of<W> : input_order::as_they_are;
        order = first || own == order ? own : input_order::as_they_are;
        first = false;
      });
    }
    return order;
  }

  /// out = x w^T + bias. `order`: that x has, order_for's or none.
  template <class Queue, class Out>
  void multiply(Queue& q, const device_linear& l, matrix_view<const T> x, matrix_view<Out> out,
                input_order order = {}) const {
    std::ptrdiff_t first = 0;
    matrix_view<const T> ordered = x;
    for (const device_matrix& m : l.weights) {
      const matrix_view<Out> part = out.middle_columns(first, m.rows);
      first += m.rows;
      (void)with_weights(Products(), m, [&](auto weights) {
        using W = decltype(weights);
        if constexpr (std::is_same_v<Out, T>) {
          if (by_wgmma<W>()) {
            if (order != quantization::cuda::order_of<W>) {
              const matrix_view<T> to(reinterpret_cast<T*>(workspace_), x.rows, x.columns);
              order = quantization::cuda::order_of<W>;
              q.template launch<quantization::cuda::order_inputs<T>>({x, to, order});
              ordered = to;
            }
            const quantization::cuda::wgmma_args<W, T> args{
                ordered, weights, part, quantization::cuda::plan_wgmma(ordered, weights, part, device_.limits()), {}};
            return quantization::cuda::start_wgmma(
                args, [&](const auto& source) { return device_.map(source); },
                [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
          }
        }
        const quantization::cuda::product_args<W, T, Out> args{
            x, weights, part, quantization::cuda::plan_matmul(x, weights, part, device_.limits()), workspace_};
        quantization::cuda::start_matmul(
            args, [&q](auto kernel, const auto& a) { q.template launch<typename decltype(kernel)::type>(a); });
      });
    }
    if (l.bias != nullptr) q.template launch<layers::cuda::add<Out, float>>({out, {l.bias, 1, out.columns}});
  }

  /// The first products of the feed-forward layer and what joins them, where one kernel does it; false, and nothing is done, elsewhere.
  template <class Queue>
  bool multiply_gated(Queue& q, const device_linear& l, matrix_view<const T> x, matrix_view<T> out) const {
    if (l.weights.size() != 1 || l.bias != nullptr) return false;
    bool done = false;
    (void)with_weights(Products(), l.weights[0], [&]<class Weights>(const Weights& weights) {
      if constexpr (Weights::pieces < 4) {
        if (by_wgmma<Weights>() ||
            !quantization::cuda::has_gated_form<Weights, T>(x.rows, weights.rows, device_.limits()))
          return;  // other bits
        const quantization::cuda::gated_args<Weights, T> args{
            x, weights, out, quantization::cuda::plan_gated(x, weights, out, device_.limits())};
        if (args.plan.tiles == 1) {
          q.template launch<quantization::cuda::gated_product<Weights, T, 1>>(args);
        } else {
          q.template launch<quantization::cuda::gated_product<Weights, T, 2>>(args);
        }
        done = true;
      }
    });
    return done;
  }

 private:
  /// True of products of this pass that are wgmma_product.hpp's.
  template <class W>
  [[nodiscard]] bool by_wgmma() const {
    return is_long_read_ && quantization::cuda::has_wgmma<W, T>(device_.limits());
  }

  const Device& device_;
  bool is_long_read_;
  float* workspace_;
};

}  // namespace effinfer::inline v0::models::cuda
