#pragma once
// out = x w^T for batches, 17 to 64 rows of x, and fewer and more where shared memory is small: a warp reads a strip of the weights as in product.hpp, each
// once, and all warps of a block share the rows of x, which come into shared memory in two stages. Sums are formed in the order of
// strip_units.hpp, so a row's result has the same bits as alone.

#include <effinfer/core/error.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/strip_units.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// The product for tiles of 8 * Tiles rows of x: block x has 128 outputs, y is the tile of rows and the split. With more than one split the parts'
/// sums go to the workspace, for sum_parts; else out is written.
template <class Weights, class T, int Tiles, class Out = T>
struct batch_product {
  using args = product_args<Weights, T, Out>;
  static constexpr int warps = 8, threads = warps * 32, outputs = warps * strip_rows, tokens = 8 * Tiles;
  static constexpr int stage_units =
      Weights::pieces + Weights::high_words == 1 && !Weights::may_have_minimum && Tiles == 4 ? 4 : 2;
  /// Where a multiprocessor's registers hold two: small groups have scales to find all the time.
  static constexpr int blocks_at_once = Tiles == 4 && (Weights::group == 0 || Weights::group > 32) ? 2 : 1;
  static constexpr bool awaits_predecessors = true;
  using strip_units = detail::strip_units<Weights, T, stage_units, false>;
  static constexpr int x_words = stage_units * tokens * 8;  // a stage
  /// The sum of the parts so far stands in shared memory, each thread's in reach of that thread only, where it would take registers of others.
  static constexpr bool shares_total = Weights::group > 0 || blocks_at_once > 1;
  static constexpr int shared_bytes =
      2 * (x_words + warps * strip_units::shared_words) * 16 + (shares_total ? threads * Tiles * 16 : 0);
  static_assert(shared_bytes <= execution::simt::least_shared_bytes);

  /// Errors: `unsupported`, where the plan is for other Tiles.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tiles != Tiles) {
      throw error(error_code::unsupported, "quantization::cuda::batch_product",
                  "a plan for tiles of " + std::to_string(a.plan.tiles * 8) + " rows with a kernel for " +
                      std::to_string(tokens));
    }
    return {(a.weights.rows + outputs - 1) / outputs, tiles_across(a) * a.plan.splits, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto x = t.template shared<words>(2 * x_words);
    const auto shared_total = t.template shared<words>(shares_total ? threads * Tiles : 0);
    const auto memory =
        t.template shared<words>(warps * 2 * strip_units::shared_words) + t.warp() * 2 * strip_units::shared_words;
    const auto place = [&](int stage) { return strip_units::place_at(t, memory + stage * strip_units::shared_words); };

    const int split = t.block_y() / tiles_across(a), first_token = t.block_y() % tiles_across(a) * tokens;
    const int units = a.weights.columns / unit_inputs, of_part = part_units(units);
    const int each = (parts(units) + a.plan.splits - 1) / a.plan.splits;
    const int begin = split * each * of_part, past = begin + each * of_part, end = past < units ? past : units;
    const int own_strip = t.block() * warps + t.warp(), last_strip = detail::strips_of(a.weights.rows) - 1;
    const int strip = own_strip < last_strip ? own_strip : last_strip;  // past the last one: the last, it isn't stored

    // Weights are nobody's result: the first are on their way while the kernel before this one ends.
    for (int i = 0; i < 2; ++i) strip_units::fill(t, a.weights, memory + i * strip_units::shared_words);
    const auto share = strip_units::share_of(t, a.weights);
    if (begin < end) strip_units::fetch(t, a.weights, share, strip, begin, end, memory + t.lane());
    t.await_predecessors();
    if (begin < end) fetch_x(t, a, first_token, begin, x);
    t.commit();

    typename strip_units::template sums<Tiles> sum;
    sum.clear();
    float total[shares_total ? 1 : Tiles][4] = {};
    const auto total_of = [&](int tile) {
      if constexpr (shares_total) {
        return static_cast<words>(shared_total[tile * threads + t.thread()]);
      } else {
        words w;
        EFFINFER_UNROLL
        for (int e = 0; e < 4; ++e) w.w[e] = std::bit_cast<std::uint32_t>(total[tile][e]);
        return w;
      }
    };
    int part_end = begin + of_part;
    EFFINFER_KEEP_ROLLED
    for (int from = begin, stage = 0; from < end; from += stage_units, stage ^= 1) {
      t.template wait<0>();
      t.barrier();  // all see the stage, and are done with the other one
      if (from + stage_units < end) {
        strip_units::fetch(t, a.weights, share, strip, from + stage_units, end,
                           memory + (stage ^ 1) * strip_units::shared_words + t.lane());
        fetch_x(t, a, first_token, from + stage_units, x + (stage ^ 1) * x_words);
      }
      t.commit();
      const auto stage_x = x + stage * x_words;
      const auto inputs = [&](int u, int tile, int half) {
        return detail::load_shared_inputs<Weights::group>(stage_x, u * tokens + tile * 8 + t.lane() / 4, half,
                                                          t.lane() % 4);
      };
      strip_units::template for_units<Weights::group == 0>(from, end, [&](int u) {
        strip_units::template add<Tiles>(t, a.weights, strip, from, u, place(stage), nullptr, inputs, sum);
      });
      if (from + stage_units < part_end && from + stage_units < end) continue;
      const int part = part_end / of_part - 1;
      const bool alone = a.plan.splits > 1 || part * of_part == begin;  // nothing to add to
      part_end += of_part;
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        if constexpr (shares_total) {
          words so_far{};
          if (!alone) so_far = shared_total[tile * threads + t.thread()];
          EFFINFER_UNROLL
          for (int e = 0; e < 4; ++e)
            so_far.w[e] = std::bit_cast<std::uint32_t>(std::bit_cast<float>(so_far.w[e]) + sum.sum[tile][e]);
          shared_total[tile * threads + t.thread()] = so_far;
        } else {
          EFFINFER_UNROLL
          for (int e = 0; e < 4; ++e) total[tile][e] = (alone ? 0.0F : total[tile][e]) + sum.sum[tile][e];
        }
      }
      sum.clear();
      if (a.plan.splits > 1 || from + stage_units >= end) store(t, a, part, own_strip, first_token, total_of);
    }
    t.template wait<0>();
  }

 private:
  EFFINFER_HOST_DEVICE static int tiles_across(const args& a) {
    return static_cast<int>((a.x.rows + tokens - 1) / tokens);
  }

  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static void fetch_x(Simt& t, const args& a, int first_token, int unit, Shared to) {
    const int units = a.weights.columns / unit_inputs, last = static_cast<int>(a.x.rows) - 1;
    EFFINFER_KEEP_ROLLED  // or addresses take the registers of sums
        for (int i = 0; i < x_words / threads; ++i) {
      const int at = i * threads + t.thread(), token = at / (stage_units * 8), piece = at % (stage_units * 8);
      if (unit + piece / 8 >= units) continue;
      const T* const from = a.x.row(first_token + token < last ? first_token + token : last);  // past the end: any
      t.copy_async(to, detail::shared_piece(piece / 8 * tokens + token, piece % 8),
                   reinterpret_cast<const words*>(from + unit * unit_inputs + piece * 8));
    }
  }

  /// The thread's own totals: to the workspace as a part's where there are splits, else to out.
  template <class Simt, class Totals>
  EFFINFER_HOST_DEVICE static void store(Simt& t, const args& a, int part, int strip, int first_token,
                                         const Totals& total_of) {
    const auto store_tile = [&](int tile) {
      detail::store_sums(t, a, part, strip * strip_rows, first_token + tile * 8, total_of(tile));
    };
    // One after the other: addresses would take the registers of sums.
    if constexpr (shares_total) {
      EFFINFER_KEEP_ROLLED
      for (int tile = 0; tile < Tiles; ++tile) store_tile(tile);
    } else {
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        t.warp_barrier();
        store_tile(tile);
      }
    }
  }
};

/// The second kernel where a plan has more than one split: the sums of the parts, added in rising order.
template <class Weights, class T, class Out = T>
struct sum_parts {
  using args = product_args<Weights, T, Out>;
  static constexpr int threads = 256;

  static execution::simt::grid plan(const args& a) {
    if (a.plan.splits < 2) return {};
    return {(a.weights.rows + threads - 1) / threads, static_cast<int>(a.x.rows), threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int row = t.block() * threads + t.thread(), count = parts(a.weights.columns / unit_inputs);
    if (row >= a.weights.rows) return;
    float total = 0;
    EFFINFER_UNROLL
    for (int part = 0; part < most_parts; ++part)
      total += part < count ? a.workspace[(part * a.x.rows + t.block_y()) * a.weights.rows + row] : 0.0F;
    a.out.row(t.block_y())[row] = Out(total * a.weights.row_scale(row));
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
