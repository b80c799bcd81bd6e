#pragma once
// Root-mean-square normalisation. Source: Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <cmath>
#include <cstddef>

namespace effinfer::inline v0::layers {

namespace detail {

struct rms_norm_row {
  struct args {
    const float* x;
    const float* weight;
    float* out;
    std::ptrdiff_t size;
    float epsilon;
  };
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    // Two sums: one alone would wait for its own additions.
    vector even = vector::zero(), odd = vector::zero();
    std::ptrdiff_t i = 0;
    for (; i + 32 <= a.size; i += 32) {
      const vector p = vector::load(a.x + i), q = vector::load(a.x + i + 16);
      even = fma(p, p, even);
      odd = fma(q, q, odd);
    }
    for (; i < a.size; i += 16) {
      const vector p = i + 16 <= a.size ? vector::load(a.x + i) : vector::load_first(a.x + i, a.size - i);
      even = fma(p, p, even);
    }
    const float mean = (even + odd).sum() / static_cast<float>(a.size);
    const vector scale = vector::broadcast(1.0F / std::sqrt(mean + a.epsilon));
    for (i = 0; i + 16 <= a.size; i += 16)
      (vector::load(a.x + i) * scale * vector::load(a.weight + i)).store(a.out + i);
    if (i < a.size) {
      const std::ptrdiff_t left = a.size - i;
      (vector::load_first(a.x + i, left) * scale * vector::load_first(a.weight + i, left)).store_first(a.out + i, left);
    }
  }
};

}  // namespace detail

/// One row: out[e] = x[e] / sqrt(mean_e x[e]^2 + epsilon) * weight[e]. Shapes: x, out, weight [size]; out may be x.
inline void rms_norm(execution::instruction_set set, const float* x, const float* weight, std::ptrdiff_t size,
                     float epsilon, float* out) {
  execution::dispatch<detail::rms_norm_row>(set, detail::rms_norm_row::args{x, weight, out, size, epsilon});
}

/// out[t][e] = x[t][e] / sqrt(mean_e x[t][e]^2 + epsilon) * weight[e].
///
/// Shapes: x, out [T, E], weight [E]; out may be x. Exact: a row depends on itself alone.
inline void rms_norm(const execution::cpu::context& exec, matrix_view<const float> x, const float* weight,
                     float epsilon, matrix_view<float> out) {
  exec.parallel_for(x.rows, 16, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      rms_norm(exec.set(), x.row(t), weight, x.columns, epsilon, out.row(t));
    }
  });
}

/// rms_norm on each head of each row, in place (Qwen3's norm of query and key). Shapes: x [T, heads * head_size],
/// weight [head_size].
inline void head_rms_norm(const execution::cpu::context& exec, matrix_view<float> x, int head_size, const float* weight,
                          float epsilon) {
  exec.parallel_for(x.rows, 16, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      for (std::ptrdiff_t h = 0; h < x.columns; h += head_size) {
        rms_norm(exec.set(), x.row(t) + h, weight, head_size, epsilon, x.row(t) + h);
      }
    }
  });
}

}  // namespace effinfer::inline v0::layers
