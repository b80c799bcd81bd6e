#pragma once
// What products with few rows have in common: the order in which they sum, and how a warp reads a strip of weights: some units at once, with the
// scales of their groups, into shared memory that only the warp uses, so that much is on its way without a register waiting for it.
//
// The inputs are cut into up to sixteen parts. The sum of a part is one chain of matrix instructions, and parts are added in rising order. As this order
// depends on nothing but the matrix, a row's result doesn't depend on how many rows or blocks there are.

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/settled.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

inline constexpr int most_parts = 16;

/// Units of each part of a matrix with so many, the last ones aside: whole groups and blocks of any format.
EFFINFER_HOST_DEVICE constexpr int part_units(int units) { return ((units + most_parts - 1) / most_parts + 3) / 4 * 4; }
/// Parts that aren't empty.
EFFINFER_HOST_DEVICE constexpr int parts(int units) { return (units + part_units(units) - 1) / part_units(units); }

namespace detail {

EFFINFER_HOST_DEVICE constexpr int strips_of(int rows) { return (rows + strip_rows - 1) / strip_rows; }

/// Where the inputs begin that lane c of four multiplies in two steps, of 32: 8 c and on; for groups of 16 the first step has the first 16 of
/// them, 4 c and on, and the second the rest.
template <int Group>
EFFINFER_HOST_DEVICE constexpr int first_input(int c) {
  return Group == 16 ? c * 4 : c * 8;
}
/// The inputs, from the lane's first one on.
template <int Group, class T>
EFFINFER_HOST_DEVICE words load_inputs(const T* from) {
  if constexpr (Group == 16) {
    const auto first = load_words<word_pair>(from), second = load_words<word_pair>(from + 16);
    return {{first.w[0], first.w[1], second.w[0], second.w[1]}};
  } else {
    return load_words(from);
  }
}

/// Where piece q in [0, 8) of a row of a unit of x stands in shared memory: rows take turns in which half comes first, so that the eight lanes that
/// are served at once (two rows, four pieces) find theirs in all banks.
EFFINFER_HOST_DEVICE constexpr int shared_piece(int row, int q) { return row * 8 + (q ^ row % 2 * 4); }

/// What load_inputs loads, of half a unit that lies so.
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

/// Units of a strip in the warp's shared memory. They begin at a multiple of Units; groups are whole. Finds: what scales small groups is found once,
/// instead of by each lane that multiplies.
template <class Weights, class T, int Units, bool Finds>
struct strip_units {
  static_assert(Units > 0 && (Weights::group == 0 || Units * unit_inputs % Weights::group == 0));
  /// Units of whole groups, which are multiplied together.
  static constexpr int span = Weights::group > unit_inputs ? Weights::group / unit_inputs : 1;
  static constexpr int groups = Weights::group == 0 ? 0 : Units * unit_inputs / Weights::group;
  /// Runs that a group has, of scales and of minimums.
  static constexpr int kinds = Weights::may_have_minimum ? 2 : 1;
  static constexpr int half_kinds = Weights::unit_halves > 0 ? kinds : 0,
                       byte_kinds = Weights::unit_bytes > 0 ? kinds : 0;
  static constexpr bool always_wide = requires { requires Weights::always_wide; };
  /// What they take: pieces, upper bits of codes, runs of scales.
  static constexpr int pieces = Units * Weights::pieces * 32, high = Units * 32 * Weights::high_words;
  static constexpr int halves = half_kinds * (always_wide ? 1 : groups) * strip_rows,
                       bytes = byte_kinds * groups * strip_rows;
  static constexpr int shared_words = (pieces * 16 + high * 4 + halves * 2 + bytes) / 16;
  static constexpr bool has_zeros = requires(Weights w) { w.zeros; };
  /// Of a group, for rows r and r + 8: scales, and where there may be some minimums or centers.
  using factor = std::conditional_t<has_zeros || Weights::may_have_minimum, words, word_pair>;
  /// And factors, where they are found once (find_factors): four lanes need each.
  static constexpr int factors = Finds && Weights::group > 0 && Weights::group <= unit_inputs ? groups * 8 : 0;
  static constexpr int factor_words = factors * static_cast<int>(sizeof(factor)) / 16;

  static_assert(2 * kinds * groups <= 32, "a lane brings 16 bytes of the runs");
  /// Runs of a kind: a wide scale is all groups'.
  EFFINFER_HOST_DEVICE static int runs(const Weights& w) { return w.is_wide() ? 1 : groups; }

  /// Where they are: `shared_words` of shared memory, one thing behind the other, so that one address finds them all.
  template <class Words, class High, class Halves, class Bytes>
  struct place {
    Words raw;
    High high;
    Halves halves;
    Bytes bytes;
  };
  template <class Simt, class Words>
  EFFINFER_HOST_DEVICE static auto place_at(const Simt& t, const Words& raw) {
    const auto upper = t.template as<std::uint32_t>(raw + pieces);
    const auto of_halves = t.template as<f16>(raw + (pieces + high / 4));
    const auto of_bytes = t.template as<std::uint8_t>(raw + (pieces + high / 4 + halves / 8));
    return place<Words, decltype(upper), decltype(of_halves), decltype(of_bytes)>{raw, upper, of_halves, of_bytes};
  }

  /// f(u) for each `span` units from u on, of those that begin at `first` and end before `past`. With Whole for all at once, but at a part's end: it
  /// takes more registers.
  template <bool Whole, class F>
  EFFINFER_HOST_DEVICE static void for_units(int first, int past, const F& f) {
    if (Units == span || (Whole && first + Units <= past)) {
      EFFINFER_UNROLL
      for (int u = 0; u < Units; u += span) f(u);
    } else {
      EFFINFER_KEEP_ROLLED
      for (int u = 0; u < past - first && u < Units; u += span) f(u);
    }
  }

  /// What a lane brings of the runs of every strip: 16 bytes of those of a kind.
  struct share {
    const f16* halves;  ///< of the first strip
    const std::uint8_t* bytes;
    int half, byte;  ///< which 16 bytes of those that a place has; none: more than there are
  };
  template <class Simt>
  EFFINFER_HOST_DEVICE static share share_of(const Simt& t, const Weights& w) {
    constexpr int none = 1 << 16;
    share s{nullptr, nullptr, none, none};
    if constexpr (halves > 0) {
      const int each = 2 * runs(w), kind = t.lane() / each;
      const f16* const from = kind < kinds ? w.halves(0, 0, kind * (Weights::unit_halves / kinds)) : nullptr;
      if (from != nullptr) s.half = t.lane() - kind * each, s.halves = from + s.half * 8;
    }
    if constexpr (bytes > 0) {
      const int kind = t.lane() / groups;
      const std::uint8_t* const from = kind < kinds ? w.bytes(0, 0, kind * (Weights::unit_bytes / kinds)) : nullptr;
      if (from != nullptr) s.byte = t.lane() - kind * groups, s.bytes = from + s.byte * 16;
    }
    return s;
  }

  /// What never comes to a place: zeros where there are none to bring. All lanes call it, and a barrier follows.
  template <class Simt, class Words>
  EFFINFER_HOST_DEVICE static void fill(const Simt& t, const Weights& w, const Words& at) {
    if constexpr (has_zeros) {
      if (w.zeros != nullptr) return;
      const auto to = place_at(t, at).bytes;
      for (int i = t.lane(); i < bytes; i += 32) to[i] = 8;
    }
  }

  /// On their way, each piece by the lane that multiplies it. `first` is there, units from `past` on are not. `lanes`: a place, but as many words on as
  /// the lane's number, since a lane brings 16 bytes of whatever it is, next to those of the lane before.
  template <class Simt, class Words>
  EFFINFER_HOST_DEVICE static void fetch(Simt& t, const Weights& w, const share& of, int strip, int first, int past,
                                         const Words& lanes) {
    const auto to = place_at(t, lanes);
    const int lane = t.lane(), there = past - first < Units ? past - first : Units;
    const std::byte* base[Weights::piece_bases];
    EFFINFER_UNROLL
    for (int i = 0; i < Weights::piece_bases; ++i)
      base[i] = keep(static_cast<const std::byte*>(w.piece(strip, first, i, lane)));
    EFFINFER_UNROLL
    for (int i = 0; i < Units * Weights::pieces; ++i) {
      const int u = i / Weights::pieces, p = i % Weights::pieces;
      const std::byte* const from = base[p % Weights::piece_bases] + Weights::piece_bytes(u, p);
      if (u == 0 || u < there) t.copy_async(to.raw, i * 32, reinterpret_cast<const words*>(from));
    }
    if constexpr (high > 0) {
      const std::uint32_t* const from = keep(w.high_place(strip, first, 0) + lane * 4);
      EFFINFER_UNROLL
      for (int i = 0; i < high / 4; i += 32)
        if (is_there<128 * Weights::high_words>(i + lane, there)) t.copy_async(to.high, i * 4, from + i * 4);
    }
    if constexpr (halves + bytes > 0) {
      constexpr int a_unit = unit_inputs * strip_rows / Weights::group;  // elements
      const int at = strip * units_across(w.columns) + first;
      if constexpr (kinds == 1 && !Weights::may_be_wide) {
        // What the lane's share is, is found anew: it would take registers.
        if (is_there<a_unit * 2>(lane, there)) t.copy_async(to.halves, 0, w.halves(0, 0, 0) + (at * a_unit + lane * 8));
        if constexpr (bytes > 0) {
          if (w.bytes(0, 0, 0) != nullptr && is_there<a_unit>(lane, there))
            t.copy_async(to.bytes, 0, w.bytes(0, 0, 0) + (at * a_unit + lane * 16));
        }
      } else {
        if (w.is_wide() ? of.half < 2 : is_there<a_unit * 2>(of.half, there))
          t.copy_async(to.halves, 0, of.halves + (w.is_wide() ? at / 4 * strip_rows : at * a_unit));
        if constexpr (bytes > 0) {
          if (is_there<a_unit>(of.byte, there)) t.copy_async(to.bytes, 0, of.bytes + at * a_unit);
        }
      }
    }
  }

  /// Of group g of a place, for rows `row` and 8 below it.
  template <class Place>
  EFFINFER_HOST_DEVICE static factor factor_of(const Weights& w, int strip, int unit, const Place& from, int g,
                                               int row) {
    factor f{};
    EFFINFER_UNROLL
    for (int r = 0; r < 2; ++r) {
      f.w[r] = std::bit_cast<std::uint32_t>(w.scale_in(strip, unit, from.halves, from.bytes, g, row + 8 * r));
      if constexpr (has_zeros)
        f.w[2 + r] = w.template center<T>(static_cast<std::uint8_t>(from.bytes[g * strip_rows + row + 8 * r]));
      if constexpr (Weights::may_have_minimum) {
        if (w.minimums != nullptr) {
          f.w[2 + r] = std::bit_cast<std::uint32_t>(
              w.minimum_in(from.halves + runs(w) * strip_rows, from.bytes + groups * strip_rows, g, row + 8 * r));
        }
      }
    }
    return f;
  }

  /// The factors of a place's groups, where they are small: once, as four lanes need each. Copies have arrived; all lanes call it.
  template <class Simt, class Place, class Factors>
  EFFINFER_HOST_DEVICE static void find_factors(Simt& t, const Weights& w, int first, int past, const Place& from,
                                                const Factors& to) {
    if constexpr (factors > 0) {
      const int lane = t.lane(), there = (past - first) * (unit_inputs * 8 / Weights::group);
      factor found[(factors + 31) / 32];
      EFFINFER_UNROLL
      for (int i = 0; i < factors; i += 32) {
        if (i + lane < there && i + lane < factors) found[i / 32] = factor_of(w, 0, 0, from, (i + lane) / 8, lane % 8);
      }
      EFFINFER_UNROLL
      for (int i = 0; i < factors; i += 32)
        if (i + lane < there && i + lane < factors) to[i + lane] = found[i / 32];
      t.warp_barrier();
    }
  }

  /// Sums over a part's inputs, as the fragments of mma lie.
  template <int Tiles>
  struct sums {
    float sum[Tiles][4];
    EFFINFER_HOST_DEVICE void clear() {
      EFFINFER_UNROLL
      for (int i = 0; i < Tiles * 4; ++i) sum[i / 4][i % 4] = 0;
    }
  };

  /// Adds the products of `span` units from u on of those from `first` on. `inputs`(u, tile, half): the lane's words of 32 inputs of unit u, of the rows
  /// of x whose tile it is.
  template <int Tiles, class Simt, class Place, class Factors, class Inputs>
  EFFINFER_HOST_DEVICE static void add(Simt& t, const Weights& w, int strip, int first, int u, const Place& from,
                                       const Factors& found, const Inputs& inputs, sums<Tiles>& to) {
    constexpr int group = Weights::group > 0 ? Weights::group : 1;
    const auto factor_at = [&](int unit, int g) {
      if constexpr (factors > 0) {
        return static_cast<factor>(found[g * 8 + t.lane() / 4]);
      } else if constexpr (Weights::group > 0) {
        return factor_of(w, strip, first + unit, from, g, t.lane() / 4);
      }
    };
    words raw[Weights::pieces];
    std::uint32_t upper[Weights::high_words + 1] = {}, centers[2] = {};
    float part[Tiles][4] = {};                                                   // of a group, before it is scaled
    const std::uint32_t one = pair_of<T>(1.0F), ones[4] = {one, one, one, one};  // times inputs: their sum
    EFFINFER_UNROLL
    for (int i = 0; i < span * 2; ++i) {
      const int unit = u + i / 2, half = i % 2, g = u * unit_inputs / group + i * 32 / group;
      if (half == 0) {
        EFFINFER_UNROLL
        for (int p = 0; p < Weights::pieces; ++p) raw[p] = from.raw[(unit * Weights::pieces + p) * 32 + t.lane()];
        EFFINFER_UNROLL
        for (int h = 0; h < Weights::high_words; ++h)
          upper[h] = from.high[(unit * 32 + t.lane()) * Weights::high_words + h];
      }
      if constexpr (Tiles > 2) t.warp_barrier();  // there are no registers to begin with the next inputs
      if constexpr (Weights::group > 0) {
        if (i * 32 % group == 0) {
          EFFINFER_UNROLL
          for (int r = 0; r < 2; ++r) {
            if constexpr (has_zeros) {
              centers[r] = factor_at(unit, g).w[2 + r];
            } else {
              centers[r] = w.template center_of<T>(0, 0, 0);
            }
          }
        }
      }
      std::uint32_t a[2][4];
      EFFINFER_UNROLL
      for (int j = 0; j < 2; ++j) Weights::template unpack<T>(raw, upper, half * 2 + j, centers, a[j]);
      // What a group's sums are multiplied with, where one ends within these inputs.
      constexpr int within = Weights::group == 16 ? 2 : 1;
      const bool ends = Weights::group > 0 && (i + 1) * 32 % group == 0;
      float scale[within][2] = {}, minimum[2] = {};
      if constexpr (Weights::group > 0) {
        EFFINFER_UNROLL
        for (int s = 0; ends && s < within; ++s) {
          const factor f = factor_at(unit, g + s);
          EFFINFER_UNROLL
          for (int r = 0; r < 2; ++r) {
            scale[s][r] = std::bit_cast<float>(f.w[r]);
            if constexpr (Weights::may_have_minimum) minimum[r] = std::bit_cast<float>(f.w[2 + r]);
          }
        }
      }
      EFFINFER_UNROLL
      for (int tile = 0; tile < Tiles; ++tile) {
        if constexpr (Tiles > 4) {
          if (tile % 4 == 0) t.warp_barrier();
        }
        const words x = inputs(unit, tile, half);
        float of_inputs[4] = {};
        EFFINFER_UNROLL
        for (int j = 0; j < 2; ++j) {
          const std::uint32_t column[2] = {x.w[j * 2], x.w[j * 2 + 1]};
          t.mma(Weights::group > 0 ? part[tile] : to.sum[tile], a[j], column, T{});
          if constexpr (Weights::may_have_minimum) {
            if (w.minimums != nullptr) t.mma(of_inputs, ones, column, T{});
          }
          const bool scales = ends && (within == 2 || j == 1);
          EFFINFER_UNROLL
          for (int e = 0; scales && e < 4; ++e) {
            to.sum[tile][e] = std::fma(part[tile][e], scale[within == 2 ? j : 0][e / 2], to.sum[tile][e]);
            part[tile][e] = 0;
          }
        }
        if constexpr (Weights::may_have_minimum) {
          if (w.minimums == nullptr) continue;
          EFFINFER_UNROLL
          for (int e = 0; e < 4; ++e) to.sum[tile][e] = std::fma(of_inputs[e], minimum[e / 2], to.sum[tile][e]);
        }
      }
    }
  }

 private:
  static_assert(!Weights::may_have_minimum || Weights::group == 32);

  /// Whether 16 bytes number i belong to `units` units of so many bytes.
  template <int Bytes>
  EFFINFER_HOST_DEVICE static bool is_there(int i, int units) {
    return Bytes >= 16 ? i < units * (Bytes / 16) : i * (16 / Bytes) < units;
  }
};

}  // namespace detail
}  // namespace effinfer::inline v0::quantization::cuda
