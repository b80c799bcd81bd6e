#pragma once
// out = x w^T with both sides in 8-bit codes (W8A8): activations from quantize_rows, one scale a row of each. Sums of codes are exact
// integers, so neither tiles nor splits show in the result.
//
// Source: PTX ISA 8.5, section 9.7.14.5, mma.m16n8k32 with .s8; the order of inputs within 32 is that of weights.hpp, on both sides.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/activations.hpp>
#include <effinfer/quantization/cuda/tiled_product.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// Inputs whose products fit 32-bit sums: 2^31 / (127 * 128).
inline constexpr int most_integer_inputs = 132104;

/// Shapes: x [T, K] codes in the order of code_place, x_scales [T], weights [N, K], out [T, N].
template <class T>
struct integer_product_args {
  matrix_view<const std::int8_t> x;
  const float* x_scales = nullptr;
  int8_weights weights;
  matrix_view<T> out;
  product_plan plan;
  std::int32_t* workspace = nullptr;
};

/// The sizes of a tile for Tokens rows of x.
template <int Tokens>
struct integer_tile_shape {
  static constexpr int outputs = 128, threads = 256, stages = 4;
  static constexpr int strips = outputs / strip_rows, warp_strips = 2, warps_across = 2;
  static constexpr int tiles = Tokens / warps_across / 8;
  static constexpr int x_words = Tokens * 4, weight_words = strips * int8_weights::pieces * 32;  // a stage
  static constexpr int shared_bytes = stages * (x_words + weight_words) * 16;
};

/// A plan for any number of rows. Errors: `invalid_argument` (sizes), `mismatch` (shapes), `unsupported` (inputs no multiple of 64, rows
/// not 16-byte aligned, a device with less shared memory than a tile takes), `limit` (too many inputs or rows).
template <class T>
product_plan plan_integer(const matrix_view<const std::int8_t>& x, const int8_weights& w, const matrix_view<T>& out,
                          const device_limits& device) {
  const char* const who = "quantization::cuda::plan_integer";
  const auto fail = [who](error_code code, const std::string& problem) { throw error(code, who, problem); };
  if (w.rows < 1 || w.columns < 1 || x.rows < 0 || device.multiprocessors < 1)
    fail(error_code::invalid_argument, "an empty matrix or device");
  if (x.columns != w.columns || out.columns != w.rows || out.rows != x.rows)
    fail(error_code::mismatch, "the shapes of x, weights and out do not go together");
  if (w.columns % unit_inputs != 0)
    fail(error_code::unsupported, std::to_string(w.columns) + " inputs are no multiple of 64");
  if (w.columns > most_integer_inputs)
    fail(error_code::limit, std::to_string(w.columns) + " inputs: sums may leave 32 bits");
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  if (!aligned(x.data) || x.stride % 16 != 0 || !aligned(w.units))
    fail(error_code::unsupported, "rows of x or the weights are not 16-byte aligned");
  constexpr int needed[3] = {integer_tile_shape<32>::shared_bytes, integer_tile_shape<64>::shared_bytes,
                             integer_tile_shape<128>::shared_bytes};
  int size = x.rows > 64 ? 2 : x.rows > 32 ? 1 : 0;
  while (size > 0 && needed[size] > device.shared_bytes) --size;
  execution::simt::check_shared(who, needed[size], device);
  product_plan plan;
  plan.tiles = 4 << size;
  const std::ptrdiff_t across = (x.rows + plan.tiles * 8 - 1) / (plan.tiles * 8), along = (w.rows + 127) / 128;
  const std::ptrdiff_t most = (w.columns + 511) / 512;  // splits that are worth their sums
  if (across > 0 && across * along < device.multiprocessors) {
    const std::ptrdiff_t wanted = (device.multiprocessors + across * along - 1) / (across * along);
    plan.splits = static_cast<int>(wanted < most ? wanted : most);
  }
  if (across * plan.splits > 65535)
    fail(error_code::limit, std::to_string(x.rows) + " rows are more than a grid holds");
  if (plan.splits > 1) {
    plan.workspace_bytes = static_cast<std::size_t>(plan.splits) * static_cast<std::size_t>(x.rows) *
                           static_cast<std::size_t>(w.rows) * sizeof(std::int32_t);
  }
  return plan;
}

/// The product in tiles: block x is the tile of outputs, y the tile of rows and the split. With more than one split each one's sums go to
/// the workspace, for sum_integer_splits; else out is written.
template <class T, int Tokens>
struct integer_product {
  using args = integer_product_args<T>;
  using shape = integer_tile_shape<Tokens>;

  /// Errors: `unsupported`, where the plan is for other Tokens.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tiles * 8 != Tokens) {
      throw error(error_code::unsupported, "quantization::cuda::integer_product",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows with a kernel for " +
                      std::to_string(Tokens));
    }
    return {(a.weights.rows + shape::outputs - 1) / shape::outputs, tiles_across(a) * a.plan.splits, shape::threads,
            shape::shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto x = t.template shared<words>(shape::stages * shape::x_words);
    const auto weights = t.template shared<words>(shape::stages * shape::weight_words);
    const int split = t.block_y() / tiles_across(a), first_token = t.block_y() % tiles_across(a) * Tokens;
    const int units = a.weights.columns / unit_inputs, each = (units + a.plan.splits - 1) / a.plan.splits;
    const int begin = split * each, end = begin + each < units ? begin + each : units;
    const int warp_strip = t.warp() / shape::warps_across * shape::warp_strips;
    const int warp_token = t.warp() % shape::warps_across * (shape::tiles * 8);
    const int g = t.lane() / 4, c = t.lane() % 4;

    const auto fetch = [&](int unit) {
      if (unit < end) {
        const int stage = (unit - begin) % shape::stages;
        fetch_stage(t, a, first_token, unit, x + stage * shape::x_words, weights + stage * shape::weight_words);
      }
      t.commit();  // an empty group too, so that the count of groups is that of units
    };
    for (int s = 0; s + 1 < shape::stages; ++s) fetch(begin + s);

    std::int32_t sum[shape::warp_strips][shape::tiles][4] = {};
    for (int unit = begin; unit < end; ++unit) {
      t.template wait<shape::stages - 2>();
      t.barrier();  // all see the stage, and are done with the one that is filled next
      fetch(unit + shape::stages - 1);
      const int stage = (unit - begin) % shape::stages;
      words w[shape::warp_strips][2];
      EFFINFER_UNROLL
      for (int i = 0; i < shape::warp_strips * 2; ++i)
        w[i / 2][i % 2] = weights[stage * shape::weight_words + (warp_strip * 2 + i) * 32 + t.lane()];
      EFFINFER_UNROLL
      for (int tile = 0; tile < shape::tiles; ++tile) {
        const words in = x[stage * shape::x_words + x_place(warp_token + tile * 8 + g, c)];
        EFFINFER_UNROLL
        for (int half = 0; half < 2; ++half) {
          const std::uint32_t column[2] = {in.w[half * 2], in.w[half * 2 + 1]};
          EFFINFER_UNROLL
          for (int s = 0; s < shape::warp_strips; ++s) {
            const words& raw = w[s][half];
            const std::uint32_t rows[4] = {raw.w[0], raw.w[2], raw.w[1], raw.w[3]};
            t.mma(sum[s][tile], rows, column, std::int8_t{});
          }
        }
      }
    }
    t.template wait<0>();
    EFFINFER_UNROLL
    for (int i = 0; i < shape::warp_strips * shape::tiles * 4; ++i) {
      const int s = i / (shape::tiles * 4), tile = i / 4 % shape::tiles, e = i % 4;
      const int row = (t.block() * shape::strips + warp_strip + s) * strip_rows + g + e / 2 * 8;
      const int token = first_token + warp_token + tile * 8 + 2 * c + e % 2;
      if (row >= a.weights.rows || token >= a.x.rows) continue;
      if (a.plan.splits > 1) {
        a.workspace[(split * a.x.rows + token) * a.weights.rows + row] = sum[s][tile][e];
      } else {
        a.out.row(token)[row] = scaled(a, sum[s][tile][e], row, token);
      }
    }
  }

  EFFINFER_HOST_DEVICE static T scaled(const args& a, std::int32_t sum, int row, int token) {
    return T(static_cast<float>(sum) * a.x_scales[token] * a.weights.scales[row]);
  }

 private:
  EFFINFER_HOST_DEVICE static int tiles_across(const args& a) {
    return static_cast<int>((a.x.rows + Tokens - 1) / Tokens);
  }
  /// Where piece c of a row stands: two rows fill all banks.
  EFFINFER_HOST_DEVICE static constexpr int x_place(int token, int c) { return token * 4 + c; }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch_stage(Simt& t, const args& a, int first_token, int unit, Shared x,
                                               Shared weights) {
    const int last_row = static_cast<int>(a.x.rows) - 1, last_strip = detail::strips_of(a.weights.rows) - 1;
    for (int at = t.thread(); at < shape::x_words; at += shape::threads) {
      const int token = first_token + at / 4 < last_row ? first_token + at / 4 : last_row;  // past the end: any
      t.copy_async(x, x_place(at / 4, at % 4),
                   reinterpret_cast<const words*>(a.x.row(token) + unit * unit_inputs + at % 4 * 16));
    }
    for (int at = t.thread(); at < shape::weight_words; at += shape::threads) {
      const int s = t.block() * shape::strips + at / 64, strip = s < last_strip ? s : last_strip;
      t.copy_async(weights, at, static_cast<const words*>(a.weights.piece(strip, unit, at / 32 % 2, at % 32)));
    }
  }
};

/// The second kernel where a plan has more than one split.
template <class T>
struct sum_integer_splits {
  using args = integer_product_args<T>;
  static constexpr int threads = 256;

  static execution::simt::grid plan(const args& a) {
    if (a.plan.splits < 2) return {};
    return {(a.weights.rows + threads - 1) / threads, static_cast<int>(a.x.rows), threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int row = t.block() * threads + t.thread();
    if (row >= a.weights.rows) return;
    std::int32_t total = 0;
    for (int split = 0; split < a.plan.splits; ++split)
      total += a.workspace[(split * a.x.rows + t.block_y()) * a.weights.rows + row];
    a.out.row(t.block_y())[row] = integer_product<T, 32>::scaled(a, total, row, t.block_y());
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
