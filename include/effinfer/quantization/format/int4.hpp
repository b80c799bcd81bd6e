#pragma once
// int4, ours: 4-bit codes in groups of G = 32, 64 or 128 input columns, each with a scale and a minimum in f16.
// w[r][i] = d[g] * q[i] + m[g], q in [0, 15], g = i / G.
// Layout of a row: the codes, 32 bytes for 64 columns, of which the low nibbles are the first 32 (columns
// are rounded up to 64); then f16 d[columns / G]; then f16 m[columns / G]. Bits a weight: 4 + 32 / G.
//
// Encoding minimises the squared error of a group: from several starting ranges, codes are rounded to nearest and
// (d, m) refitted to them by least squares, with d and m as they round to f16; the best is kept. A minimum rather than
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

  /// Encodes one row of finite values; `columns` is a multiple of `group`. False where a group doesn't fit f16.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE bool encode(const float* values, std::ptrdiff_t columns, int group, std::byte* row) {
    std::byte* d = row + (columns + 63) / 64 * 32;
    std::byte* m = d + columns / group * 2;
    if (columns % 64 != 0) __builtin_memset(d - 32, 0, 32);
    for (std::ptrdiff_t first = 0; first < columns; first += group) {
      fitted best;
      fit<Set>(values + first, group, best);
      if (!(best.error < 1e38f)) return false;
      __builtin_memcpy(d + first / group * 2, &best.scale, 2);
      __builtin_memcpy(m + first / group * 2, &best.minimum, 2);
      for (int i = 0; i < group; ++i) {
        const std::ptrdiff_t column = first + i;
        std::byte& b = row[column / 64 * 32 + column % 32];
        const auto q = static_cast<std::byte>(static_cast<unsigned>(best.codes[i]));
        b = column % 64 < 32 ? q : (b | (q << 4));
      }
    }
    return true;
  }

 private:
  struct fitted {
    effinfer::f16 scale, minimum;
    float codes[128];
    float error;
  };

  /// Codes and squared error of (d, m), as f16, for n values.
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void round_to_codes(const float* w, int n, float d, float m, fitted& f) {
    using vector = execution::f32x16<Set>;
    f.scale = effinfer::f16(d);
    f.minimum = effinfer::f16(m);
    d = static_cast<float>(f.scale);
    m = static_cast<float>(f.minimum);
    const float inverse = d > 0 ? 1.0f / d : 0.0f;
    vector error = vector::zero();
    for (int i = 0; i < n; i += 16) {
      const vector v = vector::load(w + i);
      vector q = nearest((v - vector::broadcast(m)) * vector::broadcast(inverse));
      q = max(vector::zero(), vector::zero() - max(vector::broadcast(-15.0f), vector::zero() - q));
      q.store(f.codes + i);
      const vector rest = v - fma(q, vector::broadcast(d), vector::broadcast(m));
      error = fma(rest, rest, error);
    }
    f.error = error.sum();
  }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void fit(const float* w, int n, fitted& best) {
    using vector = execution::f32x16<Set>;
    vector greatest = vector::load(w), least = vector::zero() - greatest, total = vector::zero();
    for (int i = 0; i < n; i += 16) {
      const vector v = vector::load(w + i);
      greatest = max(greatest, v);
      least = max(least, vector::zero() - v);
      total += v;
    }
    const float high = greatest.max_lane(), low = -least.max_lane(), sum_w = total.sum();
    round_to_codes<Set>(w, n, (high - low) / 15.0f, low, best);
    fitted tried;
    // Ranges from the whole to 70 % of it: the tails of a group are worth less than the grid's fineness.
    for (int start = 0; start < 7; ++start) {
      const float cut = 0.025f * static_cast<float>(start) * (high - low);
      float d = (high - low - 2 * cut) / 15.0f, m = low + cut;
      for (int refit = 0; refit < 3; ++refit) {
        round_to_codes<Set>(w, n, d, m, tried);
        if (tried.error < best.error) best = tried;
        // Least squares of w = d q + m for these codes.
        vector q = vector::zero(), qq = vector::zero(), wq = vector::zero();
        for (int i = 0; i < n; i += 16) {
          const vector code = vector::load(tried.codes + i);
          q += code;
          qq = fma(code, code, qq);
          wq = fma(code, vector::load(w + i), wq);
        }
        const float count = static_cast<float>(n), sum_q = q.sum();
        const float determinant = count * qq.sum() - sum_q * sum_q;
        if (!(determinant > 0)) break;
        d = (count * wq.sum() - sum_q * sum_w) / determinant;
        m = (sum_w - d * sum_q) / count;
      }
    }
  }
};

}  // namespace effinfer::inline v0::quantization::format
