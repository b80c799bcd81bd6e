#pragma once
// What happens value by value between the products: the gated activation of the feed-forward, and sums.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <cstddef>

namespace effinfer::inline v0::layers {

namespace detail {

struct swiglu_rows {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(matrix_view<const float> gate, matrix_view<const float> up,
                                         matrix_view<float> out) {
    using vector = execution::f32x16<Set>;
    const vector one = vector::broadcast(1.0F), zero = vector::zero();
    for (std::ptrdiff_t t = 0; t < gate.rows; ++t) {
      const float *g = gate.row(t), *u = up.row(t);
      float* y = out.row(t);
      std::ptrdiff_t i = 0;
      for (; i + 16 <= gate.columns; i += 16) {
        const vector x = vector::load(g + i);
        (x / (one + exp(zero - x)) * vector::load(u + i)).store(y + i);
      }
      if (const std::ptrdiff_t left = gate.columns - i; left > 0) {
        const vector x = vector::load_first(g + i, left);
        (x / (one + exp(zero - x)) * vector::load_first(u + i, left)).store_first(y + i, left);
      }
    }
  }
};

struct add_row {
  struct args {
    const float* y;
    float* x;
    std::ptrdiff_t size;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    std::ptrdiff_t i = 0;
    for (; i + 16 <= a.size; i += 16) (vector::load(a.x + i) + vector::load(a.y + i)).store(a.x + i);
    for (; i < a.size; ++i) a.x[i] += a.y[i];
  }
};

}  // namespace detail

/// out = silu(gate) * up with silu(x) = x / (1 + e^-x). Source: Shazeer, "GLU Variants Improve Transformer" (2020),
/// equation 6.
/// Shapes: all [T, F]; out may be gate or up.
inline void swiglu(execution::instruction_set set, matrix_view<const float> gate, matrix_view<const float> up,
                   matrix_view<float> out) {
  execution::dispatch<detail::swiglu_rows>(set, gate, up, out);
}
/// The same on all threads.
inline void swiglu(const execution::cpu::context& exec, matrix_view<const float> gate, matrix_view<const float> up,
                   matrix_view<float> out) {
  exec.parallel_for(gate.rows, 4, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    swiglu(exec.set(), gate.middle_rows(begin, end - begin), up.middle_rows(begin, end - begin),
           out.middle_rows(begin, end - begin));
  });
}

/// x += y. Shapes: both [T, E].
inline void add(const execution::cpu::context& exec, matrix_view<float> x, matrix_view<const float> y) {
  exec.parallel_for(x.rows, 16, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      const detail::add_row::args args{y.row(t), x.row(t), x.columns};
      execution::dispatch<detail::add_row>(exec.set(), args);
    }
  });
}

}  // namespace effinfer::inline v0::layers
