#pragma once
// Root-mean-square normalisation: of rows, a block each, and of the heads in a row, a warp each. Source: Zhang & Sennrich, "Root Mean
// Square Layer Normalization" (2019), equation 4.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>
#include <effinfer/quantization/cuda/input_order.hpp>

#include <cmath>

namespace effinfer::inline v0::layers::cuda {

/// x[t] += residual[t], where there is one; then out[t][e] = x[t][e] / sqrt(mean_e x[t][e]^2 + epsilon) * weight[e].
///
/// Shapes: x, residual, out [T, E], weight [E]; out may be x if there is no residual. Numbers: T, X (of x, what later layers add to) and W
/// (of the weight) are float, bf16 or f16; float inside, and the sum is rounded to X before it is normalised. Exact: a row depends on itself
/// alone; a thread adds up the squares of its packs of 8, then come the lanes of a warp and the warps, however rows are aligned.
template <class T, class X = T, class W = T>
struct rms_norm {
  struct args {
    matrix_view<X> x;
    matrix_view<const T> residual;  ///< data null: none
    const W* weight;
    float epsilon;
    matrix_view<T> out;
    quantization::cuda::input_order order = {};  ///< of out, E a multiple of 32 then
  };
  [[maybe_unused]] static constexpr bool awaits_predecessors = true;  ///< the weights are there before

  /// As few threads as hold a row, so that of several rows more are worked on at once.
  static execution::simt::grid plan(const args& a) {
    const std::ptrdiff_t packs = (a.x.columns + width - 1) / width;
    const int threads = packs >= most_threads ? most_threads : execution::simt::warps(static_cast<int>(packs)) * 32;
    return {static_cast<int>(a.x.rows), 1, threads, static_cast<int>(sizeof(float)) * (threads / 32)};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    using execution::simt::load_pack;
    using execution::simt::store_pack;
    const auto scratch = t.template shared<float>(t.threads() / 32);
    X* const x = a.x.row(t.block());
    T* const out = a.out.row(t.block());
    const T* const residual = a.residual.data == nullptr ? nullptr : a.residual.row(t.block());
    const int size = static_cast<int>(a.x.columns), step = t.threads() * width;
    const bool wide_x = execution::simt::takes_packs(x), wide_out = execution::simt::takes_packs(out),
               wide_residual = execution::simt::takes_packs(residual),
               wide_weight = execution::simt::takes_packs(a.weight);
    // The first packs stay in registers, which is all of a row of 16384.
    execution::simt::pack<W> weight[held];
    float kept[held][width];
    EFFINFER_UNROLL
    for (int h = 0; h < held; ++h) {
      const int first = t.thread() * width + h * step;
      if (first < size) weight[h] = load_pack(a.weight + first, size - first, wide_weight);
    }
    t.await_predecessors();
    float sum = 0;
    // Of the pack from `first` on; zeros behind the end of a row.
    const auto add = [&](int first, float(&of)[width]) {
      auto own = load_pack(x + first, size - first, wide_x);
      if (residual != nullptr) {
        const auto more = load_pack(residual + first, size - first, wide_residual);
        EFFINFER_UNROLL
        for (int i = 0; i < width; ++i) own.v[i] = X(static_cast<float>(own.v[i]) + static_cast<float>(more.v[i]));
        store_pack(x + first, own, size - first, wide_x);
      }
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) {
        of[i] = static_cast<float>(own.v[i]);
        sum += of[i] * of[i];
      }
    };
    EFFINFER_UNROLL
    for (int h = 0; h < held; ++h) {
      const int first = t.thread() * width + h * step;
      if (first < size) add(first, kept[h]);
    }
    for (int first = t.thread() * width + held * step; first < size; first += step) {
      float unused[width];
      add(first, unused);
    }
    const float mean = execution::simt::block_sum(t, sum, scratch) / static_cast<float>(size);
    const float scale = 1.0F / std::sqrt(mean + a.epsilon);
    const auto finish = [&](int first, const float(&of)[width], const execution::simt::pack<W>& by) {
      execution::simt::pack<T> done;
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) done.v[i] = T(of[i] * scale * static_cast<float>(by.v[i]));
      if (a.order == quantization::cuda::input_order::as_they_are)
        return store_pack(out + first, done, size - first, wide_out);
      EFFINFER_UNROLL
      for (int i = 0; i < width; i += 2)
        store_pack(out + ordered_place(a.order, first + i), execution::simt::pack<T, 2>{{done.v[i], done.v[i + 1]}});
    };
    EFFINFER_UNROLL
    for (int h = 0; h < held; ++h) {
      const int first = t.thread() * width + h * step;
      if (first < size) finish(first, kept[h], weight[h]);
    }
    for (int first = t.thread() * width + held * step; first < size; first += step) {
      const auto own = load_pack(x + first, size - first, wide_x);
      float of[width];
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) of[i] = static_cast<float>(own.v[i]);
      finish(first, of, load_pack(a.weight + first, size - first, wide_weight));
    }
  }

 private:
  static constexpr int width = 8, most_threads = 512, held = 4;
};

/// x[t][h] becomes its rms_norm, for each head h: under query_weight for the first H, under key_weight for the next K (Qwen3's norms of
/// query and key).
///
/// Shapes: x [T, >= (H + K) * D], query_weight, key_weight [D]. Numbers: as above; a lane adds up the squares of its packs of 4. A warp a head.
template <class T>
struct head_rms_norm {
  struct args {
    matrix_view<T> x;
    const float *query_weight, *key_weight;
    float epsilon;
    int heads, kv_heads, head_size;
  };

  static execution::simt::grid plan(const args& a) {
    return {(a.heads + a.kv_heads + warps - 1) / warps, static_cast<int>(a.x.rows), 32 * warps, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int head = t.block() * warps + t.warp(), size = a.head_size;
    if (head >= a.heads + a.kv_heads) return;  // the whole warp
    T* const x = a.x.row(t.block_y()) + head * size;
    const float* const weight = head < a.heads ? a.query_weight : a.key_weight;
    const bool wide = execution::simt::takes_packs<T, width>(x),
               wide_weight = execution::simt::takes_packs<float, width>(weight);
    const auto load = [&](int first) { return execution::simt::load_pack<T, width>(x + first, size - first, wide); };
    float sum = 0;
    for (int first = t.lane() * width; first < size; first += 32 * width) {
      const auto own = load(first);
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) sum += static_cast<float>(own.v[i]) * static_cast<float>(own.v[i]);
    }
    const float mean = execution::simt::warp_sum(t, sum) / static_cast<float>(size);
    const float scale = 1.0F / std::sqrt(mean + a.epsilon);
    for (int first = t.lane() * width; first < size; first += 32 * width) {
      auto own = load(first);
      const auto by = execution::simt::load_pack<float, width>(weight + first, size - first, wide_weight);
      EFFINFER_UNROLL
      for (int i = 0; i < width; ++i) own.v[i] = T(static_cast<float>(own.v[i]) * scale * by.v[i]);
      execution::simt::store_pack(x + first, own, size - first, wide);
    }
  }

 private:
  static constexpr int warps = 4, width = 4;
};

}  // namespace effinfer::inline v0::layers::cuda
