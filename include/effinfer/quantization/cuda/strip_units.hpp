#pragma once
// What products with few rows have in common: the order in which they sum, and how a warp reads a strip of weights: some units at once, with the
// scales of their groups, into shared memory that only the warp uses, so that much is on its way without a register waiting for it.
//
// The inputs are cut into up to sixteen parts. The sum of a part is one chain of matrix instructions, and parts are added in rising order. As this order
// depends on nothing but the matrix, a row's result doesn't depend on how many rows or blocks there are.

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization::cuda {

inline constexpr int most_parts = 16;

/// Units of each part of a matrix with so many, the last ones aside: whole groups and blocks of any format.
EFFINFER_HOST_DEVICE constexpr int part_units(int units) { return ((units + most_parts - 1) / most_parts + 3) / 4 * 4; }
/// Parts that aren't empty.
EFFINFER_HOST_DEVICE constexpr int parts(int units) { return (units + part_units(units) - 1) / part_units(units); }

namespace detail {

EFFINFER_HOST_DEVICE constexpr int strips_of(int rows) { return (rows + strip_rows - 1) / strip_rows; }

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

/// Where piece q in [0, 8) of a row of a unit of x stands in shared memory: rows take turns in which half comes first, so that the eight lanes that
/// are served at once (two rows, four pieces) find theirs in all banks.
EFFINFER_HOST_DEVICE constexpr int shared_piece(int row, int q) { return row * 8 + (q ^ row % 2 * 4); }

/// load_inputs of half a unit that lies so.
template <int Group, class Shared>
EFFINFER_HOST_DEVICE words load_shared_inputs(Shared x, int row, int half, int c) {
  if constexpr (Group == 16) {
    const words first = x[shared_piece(row, half * 4 + c / 2)], second = x[shared_piece(row, half * 4 + 2 + c / 2)];
    return c % 2 == 0 ? words{{first.w[0], first.w[1], second.w[0], second.w[1]}}
                      : words{{first.w[2], first.w[3], second.w[2], second.w[3]}};
  } else {
    return x[shared_piece(row, half * 4 + c)];
  }
}

/// Units of a strip in the warp's shared memory. They begin at a multiple of Units; groups are whole.
template <class Weights, class T, int Units>
struct strip_units {
  static_assert(Units > 0 && (Weights::group == 0 || Units * unit_inputs % Weights::group == 0));
  /// What they take: pieces, upper bits of codes, runs of scales.
  static constexpr int pieces = Units * Weights::pieces * 32, high = Units * 32 * Weights::high_words;
  static constexpr int halves = Units * Weights::unit_halves * strip_rows;
  static constexpr int bytes = Units * Weights::unit_bytes * strip_rows;
  static constexpr int shared_bytes = pieces * 16 + high * 4 + halves * 2 + bytes;

  /// Where they are: one of `count` places that `memory` has room for.
  template <class Words, class High, class Halves, class Bytes>
  struct place {
    Words raw;
    High high;
    Halves halves;
    Bytes bytes;
    [[nodiscard]] EFFINFER_HOST_DEVICE place at(int i) const {
      return {raw + i * strip_units::pieces, high + i * strip_units::high, halves + i * strip_units::halves,
              bytes + i * strip_units::bytes};
    }
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static auto memory(Simt& t, int count) {
    const auto raw = t.template shared<words>(count * pieces);
    const auto upper = t.template shared<std::uint32_t>(count * high);
    const auto of_halves = t.template shared<f16>(count * halves);
    const auto of_bytes = t.template shared<std::uint8_t>(count * bytes);
    return place<decltype(raw), decltype(upper), decltype(of_halves), decltype(of_bytes)>{raw, upper, of_halves,
                                                                                          of_bytes};
  }

  /// On their way, each piece by the lane that multiplies it. Units from `past` on: nothing.
  template <class Simt, class Place>
  EFFINFER_HOST_DEVICE static void fetch(Simt& t, const Weights& w, int strip, int first, int past, const Place& to) {
    if (first >= past) return;
    const std::byte* base[Weights::piece_bases];
    EFFINFER_UNROLL
    for (int i = 0; i < Weights::piece_bases; ++i)
      base[i] = static_cast<const std::byte*>(w.piece(strip, first, i, t.lane()));
    EFFINFER_UNROLL
    for (int u = 0; u < Units; ++u) {
      if (first + u >= past) continue;
      EFFINFER_UNROLL
      for (int p = 0; p < Weights::pieces; ++p) {
        t.copy_async(to.raw, (u * Weights::pieces + p) * 32 + t.lane(),
                     reinterpret_cast<const words*>(base[p % Weights::piece_bases] + Weights::piece_bytes(u, p)));
      }
    }
    if constexpr (high + halves + bytes > 0) {
      // 16 bytes a copy: of upper bits, of halves of runs of f16, of runs of bytes.
      constexpr int of_high = 8 * Weights::high_words, of_halves = 2 * Weights::unit_halves;
      constexpr int a_unit = of_high + of_halves + Weights::unit_bytes;
      EFFINFER_KEEP_ROLLED
      for (int i = 0; i < (Units * a_unit + 31) / 32; ++i) {
        const int at = i * 32 + t.lane(), u = at / a_unit, k = at % a_unit;
        if (u >= Units || first + u >= past) continue;
        if (k < of_high) {
          if constexpr (high > 0)
            t.copy_async(to.high, u * 32 * Weights::high_words + k * 4, w.high_place(strip, first + u, 0) + k * 4);
        } else if (k < of_high + of_halves) {
          const int run = (k - of_high) / 2, part = (k - of_high) % 2 * 8;
          const f16* const from = w.halves(strip, first + u, run);
          if (from != nullptr)
            t.copy_async(to.halves, (u * Weights::unit_halves + run) * strip_rows + part, from + part);
        } else {
          const int run = k - of_high - of_halves;
          const std::uint8_t* const from = w.bytes(strip, first + u, run);
          if (from != nullptr) t.copy_async(to.bytes, (u * Weights::unit_bytes + run) * strip_rows, from);
        }
      }
    }
  }

  /// Sums over a part's inputs, and over a group's before they are scaled, as the fragments of mma lie.
  template <int Tiles>
  struct sums {
    float sum[Tiles][4];
    float part[Weights::group > 0 ? Tiles : 1][4];
    std::uint32_t centers[2];  // of the group that is being summed
    EFFINFER_HOST_DEVICE void clear() {
      centers[0] = centers[1] = 0;
      EFFINFER_UNROLL
      for (int i = 0; i < Tiles * 4; ++i) sum[i / 4][i % 4] = 0;
      EFFINFER_UNROLL
      for (int i = 0; i < (Weights::group > 0 ? Tiles : 1) * 4; ++i) part[i / 4][i % 4] = 0;
    }
  };

  /// Adds the products of unit u of those from `first` on. `inputs`(tile, half): the lane's words of 32 inputs, of the rows of x whose tile it is.
  template <int Tiles, class Simt, class Place, class Inputs>
  EFFINFER_HOST_DEVICE static void add(Simt& t, const Weights& w, int strip, int first, int u, const Place& from,
                                       const Inputs& inputs, sums<Tiles>& to) {
    const int row = t.lane() / 4;
    const auto run_halves = from.halves + u * Weights::unit_halves * strip_rows;
    const auto run_bytes = from.bytes + u * Weights::unit_bytes * strip_rows;
    words raw[Weights::pieces];
    EFFINFER_UNROLL
    for (int p = 0; p < Weights::pieces; ++p) raw[p] = from.raw[(u * Weights::pieces + p) * 32 + t.lane()];
    std::uint32_t upper[Weights::high_words + 1] = {};
    EFFINFER_UNROLL
    for (int i = 0; i < Weights::high_words; ++i) upper[i] = from.high[(u * 32 + t.lane()) * Weights::high_words + i];
    const std::uint32_t one = pair_of<T>(1.0F), ones[4] = {one, one, one, one};  // times inputs: their sum
    EFFINFER_UNROLL
    for (int half = 0; half < 2; ++half) {
      if constexpr (Tiles > 2) t.warp_barrier();  // there are no registers to begin with the next inputs
      std::uint32_t a[2][4];
      if constexpr (Weights::group > 0) {
        if (Weights::group <= 32 || (u % 2 * 64 + half * 32) % Weights::group == 0) {
          to.centers[0] = w.template center_in<T>(run_bytes, half, row);
          to.centers[1] = w.template center_in<T>(run_bytes, half, row + 8);
        }
      }
      EFFINFER_UNROLL
      for (int j = 0; j < 2; ++j) Weights::template unpack<T>(raw, upper, half * 2 + j, to.centers, a[j]);
      // What a group's sums are multiplied with, where one ends within these inputs.
      constexpr int groups = Weights::group == 16 ? 2 : 1;
      constexpr int group = Weights::group > 0 ? Weights::group : 1;
      const bool ends = Weights::group > 0 && (u % 2 * 64 + half * 32 + 32) % group == 0;
      float scale[groups][2] = {}, minimum[2] = {};
      if (ends) {
        EFFINFER_UNROLL
        for (int i = 0; i < groups * 2; ++i) {
          if constexpr (Weights::group > 0)
            scale[i / 2][i % 2] =
                w.scale_in(strip, first + u, run_halves, run_bytes, groups * half + i / 2, row + i % 2 * 8);
        }
        if constexpr (Weights::may_have_minimum) {
          if (w.minimums != nullptr) {
            minimum[0] = w.minimum_in(run_halves, run_bytes, half, row);
            minimum[1] = w.minimum_in(run_halves, run_bytes, half, row + 8);
          }
        }
      }
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        if constexpr (Tiles > 4) {
          if (tile % 4 == 0) t.warp_barrier();
        }
        const words x = inputs(tile, half);
        float of_inputs[4] = {};
        EFFINFER_UNROLL
        for (int j = 0; j < 2; ++j) {
          const std::uint32_t column[2] = {x.w[j * 2], x.w[j * 2 + 1]};
          if constexpr (Weights::group > 0) {
            t.mma(to.part[tile], a[j], column, T{});
          } else {
            t.mma(to.sum[tile], a[j], column, T{});
          }
          if constexpr (Weights::may_have_minimum) {
            if (w.minimums != nullptr) t.mma(of_inputs, ones, column, T{});
          }
          if (ends && (groups == 2 || j == 1)) scale_group(to, tile, scale[groups == 2 ? j : 0]);
        }
        if constexpr (Weights::may_have_minimum) {
          if (w.minimums == nullptr) continue;
          EFFINFER_UNROLL
          for (int i = 0; i < 4; ++i) to.sum[tile][i] = std::fma(of_inputs[i], minimum[i / 2], to.sum[tile][i]);
        }
      }
    }
  }

 private:
  static_assert(!Weights::may_have_minimum || Weights::group == 32);

  template <int Tiles>
  EFFINFER_HOST_DEVICE static void scale_group(sums<Tiles>& to, int tile, const float (&scale)[2]) {
    if constexpr (Weights::group > 0) {
      EFFINFER_UNROLL
      for (int i = 0; i < 4; ++i) {
        to.sum[tile][i] = std::fma(to.part[tile][i], scale[i / 2], to.sum[tile][i]);
        to.part[tile][i] = 0;
      }
    }
  }
};

}  // namespace detail
}  // namespace effinfer::inline v0::quantization::cuda
