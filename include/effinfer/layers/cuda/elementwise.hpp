#pragma once
// What is done to each number by itself.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>
#include <effinfer/quantization/cuda/input_order.hpp>

#include <cmath>
#include <cstddef>

namespace effinfer::inline v0::layers::cuda {

/// out[t][e] = gate / (1 + e^-gate) * up: SwiGLU's activation (Shazeer, "GLU Variants Improve Transformer", 2020).
/// Shapes: gate, up, out [T, E]; out may be either.
template <class T>
struct swiglu {
  struct args {
    matrix_view<const T> gate, up;
    matrix_view<T> out;
    quantization::cuda::input_order order = {};  ///< of out, E a multiple of 32 then, and not in place
  };

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>((a.gate.columns + threads * width - 1) / (threads * width)), static_cast<int>(a.gate.rows),
            threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    using execution::simt::takes_packs;
    const std::ptrdiff_t first = (std::ptrdiff_t{t.block()} * threads + t.thread()) * width;
    if (first >= a.gate.columns) return;
    const T *const gates = a.gate.row(t.block_y()) + first, *const ups = a.up.row(t.block_y()) + first;
    T* const out = a.out.row(t.block_y()) + ordered_place(a.order, first);
    const int count = a.gate.columns - first < width ? static_cast<int>(a.gate.columns - first) : width;
    auto gate = execution::simt::load_pack<T, width>(gates, count, takes_packs<T, width>(gates));
    const auto up = execution::simt::load_pack<T, width>(ups, count, takes_packs<T, width>(ups));
    EFFINFER_UNROLL
    for (int i = 0; i < width; ++i) gate.v[i] = of(gate.v[i], up.v[i]);
    execution::simt::store_pack(out, gate, count, takes_packs<T, width>(out));
  }

  EFFINFER_HOST_DEVICE static T of(T gate, T up) {
    const auto g = static_cast<float>(gate);
    return T(g / (1.0F + std::exp(-g)) * static_cast<float>(up));
  }

 private:
  static constexpr int threads = 128, width = 2;  ///< so few, as one token's numbers should go to many multiprocessors
};

/// y[t][e] += x[t][e], where x has one row for all t too (a bias). Shapes: y [T, E], x [T, E] or [1, E].
template <class Y, class X>
struct add {
  struct args {
    matrix_view<Y> y;
    matrix_view<const X> x;
  };

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>((a.y.columns + threads - 1) / threads), static_cast<int>(a.y.rows), threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t e = std::ptrdiff_t{t.block()} * threads + t.thread();
    if (e >= a.y.columns) return;
    Y& y = a.y.row(t.block_y())[e];
    y = Y(static_cast<float>(y) + static_cast<float>(a.x.row(a.x.rows == 1 ? 0 : t.block_y())[e]));
  }

 private:
  static constexpr int threads = 256;
};

}  // namespace effinfer::inline v0::layers::cuda
