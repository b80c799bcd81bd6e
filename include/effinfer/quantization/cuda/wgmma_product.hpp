#pragma once
// out = x w^T for many rows of x on GPUs of compute capability 9.0: products of warpgroups (wgmma) of 64 outputs by up to 256 rows of x. The rows
// of x are the right operand, in shared memory, where the copying engine brings boxes of them into a ring of stages. The weights are the left
// one: of 16 bits they come in boxes too; packed ones come from device memory to registers, 16 bytes a lane, the next units while one is
// multiplied, and become operands there.
//
//   q.launch<order_inputs<T>>({x, ordered, order_of<Weights>});    // or by who writes x: input_order.hpp
//   start_wgmma(wgmma_args<Weights, T>{ordered, w, out, plan_wgmma(ordered, w, out, device.limits())}, make_tensor_map,
//               [&](auto kernel, const auto& args) { q.launch<typename decltype(kernel)::type>(args); });
//
// What is exact: weights without groups are multiplied as they are, and scaled at the end. Those in groups are scaled first, with numbers of the
// type of x: w = T(T(scale) * (code - zero)), or where there are minimums w = T(T(scale) * (code - middle) + T(minimum + scale * (middle -
// zero))), middle being half of the codes' range. Each T() rounds to nearest: it is off by at most half a unit in the last place. Sums are in
// float, over all inputs in one chain, whatever the plan: a row's result has the same bits with any other rows, but not those of product.hpp,
// which adds parts and scales sums.
//
// Source of the pipeline: Shah et al., "FlashAttention-3" (2024), section 3.1 (producers and consumers); NVIDIA, "CUTLASS", Efficient GEMM in CUDA:
// Hopper warp specialization, persistent blocks.

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/hopper.hpp>
#include <effinfer/execution/simt/number_pairs.hpp>
#include <effinfer/execution/simt/pack.hpp>
#include <effinfer/execution/simt/transpose.hpp>
#include <effinfer/quantization/cuda/input_order.hpp>
#include <effinfer/quantization/cuda/product.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

/// What such a product needs, known on the host before anything runs.
struct wgmma_plan {
  int tile_rows = 256;  ///< of x: 64, 128 or 256
  int blocks = 0;       ///< each goes through several tiles
};

/// Shapes: x [T, K], in the order_of<Weights>, weights [N, K], out [T, N]. `map`: start_wgmma's.
template <class Weights, class T>
struct wgmma_args {
  static_assert(Weights::template multiplies<T>,
                "effinfer: these weights are not multiplied with activations of this type");
  matrix_view<const T> x;
  Weights weights;
  matrix_view<T> out;
  wgmma_plan plan;
  execution::simt::tensor_map map = {}, weights_map = {};
};

namespace detail {

inline constexpr int wgmma_outputs = 128;  ///< of a tile

EFFINFER_HOST_DEVICE constexpr int tiles_of(std::ptrdiff_t rows, int each) {
  return static_cast<int>((rows + each - 1) / each);
}

/// What a lane has of a unit: its codes, and of rows lane / 4 and 8 below it what scales them.
template <class Weights>
struct unit_share {
  static constexpr bool is_blocks = requires { Weights::lane_values; };
  static constexpr int halves_held = is_blocks ? 0 : Weights::unit_halves,
                       bytes_held = is_blocks ? 0 : Weights::unit_bytes;
  template <class W>
  struct scales_of {
    using type = std::nullptr_t;
    using places = std::nullptr_t;
  };
  template <class W>
    requires(is_blocks)
  struct scales_of<W> {
    using type = typename W::lane_scales;
    using places = typename W::lane_places;
  };
  /// Of a strip.
  using places = typename scales_of<Weights>::places;
  EFFINFER_HOST_DEVICE static places find(const Weights& w, int strip, int lane) {
    if constexpr (is_blocks) return w.find_scales(strip, lane);
    return {};
  }

  words raw[Weights::pieces];
  std::uint32_t high[Weights::high_words + 1] = {};
  f16 halves[halves_held + 1][2] = {};
  std::uint8_t bytes[bytes_held + 1][2] = {};
  float scale = 1;  ///< of a whole unit of a strip, where there are no runs
  typename scales_of<Weights>::type lane_scales = {};

  /// Runs as scale_in and others want them; rows are 0 and 8.
  template <class V, int N>
  struct runs {
    const V (&of)[N][2];
    EFFINFER_HOST_DEVICE V operator[](int i) const { return of[i / strip_rows][i % strip_rows / 8]; }
  };

  EFFINFER_HOST_DEVICE void load(const Weights& w, const places& at, int strip, int unit, int lane) {
    EFFINFER_UNROLL
    for (int p = 0; p < Weights::pieces; ++p) raw[p] = load_words_once(w.piece(strip, unit, p, lane));
    if constexpr (Weights::high_words > 0) w.load_high(strip, unit, lane, high);
    if constexpr (is_blocks) {
      w.load_scales(at, unit, lane_scales);
    } else if constexpr (Weights::unit_halves > 0) {
      EFFINFER_UNROLL
      for (int i = 0; i < Weights::unit_halves; ++i) {
        const f16* const run = w.halves(strip, unit, i) + lane / 4;
        halves[i][0] = run[0], halves[i][1] = run[8];
      }
      EFFINFER_UNROLL
      for (int i = 0; i < Weights::unit_bytes; ++i) {
        const std::uint8_t* const run = w.bytes(strip, unit, i);
        if (run != nullptr) bytes[i][0] = run[lane / 4], bytes[i][1] = run[lane / 4 + 8];
      }
    } else if constexpr (Weights::group > 0) {
      scale = w.scale(strip, unit * unit_inputs / Weights::group, 0);
    }
  }

  static constexpr int groups = Weights::group == 0 || Weights::group >= unit_inputs ? 1 : unit_inputs / Weights::group;
  /// Of the lane's two rows, for each group of the unit: pairs of a number.
  struct factors {
    std::uint32_t scale[groups][2], minimum[groups][2], centers[groups][2];
  };
  /// All lanes call it.
  template <class T, class Simt>
  EFFINFER_HOST_DEVICE factors find_factors(Simt& t, const Weights& w, int strip, int unit) const {
    constexpr std::uint32_t nothing = 0x80008000U;  // -0, twice
    factors f{};
    EFFINFER_UNROLL
    for (int i = 0; Weights::group > 0 && i < 2 * groups; ++i) {
      const int g = i / 2, r = i % 2;
      float by = scale;
      f.minimum[g][r] = nothing;
      if constexpr (is_blocks) {
        const float mine = w.lane_value(lane_scales, r);
        by = t.shuffle(mine, t.lane() / 4 * 4 + g);
        f.centers[g][r] = w.template center_of<T>(strip, 0, 0);
        if constexpr (Weights::may_have_minimum) {
          if (w.minimums != nullptr) {
            // The codes' middle is taken for their zero, so that what is added is small.
            const float least = t.shuffle(mine, t.lane() / 4 * 4 + groups + g) - by * static_cast<float>(w.offset);
            const float center = std::fma(by, Weights::middle, least);
            f.minimum[g][r] = execution::simt::round_pair<T>(center, center);
            f.centers[g][r] = pair_of<T>(-integer_base<T> - Weights::middle);
          }
        }
      } else if constexpr (Weights::group > 0) {
        const runs<f16, halves_held + 1> of_halves{halves};
        const runs<std::uint8_t, bytes_held + 1> of_bytes{bytes};
        if constexpr (halves_held > 0) by = w.scale_in(strip, unit, of_halves, of_bytes, g, 8 * r);
        f.centers[g][r] = w.template center_in<T>(of_bytes, g, 8 * r);
      }
      f.scale[g][r] = execution::simt::round_pair<T>(by, by);
    }
    return f;
  }
  /// The left operand of the unit's product j of four.
  template <class T>
  EFFINFER_HOST_DEVICE void unpack(const factors& f, int j, std::uint32_t (&a)[4]) const {
    const int g = j * groups / 4;
    Weights::template unpack<T>(raw, high, j, f.centers[g], a);
    EFFINFER_UNROLL
    for (int i = 0; Weights::group > 0 && i < 4; ++i)
      a[i] = execution::simt::multiply_add_pairs<T>(a[i], f.scale[g][i % 2], f.minimum[g][i % 2]);
  }
};

}  // namespace detail

/// A plan for any number of rows of x. Of the three sizes of tiles the one with which the device is done first, as the tiles of a kind take
/// equally long; the result doesn't depend on it. Errors: as plan_skinny's; `unsupported` (a device without wgmma, or with too little shared
/// memory for a block).
template <class Weights, class T>
wgmma_plan plan_wgmma(const matrix_view<const T>& x, const Weights& w, const matrix_view<T>& out,
                      const execution::simt::device_limits& device);

/// Weights that are operands as they lie: they are read from shared memory too.
template <class Weights>
inline constexpr bool in_boxes = requires(Weights w) {
  w.stride;
};

template <class Weights>
inline constexpr input_order order_of = in_boxes<Weights>      ? input_order::as_they_are
                                        : Weights::group == 16 ? input_order::by_fours
                                                               : input_order::by_eights;

/// x in an order. Shapes: x, to [T, K]; K a multiple of 32.
template <class T>
struct order_inputs {
  struct args {
    matrix_view<const T> x;
    matrix_view<T> to;
    input_order order;
  };
  static constexpr int threads = 256;

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>((a.x.rows * a.x.columns / 8 + threads - 1) / threads), 1, threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t i = std::ptrdiff_t{t.block()} * threads + t.thread(), a_row = a.x.columns / 8;
    if (i >= a.x.rows * a_row) return;
    const std::ptrdiff_t e = i % a_row * 8;
    const auto in = execution::simt::load_pack(a.x.row(i / a_row) + e);
    EFFINFER_UNROLL
    for (int k = 0; k < 8; k += 2)
      execution::simt::store_pack(a.to.row(i / a_row) + ordered_place(a.order, e + k),
                                  execution::simt::pack<T, 2>{{in.v[k], in.v[k + 1]}});
  }
};

/// The product in tiles of 128 outputs by Rows rows of x.
template <class Weights, class T, int Rows>
struct wgmma_product {
  using args = wgmma_args<Weights, T>;
  static_assert(Rows == 64 || Rows == 128 || Rows == 256);

  static constexpr int consumers = 2, outputs = detail::wgmma_outputs;
  static constexpr int threads = (1 + consumers) * execution::simt::warpgroup_size;
  static constexpr bool for_hopper = true;
  static constexpr int producer_registers = 24, consumer_registers = 240;
  static_assert(outputs == consumers * 64);
  static_assert((producer_registers + consumers * consumer_registers) * execution::simt::warpgroup_size <= 65536);

  static constexpr int ahead = Rows == 256 ? 2 : 4;  ///< units of weights on their way
  /// Of x, and behind them of weights.
  static constexpr int x_bytes = Rows * unit_inputs * 2;
  static constexpr int stage_bytes = x_bytes + (in_boxes<Weights> ? outputs * unit_inputs * 2 : 0);
  static constexpr int stages = stage_bytes > 32768 ? 4 : stage_bytes > 16384 ? 6 : 8;
  static constexpr int shared_bytes = stages * stage_bytes + 2 * stages * 8;
  static_assert(shared_bytes <= execution::simt::hopper_shared_bytes);

  /// Errors: `mismatch`, where the plan is for other Rows.
  static execution::simt::grid plan(const args& a) {
    if (a.plan.tile_rows != Rows) {
      throw error(error_code::mismatch, "quantization::cuda::wgmma_product",
                  "a plan for tiles of " + std::to_string(a.plan.tile_rows) + " rows with a kernel for " +
                      std::to_string(Rows));
    }
    return {a.plan.blocks, 1, threads, shared_bytes};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const auto memory = t.template shared<std::uint32_t>(stages * stage_bytes / 4);
    const auto barrier = t.template shared<execution::simt::mbarrier>(2 * stages);
    execution::simt::hopper<Simt> h(t);
    if (t.thread() == 0) {
      for (int i = 0; i < stages; ++i) {
        h.init(barrier, i, 1);                       // filled: the producer
        h.init(barrier, stages + i, consumers * 4);  // empty: a lane of each warp that has read
      }
      h.publish();
    }
    t.barrier();
    const int role = t.shuffle(t.warp() / 4, 0);  // so that the compiler knows it is one for a warp
    if (role == 0) {
      h.template give_registers<producer_registers>();
      if (t.thread() == 0) produce(t, h, a, memory, barrier);
    } else {
      h.template take_registers<consumer_registers>();
      consume(t, h, a, role - 1, memory, barrier);
    }
  }

 private:
  /// Tiles of rows that are worked on together, so that they share the weights in the cache, and the weights x.
  static constexpr int band = 2048 / Rows;

  struct tile {
    int first_row, first_strip;
  };
  /// Number i: of each band of rows, for each tile of outputs its tiles of rows.
  EFFINFER_HOST_DEVICE static tile tile_at(const args& a, int i) {
    const int across = detail::tiles_of(a.x.rows, Rows), along = detail::tiles_of(a.weights.rows, outputs);
    const int of_band = i / (band * along), first = of_band * band, within = i - first * along;
    const int wide = across - first < band ? across - first : band;
    return {(first + within % wide) * Rows, within / wide * (outputs / strip_rows)};
  }
  EFFINFER_HOST_DEVICE static int tiles(const args& a) {
    return detail::tiles_of(a.x.rows, Rows) * detail::tiles_of(a.weights.rows, outputs);
  }

  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void produce(Simt& t, Hopper& h, const args& a, Shared memory, Barriers barrier) {
    const int units = a.weights.columns / unit_inputs;
    int stage = 0, parity = 1;  // the first time it is empty
    EFFINFER_KEEP_ROLLED
    for (int i = t.block(); i < tiles(a); i += t.blocks()) {
      const tile at = tile_at(a, i);
      EFFINFER_KEEP_ROLLED
      for (int unit = 0; unit < units; ++unit) {
        h.wait(barrier, stages + stage, parity);
        h.arrive_expect(barrier, stage, stage_bytes);
        h.copy_box(memory, stage * (stage_bytes / 4), &a.map, unit * unit_inputs, at.first_row, barrier, stage);
        if constexpr (in_boxes<Weights>)
          h.copy_box(memory, (stage * stage_bytes + x_bytes) / 4, &a.weights_map, unit * unit_inputs,
                     at.first_strip * strip_rows, barrier, stage);
        if (++stage == stages) stage = 0, parity ^= 1;
      }
    }
  }

  template <class Simt, class Hopper, class Shared, class Barriers>
  EFFINFER_HOST_DEVICE static void consume(Simt& t, Hopper& h, const args& a, int own, Shared memory,
                                           Barriers barrier) {
    const int units = a.weights.columns / unit_inputs, last_strip = detail::strips_of(a.weights.rows) - 1;
    const auto boxes = h.describe(memory, 0, 16, 1024), weight_boxes = boxes + (x_bytes + own * 64 * 128);
    int stage = 0, parity = 0;
    const auto strip_of = [&](const tile& at) { return at.first_strip + own * 4 + t.warp() % 4; };
    detail::unit_share<Weights> share[ahead];  // nothing of it where weights come in boxes
    std::uint32_t left[2][4][4] = {};          // operands of this unit and of the one before
    float sum[Rows / 8][4];
    tile at = {};
    int strip = 0;
    typename detail::unit_share<Weights>::places places = {};
    const auto begin_tile = [&](int i) {  // its first weights are on their way
      at = tile_at(a, i);
      const int wanted = strip_of(at);
      strip = wanted < last_strip ? wanted : last_strip;  // past the end: any, it isn't stored
      places = detail::unit_share<Weights>::find(a.weights, strip, t.lane());
      EFFINFER_UNROLL
      for (int u = 0; u < ahead; ++u) {
        if (!in_boxes<Weights> && u < units) share[u].load(a.weights, places, strip, u, t.lane());
      }
    };
    const int first = t.block(), step = t.blocks();
    if (first < tiles(a)) begin_tile(first);
    EFFINFER_KEEP_ROLLED
    for (int i = first; i < tiles(a); i += step) {
      int before = 0;  // the stage of the unit before
      const auto release = [&] {
        if (t.lane() == 0) h.arrive(barrier, stages + before);
      };
      int unit = 0;
      if constexpr (in_boxes<Weights>) {
        EFFINFER_KEEP_ROLLED
        for (; unit < units; ++unit) {
          h.wait(barrier, stage, parity);
          h.begin();
          EFFINFER_UNROLL
          for (int j = 0; j < 4; ++j)
            h.template multiply<false>(sum, weight_boxes + (stage * stage_bytes + j * 32),
                                       boxes + (stage * stage_bytes + j * 32), T{}, unit + j > 0);
          h.commit();
          h.template finish<1>();
          if (unit > 0) release();
          before = stage;
          if (++stage == stages) stage = 0, parity ^= 1;
        }
        h.template finish<0>(sum);
      } else {
        // What scales the next unit is found while this one is multiplied; its operands are made when the one before is done, in whose registers.
        auto factors = share[0].template find_factors<T>(t, a.weights, strip, 0);
        const auto multiply = [&](const int u, std::uint32_t(&operands)[4][4],
                                  const std::uint32_t(&of_unit_before)[4][4]) {
          EFFINFER_UNROLL
          for (int j = 0; j < 4; ++j) share[u].template unpack<T>(factors, j, operands[j]);
          h.wait(barrier, stage, parity);
          h.begin(operands);
          EFFINFER_UNROLL
          for (int j = 0; j < 4; ++j)
            h.template multiply<false>(sum, operands[j], boxes + (stage * stage_bytes + j * 32), T{}, unit + j > 0);
          h.commit();
          if (unit + ahead < units) share[u].load(a.weights, places, strip, unit + ahead, t.lane());
          factors = share[(u + 1) % ahead].template find_factors<T>(t, a.weights, strip, unit + 1);
          h.template finish<1>();
          h.keep(of_unit_before);
          if (unit > 0) release();
          before = stage;
          if (++stage == stages) stage = 0, parity ^= 1;
        };
        // No branch between products in the background: the assembler would make them wait for each other.
        EFFINFER_KEEP_ROLLED
        while (unit + ahead <= units) {
          EFFINFER_UNROLL
          for (int u = 0; u < ahead; ++u, ++unit) multiply(u, left[u % 2], left[1 - u % 2]);
        }
        h.template finish<0>(sum);
        h.keep(left[0], left[1]);
        EFFINFER_KEEP_ROLLED
        for (; unit < units; ++unit) {
          multiply(0, left[0], left[1]);
          h.template finish<0>(sum);
          h.keep(left[0]);
          EFFINFER_UNROLL
          for (int u = 0; u + 1 < ahead; ++u) share[u] = share[u + 1];
        }
      }
      release();
      const tile done = at;
      if (i + step < tiles(a)) begin_tile(i + step);
      store(t, a, done.first_row, strip_of(done), sum);
    }
  }

  /// The sums of a strip: a lane has those of its rows lane / 4 and 8 below it for x's rows 2 (lane % 4) and the next of each eight; lanes change
  /// until each has eight outputs of one row of x.
  template <class Simt>
  EFFINFER_HOST_DEVICE static void store(Simt& t, const args& a, int first_row, int strip, float (&sum)[Rows / 8][4]) {
    const int g = t.lane() / 4, first_output = strip * strip_rows;
    float scale[2];
    EFFINFER_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int output = first_output + g + 8 * r;
      scale[r] = a.weights.row_scale(output < a.weights.rows ? output : a.weights.rows - 1);
    }
    const bool aligned = reinterpret_cast<std::uintptr_t>(a.out.data) % 16 == 0 && a.out.stride % 8 == 0;
    const int row = first_row + t.lane() % 4 * 2 + g % 2, quarter = g / 2;
    EFFINFER_UNROLL
    for (int j = 0; j < Rows / 8; j += 2) {
      std::uint32_t w[4];  // of eight rows of x and the next, each of the upper eight outputs and the lower
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) {
        const float(&of)[4] = sum[j + i / 2];
        const std::uint32_t mine =
            execution::simt::round_pair<T>(of[i % 2 * 2] * scale[i % 2], of[i % 2 * 2 + 1] * scale[i % 2]);
        const std::uint32_t other = t.shuffle_xor(mine, 4);
        w[i] = g % 2 == 0 ? (mine & 0xffffU) | other << 16 : other >> 16 | (mine & 0xffff0000U);
      }
      execution::simt::transpose_words<8>(t, w);
      const int to_row = row + (j + quarter / 2) * 8, to_output = first_output + quarter % 2 * 8;
      if (to_row >= a.x.rows) continue;
      T* const to = a.out.row(to_row) + to_output;
      if (aligned && to_output + 8 <= a.weights.rows) {
        execution::simt::store_words(to, w);
      } else {
        EFFINFER_UNROLL
        for (int e = 0; e < 8; ++e) {
          if (to_output + e < a.weights.rows) to[e] = T::from_bits(static_cast<std::uint16_t>(w[e / 2] >> e % 2 * 16));
        }
      }
    }
  }
};

/// True of devices that have what these products need.
template <class Weights, class T>
bool has_wgmma(const execution::simt::device_limits& device) {
  return device.wgmma && device.shared_bytes >= wgmma_product<Weights, T, 256>::shared_bytes;
}

template <class Weights, class T>
wgmma_plan plan_wgmma(const matrix_view<const T>& x, const Weights& w, const matrix_view<T>& out,
                      const execution::simt::device_limits& device) {
  const char* const who = "quantization::cuda::plan_wgmma";
  detail::check_product(who, x, w, out);
  wgmma_plan plan;
  std::ptrdiff_t least = 0;
  for (const int rows : {256, 128, 64}) {
    const int tiles = detail::tiles_of(x.rows, rows) * detail::tiles_of(w.rows, detail::wgmma_outputs);
    const std::ptrdiff_t rounds = (tiles + device.multiprocessors - 1) / device.multiprocessors;
    const std::ptrdiff_t cost = rounds * (rows + 96);  // weights are read, and become operands, in any
    if (rows < 256 && cost >= least) continue;
    least = cost;
    plan.tile_rows = rows, plan.blocks = tiles < device.multiprocessors ? tiles : device.multiprocessors;
  }
  if (!device.wgmma) {
    throw error(error_code::unsupported, who,
                "the device isn't of compute capability 9.0, or the program has no code for sm_90a");
  }
  execution::simt::check_shared(who, wgmma_product<Weights, T, 256>::shared_bytes, device);
  return plan;
}

/// Calls start(std::type_identity<Kernel>{}, args) for the kernel of the plan. `make`: simt::make_tensor_map or a device's `map`.
/// Errors: those of `make`; `invalid_argument` (a plan of nobody's).
template <class Weights, class T, class Make, class Start>
void start_wgmma(const wgmma_args<Weights, T>& of, const Make& make, const Start& start) {
  if (of.x.rows == 0) return;
  wgmma_args<Weights, T> a = of;
  a.map = make(execution::simt::box_source{a.x.data, a.x.rows, a.x.columns, a.x.stride, a.plan.tile_rows});
  if constexpr (in_boxes<Weights>)
    a.weights_map = make(execution::simt::box_source{a.weights.data, a.weights.rows, a.weights.columns,
                                                     a.weights.stride, detail::wgmma_outputs});
  switch (a.plan.tile_rows) {
    case 64: return start(std::type_identity<wgmma_product<Weights, T, 64>>(), a);
    case 128: return start(std::type_identity<wgmma_product<Weights, T, 128>>(), a);
    case 256: return start(std::type_identity<wgmma_product<Weights, T, 256>>(), a);
    default:
      throw error(error_code::invalid_argument, "quantization::cuda::start_wgmma",
                  "a plan for tiles of " + std::to_string(a.plan.tile_rows) + " rows");
  }
}

}  // namespace effinfer::inline v0::quantization::cuda
