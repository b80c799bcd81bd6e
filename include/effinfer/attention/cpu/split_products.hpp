#pragma once
// The two products of attention for the many queries of a prompt, on AMX: scores = q k^T and out += p v in tiles of bf16, and yet
// near f32.
//
// A float is split in two parts of bf16, x = high + low + e with |e| <= 2^-17 |x|, and a product is high high + high low + low high,
// summed in f32: of x y no more is lost than 2^-15 |x y|, and 2^-17 |x y| where y is a bf16, whose low part is zero.
//
// The first operand lies as rows of 32 numbers; of the second two rows lie side by side, number by number. So values are two rows
// merged, and keys, whose dimensions are the rows there, transposed as pairs of dimensions. Both are made once for all rows of a
// query tile. Heads are filled up with zeros to whole steps of 32 dimensions.
//
// Exact: a row's scores and sums depend on its own numbers alone, not on which rows and keys share its tile: products with weights
// of zero add zero. (As long as keys and values are finite.)
//
// Source: Henry et al., "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations" (2019).

#include <effinfer/attention/cpu/tile_softmax.hpp>
#include <effinfer/execution/tile_registers.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::attention::detail {

/// Wider heads would want more scratch memory than a query tile has.
inline constexpr int largest_split_head_size = 256;

namespace split {

inline constexpr int step = 32;  ///< numbers of a row of a tile, summed by one instruction
constexpr int steps(int size) { return (size + step - 1) / step; }

#if EFFINFER_X86
inline constexpr int rows_a_tile = 16;
inline constexpr int tile_bytes = 1024;
/// Floats of scratch for the keys or values of a tile: both parts, and sixteen rows as floats.
inline constexpr int scratch_floats = tile_keys * largest_split_head_size + rows_a_tile * largest_split_head_size;

/// To the nearest bf16, in a float's place. A NaN may become zero; it stays one in what is left of it.
inline EFFINFER_TARGET_AMX __m512 high_part(__m512 x) {
  const __m512i half = _mm512_set1_epi32(0x8000), kept = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), kept));
}

/// 32 numbers in order as their parts.
inline EFFINFER_TARGET_AMX void store_parts(__m512 first, __m512 second, std::byte* high, std::byte* low) {
  alignas(64) static constexpr std::uint16_t upper_words[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                                                23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                                                45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  const __m512 a = high_part(first), b = high_part(second);
  const __m512i words =
      _mm512_permutex2var_epi16(_mm512_castps_si512(a), _mm512_load_si512(upper_words), _mm512_castps_si512(b));
  _mm512_store_si512(high, words);
  _mm512_store_si512(low, (__m512i)_mm512_cvtne2ps_pbh(second - b, first - a));
}

/// The upper words of two rows side by side.
inline EFFINFER_TARGET_AMX __m512i merged(__m512 even, __m512 odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_maskz_srli_epi32(0xffff, _mm512_castps_si512(even), 16),
                                 _mm512_castps_si512(odd));
}

/// Floats of a row become their parts where they lie: each 32 as 32 high parts and 32 low ones.
inline EFFINFER_TARGET_AMX void split_row(float* row, int count) {
  for (int i = 0; i < count; ++i, row += step) {
    store_parts(_mm512_load_ps(row), _mm512_load_ps(row + 16), reinterpret_cast<std::byte*>(row),
                reinterpret_cast<std::byte*>(row + 16));
  }
}

/// Sixteen rows of sixteen pairs to sixteen columns.
inline EFFINFER_TARGET_AMX void transpose_pairs(const bf16* rows, std::ptrdiff_t stride, std::byte* to) {
  for (int i = 0; i < 4; ++i, rows += 8, to += 256) {
    __m512i four[4];  // pairs 4 i to 4 i + 3 of rows j, j + 4, j + 8, j + 12
    for (int j = 0; j < 4; ++j) {
      const auto pairs = [&](int row) EFFINFER_TARGET_AMX {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + row * stride));
      };
      four[j] = _mm512_maskz_broadcast_i32x4(0x000f, pairs(j));
      four[j] = _mm512_mask_broadcast_i32x4(four[j], 0x00f0, pairs(j + 4));
      four[j] = _mm512_mask_broadcast_i32x4(four[j], 0x0f00, pairs(j + 8));
      four[j] = _mm512_mask_broadcast_i32x4(four[j], 0xf000, pairs(j + 12));
    }
    const __m512i a = _mm512_maskz_unpacklo_epi32(0xffff, four[0], four[1]);
    const __m512i b = _mm512_maskz_unpacklo_epi32(0xffff, four[2], four[3]);
    const __m512i c = _mm512_maskz_unpackhi_epi32(0xffff, four[0], four[1]);
    const __m512i d = _mm512_maskz_unpackhi_epi32(0xffff, four[2], four[3]);
    _mm512_store_si512(to, _mm512_maskz_unpacklo_epi64(0xff, a, b));
    _mm512_store_si512(to + 64, _mm512_maskz_unpackhi_epi64(0xff, a, b));
    _mm512_store_si512(to + 128, _mm512_maskz_unpacklo_epi64(0xff, c, d));
    _mm512_store_si512(to + 192, _mm512_maskz_unpackhi_epi64(0xff, c, d));
  }
}

inline EFFINFER_TARGET_AMX __m512i first_numbers(const bf16* p, int left) {
  return _mm512_maskz_loadu_epi16(left >= 32 ? 0xffffffffu : (1u << left) - 1, p);
}
inline EFFINFER_TARGET_AMX __m512 first_numbers(const float* p, int left) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(left >= 16 ? 0xffffu : left > 0 ? (1u << left) - 1 : 0), p);
}

/// Sixteen keys, of which [begin, end) are there: `to` holds four tiles a step, one for each sixteen keys of a tile of attention.
inline EFFINFER_TARGET_AMX void store_keys(const bf16* rows, std::ptrdiff_t stride, int begin, int end, int size,
                                           std::byte* to) {
  for (int left = size; left > 0; left -= step, rows += step, to += 4 * tile_bytes) {
    if (end - begin == rows_a_tile && left >= step) {
      transpose_pairs(rows, stride, to);
      continue;
    }
    alignas(64) bf16 copy[rows_a_tile * step] = {};
    for (int r = begin; r < end; ++r) _mm512_store_si512(copy + r * step, first_numbers(rows + r * stride, left));
    transpose_pairs(copy, step, to);
  }
}
/// The same of floats: each tile is followed by that of the low parts.
inline EFFINFER_TARGET_AMX void store_keys(const float* rows, std::ptrdiff_t stride, int begin, int end, int size,
                                           std::byte* to) {
  for (int left = size; left > 0; left -= step, rows += step, to += 8 * tile_bytes) {
    alignas(64) bf16 parts[2][rows_a_tile * step] = {};
    for (int r = begin; r < end; ++r) {
      const float* row = rows + r * stride;
      store_parts(first_numbers(row, left), first_numbers(row + 16, left - 16),
                  reinterpret_cast<std::byte*>(parts[0] + r * step), reinterpret_cast<std::byte*>(parts[1] + r * step));
    }
    transpose_pairs(parts[0], step, to);
    transpose_pairs(parts[1], step, to + tile_bytes);
  }
}

/// Sixteen values, half of a tile's rows, of which [begin, end) are there: the others are zeros. `to` holds a tile for each
/// sixteen dimensions.
inline EFFINFER_TARGET_AMX void store_values(const bf16* rows, std::ptrdiff_t stride, int begin, int end, int size,
                                             std::byte* to) {
  alignas(64) static constexpr std::uint16_t both[64] = {
      0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
      11, 43, 12, 44, 13, 45, 14, 46, 15, 47, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53,
      22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63};
  for (int left = size; left > 0; left -= step, rows += step, to += 2 * tile_bytes) {
    for (int r = 0; r < rows_a_tile; r += 2) {
      const __m512i even = first_numbers(rows + r * stride, r >= begin && r < end ? left : 0);
      const __m512i odd = first_numbers(rows + (r + 1) * stride, r + 1 >= begin && r + 1 < end ? left : 0);
      _mm512_store_si512(to + r * 32, _mm512_permutex2var_epi16(even, _mm512_load_si512(both), odd));
      _mm512_store_si512(to + tile_bytes + r * 32, _mm512_permutex2var_epi16(even, _mm512_load_si512(both + 32), odd));
    }
  }
}
/// The same of floats: each tile is followed by that of the low parts.
inline EFFINFER_TARGET_AMX void store_values(const float* rows, std::ptrdiff_t stride, int begin, int end, int size,
                                             std::byte* to) {
  const int whole = steps(size) * step;
  for (int d = 0; d < whole; d += 16, to += 2 * tile_bytes) {
    for (int r = 0; r < rows_a_tile; r += 2) {
      const float* row = rows + r * stride + d;
      const __m512 even = first_numbers(row, r >= begin && r < end ? size - d : 0);
      const __m512 odd = first_numbers(row + stride, r + 1 >= begin && r + 1 < end ? size - d : 0);
      const __m512 even_high = high_part(even), odd_high = high_part(odd);
      _mm512_store_si512(to + r * 32, merged(even_high, odd_high));
      _mm512_store_si512(to + tile_bytes + r * 32, merged(high_part(even - even_high), high_part(odd - odd_high)));
    }
  }
}

/// Weights to their parts; zeros in a row that sees none of the keys.
inline EFFINFER_TARGET_AMX void split_weights(float* s, int rows, const int* begin, const int* end) {
  for (int r = 0; r < rows; ++r, s += score_stride) {
    if (begin[r] < end[r]) {
      split_row(s, tile_keys / step);
    } else {
      __builtin_memset(s, 0, tile_keys * sizeof(float));
    }
  }
}

/// Shapes all tiles; until tiles::release the products may run.
inline EFFINFER_TARGET_AMX void begin() {
  execution::tiles::shapes shapes;
  for (int i = 0; i < 8; ++i) shapes.set(i, rows_a_tile, 64);
  execution::tiles::configure(shapes);
}
inline EFFINFER_TARGET_AMX void end() { execution::tiles::release(); }

/// Tiles 0 to 3 += tiles 4 and 5 times tiles 6 and 7.
inline EFFINFER_TARGET_AMX void add_four() {
  namespace tiles = execution::tiles;
  tiles::add_bf16_products<0, 4, 6>(), tiles::add_bf16_products<1, 4, 7>();
  tiles::add_bf16_products<2, 5, 6>(), tiles::add_bf16_products<3, 5, 7>();
}

/// s[r][n] = q[r] . k[n], for rows rounded up to 32 and keys [first, last) rounded out to 32. `q` is split rows of `count` steps.
inline EFFINFER_TARGET_AMX void scores(const float* q, int rows, const std::byte* k, int parts, int count, int first,
                                       int last, float* s) {
  namespace tiles = execution::tiles;
  constexpr std::ptrdiff_t stride = score_stride * sizeof(float);
  const std::ptrdiff_t row = std::ptrdiff_t{count} * step, q_stride = row * static_cast<int>(sizeof(float));
  const std::ptrdiff_t to_next = parts * tile_bytes;
  for (int r = 0; r < rows; r += 32, q += 32 * row, s += 32 * score_stride) {
    for (int n = first / 32 * 32; n < last; n += 32) {
      tiles::zero<0>(), tiles::zero<1>(), tiles::zero<2>(), tiles::zero<3>();
      const float *a = q, *a1 = q + rows_a_tile * row;
      const std::byte* b = k + n / 16 * to_next;
      for (int i = 0; i < count; ++i, a += step, a1 += step, b += 4 * to_next) {
        tiles::load<4>(a, q_stride), tiles::load<6, 64>(b);
        tiles::load<7, 64>(b + to_next), tiles::load<5>(a1, q_stride);
        add_four();
        if (parts == 2) {
          tiles::load<6, 64>(b + tile_bytes), tiles::load<7, 64>(b + to_next + tile_bytes);
          add_four();
          tiles::load<6, 64>(b), tiles::load<7, 64>(b + to_next);
        }
        tiles::load<4>(a + 16, q_stride), tiles::load<5>(a1 + 16, q_stride);
        add_four();
      }
      float* to = s + n;
      tiles::store<0>(to, stride), tiles::store<1>(to + 16, stride);
      tiles::store<2>(to + 16 * score_stride, stride), tiles::store<3>(to + 16 * score_stride + 16, stride);
    }
  }
}

/// out[r] += sum over n of p[r][n] v[n], for rows rounded up to 32 and keys [first, last) rounded out to 32. `p` is split rows.
inline EFFINFER_TARGET_AMX void mix(const float* p, int rows, const std::byte* v, int parts, int count, int first,
                                    int last, float* out) {
  namespace tiles = execution::tiles;
  constexpr int p_stride = score_stride * sizeof(float);
  const std::ptrdiff_t row = std::ptrdiff_t{count} * step, stride = row * static_cast<int>(sizeof(float));
  const std::ptrdiff_t to_next = parts * tile_bytes;
  for (int r = 0; r < rows; r += 32, p += 32 * score_stride, out += 32 * row) {
    for (int d = 0; d < count; ++d) {
      float* sums = out + d * step;
      tiles::load<0>(sums, stride), tiles::load<1>(sums + 16, stride);
      tiles::load<2>(sums + 16 * row, stride), tiles::load<3>(sums + 16 * row + 16, stride);
      for (int n = first / 32 * 32; n < last; n += 32) {
        const float *a = p + n, *a1 = a + rows_a_tile * score_stride;
        const std::byte* b = v + (n / 32 * count + d) * 2 * to_next;
        tiles::load<4, p_stride>(a), tiles::load<6, 64>(b);
        tiles::load<7, 64>(b + to_next), tiles::load<5, p_stride>(a1);
        add_four();
        if (parts == 2) {
          tiles::load<6, 64>(b + tile_bytes), tiles::load<7, 64>(b + to_next + tile_bytes);
          add_four();
          tiles::load<6, 64>(b), tiles::load<7, 64>(b + to_next);
        }
        tiles::load<4, p_stride>(a + 16), tiles::load<5, p_stride>(a1 + 16);
        add_four();
      }
      tiles::store<0>(sums, stride), tiles::store<1>(sums + 16, stride);
      tiles::store<2>(sums + 16 * row, stride), tiles::store<3>(sums + 16 * row + 16, stride);
    }
  }
}

#endif
}  // namespace split

}  // namespace effinfer::inline v0::attention::detail
