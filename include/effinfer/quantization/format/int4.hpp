#pragma once
// int4, ours: 4-bit codes in groups of G = 32, 64 or 128 input columns, each with a scale and a minimum in f16.
// w[r][i] = d[g] * q[i] + m[g], q in [0, 15], g = i / G.
// Layout of a row: the codes, 32 bytes for 64 columns, of which the low nibbles are the first 32 (columns
// are rounded up to 64); then f16 d[columns / G]; then f16 m[columns / G]. Bits a weight: 4 + 32 / G.
//
// Encoding minimises the squared error of a group: from two starting ranges, codes are rounded to nearest and
// (d, m) refitted to them by least squares, with d and m as they round to f16; the best of 12 trials is kept. A minimum rather than
// a zero point in the codes, since it costs the same two f16 a group and fits better.

#include <effinfer/quantization/format/block_format.hpp>

namespace effinfer::inline v0::quantization::format {

struct int4 {
  static constexpr weight_format name = weight_format::int4;
  static constexpr bool is_float = false;
  using codes = codes_4_bit;
  using scales = scale_a_block<true, 128>;
  static constexpr int code_offset = 0;
  static int scale_columns(const packed_matrix& w) { return w.group; }

  static const std::byte* group_scales(const weight_matrix& w, std::ptrdiff_t row) {
    return w.row(row) + (w.columns + 63) / 64 * 32;
  }

  static void decode_row(const weight_matrix& w, std::ptrdiff_t row, float* out) {
    const std::byte* d = group_scales(w, row);
    const std::byte* m = d + w.columns / w.group * 2;
    for (std::ptrdiff_t i = 0; i < w.columns; ++i) {
      const std::byte b = w.row(row)[i / 64 * 32 + i % 32];
      const int q = i % 64 < 32 ? unpacking::low_nibble(b) : unpacking::high_nibble(b);
      const std::ptrdiff_t g = i / w.group;
      out[i] = unpacking::load_half(d + g * 2) * static_cast<float>(q) + unpacking::load_half(m + g * 2);
    }
  }

  static void unpack_row(const weight_matrix& w, std::ptrdiff_t row, unpacked_row& r) {
    for (std::ptrdiff_t i = 0; i < w.columns; i += 64) {
      std::uint8_t both[64];
      unpacking::nibbles_apart<32>(w.row(row) + i / 2, both);
      __builtin_memcpy(r.codes + i, both, w.columns - i < 64 ? 32 : 64);
    }
    const std::byte* d = group_scales(w, row);
    const auto bytes = static_cast<std::size_t>(w.columns / w.group * 2);
    __builtin_memcpy(r.scales, d, bytes);
    __builtin_memcpy(r.minimums, d + bytes, bytes);
  }

  /// Encodes one row of finite values into its codes, scales and minimums; `columns` is a multiple of `group`. False where a
  /// group doesn't fit f16.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE bool encode(const float* values, std::ptrdiff_t columns, int group,
                                            const unpacked_row& row) {
    const std::ptrdiff_t groups = columns / group;
    fitting f;
    bool fits = true;
    for (std::ptrdiff_t first = 0; first < groups; first += 16) {
      const int count = static_cast<int>(groups - first < 16 ? groups - first : 16);
      for (int g = 0; g < 16; ++g) {
        const float* from = values + (first + (g < count ? g : 0)) * group;
        for (int i = 0; i < group; ++i) f.values[i * 16 + g] = from[i];
      }
      fits &= fit<Set>(f, group);
      __builtin_memcpy(row.scales + first, f.scales, static_cast<std::size_t>(count) * 2);
      __builtin_memcpy(row.minimums + first, f.minimums, static_cast<std::size_t>(count) * 2);
      for (int g = 0; g < count; ++g) {
        std::uint8_t* to = row.codes + (first + g) * group;
        for (int i = 0; i < group; ++i) to[i] = f.codes[i * 16 + g];
      }
    }
    return fits;
  }

 private:
  /// Sixteen groups side by side, one a lane: nothing has to be added across lanes. Value i of group g stands at i * 16 + g.
  struct fitting {
    float values[128 * 16];
    std::uint8_t codes[128 * 16];
    effinfer::f16 scales[16], minimums[16];
  };

  /// A scale and a minimum, the codes' squared error, and the sums that least squares needs.
  template <execution::instruction_set Set>
  struct trial {
    using vector = execution::f32x16<Set>;
    vector d, m, error, sum_q, sum_qq, sum_wq;

    /// Of (d, m) as they round to f16.
    EFFINFER_ALWAYS_INLINE void measure(fitting& f, int n) {
      round_to_f16(d, f.scales), round_to_f16(m, f.minimums);
      error = sum_q = sum_qq = sum_wq = vector::zero();
      const vector inverse = inverse_of(d);
      for (int i = 0; i < n; ++i) {
        const vector w = vector::load(f.values + i * 16);
        const vector q = code(w, m, inverse);
        const vector rest = w - fma(q, d, m);
        error = fma(rest, rest, error);
        sum_q += q;
        sum_qq = fma(q, q, sum_qq);
        sum_wq = fma(q, w, sum_wq);
      }
    }
    static EFFINFER_ALWAYS_INLINE void round_to_f16(vector& v, effinfer::f16* at) {
      v.store(at);
      v = vector::load(at);
    }
    static EFFINFER_ALWAYS_INLINE vector inverse_of(const vector& d) {
      return where_less(vector::zero(), d, vector::broadcast(1.0f) / d, vector::zero());
    }
    static EFFINFER_ALWAYS_INLINE vector code(const vector& w, const vector& m, const vector& inverse) {
      return min(max(nearest((w - m) * inverse), vector::zero()), vector::broadcast(15.0f));
    }
  };

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE bool fit(fitting& f, int n) {
    using vector = execution::f32x16<Set>;
    vector high = vector::load(f.values), minus_low = vector::zero() - high, sum_w = vector::zero();
    for (int i = 0; i < n; ++i) {
      const vector w = vector::load(f.values + i * 16);
      high = max(high, w);
      minus_low = max(minus_low, vector::zero() - w);
      sum_w += w;
    }
    const vector range = high + minus_low, count = vector::broadcast(static_cast<float>(n));
    vector least_error = vector::broadcast(1e38f), best_d = vector::zero(), best_m = best_d;
    trial<Set> t;
    // From the whole range and from 88 % of it: the tails of a group are worth less than the grid's fineness. (Six trials from
    // each of two come closer than three from each of seven, on normal weights and on Student's t with 4 degrees.)
    for (const float cut : {0.0f, 0.06f}) {
      t.d = range * vector::broadcast((1.0f - 2.0f * cut) / 15.0f);
      t.m = fma(range, vector::broadcast(cut), vector::zero() - minus_low);
      for (int refit = 0; refit < 6; ++refit) {
        t.measure(f, n);
        best_d = where_less(t.error, least_error, t.d, best_d);
        best_m = where_less(t.error, least_error, t.m, best_m);
        least_error = min(t.error, least_error);
        // Least squares of w = d q + m for these codes, where they are not all the same.
        const vector determinant = fma(count, t.sum_qq, vector::zero() - t.sum_q * t.sum_q);
        const vector d = fma(count, t.sum_wq, vector::zero() - t.sum_q * sum_w) / determinant;
        const vector m = fma(vector::zero() - d, t.sum_q, sum_w) / count;
        t.d = where_less(vector::zero(), determinant, d, t.d);
        t.m = where_less(vector::zero(), determinant, m, t.m);
      }
    }
    best_d.store(f.scales), best_m.store(f.minimums);
    const vector inverse = trial<Set>::inverse_of(best_d);
    for (int i = 0; i < n; ++i)
      trial<Set>::code(vector::load(f.values + i * 16), best_m, inverse).store(f.codes + i * 16);
    return least_error.max_lane() < 1e38f;
  }
};

}  // namespace effinfer::inline v0::quantization::format
