#pragma once
// What happens value by value between the products: the gated activation of the feed-forward, the residual sum,
// and a bias.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <cstddef>

namespace effinfer::inline v0::layers {

namespace detail {

struct swiglu_row {
  struct args {
    const float* gate;
    const float* up;
    float* out;
    std::ptrdiff_t size;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    const vector one = vector::broadcast(1.0F), zero = vector::zero();
    for (std::ptrdiff_t i = 0; i < a.size; i += 16) {
      const std::ptrdiff_t left = a.size - i;
      const vector g = left >= 16 ? vector::load(a.gate + i) : vector::load_first(a.gate + i, left);
      const vector u = left >= 16 ? vector::load(a.up + i) : vector::load_first(a.up + i, left);
      const vector y = g / (one + exp(zero - g)) * u;
      if (left >= 16) {
        y.store(a.out + i);
      } else {
        y.store_first(a.out + i, left);
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
inline void swiglu(const execution::cpu::context& exec, matrix_view<const float> gate, matrix_view<const float> up,
                   matrix_view<float> out) {
  exec.parallel_for(gate.rows, 4, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      const detail::swiglu_row::args args{gate.row(t), up.row(t), out.row(t), gate.columns};
      execution::dispatch<detail::swiglu_row>(exec.set(), args);
    }
  });
}

/// The same for a few values on the calling thread.
inline void swiglu(const execution::cpu::context& exec, const float* gate, const float* up, float* out,
                   std::ptrdiff_t size) {
  execution::dispatch<detail::swiglu_row>(exec.set(), detail::swiglu_row::args{gate, up, out, size});
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

/// Every row of x += bias. Shapes: x [T, E], bias [E].
inline void add_bias(const execution::cpu::context& exec, matrix_view<float> x, const float* bias) {
  exec.parallel_for(x.rows, 16, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      execution::dispatch<detail::add_row>(exec.set(), detail::add_row::args{bias, x.row(t), x.columns});
    }
  });
}

}  // namespace effinfer::inline v0::layers
