#pragma once
// The blocks of GGUF files as the products of a GPU read them: every bit is kept, in another order.
//
// Codes of 4, 5 and 6 bits have their lower four as int4_weights do, and the upper ones apart, so that unpacking stays a mask and an addition;
// codes of 8 bits lie as int8_weights'. What scales them is f16 for 32 inputs, or as in the K formats f16 for 256 inputs times 6 or 8 bits
// for 32 or 16: products multiply the two in float, which is exact.
//
// Groups of 16 (Q6_K) are one matrix instruction each, so in these the first of the two instructions for 32 inputs takes the first 16 of them.
//
//   bits a weight: Q8_0 8.5, Q4_0 4.5, Q4_1 5, Q5_0 5.5, Q5_1 6, Q4_K 4.625, Q5_K 5.625, Q6_K 6.5625

#include <effinfer/core/config.hpp>
#include <effinfer/core/dtype.hpp>
#include <effinfer/quantization/cuda/weights.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::quantization::cuda {

/// w = scale * (code - offset) + minimum with codes of Bits bits; packed by pack_blocks, rows filled up to whole strips with scales of zero.
///
/// Exact: value() is bit for bit what the formats of quantization/format decode to; in products code - offset, scale and minimum are exact,
/// and the sums are in float.
template <int Bits>
struct block_weights {
  static_assert(Bits == 4 || Bits == 5 || Bits == 6 || Bits == 8);
  static constexpr int bits = Bits;
  static constexpr int pieces = Bits == 8 ? 2 : 1;
  static constexpr int high_words = Bits == 8 ? 0 : Bits - 4;
  static constexpr int group = Bits == 6 ? 16 : 32;
  static constexpr int unit_groups = unit_inputs / group;
  static constexpr bool may_have_minimum = Bits < 6;
  /// Runs of a unit: the scales, then the minimums; the same of the codes that scale them.
  static constexpr int unit_halves = Bits == 6 ? 1 : Bits == 8 ? 2 : 4;
  static constexpr int unit_bytes = Bits == 8 ? 0 : 4;
  template <class X>
  static constexpr bool multiplies = std::is_same_v<X, bf16> || std::is_same_v<X, f16>;

  const words* units = nullptr;                 ///< [strips][columns / 64][pieces][32]
  const std::uint32_t* high = nullptr;          ///< [strips][columns / 64][32][high_words]
  const f16* scales = nullptr;                  ///< [strips][columns / scale_inputs()][16]
  const f16* minimums = nullptr;                ///< the same shape; null: there are none
  const std::uint8_t* scale_codes = nullptr;    ///< [strips][columns / group][16], signed with 6 bits; null: 1
  const std::uint8_t* minimum_codes = nullptr;  ///< the same shape, where there are scale_codes and minimums
  int offset = 0;                               ///< of codes below 8 bits, which are unsigned
  bool wide = always_wide;                      ///< a scale is 256 inputs', else a group's
  int rows = 0, columns = 0;

  static constexpr bool may_be_wide = Bits < 8, always_wide = Bits == 6;
  /// A group's scale is a code times that of 256 inputs.
  [[nodiscard]] EFFINFER_HOST_DEVICE bool is_wide() const { return always_wide || wide; }
  /// f(these weights) for each kind that formats of so many bits have: compiled for it, it asks of none what kind it is.
  template <class F>
  EFFINFER_HOST_DEVICE void as_known(const F& f) const {
    block_weights known = *this;
    if constexpr (may_have_minimum) {
      if (minimums == nullptr) {
        known.wide = false, known.minimums = nullptr;
        f(known);
      } else if (wide) {
        known.wide = true;
        f(known);
      } else {
        known.wide = false;
        f(known);
      }
    } else {
      known.wide = always_wide;
      f(known);
    }
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE int scale_inputs() const { return is_wide() ? 256 : 32; }

  EFFINFER_HOST_DEVICE const void* piece(int strip, int unit, int p, int lane) const {
    return units + word_of(strip * units_across(columns) + unit, pieces, p * 32 + lane);
  }
  static constexpr int piece_bases = 1;
  EFFINFER_HOST_DEVICE static constexpr int piece_bytes(int u, int p) { return (u * pieces + p) * 512; }
  [[nodiscard]] EFFINFER_HOST_DEVICE const std::uint32_t* high_place(int strip, int unit, int lane) const {
    return high + (std::ptrdiff_t{strip * units_across(columns) + unit} * 32 + lane) * high_words;
  }
  /// The lane's upper bits of a unit, read once.
  EFFINFER_HOST_DEVICE void load_high(int strip, int unit, int lane, std::uint32_t* to) const {
    const std::uint32_t* const from = high_place(strip, unit, lane);
#if defined(__CUDA_ARCH__)
    if constexpr (high_words == 1) {
      asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(to[0]) : "l"(from));
    } else if constexpr (high_words == 2) {
      asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "l"(from));
    }
#else
    for (int i = 0; i < high_words; ++i) to[i] = from[i];
#endif
  }

  /// The A operand of step j in [0, 4) of a unit: codes less their offset.
  template <class X>
  EFFINFER_HOST_DEVICE static void unpack(const words* raw, const std::uint32_t* high, int j,
                                          const std::uint32_t* centers, std::uint32_t (&a)[4]) {
    if constexpr (Bits == 8) {
      (void)high;
      int8_weights::unpack<X>(raw, nullptr, j, centers, a);
    } else {
      EFFINFER_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int w = j / 2 * 2 + r;
        EFFINFER_UNROLL
        for (int k = 0; k < 2; ++k) {
          const std::uint32_t low = and_or(raw->w[w] >> (j % 2 * 8 + k * 4), 0x000f000fU, integer_base_bits<X>);
          a[r + 2 * k] = add_pairs<X>(low | upper_bits(high, w * 4 + j % 2 * 2 + k), centers[r]);
        }
      }
    }
  }
  /// What is added to an unpacked code, twice.
  template <class X>
  [[nodiscard]] EFFINFER_HOST_DEVICE std::uint32_t center_of(int /*strip*/, int /*g*/, int /*row*/) const {
    return minus_integer<X>(offset);
  }
  EFFINFER_HOST_DEVICE float scale(int strip, int g, int row) const {
    return product_of(scales, scale_codes, strip, g, row);
  }
  EFFINFER_HOST_DEVICE float minimum(int strip, int g, int row) const {
    return product_of(minimums, minimum_codes, strip, g, row);
  }
  EFFINFER_HOST_DEVICE float row_scale(int) const { return 1; }

  /// As int4_weights': runs that products bring to shared memory, and what they read there. `g`: the group within those of the runs, where a wide
  /// scale is one for all.
  [[nodiscard]] EFFINFER_HOST_DEVICE const f16* halves(int strip, int unit, int i) const {
    const f16* const of = i < half_runs ? scales : minimums;
    const int run = i % half_runs;
    if (of == nullptr || (is_wide() && run > 0)) return nullptr;
    return of + half_place(strip, unit * unit_groups + run * (unit_groups / half_runs));
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE const std::uint8_t* bytes(int strip, int unit, int i) const {
    const std::uint8_t* const of = i < unit_groups ? scale_codes : minimum_codes;
    return of == nullptr ? nullptr : of + code_place(strip, unit * unit_groups + i % unit_groups);
  }
  template <class Halves, class Bytes>
  EFFINFER_HOST_DEVICE float scale_in(int, int, Halves of_halves, Bytes of_bytes, int g, int row) const {
    return product_in(of_halves, of_bytes, g, row);
  }
  template <class Halves, class Bytes>
  EFFINFER_HOST_DEVICE float minimum_in(Halves of_halves, Bytes of_bytes, int g, int row) const {
    return product_in(of_halves, of_bytes, g, row);
  }
  template <class X, class Bytes>
  EFFINFER_HOST_DEVICE std::uint32_t center_in(Bytes, int, int) const {
    return center_of<X>(0, 0, 0);
  }

  static constexpr float middle = 1 << (Bits - 1);  ///< of unsigned codes' range
  /// What scales the codes of a unit's groups, spread over four lanes: lane c has what belongs to group c of rows lane / 4 and 8 below it; where
  /// there may be minimums, the scales of two groups and then their minimums.
  static constexpr int lane_values = may_have_minimum ? 2 * unit_groups : unit_groups;
  struct lane_scales {
    f16 half[2];
    std::uint8_t code[2];
  };
  /// Where the lane's are, of a strip's first unit. Codes null: there are none.
  struct lane_places {
    const f16* half;
    const std::uint8_t* code;
  };
  [[nodiscard]] EFFINFER_HOST_DEVICE lane_places find_scales(int strip, int lane) const {
    const int c = lane % lane_values, g = c % unit_groups;
    const bool minimum = c >= unit_groups && minimums != nullptr;
    lane_places to{(minimum ? minimums : scales) + half_place(strip, g) + lane / 4, nullptr};
    if (Bits < 8 && scale_codes != nullptr)
      to.code = (minimum ? minimum_codes : scale_codes) + code_place(strip, g) + lane / 4;
    return to;
  }
  EFFINFER_HOST_DEVICE void load_scales(const lane_places& from, int unit, lane_scales& to) const {
    const f16* const half = from.half + (is_wide() ? unit / (256 / unit_inputs) : unit * unit_groups) * strip_rows;
    to.half[0] = half[0], to.half[1] = half[8];
    if (Bits == 8 || from.code == nullptr) return;
    const std::uint8_t* const code = from.code + unit * (unit_groups * strip_rows);
    to.code[0] = code[0], to.code[1] = code[8];
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE float lane_value(const lane_scales& of, int lower) const {
    const auto d = static_cast<float>(of.half[lower]);
    if constexpr (Bits == 8) return d;
    return scale_codes == nullptr ? d : d * code_value(of.code[lower]);
  }

  /// Where a code stands in the lane's share of a unit.
  struct code_place_of {
    int lane, piece, word, shift;  ///< of its lower four bits, or of all eight
    int high_word, high_shift;     ///< of the others
  };
  EFFINFER_HOST_DEVICE static constexpr code_place_of place(int row, int column) {
    const int block = column % unit_inputs / 32, within = column % 32;
    const int c = group == 16 ? within % 16 / 4 : within / 8,
              i = group == 16 ? within / 16 * 4 + within % 4 : within % 8;
    const int lane = row % 8 * 4 + c, lower = row % strip_rows / 8;
    if (Bits == 8) return {lane, block, lower * 2 + i / 4, i % 4 / 2 * 8 + i % 2 * 16, 0, 0};
    const int word = block * 2 + lower, pair = word * 4 + i / 2, others = high_words > 0 ? high_words : 1;
    return {lane, 0, word, i / 2 * 4 + i % 2 * 16, pair / (16 / others), pair % (16 / others) * others + i % 2 * 16};
  }
  /// The weight itself.
  [[nodiscard]] EFFINFER_HOST_DEVICE float value(int row, int column) const {
    const int strip = row / strip_rows, unit = column / unit_inputs, r = row % strip_rows, g = column / group;
    const auto at = place(row, column);
    const std::uint32_t raw = static_cast<const words*>(piece(strip, unit, at.piece, at.lane))->w[at.word] >> at.shift;
    int code = static_cast<int>(raw & 15U);
    if constexpr (Bits == 8) {
      code = static_cast<int>((raw & 255U) ^ 128U) - 128;
    } else if constexpr (high_words > 0) {
      const std::uint32_t upper = high_place(strip, unit, at.lane)[at.high_word] >> at.high_shift;
      code |= static_cast<int>(upper & ((1U << high_words) - 1)) << 4;
    }
    const float product = scale(strip, g, r) * static_cast<float>(code - offset);
    return minimums == nullptr ? product : product + minimum(strip, g, r);
  }

 private:
  static constexpr int half_runs = may_have_minimum ? unit_halves / 2 : unit_halves;  // of scales

  /// Bits 4 and up of pair p of sixteen, where they are added to its lower four.
  EFFINFER_HOST_DEVICE static std::uint32_t upper_bits(const std::uint32_t* high, int p) {
    if constexpr (high_words == 0) {
      return (void)high, (void)p, 0;
    } else {
      constexpr int a_word = 16 / high_words;
      constexpr std::uint32_t mask = high_words == 1 ? 0x00100010U : 0x00300030U;
      const int shift = p % a_word * high_words - 4;
      return (shift < 0 ? high[p / a_word] << -shift : high[p / a_word] >> shift) & mask;
    }
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE std::ptrdiff_t half_place(int strip, int g) const {
    return is_wide() ? std::ptrdiff_t{strip * (columns / 256) + g / (256 / group)} * strip_rows
                     : std::ptrdiff_t{strip * (columns / 32) + g} * strip_rows;
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE std::ptrdiff_t code_place(int strip, int g) const {
    return std::ptrdiff_t{strip * (columns / group) + g} * strip_rows;
  }
  EFFINFER_HOST_DEVICE static float code_value(std::uint8_t code) {
    return Bits == 6 ? static_cast<float>(static_cast<std::int8_t>(code)) : static_cast<float>(code);
  }
  EFFINFER_HOST_DEVICE float product_of(const f16* of, const std::uint8_t* codes, int strip, int g, int row) const {
    const auto d = static_cast<float>(of[half_place(strip, g) + row]);
    if constexpr (Bits == 8) {
      return d;
    } else {
      return codes == nullptr ? d : d * code_value(codes[code_place(strip, g) + row]);
    }
  }
  template <class Halves, class Bytes>
  EFFINFER_HOST_DEVICE float product_in(Halves of_halves, Bytes of_bytes, int g, int row) const {
    const auto d = static_cast<float>(static_cast<f16>(of_halves[(is_wide() ? 0 : g) * strip_rows + row]));
    if constexpr (Bits == 8) {
      return (void)of_bytes, d;
    } else {
      return is_wide() ? d * code_value(static_cast<std::uint8_t>(of_bytes[g * strip_rows + row])) : d;
    }
  }
};

}  // namespace effinfer::inline v0::quantization::cuda
