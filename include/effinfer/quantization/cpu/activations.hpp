#pragma once
// Activations as products take them: for integer weights 8-bit codes with one scale for each 32 columns, for BF16 rounded to
// bf16 where the machine multiplies these. Made once, used by every product that reads the same activations (query,
// key and value; gate and up).
// Math: scale[b] = max |x| / 127 over block b; code[i] = nearest(x[i] / scale[b]); sum[b] = scale[b] * sum of codes.
// Exact: the same codes on every instruction set. A NaN or infinity makes its block's scale, and so every
// product with the row, NaN.

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/core/weight_format.hpp>
#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace effinfer::inline v0::quantization {

/// Columns of a slab: the widest unit of a packed matrix. All tokens' activations of a slab lie together, so that a product
/// that takes a panel slab by slab reads them in one run, whatever M is. (Rows of a power of two apart would
/// share a few sets of the cache.)
inline constexpr std::ptrdiff_t slab_columns = 256;

/// What a product reads of its activations, in S = ceil(M / 256) slabs. Which parts there are depends on the weights that they
/// are prepared for.
struct prepared_activations {
  matrix_view<const float> values;          ///< [T, M]: F32 and F16 weights
  const std::int8_t* codes = nullptr;       ///< [S, T, 256], zero beyond M: integer weights, with all that follows
  const float* scales = nullptr;            ///< [S, T, 8], of 32 columns each
  const float* sums = nullptr;              ///< [S, T, 8]: scale * sum of codes
  const std::int32_t* counts = nullptr;     ///< [S, T, 8]: sum of codes
  const std::int32_t* counts_16 = nullptr;  ///< [S, T, 16]: likewise, of 16 columns each
  /// [S, T, 256], zero beyond M: BF16 weights, where the machine multiplies these. For AMX in tiles of up to 16 tokens and 32
  /// columns: [ceil(T / 16), 8 S, 16 or what is left of T, 32].
  const bf16* halves = nullptr;
};

/// What products read of their activations: adds up by format.
struct activation_kinds {
  bool codes = false, halves = false;
  bool values =
      false;  ///< of interest where activations are made on the way, and needn't be stored as floats otherwise

  /// `prompt`: for the many tokens of a prompt, which integer weights meet as bf16 on AMX (matmul.hpp).
  constexpr void add(weight_format f, execution::instruction_set set, bool prompt = false) {
    if (block_size(f) != 1 || f == weight_format::int8 || f == weight_format::int4) {
      (prompt && set == execution::instruction_set::amx ? halves : codes) = true;
    } else if (f == weight_format::bf16 && execution::has_bf16_dot_products(set)) {
      halves = true;
    } else {
      values = true;
    }
  }
};

constexpr std::ptrdiff_t slabs_of(std::ptrdiff_t columns) { return (columns + slab_columns - 1) / slab_columns; }

/// What `prepare` needs for [rows, columns], at any alignment.
constexpr std::size_t activation_bytes(std::ptrdiff_t rows, std::ptrdiff_t columns) {
  const std::ptrdiff_t a_slab = slab_columns * 3 + slab_columns / 32 * 20;
  return rows > 0 && columns > 0 ? static_cast<std::size_t>(rows * slabs_of(columns) * a_slab + 63) : 0;
}

namespace detail {

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void narrow_codes(std::int8_t* p, const execution::detail::f32x16_memory& v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_maskz_cvtps_epi32(0xffff, v)));
}
#elif EFFINFER_ARM64
inline int32x4_t whole_numbers(const execution::detail::f32x4_memory& v) {
  return vcvtnq_s32_f32(reinterpret_cast<float32x4_t>(v));
}
inline void narrow_codes(std::int8_t* p, const execution::f32x16<execution::instruction_set::neon>& v) {
  const auto& [low, high] = v.lanes;
  const int16x8_t first =
      vuzp1q_s16(vreinterpretq_s16_s32(whole_numbers(low.low.v)), vreinterpretq_s16_s32(whole_numbers(low.high.v)));
  const int16x8_t second =
      vuzp1q_s16(vreinterpretq_s16_s32(whole_numbers(high.low.v)), vreinterpretq_s16_s32(whole_numbers(high.high.v)));
  vst1q_s8(p, vuzp1q_s8(vreinterpretq_s8_s16(first), vreinterpretq_s8_s16(second)));
}
#endif

/// Up to eight blocks of 32 values that lie side by side: a token's slab, or a block each of eight tokens.
struct quantize_blocks {
  struct args {
    const float* x;
    int blocks;
    std::ptrdiff_t left;      ///< values that exist; the others are zero
    std::int8_t* codes;       ///< [blocks, 32], code_stride apart
    float* scales;            ///< [blocks], stride apart
    float* sums;              ///< [blocks], likewise
    std::int32_t* counts;     ///< [blocks], likewise
    std::int32_t* counts_16;  ///< [blocks, 2], 2 stride apart
    std::ptrdiff_t code_stride = 32, stride = 1;
  };

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
#if EFFINFER_X86
    if constexpr (Set == execution::instruction_set::avx512) {
      if (a.blocks == 8 && a.left >= 256) return quantize_eight_blocks(a);
    }
#endif
    for (int block = 0; block < a.blocks; ++block) quantize_block<Set>(a, block);
  }

 private:
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void quantize_block(const args& a, int block) {
    using vector = execution::f32x16<Set>;
    vector low, high;
    const std::ptrdiff_t first = block * 32, left = a.left - first;
    if (left >= 32) {
      low = vector::load(a.x + first);
      high = vector::load(a.x + first + 16);
    } else {
      low = left >= 16 ? vector::load(a.x + first) : vector::load_first(a.x + first, left > 0 ? left : 0);
      high = vector::load_first(a.x + first + (left > 16 ? 16 : 0), left > 16 ? left - 16 : 0);
    }
    const float greatest = max(abs(low), abs(high)).max_lane();
    const bool some = greatest > least_maximum;
    const vector inverse = vector::broadcast(some ? 127.0f / greatest : 0.0f);
    low = nearest(low * inverse);
    high = nearest(high * inverse);
    store_codes<Set>(a.codes + block * a.code_stride, low);
    store_codes<Set>(a.codes + block * a.code_stride + 16, high);
    const float low_count = low.sum(), high_count = high.sum();  // whole numbers below 2^24: exact in any order
    // A NaN goes on into its sum, and an infinity becomes one by the zero that is its inverse. Their codes mean nothing: the
    // scale carries the NaN.
    const bool whole = low_count + high_count == low_count + high_count;
    const float scale = (some ? greatest / 127.0f : 0.0f) + (whole ? 0.0f : low_count + high_count);
    const std::ptrdiff_t i = block * a.stride;
    a.scales[i] = scale;
    a.sums[i] = scale * (low_count + high_count);
    a.counts_16[2 * i] = whole ? static_cast<std::int32_t>(low_count) : 0;
    a.counts_16[2 * i + 1] = whole ? static_cast<std::int32_t>(high_count) : 0;
    a.counts[i] = a.counts_16[2 * i] + a.counts_16[2 * i + 1];
  }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void store_codes(std::int8_t* p, const execution::f32x16<Set>& v) {
    if constexpr (Set == execution::instruction_set::avx512) {
      narrow_codes(p, v.lanes.v);
    } else if constexpr (Set == execution::instruction_set::neon) {
      narrow_codes(p, v);
    } else {
      float rounded[16];
      v.store(rounded);
      // By way of int: a NaN's conversion to int8 would be undefined twice over.
      for (int i = 0; i < 16; ++i)
        p[i] = static_cast<std::int8_t>(rounded[i] >= -127.0f ? static_cast<int>(rounded[i]) : -127);
    }
  }

#if EFFINFER_X86
  /// The same, with the maxima and the sums of all eight blocks found side by side.
  static EFFINFER_TARGET_AVX512 void quantize_eight_blocks(const args& a) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m256i greatest[8];
    for (int b = 0; b < 8; ++b) {
      const __m512i low = _mm512_and_si512(_mm512_loadu_si512(a.x + b * 32), magnitude);
      const __m512i high = _mm512_and_si512(_mm512_loadu_si512(a.x + b * 32 + 16), magnitude);
      // As integers, magnitudes are in order, infinity and NaN above all others.
      const __m512i both = _mm512_maskz_max_epu32(0xffff, low, high);
      greatest[b] = _mm256_max_epu32(_mm512_maskz_extracti64x4_epi64(0xf, both, 0),
                                     _mm512_maskz_extracti64x4_epi64(0xf, both, 1));
    }
    __m256i pairs[4], fours[2];
    for (int i = 0; i < 4; ++i) {
      const __m256i even = greatest[2 * i], odd = greatest[2 * i + 1];
      pairs[i] = _mm256_max_epu32(_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
    }
    for (int i = 0; i < 2; ++i) {
      const __m256i even = pairs[2 * i], odd = pairs[2 * i + 1];
      fours[i] = _mm256_max_epu32(_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd));
    }
    const __m256 maxima = _mm256_castsi256_ps(_mm256_max_epu32(_mm256_permute2x128_si256(fours[0], fours[1], 0x20),
                                                               _mm256_permute2x128_si256(fours[0], fours[1], 0x31)));
    const __mmask8 some = _mm256_cmp_ps_mask(maxima, _mm256_set1_ps(least_maximum), _CMP_GT_OQ);
    const __m256 of_codes = _mm256_set1_ps(127.0f);
    alignas(32) float inverse[8];
    _mm256_store_ps(inverse, _mm256_maskz_div_ps(some, of_codes, maxima));
    // NaN and infinity are not below infinity.
    const __mmask8 bad = _mm256_cmp_ps_mask(maxima, _mm256_set1_ps(__builtin_inff()), _CMP_NLT_UQ);
    const __m256 scales =
        _mm256_mask_mov_ps(_mm256_maskz_div_ps(some, maxima, of_codes), bad, _mm256_set1_ps(__builtin_nanf("")));

    // Packing mixes the parts of 128 bits in the same way each time: one permutation puts them right.
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i count[4];
    for (int i = 0; i < 4; ++i) {
      const __m512i halves[2] = {whole_numbers(a.x + i * 64, inverse[2 * i]),
                                 whole_numbers(a.x + i * 64 + 32, inverse[2 * i + 1])};
      const __m512i codes = _mm512_maskz_permutexvar_epi32(0xffff, in_order, _mm512_packs_epi16(halves[0], halves[1]));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.codes + 2 * i * a.code_stride),
                          _mm512_maskz_extracti64x4_epi64(0xf, codes, 0));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.codes + (2 * i + 1) * a.code_stride),
                          _mm512_maskz_extracti64x4_epi64(0xf, codes, 1));
      count[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, codes);
    }
    // Four vectors of [low and high half of two blocks] x 4 lanes, to one of their sums.
    const __m512i even = _mm512_add_epi32(_mm512_maskz_unpacklo_epi32(0xffff, count[0], count[1]),
                                          _mm512_maskz_unpackhi_epi32(0xffff, count[0], count[1]));
    const __m512i odd = _mm512_add_epi32(_mm512_maskz_unpacklo_epi32(0xffff, count[2], count[3]),
                                         _mm512_maskz_unpackhi_epi32(0xffff, count[2], count[3]));
    const __m512i sums = _mm512_maskz_permutexvar_epi32(
        0xffff, in_order,
        _mm512_add_epi32(_mm512_maskz_unpacklo_epi64(0xff, even, odd), _mm512_maskz_unpackhi_epi64(0xff, even, odd)));
    const __m512i of_blocks =
        _mm512_add_epi32(sums, _mm512_maskz_shuffle_epi32(0xffff, sums, _MM_PERM_CDAB));  // in even lanes
    const __m256i counts = _mm512_maskz_cvtepi64_epi32(0xff, of_blocks);
    const __m256 scaled = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(counts));
    if (a.stride == 1) {
      _mm256_storeu_ps(a.scales, scales);
      _mm256_storeu_ps(a.sums, scaled);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(a.counts), counts);
      _mm512_storeu_si512(a.counts_16, sums);
      return;
    }
    alignas(64) float s[8], t[8];
    alignas(64) std::int32_t n[8], n_16[16];
    _mm256_store_ps(s, scales);
    _mm256_store_ps(t, scaled);
    _mm256_store_si256(reinterpret_cast<__m256i*>(n), counts);
    _mm512_store_si512(n_16, sums);
    for (std::ptrdiff_t b = 0, i = 0; b < 8; ++b, i += a.stride) {
      a.scales[i] = s[b], a.sums[i] = t[b], a.counts[i] = n[b];
      a.counts_16[2 * i] = n_16[2 * b], a.counts_16[2 * i + 1] = n_16[2 * b + 1];
    }
  }
  /// 32 values times `inverse`, rounded, as 16-bit integers.
  static EFFINFER_TARGET_AVX512 __m512i whole_numbers(const float* x, const float& inverse) {
    const __m512 by = _mm512_set1_ps(inverse);
    return _mm512_packs_epi32(
        _mm512_maskz_cvtps_epi32(0xffff, _mm512_maskz_mul_ps(0xffff, _mm512_loadu_ps(x), by)),
        _mm512_maskz_cvtps_epi32(0xffff, _mm512_maskz_mul_ps(0xffff, _mm512_loadu_ps(x + 16), by)));
  }
#endif

  static constexpr float least_maximum = 0x1p-120f;  ///< 127 / greatest stays finite above
};

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512_BF16 void round_to_bf16(bf16* p, const execution::detail::f32x16_memory& v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(v));
}
#elif EFFINFER_ARM64
inline EFFINFER_TARGET_NEON_BF16 void round_to_bf16(bf16* p, const execution::detail::f32x4_memory& low,
                                                    const execution::detail::f32x4_memory& high) {
  uint16x8_t halves;
  __asm__("bfcvtn %0.4h, %1.4s\n\tbfcvtn2 %0.8h, %2.4s" : "=&w"(halves) : "w"(low), "w"(high));
  vst1q_u16(reinterpret_cast<std::uint16_t*>(p), halves);
}
#endif

/// `count` values rounded to bf16, of which the first `left` exist; a multiple of 16. Between each 32 of them lies a gap of
/// `gap` others.
struct round_values {
  static constexpr bool uses_bf16_dot_products = true;
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, std::ptrdiff_t left, bf16* out, std::ptrdiff_t count,
                                         std::ptrdiff_t gap) {
    using vector = execution::f32x16<execution::base_of(Set)>;
    for (std::ptrdiff_t i = 0; i < count; i += 16, left -= 16) {
      const vector v = left >= 16 ? vector::load(x + i) : vector::load_first(x + i, left > 0 ? left : 0);
      if (i > 0 && i % 32 == 0) out += gap;
      if constexpr (Set == execution::instruction_set::avx512_bf16) {
        round_to_bf16(out + i, v.lanes.v);
      } else if constexpr (Set == execution::instruction_set::neon_bf16) {
        round_to_bf16(out + i, v.lanes.low.low.v, v.lanes.low.high.v);
        round_to_bf16(out + i + 8, v.lanes.high.low.v, v.lanes.high.high.v);
      } else {
        v.store(out + i);
      }
    }
  }
};

/// About 16 Ki values a part of a loop: less isn't worth a second thread.
constexpr std::ptrdiff_t rows_a_part(std::ptrdiff_t columns) {
  return 1 + (1 << 14) / (slabs_of(columns) * slab_columns);
}

/// prepared_activations being made.
struct activation_writer {
  execution::instruction_set set;
  activation_kinds kinds;
  std::ptrdiff_t rows, columns;
  std::int8_t* codes = nullptr;
  float *scales = nullptr, *sums = nullptr;
  std::int32_t *counts = nullptr, *counts_16 = nullptr;
  bf16* halves = nullptr;

  /// Errors: limit, where the workspace is too small.
  activation_writer(execution::instruction_set on, std::ptrdiff_t tokens, std::ptrdiff_t width,
                    std::span<std::byte> workspace, activation_kinds wanted)
      : set(on), kinds(wanted), rows(tokens), columns(width) {
    if (!kinds.codes && !kinds.halves) return;
    if (workspace.size() < activation_bytes(rows, columns)) {
      throw error(error_code::limit, "quantization::prepare: workspace",
                  std::to_string(workspace.size()) + " bytes, need " + std::to_string(activation_bytes(rows, columns)),
                  "size it with matmul_workspace_bytes");
    }
    const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
    std::byte* start = workspace.data() + ((address + 63) / 64 * 64 - address);
    const std::ptrdiff_t pieces = slabs_of(columns) * rows;
    halves = reinterpret_cast<bf16*>(start);
    codes = reinterpret_cast<std::int8_t*>(start + pieces * slab_columns * 2);
    scales = reinterpret_cast<float*>(codes + pieces * slab_columns);
    sums = scales + pieces * 8;
    counts = reinterpret_cast<std::int32_t*>(sums + pieces * 8);
    counts_16 = counts + pieces * 8;
  }

  /// Row t [M].
  void write_row(std::ptrdiff_t t, const float* x) const {
    for (std::ptrdiff_t s = 0; s < slabs_of(columns); ++s) {
      const float* from = x + s * slab_columns;
      const std::ptrdiff_t left = columns - s * slab_columns, i = s * rows + t;
      if (kinds.codes) {
        execution::dispatch<quantize_blocks>(
            set, quantize_blocks::args{from, 8, left, codes + i * slab_columns, scales + i * 8, sums + i * 8,
                                       counts + i * 8, counts_16 + i * 16});
      }
      if (kinds.halves) execution::dispatch<round_values>(set, from, left, half(t, s * 8), slab_columns, half_gap(t));
    }
  }

  /// Columns [32 block, 32 block + 32) of rows [first, first + tokens), from x [tokens, 32] without gaps.
  void write_block(std::ptrdiff_t block, std::ptrdiff_t first, std::ptrdiff_t tokens, const float* x) const {
    const std::ptrdiff_t row = block / 8 * rows + first, in_slab = block % 8;
    for (std::ptrdiff_t t = 0; t < tokens; t += 8) {
      const int some = static_cast<int>(tokens - t < 8 ? tokens - t : 8);
      const std::ptrdiff_t at = (row + t) * 8 + in_slab;
      if (kinds.codes) {
        execution::dispatch<quantize_blocks>(
            set, quantize_blocks::args{x + t * 32, some, some * 32, codes + at * 32, scales + at, sums + at,
                                       counts + at, counts_16 + at * 2, slab_columns, 8});
      }
    }
    for (std::ptrdiff_t t = 0, some = 0; kinds.halves && t < tokens; t += some) {
      // Side by side: the rest of a tile; elsewhere a row.
      some = in_tiles() ? std::min(16 - (first + t) % 16, tokens - t) : 1;
      execution::dispatch<round_values>(set, x + t * 32, some * 32, half(first + t, block), some * 32, 0);
    }
  }

  [[nodiscard]] bool in_tiles() const { return set == execution::instruction_set::amx; }
  /// Columns [32 block, 32 block + 32) of row t in `halves`.
  [[nodiscard]] bf16* half(std::ptrdiff_t t, std::ptrdiff_t block) const {
    if (!in_tiles()) return halves + ((block / 8 * rows + t) * 8 + block % 8) * 32;
    const std::ptrdiff_t first = t / 16 * 16, of_a_tile = std::min<std::ptrdiff_t>(rows - first, 16);
    return halves + first * slabs_of(columns) * slab_columns + (block * of_a_tile + t - first) * 32;
  }
  /// ... and how far behind their end the row's next 32 begin, within a slab.
  [[nodiscard]] std::ptrdiff_t half_gap(std::ptrdiff_t t) const {
    return in_tiles() ? (std::min<std::ptrdiff_t>(rows - t / 16 * 16, 16) - 1) * 32 : 0;
  }

  [[nodiscard]] prepared_activations result(matrix_view<const float> values) const {
    prepared_activations p;
    p.values = values;
    if (kinds.codes) p.codes = codes, p.scales = scales, p.sums = sums, p.counts = counts, p.counts_16 = counts_16;
    if (kinds.halves) p.halves = halves;
    return p;
  }
};

}  // namespace detail

/// Makes what `kinds` asks for of T rows of activations, each as it comes from `make_row`: a norm in front of a product needs no
/// pass of its own.
///
/// `make_row(t, to [M])` returns row t, which it may write to `to`; it is called from any thread. Afterwards `rows` holds the
/// rows if `kinds` asks for values; else it was scratch.
/// Shapes: rows [T, M]; `workspace` holds activation_bytes(T, M) and must outlive the result.
/// Cost: writes 1.6 T M bytes (codes) and 2 T M (halves). Errors: limit, where the workspace is too small.
template <class MakeRow>
prepared_activations prepare_rows(const execution::cpu::context& exec, const MakeRow& make_row, matrix_view<float> rows,
                                  std::span<std::byte> workspace, activation_kinds kinds) {
  prepared_activations p;
  p.values = rows;
  if (rows.rows <= 0 || rows.columns <= 0) return p;
  const detail::activation_writer to(exec.set(), rows.rows, rows.columns, workspace, kinds);
  exec.parallel_for(rows.rows, detail::rows_a_part(rows.columns), [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      // Rows that nobody will read go to one place, which stays in the cache.
      const float* row = make_row(t, rows.row(kinds.values ? t : begin));
      to.write_row(t, row);
    }
  });
  return to.result(rows);
}

/// The same of the rows of x [T, M], which stay where they are.
inline prepared_activations prepare(const execution::cpu::context& exec, matrix_view<const float> x,
                                    std::span<std::byte> workspace, activation_kinds kinds = {true, true}) {
  prepared_activations p;
  p.values = x;
  if (x.rows <= 0 || x.columns <= 0 || !(kinds.codes || kinds.halves)) return p;
  const detail::activation_writer to(exec.set(), x.rows, x.columns, workspace, kinds);
  exec.parallel_for(x.rows, detail::rows_a_part(x.columns), [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) to.write_row(t, x.row(t));
  });
  return to.result(x);
}

}  // namespace effinfer::inline v0::quantization
