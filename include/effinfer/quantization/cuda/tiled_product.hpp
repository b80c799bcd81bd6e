#pragma once
// out = x w^T for many rows of x: tiles of 128 outputs by 128 rows, through shared memory in stages that are filled in the
// background. Integer weights stay packed until they are in the registers of the warp that multiplies them.
//
// Sums are formed in the order of strip_units.hpp, so a row's result has the same bits as alone. That takes a third accumulator beside
// those of the group and of the part; it is touched once a part and stands in shared memory, each thread's share in reach of that thread only.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

template <class Weights>
struct tile_shape {
  static constexpr int outputs = 128, tokens = 128, threads = 256;
  static constexpr int strips = outputs / strip_rows;
  static constexpr int warp_strips = 2, warps_across = 2;  // of a warp's 32 outputs; warps that share them
  static constexpr int tiles = tokens / warps_across / 8;  // of eight rows of x, a warp
  static constexpr int stages = Weights::pieces == 4 ? 3 : 4;
  static constexpr int x_words = tokens * 8, weight_words = strips * Weights::pieces * 32;  // a stage
  static constexpr int halves = strips * Weights::unit_halves * strip_rows;  // a stage, of the scales of groups
  static constexpr int bytes = strips * Weights::unit_bytes * strip_rows;
  static constexpr int high = strips * 32 * Weights::high_words;
  static constexpr int total_words = threads * warp_strips * tiles;
  static constexpr int shared_bytes =
      (stages * (x_words + weight_words) + total_words) * 16 + stages * (high * 4 + halves * 2 + bytes);
};

/// The product in tiles: block x is the tile of outputs, y the tile of rows and the split. With more than one split the parts' sums go to the
/// workspace, for sum_parts; else out is written.
template <class Weights, class T, class Out = T>
struct tiled_product {
  using args = product_args<Weights, T, Out>;
  using shape = tile_shape<Weights>;

  /// Errors: `unsupported`, where the plan is for other tiles.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tiles * 8 != shape::tokens) {
      throw error(error_code::unsupported, "quantization::cuda::tiled_product",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows with a kernel for " +
                      std::to_string(shape::tokens));
    }
    return {(a.weights.rows + shape::outputs - 1) / shape::outputs, tiles_across(a) * a.plan.splits, shape::threads,
            shape::shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto x = t.template shared<words>(shape::stages * shape::x_words);
    const auto weights = t.template shared<words>(shape::stages * shape::weight_words);
    const auto total = t.template shared<words>(shape::total_words);
    const auto high = t.template shared<std::uint32_t>(shape::stages * shape::high);
    const auto halves = t.template shared<f16>(shape::stages * shape::halves);
    const auto bytes = t.template shared<std::uint8_t>(shape::stages * shape::bytes);

    const int split = t.block_y() / tiles_across(a), first_token = t.block_y() % tiles_across(a) * shape::tokens;
    const int units = a.weights.columns / unit_inputs, of_part = part_units(units);
    const int each = (parts(units) + a.plan.splits - 1) / a.plan.splits;
    const int begin = split * each * of_part, past = begin + each * of_part;
    const int end = past < units ? past : units;
    int part_end = begin + of_part;
    const int warp_strip = t.warp() / shape::warps_across * shape::warp_strips;
    const int warp_token = t.warp() % shape::warps_across * (shape::tiles * 8);
    const int g = t.lane() / 4, c = t.lane() % 4;

    const auto fetch = [&](int unit) {
      if (unit < end) {
        const int stage = (unit - begin) % shape::stages;
        fetch_x(t, a, first_token, unit, x + stage * shape::x_words);
        fetch_weights(t, a, unit, weights + stage * shape::weight_words, high + stage * shape::high,
                      halves + stage * shape::halves, bytes + stage * shape::bytes);
      }
      t.commit();  // an empty group too, so that the count of groups is that of units
    };
    for (int s = 0; s + 1 < shape::stages; ++s) fetch(begin + s);

    float sum[shape::warp_strips][shape::tiles][4] = {};   // of a part
    float part[shape::warp_strips][shape::tiles][4] = {};  // of a group
    using row_values = float[shape::warp_strips][2];       // of rows g and g + 8 of the warp's strips
    const auto add_group = [&](int tile, const row_values& scale) {
      EFFINFER_UNROLL
      for (int i = 0; i < shape::warp_strips * 4; ++i) {
        float& one = part[i / 4][tile][i % 4];
        sum[i / 4][tile][i % 4] = std::fma(one, scale[i / 4][i % 4 / 2], sum[i / 4][tile][i % 4]);
        one = 0;
      }
    };
    const auto add_minimums = [&](int tile, const row_values& minimum, const float(&inputs)[4]) {
      EFFINFER_UNROLL
      for (int i = 0; i < shape::warp_strips * 4; ++i)
        sum[i / 4][tile][i % 4] = std::fma(inputs[i % 4], minimum[i / 4][i % 4 / 2], sum[i / 4][tile][i % 4]);
    };
    for (int unit = begin; unit < end; ++unit) {
      t.template wait<shape::stages - 2>();
      t.barrier();  // all see the stage, and are done with the one that is filled next
      fetch(unit + shape::stages - 1);
      const int stage = (unit - begin) % shape::stages;
      const auto stage_x = x + stage * shape::x_words;
      EFFINFER_UNROLL
      for (int half = 0; half < 2; ++half) {
        // Keeps the loads of the second half behind the products of the first: with a group's sums there are no registers for both.
        if constexpr (Weights::group > 0) t.warp_barrier();
        std::uint32_t w[shape::warp_strips][2][4];
        constexpr int scales = Weights::group == 16 ? 2 : 1;  // within 32 inputs
        row_values scale[scales], minimum;
        EFFINFER_UNROLL
        for (int s = 0; s < shape::warp_strips; ++s) {
          const int strip = warp_strip + s;
          constexpr int pieces = Weights::pieces;
          words raw[pieces];
          EFFINFER_UNROLL
          for (int p = 0; p < pieces; ++p)
            raw[p] = weights[stage * shape::weight_words + (strip * pieces + p) * 32 + t.lane()];
          std::uint32_t upper[Weights::high_words + 1] = {};
          EFFINFER_UNROLL
          for (int i = 0; i < Weights::high_words; ++i)
            upper[i] = high[stage * shape::high + (strip * 32 + t.lane()) * Weights::high_words + i];
          std::uint32_t centers[2] = {};
          if constexpr (Weights::group > 0) {
            const auto of_halves = halves + stage * shape::halves + strip * Weights::unit_halves * strip_rows;
            const auto of_bytes = bytes + stage * shape::bytes + strip * Weights::unit_bytes * strip_rows;
            const int group = half * 32 / Weights::group;  // the first within these inputs
            EFFINFER_UNROLL
            for (int r = 0; r < 2; ++r) {
              centers[r] = a.weights.template center_in<T>(of_bytes, group, g + 8 * r);
              EFFINFER_UNROLL
              for (int i = 0; i < scales; ++i)
                scale[i][s][r] =
                    a.weights.scale_in(strip_of(t, a, strip), unit, of_halves, of_bytes, group + i, g + 8 * r);
              if constexpr (Weights::may_have_minimum) {
                if (a.weights.minimums != nullptr) {
                  minimum[s][r] =
                      a.weights.minimum_in(of_halves + Weights::unit_halves / 2 * strip_rows,
                                           of_bytes + Weights::unit_bytes / 2 * strip_rows, group, g + 8 * r);
                }
              }
            }
          }
          EFFINFER_UNROLL
          for (int j = 0; j < 2; ++j) Weights::template unpack<T>(raw, upper, half * 2 + j, centers, w[s][j]);
        }
        const std::uint32_t one = pair_of<T>(1.0F), ones[4] = {one, one, one, one};  // times inputs: their sum
        EFFINFER_UNROLL
        for (int tile = 0; tile < shape::tiles; ++tile) {
          // There are no registers to begin more of these at once.
          if constexpr (Weights::group == 16 || (Weights::group == 32 && Weights::pieces == 2)) {
            if (tile % (Weights::group == 16 ? 2 : 4) == 0) t.warp_barrier();
          }
          const words in = detail::load_shared_inputs<Weights::group>(stage_x, warp_token + tile * 8 + g, half, c);
          float inputs[4] = {};
          EFFINFER_UNROLL
          for (int j = 0; j < 2; ++j) {
            const std::uint32_t column[2] = {in.w[j * 2], in.w[j * 2 + 1]};
            EFFINFER_UNROLL
            for (int s = 0; s < shape::warp_strips; ++s)
              t.mma(Weights::group > 0 ? part[s][tile] : sum[s][tile], w[s][j], column, T{});
            if constexpr (Weights::may_have_minimum) {
              if (a.weights.minimums != nullptr) t.mma(inputs, ones, column, T{});
            }
            if constexpr (Weights::group == 16) add_group(tile, scale[j]);
          }
          if constexpr (Weights::group == 32)
            add_group(tile, scale[0]);  // at once: it takes no registers beyond the tile
          if constexpr (Weights::may_have_minimum) {
            if (a.weights.minimums != nullptr) add_minimums(tile, minimum, inputs);
          }
        }
        if constexpr (Weights::group > 32) {
          if ((unit * unit_inputs + half * 32 + 32) % Weights::group != 0) continue;
          EFFINFER_UNROLL
          for (int tile = 0; tile < shape::tiles; ++tile) add_group(tile, scale[0]);
        }
      }
      if (unit + 1 != part_end && unit + 1 != end) continue;
      part_end += of_part;
      const bool alone = a.plan.splits > 1 || unit < begin + of_part;  // nothing to add to
      EFFINFER_UNROLL
      for (int i = 0; i < shape::warp_strips * shape::tiles; ++i) {
        float(&now)[4] = sum[i / shape::tiles][i % shape::tiles];
        words next{};
        if (!alone) next = total[i * shape::threads + t.thread()];
        EFFINFER_UNROLL
        for (int e = 0; e < 4; ++e) {
          next.w[e] = std::bit_cast<std::uint32_t>(std::bit_cast<float>(next.w[e]) + now[e]);
          now[e] = 0;
        }
        total[i * shape::threads + t.thread()] = next;
      }
      if (a.plan.splits > 1) store(t, a, unit / of_part, first_token, total);
    }
    if (a.plan.splits == 1) store(t, a, 0, first_token, total);
    t.template wait<0>();
  }

 private:
  EFFINFER_HOST_DEVICE static int tiles_across(const args& a) {
    return static_cast<int>((a.x.rows + shape::tokens - 1) / shape::tokens);
  }

  /// Strip s of the tile; past the last one: the last, it isn't stored.
  template <class Simt>
  EFFINFER_HOST_DEVICE static int strip_of(Simt& t, const args& a, int s) {
    const int strip = t.block() * shape::strips + s, last = detail::strips_of(a.weights.rows) - 1;
    return strip < last ? strip : last;
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch_x(Simt& t, const args& a, int first_token, int unit, Shared to) {
    EFFINFER_UNROLL
    for (int i = 0; i < shape::x_words / shape::threads; ++i) {
      const int at = i * shape::threads + t.thread(), last = static_cast<int>(a.x.rows) - 1;
      const int token =
          first_token + at / 8 < last ? first_token + at / 8 : last;  // past the end: any, it isn't stored
      const T* const from = a.x.row(token) + unit * unit_inputs + at % 8 * 8;
      t.copy_async(to, detail::shared_piece(at / 8, at % 8), reinterpret_cast<const words*>(from));
    }
  }

  template <class Simt, class Shared, class High, class Halves, class Bytes>
  EFFINFER_HOST_DEVICE static void fetch_weights(Simt& t, const args& a, int unit, Shared to, High high, Halves halves,
                                                 Bytes bytes) {
    EFFINFER_UNROLL
    for (int i = 0; i < shape::weight_words / shape::threads; ++i) {
      const int at = i * shape::threads + t.thread(), s = at / (Weights::pieces * 32), p = at / 32 % Weights::pieces;
      t.copy_async(to, at, static_cast<const words*>(a.weights.piece(strip_of(t, a, s), unit, p, at % 32)));
    }
    if constexpr (Weights::high_words > 0) {
      constexpr int a_strip = 8 * Weights::high_words;  // copies
      for (int i = t.thread(); i < shape::strips * a_strip; i += shape::threads)
        t.copy_async(high, i * 4, a.weights.high_place(strip_of(t, a, i / a_strip), unit, 0) + i % a_strip * 4);
    }
    if constexpr (Weights::unit_halves + Weights::unit_bytes > 0) {
      // A run of sixteen f16 takes two copies, one of bytes a copy.
      constexpr int of_halves = 2 * Weights::unit_halves, a_strip = of_halves + Weights::unit_bytes;
      for (int i = t.thread(); i < shape::strips * a_strip; i += shape::threads) {
        const int s = i / a_strip, k = i % a_strip;
        if (k < of_halves) {
          const f16* const from = a.weights.halves(strip_of(t, a, s), unit, k / 2);
          const int to_run = (s * Weights::unit_halves + k / 2) * strip_rows;
          if (from != nullptr) t.copy_async(halves, to_run + k % 2 * 8, from + k % 2 * 8);
        } else {
          const std::uint8_t* const from = a.weights.bytes(strip_of(t, a, s), unit, k - of_halves);
          if (from != nullptr) t.copy_async(bytes, (s * Weights::unit_bytes + k - of_halves) * strip_rows, from);
        }
      }
    }
  }

  /// The thread's own totals: to the workspace as a part's where there are splits, else to out. A loop of few registers, as it
  /// stands in the loop of products or behind it.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void store(Simt& t, const args& a, int part, int first_token, Shared total) {
    const int first_row =
        (t.block() * shape::strips + t.warp() / shape::warps_across * shape::warp_strips) * strip_rows;
    first_token += t.warp() % shape::warps_across * (shape::tiles * 8);
    EFFINFER_KEEP_ROLLED
    for (int i = 0; i < shape::warp_strips * shape::tiles; ++i) {
      detail::store_sums(t, a, part, first_row + i / shape::tiles * strip_rows, first_token + i % shape::tiles * 8,
                         static_cast<words>(total[i * shape::threads + t.thread()]));
    }
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
