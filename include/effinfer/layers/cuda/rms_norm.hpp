#pragma once
// Root-mean-square normalisation: of rows, a block each, and of the heads in a row, a warp each. Source: Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019),
// equation 4.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <cmath>

namespace effinfer::inline v0::layers::cuda {

/// x[t] += residual[t], where there is one; then out[t][e] = x[t][e] / sqrt(mean_e x[t][e]^2 + epsilon) * weight[e].
///
/// Shapes: x, residual, out [T, E], weight [E]; out may be x if there is no residual. Numbers: T, X (of x, what later layers add to) and W
/// (of the weight) are float, bf16 or f16; float inside, and the sum is rounded to X before it is normalised. Exact: a row depends on itself alone.
template <class T, class X = T, class W = T>
struct rms_norm {
  struct args {
    matrix_view<X> x;
    matrix_view<const T> residual;  ///< data null: none
    const W* weight;
    float epsilon;
    matrix_view<T> out;
  };

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.x.rows), 1, threads, static_cast<int>(sizeof(float)) * (threads / 32)};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto scratch = t.template shared<float>(threads / 32);
    X* const x = a.x.row(t.block());
    T* const out = a.out.row(t.block());
    const int size = static_cast<int>(a.x.columns);
    float sum = 0;
    for (int e = t.thread(); e < size; e += threads) {
      if (a.residual.data != nullptr)
        x[e] = X(static_cast<float>(x[e]) + static_cast<float>(a.residual.row(t.block())[e]));
      sum += static_cast<float>(x[e]) * static_cast<float>(x[e]);
    }
    const float mean = execution::simt::block_sum(t, sum, scratch) / static_cast<float>(size);
    const float scale = 1.0F / std::sqrt(mean + a.epsilon);
    for (int e = t.thread(); e < size; e += threads)
      out[e] = T(static_cast<float>(x[e]) * scale * static_cast<float>(a.weight[e]));
  }

 private:
  static constexpr int threads = 256;
};

/// x[t][h] becomes its rms_norm under weight, for each head h of the first `heads` (Qwen3's norms of query and key).
///
/// Shapes: x [T, >= heads * D], weight [D]. Numbers: as above.
template <class T>
struct head_rms_norm {
  struct args {
    matrix_view<T> x;
    const float* weight;
    float epsilon;
    int heads, head_size;
  };

  static execution::simt::grid plan(const args& a) {
    return {(a.heads + warps - 1) / warps, static_cast<int>(a.x.rows), 32 * warps, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int head = t.block() * warps + t.warp();
    if (head >= a.heads) return;  // the whole warp
    T* const x = a.x.row(t.block_y()) + head * a.head_size;
    float sum = 0;
    for (int i = t.lane(); i < a.head_size; i += 32) sum += static_cast<float>(x[i]) * static_cast<float>(x[i]);
    const float mean = execution::simt::warp_sum(t, sum) / static_cast<float>(a.head_size);
    const float scale = 1.0F / std::sqrt(mean + a.epsilon);
    for (int i = t.lane(); i < a.head_size; i += 32) x[i] = T(static_cast<float>(x[i]) * scale * a.weight[i]);
  }

 private:
  static constexpr int warps = 4;
};

}  // namespace effinfer::inline v0::layers::cuda
