#pragma once
// out = x w^T for few rows of x (up to 16), where the time is that of reading the weights: each is loaded once, 16 bytes a lane,
// straight into the registers of a matrix instruction, with the weights as its 16 rows and the rows of x as its 8 columns.
//
// The inputs are cut into chunks of 512; the sum of a chunk is one warp's, and chunks are added in rising order. As this order depends on
// nothing but the matrix, a row's result doesn't depend on how many rows or blocks there are. tiled_product.hpp keeps to it.

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

inline constexpr int chunk_inputs = 512;
inline constexpr int chunk_units = chunk_inputs / unit_inputs;

/// Rows of x up to which the products of this file are meant.
inline constexpr int most_skinny_rows = 16;

/// What a product needs, known on the host before anything runs.
struct product_plan {
  int tiles = 1;                    ///< of eight rows of x
  int splits = 1;                   ///< blocks that share a strip's chunks
  std::size_t workspace_bytes = 0;  ///< of device memory, 16-byte aligned
};

/// Shapes: x [T, K], weights [N, K], out [T, N]. Out is T, or float where nothing may be lost (logits).
template <class Weights, class T, class Out = T>
struct product_args {
  static_assert(Weights::template multiplies<T>,
                "effinfer: these weights are not multiplied with activations of this type");
  matrix_view<const T> x;
  Weights weights;
  matrix_view<Out> out;
  product_plan plan;
  float* workspace = nullptr;
};

namespace detail {

EFFINFER_HOST_DEVICE constexpr int chunks(int columns) { return (columns + chunk_inputs - 1) / chunk_inputs; }
EFFINFER_HOST_DEVICE constexpr int strips_of(int rows) { return (rows + strip_rows - 1) / strip_rows; }

template <class Weights, class T, class Out>
void check_product(const char* who, const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out) {
  const auto fail = [who](error_code code, const std::string& problem) { throw error(code, who, problem); };
  if (w.rows < 1 || w.columns < 1 || x.rows < 0) {
    fail(error_code::invalid_argument, "weights " + std::to_string(w.rows) + " x " + std::to_string(w.columns) +
                                           ", x of " + std::to_string(x.rows) + " rows");
  }
  if (x.columns != w.columns || out.columns != w.rows || out.rows != x.rows) {
    fail(error_code::mismatch, "x is " + std::to_string(x.rows) + " x " + std::to_string(x.columns) + ", weights " +
                                   std::to_string(w.rows) + " x " + std::to_string(w.columns) + ", out " +
                                   std::to_string(out.rows) + " x " + std::to_string(out.columns));
  }
  int multiple = Weights::group > unit_inputs ? Weights::group : unit_inputs;
  if constexpr (requires { w.wide; }) multiple = w.wide ? 256 : unit_inputs;
  if (w.columns % multiple != 0) {
    fail(error_code::unsupported, std::to_string(w.columns) + " inputs are no multiple of " + std::to_string(multiple));
  }
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  bool all_aligned = aligned(x.data) && x.stride % 8 == 0 && aligned(w.piece(0, 0, 0, 0));
  if constexpr (requires { w.stride; }) all_aligned = all_aligned && w.stride % 8 == 0;
  if constexpr (requires { w.zeros; }) all_aligned = all_aligned && aligned(w.scales) && aligned(w.zeros);
  if constexpr (requires { w.high; }) {
    for (const void* p :
         {static_cast<const void*>(w.high), static_cast<const void*>(w.scales), static_cast<const void*>(w.minimums),
          static_cast<const void*>(w.scale_codes), static_cast<const void*>(w.minimum_codes)})
      all_aligned = all_aligned && aligned(p);
  }
  if (!all_aligned) {
    fail(error_code::unsupported, "rows of x or of the weights, or the scales of groups, are not 16-byte aligned");
  }
}

/// The inputs that lane c of four multiplies in two steps, of 32 from `from` on: 8 c and on; for groups of 16 the first step has the first
/// 16 of them, 4 c and on, and the second the rest.
template <int Group, class T>
EFFINFER_HOST_DEVICE words load_inputs(const T* from, int c) {
  if constexpr (Group == 16) {
    const words first = load_words(from + c / 2 * 8), second = load_words(from + 16 + c / 2 * 8);
    return c % 2 == 0 ? words{{first.w[0], first.w[1], second.w[0], second.w[1]}}
                      : words{{first.w[2], first.w[3], second.w[2], second.w[3]}};
  } else {
    return load_words(from + c * 8);
  }
}

}  // namespace detail

/// A plan for up to 16 rows of x on a device of `multiprocessors`: small matrices are split along their inputs until there are two blocks for
/// each. Errors: `invalid_argument` (sizes, more than 16 rows), `mismatch` (shapes), `unsupported` (inputs no multiple of 64 and of
/// the group, rows that aren't 16-byte aligned).
template <class Weights, class T, class Out>
product_plan plan_skinny(const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out,
                         int multiprocessors) {
  const char* const who = "quantization::cuda::plan_skinny";
  detail::check_product(who, x, w, out);
  if (x.rows > most_skinny_rows || multiprocessors < 1) {
    throw error(error_code::invalid_argument, who,
                std::to_string(x.rows) + " rows of x, " + std::to_string(multiprocessors) + " multiprocessors");
  }
  product_plan plan;
  plan.tiles = x.rows > 8 ? 2 : 1;
  const int chunks = detail::chunks(w.columns), strips = detail::strips_of(w.rows);
  const std::size_t sums_bytes = static_cast<std::size_t>(plan.tiles) * 128 * sizeof(float);
  plan.splits = (2 * multiprocessors + strips - 1) / strips;
  // The sums of a strip's chunks must fit the shared memory that every device has.
  if (plan.splits < 2 && static_cast<std::size_t>(chunks) * sums_bytes > 48 * 1024) plan.splits = 2;
  if (plan.splits > chunks) plan.splits = chunks;
  if (plan.splits > 1)
    plan.workspace_bytes = static_cast<std::size_t>(chunks) * static_cast<std::size_t>(strips) * sums_bytes;
  return plan;
}

/// The product for 8 * Tiles rows: block x is the strip, y the split. With more than one split the chunks' sums go to the workspace, for
/// sum_chunks; else out is written.
template <class Weights, class T, int Tiles, class Out = T>
struct skinny_product {
  using args = product_args<Weights, T, Out>;
  static constexpr int most_warps = 8;
  static constexpr bool awaits_predecessors = true;

  /// Errors: `unsupported`, where the plan is for other Tiles; `limit`, where a grid can't hold the splits.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tiles != Tiles || a.plan.splits > 65535) {
      throw error(a.plan.tiles != Tiles ? error_code::unsupported : error_code::limit,
                  "quantization::cuda::skinny_product",
                  std::to_string(a.plan.tiles) + " tiles of rows with a kernel for " + std::to_string(Tiles) + ", " +
                      std::to_string(a.plan.splits) + " splits");
    }
    if (a.x.rows == 0) return {};
    const int each = chunks_each(a);
    return {detail::strips_of(a.weights.rows), a.plan.splits, 32 * (each < most_warps ? each : most_warps),
            a.plan.splits > 1 ? 0 : each * Tiles * 128 * static_cast<int>(sizeof(float))};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int strip = t.block(), chunks = detail::chunks(a.weights.columns), each = chunks_each(a);
    const int first = t.block_y() * each, end = first + each < chunks ? first + each : chunks;
    const bool split = a.plan.splits > 1;
    // Weights are nobody's result: the first are on their way while the kernel before this one ends.
    if (first + t.warp() < end) prefetch_chunk(t, a, strip, first + t.warp());
    t.await_predecessors();
    const auto sums = t.template shared<float>(split ? 0 : each * Tiles * 128);
    for (int chunk = first + t.warp(); chunk < end; chunk += t.threads() / 32) {
      float sum[Tiles][4];
      sum_chunk(t, a, strip, chunk, sum);
      if (split) {
        const std::ptrdiff_t strips = detail::strips_of(a.weights.rows);
        float* const to = a.workspace + (chunk * strips + strip) * (Tiles * 128);
        for (int i = 0; i < Tiles * 4; ++i) to[i * 32 + t.lane()] = sum[i / 4][i % 4];
      } else {
        for (int i = 0; i < Tiles * 4; ++i) sums[(chunk - first) * Tiles * 128 + i * 32 + t.lane()] = sum[i / 4][i % 4];
      }
    }
    if (split) return;
    t.barrier();
    for (int e = t.thread(); e < Tiles * 128; e += t.threads()) {
      const int row = strip * strip_rows + e % 16, token = e / 16;
      if (row >= a.weights.rows || token >= a.x.rows) continue;
      float total = 0;
      for (int c = 0; c < chunks; ++c) total += sums[c * Tiles * 128 + sum_place(e % 16, token)];
      a.out.row(token)[row] = Out(total * a.weights.row_scale(row));
    }
  }

  /// Where the sum of a strip's output for a row of x stands among the Tiles * 128 of a chunk.
  EFFINFER_HOST_DEVICE static constexpr int sum_place(int output, int token) {
    return (token / 8 * 4 + output / 8 * 2 + token % 2) * 32 + output % 8 * 4 + token % 8 / 2;
  }

 private:
  EFFINFER_HOST_DEVICE static int chunks_each(const args& a) {
    return (detail::chunks(a.weights.columns) + a.plan.splits - 1) / a.plan.splits;
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void prefetch_chunk(Simt& t, const args& a, int strip, int chunk) {
    const int units = a.weights.columns / unit_inputs, past = (chunk + 1) * chunk_units;
    if (t.lane() % 4 != 0) return;  // 64 bytes of weights
    for (int unit = chunk * chunk_units; unit < (past < units ? past : units); ++unit) {
      for (int p = 0; p < Weights::pieces; ++p) t.prefetch(a.weights.piece(strip, unit, p, t.lane()));
    }
  }

  /// Sums over a group's inputs before they are scaled, and where weights have minimums, of the inputs themselves.
  struct group_sums {
    float part[Tiles][4];
    float inputs[Weights::may_have_minimum ? Tiles : 1][4];
  };

  /// The sum over a chunk's inputs, as the fragments of mma lie.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void sum_chunk(Simt& t, const args& a, int strip, int chunk, float (&sum)[Tiles][4]) {
    constexpr int pieces = Weights::pieces, ahead = chunk_units / pieces;  // eight loads of weights on their way
    const Weights& w = a.weights;
    const int units = w.columns / unit_inputs;
    const int first = chunk * chunk_units, end = first + chunk_units < units ? first + chunk_units : units;
    group_sums of_group{};
    EFFINFER_UNROLL
    for (int i = 0; i < Tiles * 4; ++i) sum[i / 4][i % 4] = 0;
    for (int batch = first; batch < end; batch += ahead) {
      words raw[ahead][pieces];
      std::uint32_t high[ahead][Weights::high_words + 1] = {};
      EFFINFER_UNROLL
      for (int u = 0; u < ahead; ++u) {
        EFFINFER_UNROLL
        for (int p = 0; p < pieces; ++p) {
          if (batch + u < end) raw[u][p] = load_words_once(w.piece(strip, batch + u, p, t.lane()));
        }
        if constexpr (Weights::high_words > 0) {
          if (batch + u < end) w.load_high(strip, batch + u, t.lane(), high[u]);
        }
      }
      EFFINFER_UNROLL
      for (int u = 0; u < ahead; ++u) {
        if (batch + u < end) add_unit(t, a, strip, batch + u, raw[u], high[u], of_group, sum);
      }
    }
    if constexpr (Weights::group == 0) {
      EFFINFER_UNROLL
      for (int i = 0; i < Tiles * 4; ++i) sum[i / 4][i % 4] = of_group.part[i / 4][i % 4];
    }
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void add_unit(Simt& t, const args& a, int strip, int unit, const words* raw,
                                            const std::uint32_t* high, group_sums& of_group, float (&sum)[Tiles][4]) {
    const std::uint32_t one = pair_of<T>(1.0F), ones[4] = {one, one, one, one};  // times inputs: their sum
    std::uint32_t centers[2] = {};
    words x[Tiles];
    EFFINFER_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int input = unit * unit_inputs + 16 * j, row = t.lane() / 4;
      if constexpr (Weights::group > 0) {
        if (16 * j % Weights::group == 0) {
          centers[0] = a.weights.template center_of<T>(strip, input / Weights::group, row);
          centers[1] = a.weights.template center_of<T>(strip, input / Weights::group, row + 8);
        }
      }
      std::uint32_t weights[4];
      Weights::template unpack<T>(raw, high, j, centers, weights);
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        const int token = tile * 8 + row;
        if (j % 2 == 0) {
          x[tile] = words{};
          if (token < a.x.rows) x[tile] = detail::load_inputs<Weights::group>(a.x.row(token) + input, t.lane() % 4);
        }
        const std::uint32_t column[2] = {x[tile].w[j % 2 * 2], x[tile].w[j % 2 * 2 + 1]};
        t.mma(of_group.part[tile], weights, column, T{});
        if constexpr (Weights::may_have_minimum) {
          if (a.weights.minimums != nullptr) t.mma(of_group.inputs[tile], ones, column, T{});
        }
      }
      if constexpr (Weights::group > 0) {
        if ((input + 16) % Weights::group != 0) continue;
        const int g = input / Weights::group;
        const float scale[2] = {a.weights.scale(strip, g, row), a.weights.scale(strip, g, row + 8)};
        EFFINFER_UNROLL
        for (int i = 0; i < Tiles * 4; ++i) {
          float& part = of_group.part[i / 4][i % 4];
          sum[i / 4][i % 4] = std::fma(part, scale[i % 4 / 2], sum[i / 4][i % 4]);
          part = 0;
        }
        if constexpr (Weights::may_have_minimum) {
          if (a.weights.minimums == nullptr) continue;
          const float minimum[2] = {a.weights.minimum(strip, g, row), a.weights.minimum(strip, g, row + 8)};
          EFFINFER_UNROLL
          for (int i = 0; i < Tiles * 4; ++i) {
            float& inputs = of_group.inputs[i / 4][i % 4];
            sum[i / 4][i % 4] = std::fma(inputs, minimum[i % 4 / 2], sum[i / 4][i % 4]);
            inputs = 0;
          }
        }
      }
    }
  }
};

/// The second kernel where a plan has more than one split: the sums of the chunks, added in rising order.
template <class Weights, class T, int Tiles, class Out = T>
struct sum_chunks {
  using args = product_args<Weights, T, Out>;
  static constexpr int threads = 128;

  static execution::simt::grid plan(const args& a) {
    if (a.plan.splits < 2 || a.x.rows == 0) return {};
    return {detail::strips_of(a.weights.rows), 1, threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t strips = detail::strips_of(a.weights.rows);
    const int chunks = detail::chunks(a.weights.columns);
    for (int e = t.thread(); e < Tiles * 128; e += threads) {
      const int row = t.block() * strip_rows + e % 16, token = e / 16;
      if (row >= a.weights.rows || token >= a.x.rows) continue;
      const float* const sums =
          a.workspace + t.block() * (Tiles * 128) + skinny_product<Weights, T, Tiles>::sum_place(e % 16, token);
      float total = 0;
      for (int c = 0; c < chunks; ++c) total += sums[c * strips * (Tiles * 128)];
      a.out.row(token)[row] = Out(total * a.weights.row_scale(row));
    }
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
