#pragma once
// out = x w^T for few rows of x (up to 16), where the time is that of reading the weights: each is loaded once, 16 bytes a lane,
// for the registers of a matrix instruction, with the weights as its 16 rows and the rows of x as its 8 columns.
//
// A block has a strip of outputs, each of its warps a part of the inputs (strip_units.hpp).

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/quantization/cuda/strip_units.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace effinfer::inline v0::quantization::cuda {

/// Rows of x up to which the products of this file are meant.
inline constexpr int most_skinny_rows = 16;

/// What a product needs, known on the host before anything runs.
struct product_plan {
  int tiles = 1;                    ///< of eight rows of x
  int splits = 1;                   ///< blocks that share an output's parts
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

}  // namespace detail

/// A plan for up to 16 rows of x. Errors: `invalid_argument` (sizes, more than 16 rows), `mismatch` (shapes), `unsupported` (inputs no multiple of
/// 64 and of the group, rows that aren't 16-byte aligned).
template <class Weights, class T, class Out>
product_plan plan_skinny(const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out) {
  const char* const who = "quantization::cuda::plan_skinny";
  detail::check_product(who, x, w, out);
  if (x.rows > most_skinny_rows) throw error(error_code::invalid_argument, who, std::to_string(x.rows) + " rows of x");
  product_plan plan;
  plan.tiles = x.rows > 8 ? 2 : 1;
  return plan;
}

/// The product for 8 * Tiles rows: a block a strip.
template <class Weights, class T, int Tiles, class Out = T>
struct skinny_product {
  using args = product_args<Weights, T, Out>;
  static constexpr int threads = most_parts * 32, stages = 2;
  /// 4 KiB of weights a warp's stage.
  static constexpr int units_at_once = 8 / Weights::pieces, blocks_at_once = Tiles == 1 ? 3 : 2;
  static constexpr bool awaits_predecessors = true;
  using strip_units = detail::strip_units<Weights, T, units_at_once>;
  static constexpr int shared_bytes = most_parts * (stages * strip_units::shared_bytes + Tiles * 128 * 4);

  /// Error: `unsupported`, where the plan is for other Tiles.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tiles != Tiles) {
      throw error(error_code::unsupported, "quantization::cuda::skinny_product",
                  std::to_string(a.plan.tiles) + " tiles of rows with a kernel for " + std::to_string(Tiles));
    }
    if (a.x.rows == 0) return {};
    return {detail::strips_of(a.weights.rows), 1, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const int strip = t.block(), units = a.weights.columns / unit_inputs, each = part_units(units);
    const int first = t.warp() * each, past = first + each < units ? first + each : units;
    const auto sums = t.template shared<float>(most_parts * Tiles * 128);
    const auto memory = strip_units::memory(t, most_parts * stages).at(t.warp() * stages);

    // Weights are nobody's result: the first are on their way while the kernel before this one ends.
    strip_units::fetch(t, a.weights, strip, first, past, memory);
    t.commit();
    t.await_predecessors();
    typename strip_units::template sums<Tiles> sum;
    sum.clear();
    EFFINFER_KEEP_ROLLED
    for (int from = first, stage = 0; from < past; from += units_at_once, stage ^= 1) {
      strip_units::fetch(t, a.weights, strip, from + units_at_once, past, memory.at(stage ^ 1));
      t.commit();
      t.template wait<1>();
      t.warp_barrier();
      EFFINFER_UNROLL
      for (int u = 0; u < units_at_once; ++u) {
        if (from + u >= past) continue;
        const auto inputs = [&](int tile, int half) {
          const int token = tile * 8 + t.lane() / 4;
          if (token >= a.x.rows) return words{};
          return detail::load_inputs<Weights::group>(a.x.row(token) + (from + u) * unit_inputs + half * 32,
                                                     t.lane() % 4);
        };
        strip_units::template add<Tiles>(t, a.weights, strip, from, u, memory.at(stage), inputs, sum);
      }
      t.warp_barrier();  // all have read the stage
    }
    t.template wait<0>();
    EFFINFER_UNROLL
    for (int i = 0; i < Tiles * 4; ++i) sums[t.warp() * Tiles * 128 + i * 32 + t.lane()] = sum.sum[i / 4][i % 4];
    t.barrier();
    for (int e = t.thread(); e < Tiles * 128; e += threads) {
      const int row = strip * strip_rows + e % 16, token = e / 16;
      if (row >= a.weights.rows || token >= a.x.rows) continue;
      const int place = (token / 8 * 4 + e % 16 / 8 * 2 + token % 2) * 32 + e % 8 * 4 + token % 8 / 2;
      float total = 0;
      EFFINFER_UNROLL
      for (int p = 0; p < most_parts; ++p) total += sums[p * Tiles * 128 + place];
      a.out.row(token)[row] = Out(total * a.weights.row_scale(row));
    }
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
