#pragma once
// out = x w^T for few rows of x (up to 16), where the time is that of reading the weights: each is loaded once, 16 bytes a lane,
// for the registers of a matrix instruction, with the weights as its 16 rows and the rows of x as its 8 columns.
//
// A block takes one strip of outputs after the other, each of its warps a part of the inputs (strip_units.hpp).

#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/settled.hpp>
#include <effinfer/quantization/cuda/strip_units.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

using execution::simt::device_limits;

/// Rows of x up to which the products of this file are meant, and how far apart they may be: elements are counted in 32 bits.
inline constexpr int most_skinny_rows = 16, most_skinny_stride = 1 << 26;

/// What a product needs, known on the host before anything runs.
struct product_plan {
  int tiles = 1;                    ///< of eight rows of x
  int blocks = 1;                   ///< that take strips in turn (skinny products)
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

/// A lane's sums of a strip that begins at `first_row` for the eight rows of x from `first_token` on, as the fragments of mma lie: to the workspace as a
/// part's where there are splits, else to out.
template <class Simt, class Args>
EFFINFER_HOST_DEVICE void store_sums(Simt& t, const Args& a, int part, int first_row, int first_token,
                                     const words& sums) {
  EFFINFER_UNROLL
  for (int e = 0; e < 4; ++e) {
    const int row = first_row + t.lane() / 4 + e / 2 * 8, token = first_token + t.lane() % 4 * 2 + e % 2;
    if (row >= a.weights.rows || token >= a.x.rows) continue;
    const auto sum = std::bit_cast<float>(sums.w[e]);
    if (a.plan.splits > 1) {
      a.workspace[(part * a.x.rows + token) * a.weights.rows + row] = sum;
    } else {
      auto& out = a.out.row(token)[row];
      out = std::remove_reference_t<decltype(out)>(sum * a.weights.row_scale(row));
    }
  }
}

/// Blocks of a skinny product that a multiprocessor holds at once, by the registers that formats take.
template <class Weights, int Tiles>
inline constexpr int skinny_blocks = Tiles > 1 || Weights::unit_bytes > 2 ? 1 : 2;

/// The sums of outputs for 8 * Tiles rows of x: the work of a block, which takes `Strips` strips after other `Strips` strips, each of its warps a part
/// of the inputs, as many as there are. What comes next is on its way while something is multiplied.
template <class Weights, class T, int Tiles, int Strips>
struct skinny_sums {
  static constexpr int most_threads = most_parts * execution::simt::warp_size, stages = 2;
  /// 2 KiB a warp's stage, and whole groups.
  static constexpr int fitting = 4 / Weights::pieces / Strips,
                       of_group = (Weights::group + unit_inputs - 1) / unit_inputs;
  static constexpr int units_at_once = fitting > of_group ? fitting
                                       : of_group > 0     ? of_group
                                                          : 1,
                       blocks_at_once = skinny_blocks<Weights, Tiles>;
  static constexpr bool has_registers = blocks_at_once == 1 && Strips * Tiles < 4;
  using units = strip_units<Weights, T, units_at_once, has_registers>;
  /// A stage is multiplied at once. Groups of 64 find no registers for it.
  static constexpr bool whole = units::factors > 0 ? Tiles == 1
                                                   : has_registers || (Weights::group != 64 && Strips * Tiles < 4);
  static constexpr int floats = Strips * Tiles * 128;  ///< a part
  static constexpr int warp_words = Strips * (stages * units::shared_words + units::factor_words);
  static constexpr int shared_bytes = most_parts * (warp_words * 16 + stages * floats * 4);

  /// For i = block, block + blocks, ... below `count`: the strips strip(i, s), then store(i, sums), the latter for `total`. Weights are nobody's
  /// result: the first are on their way while the kernel before this one ends.
  template <class Simt, class Strip, class Store>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const matrix_view<const T>& x, const Weights& w, int count,
                                       const Strip& strip, const Store& store) {
    const auto known = [&](const Weights& of) { run_known(t, x, of, count, strip, store); };
    if constexpr (requires { w.as_known(known); }) {
      w.as_known(known);
    } else {
      known(w);
    }
  }

  template <class Simt, class Strip, class Store>
  EFFINFER_HOST_DEVICE static void run_known(Simt& t, const matrix_view<const T>& x, const Weights& w, int count,
                                             const Strip& strip, const Store& store) {
    using execution::simt::settled;
    const int all = units_across(w.columns), each = part_units(all);
    const int first = t.warp() * each, past = first + each < all ? first + each : all;
    const auto memory = t.kept(t.template shared<words>(most_parts * warp_words) + t.warp() * warp_words);
    const auto lanes = t.kept(memory + t.lane());
    const auto place = [&](int stage, int s) {
      return units::place_at(t, memory + (stage * Strips + s) * units::shared_words);
    };
    const auto factors = [&](int s) {
      return t.template as<typename units::factor>(memory +
                                                   (stages * Strips * units::shared_words + s * units::factor_words));
    };
    const auto sums = t.template shared<float>(stages * most_parts * floats);
    const auto share = units::share_of(t, w);
    const auto fetch = [&](int i, int from, int stage) {
      EFFINFER_UNROLL
      for (int s = 0; s < Strips; ++s)
        units::fetch(t, w, share, strip(i, s), from, past, lanes + (stage * Strips + s) * units::shared_words);
    };
    for (int i = 0; i < stages * Strips; ++i) units::fill(t, w, memory + i * units::shared_words);
    // Rows past the end: the last, their sums are nobody's.
    int rows[Tiles];
    EFFINFER_UNROLL
    for (int tile = 0; tile < Tiles; ++tile) {
      const int token = tile * 8 + t.lane() / 4, last = static_cast<int>(x.rows) - 1;
      rows[tile] =
          (token < last ? token : last) * static_cast<int>(x.stride) + first_input<Weights::group>(t.lane() % 4);
    }
    typename units::template sums<Tiles> sum[Strips];
    EFFINFER_UNROLL
    for (int s = 0; s < Strips; ++s) sum[s].clear();

    const auto advance = [&](int& i, int& from) {
      from += units_at_once;
      if (from >= past) i += t.blocks(), from = first;
    };
    int i = t.block(), from = first, turn = 0;  // its lowest bit: the stage, the next: where sums go
    fetch(i, from, 0);
    t.commit();
    t.await_predecessors();
    EFFINFER_KEEP_ROLLED
    while (i < count) {
      // Found again at the end: it would take registers in between.
      int next_i = settled(i), next_from = settled(from);
      advance(next_i, next_from);
      if (next_i < count) fetch(next_i, next_from, ~turn & 1);
      t.commit();
      t.template wait<1>();
      t.warp_barrier();
      const int stage = turn & 1;
      EFFINFER_UNROLL
      for (int s = 0; s < Strips; ++s) units::find_factors(t, w, from, past, place(stage, s), factors(s));
      const T* at[Tiles];
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) at[tile] = keep(x.data + (rows[tile] + from * unit_inputs));
      const auto inputs = [&](int u, int tile, int half) {
        return load_inputs<Weights::group>(at[tile] + (u * unit_inputs + half * 32));
      };
      units::template for_units<whole>(from, past, [&](int u) {
        EFFINFER_UNROLL
        for (int s = 0; s < Strips; ++s)
          units::template add<Tiles>(t, w, strip(i, s), from, u, place(stage, s), factors(s), inputs, sum[s]);
      });
      t.warp_barrier();  // all have read the stage
      if (from + units_at_once >= past) {
        // In turns with others, so that nobody writes what a slower warp has yet to add.
        const auto to = sums + (turn >> 1) * (most_parts * floats);
        const auto own = to + (t.warp() * floats + t.lane());
        EFFINFER_UNROLL
        for (int e = 0; e < Strips * Tiles * 4; ++e) own[e * 32] = sum[e / (Tiles * 4)].sum[e / 4 % Tiles][e % 4];
        EFFINFER_UNROLL
        for (int s = 0; s < Strips; ++s) sum[s].clear();
        t.barrier();
        store(i, to);
        turn ^= 2;
      }
      advance(i, from), turn ^= 1;
    }
    t.template wait<0>();
  }

  /// f(row in the strip, token), each by a thread, for so many rows of x. Unsigned, as signed divisions take several instructions.
  template <class Simt, class F>
  EFFINFER_HOST_DEVICE static void for_outputs(const Simt& t, std::ptrdiff_t tokens, const F& f) {
    const unsigned outputs = static_cast<unsigned>(tokens) * strip_rows, threads = static_cast<unsigned>(t.threads());
    for (auto e = static_cast<unsigned>(t.thread()); e < outputs; e += threads)
      f(static_cast<int>(e % strip_rows), static_cast<int>(e / strip_rows));
  }

  /// Of strip s, output `row` in it for a row of x.
  template <class Simt, class Shared>
  EFFINFER_HOST_DEVICE static float total(const Simt& t, Shared sums, int s, int row, int token) {
    const int place = (token / 8 * 4 + row / 8 * 2 + token % 2) * 32 + row % 8 * 4 + token % 8 / 2;
    const int count = execution::simt::warps(execution::simt::settled(t.threads()));
    float total = 0;
    EFFINFER_UNROLL
    for (int p = 0; p < most_parts; ++p) total += p < count ? sums[p * floats + s * Tiles * 128 + place] : 0.0F;
    return total;
  }

  /// Blocks of as many warps as the weights have parts, which take `count` times Strips strips. Errors: `unsupported`, where the plan is for other Tiles.
  static execution::simt::grid plan(const char* who, const product_plan& of, const matrix_view<const T>& x,
                                    const Weights& w, int count) {
    if (of.tiles != Tiles) {
      throw error(error_code::unsupported, who,
                  std::to_string(of.tiles) + " tiles of rows with a kernel for " + std::to_string(Tiles));
    }
    if (x.rows == 0) return {};
    return {count < of.blocks ? count : of.blocks, 1, parts(w.columns / unit_inputs) * execution::simt::warp_size,
            shared_bytes};
  }
};

/// Bytes of shared memory that a block needs for so many rows of x.
template <class Weights, class T, int Strips>
constexpr int skinny_bytes(std::ptrdiff_t tokens) {
  return tokens > 8 ? skinny_sums<Weights, T, 2, Strips>::shared_bytes
                    : skinny_sums<Weights, T, 1, Strips>::shared_bytes;
}

}  // namespace detail

/// A plan for up to 16 rows of x. Errors: `invalid_argument` (sizes, more than 16 rows), `mismatch` (shapes), `unsupported` (inputs no multiple of
/// 64 and of the group, rows that aren't 16-byte aligned or too far apart, a device with less shared memory than a block needs).
template <class Weights, class T, class Out>
product_plan plan_skinny(const matrix_view<const T>& x, const Weights& w, const matrix_view<Out>& out,
                         const device_limits& device) {
  const char* const who = "quantization::cuda::plan_skinny";
  detail::check_product(who, x, w, out);
  if (x.rows > most_skinny_rows || device.multiprocessors < 1) {
    throw error(error_code::invalid_argument, who,
                std::to_string(x.rows) + " rows of x, " + std::to_string(device.multiprocessors) + " multiprocessors");
  }
  if (x.stride > most_skinny_stride) {
    throw error(error_code::unsupported, who, "rows of x are " + std::to_string(x.stride) + " elements apart");
  }
  execution::simt::check_shared(who, detail::skinny_bytes<Weights, T, 1>(x.rows), device);
  product_plan plan;
  plan.tiles = x.rows > 8 ? 2 : 1;
  plan.blocks = device.multiprocessors *
                (plan.tiles == 1 ? detail::skinny_blocks<Weights, 1> : detail::skinny_blocks<Weights, 2>);
  return plan;
}

/// The product for 8 * Tiles rows.
template <class Weights, class T, int Tiles, class Out = T>
struct skinny_product {
  using args = product_args<Weights, T, Out>;
  using sums = detail::skinny_sums<Weights, T, Tiles, 1>;
  static constexpr int threads = sums::most_threads, blocks_at_once = sums::blocks_at_once;
  static constexpr bool awaits_predecessors = true;

  /// Error: `unsupported`, where the plan is for other Tiles.
  static execution::simt::grid plan(const args& a) {
    return sums::plan("quantization::cuda::skinny_product", a.plan, a.x, a.weights, detail::strips_of(a.weights.rows));
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto strip = [](int i, int) { return i; };
    const auto store = [&](int i, auto of) {
      sums::for_outputs(t, a.x.rows, [&](int r, int token) {
        const int row = i * strip_rows + r;
        if (row >= a.weights.rows) return;
        a.out.row(token)[row] = Out(sums::total(t, of, 0, r, token) * a.weights.row_scale(row));
      });
    };
    sums::run(t, a.x, a.weights, detail::strips_of(a.weights.rows), strip, store);
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
