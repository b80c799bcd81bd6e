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
  const bf16* halves = nullptr;  ///< [S, T, 256], zero beyond M: BF16 weights, where the machine multiplies these
};

/// What a product with weights of this kind reads.
struct activation_kinds {
  bool codes = false, halves = false;

  constexpr void add(weight_format f, execution::instruction_set set) {
    if (block_size(f) != 1 || f == weight_format::int8 || f == weight_format::int4) codes = true;
    if (f == weight_format::bf16 && execution::has_bf16_dot_products(set)) halves = true;
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

/// A token's activations of one slab, of which the first `left` exist.
struct quantize_slab {
  struct args {
    const float* x;
    std::ptrdiff_t left;
    std::int8_t* codes;       ///< [256]
    float* scales;            ///< [8]
    float* sums;              ///< [8]
    std::int32_t* counts;     ///< [8]
    std::int32_t* counts_16;  ///< [16]
  };

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    for (int block = 0; block < slab_columns / 32; ++block) {
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
      const bool some = greatest > 0x1p-120f;  // 127 / greatest stays finite
      const vector inverse = vector::broadcast(some ? 127.0f / greatest : 0.0f);
      low = nearest(low * inverse);
      high = nearest(high * inverse);
      store_codes<Set>(a.codes + first, low);
      store_codes<Set>(a.codes + first + 16, high);
      const float low_count = low.sum(), high_count = high.sum();  // whole numbers below 2^24: exact in any order
      // A NaN goes on into its sum, and an infinity becomes one by the zero that is its inverse. Their codes mean nothing: the
      // scale carries the NaN.
      const bool whole = low_count + high_count == low_count + high_count;
      const float scale = (some ? greatest / 127.0f : 0.0f) + (whole ? 0.0f : low_count + high_count);
      a.scales[block] = scale;
      a.sums[block] = scale * (low_count + high_count);
      a.counts_16[2 * block] = whole ? static_cast<std::int32_t>(low_count) : 0;
      a.counts_16[2 * block + 1] = whole ? static_cast<std::int32_t>(high_count) : 0;
      a.counts[block] = a.counts_16[2 * block] + a.counts_16[2 * block + 1];
    }
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

/// A token's activations of one slab rounded to bf16.
struct round_slab {
  static constexpr bool uses_bf16_dot_products = true;
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, std::ptrdiff_t left, bf16* out) {
    using vector = execution::f32x16<execution::base_of(Set)>;
    for (int i = 0; i < slab_columns; i += 16, left -= 16) {
      const vector v = left >= 16 ? vector::load(x + i) : vector::load_first(x + i, left > 0 ? left : 0);
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

}  // namespace detail

/// Makes what `kinds` asks for of the rows of x in `workspace`, which must outlive the result and hold
/// activation_bytes(T, M).
/// Cost: reads 4 T M bytes, writes 1.6 T M (codes) and 2 T M (halves). Errors: limit, where the workspace is too small.
inline prepared_activations prepare(const execution::cpu::context& exec, matrix_view<const float> x,
                                    std::span<std::byte> workspace, activation_kinds kinds = {true, true}) {
  prepared_activations p;
  p.values = x;
  if (x.rows <= 0 || x.columns <= 0 || !(kinds.codes || kinds.halves)) return p;
  if (workspace.size() < activation_bytes(x.rows, x.columns)) {
    throw error(
        error_code::limit, "quantization::prepare: workspace",
        std::to_string(workspace.size()) + " bytes, need " + std::to_string(activation_bytes(x.rows, x.columns)),
        "size it with matmul_workspace_bytes");
  }
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
  std::byte* start = workspace.data() + ((address + 63) / 64 * 64 - address);
  const std::ptrdiff_t slabs = slabs_of(x.columns), pieces = slabs * x.rows;
  auto* halves = reinterpret_cast<bf16*>(start);
  auto* codes = reinterpret_cast<std::int8_t*>(start + pieces * slab_columns * 2);
  auto* scales = reinterpret_cast<float*>(codes + pieces * slab_columns);
  float* sums = scales + pieces * 8;
  auto* counts = reinterpret_cast<std::int32_t*>(sums + pieces * 8);
  std::int32_t* counts_16 = counts + pieces * 8;
  // About 16 Ki values a part: less isn't worth a second thread.
  const std::ptrdiff_t grain = 1 + (1 << 14) / (slabs * slab_columns);
  exec.parallel_for(x.rows, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      for (std::ptrdiff_t s = 0; s < slabs; ++s) {
        const float* from = x.row(t) + s * slab_columns;
        const std::ptrdiff_t left = x.columns - s * slab_columns, i = s * x.rows + t;
        if (kinds.codes) {
          const detail::quantize_slab::args args{from,         left,           codes + i * slab_columns, scales + i * 8,
                                                 sums + i * 8, counts + i * 8, counts_16 + i * 16};
          execution::dispatch<detail::quantize_slab>(exec.set(), args);
        }
        if (kinds.halves) execution::dispatch<detail::round_slab>(exec.set(), from, left, halves + i * slab_columns);
      }
    }
  });
  if (kinds.codes) p.codes = codes, p.scales = scales, p.sums = sums, p.counts = counts, p.counts_16 = counts_16;
  if (kinds.halves) p.halves = halves;
  return p;
}

}  // namespace effinfer::inline v0::quantization
