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

/// What a product reads of its activations. Which parts there are depends on the weights that they are prepared for.
struct prepared_activations {
  matrix_view<const float> values;          ///< [T, M]: F32 and F16 weights
  const std::int8_t* codes = nullptr;       ///< [T, padded], zero beyond M: integer weights, with all that follows
  const float* scales = nullptr;            ///< [T, padded / 32]
  const float* sums = nullptr;              ///< [T, padded / 32]: scale * sum of codes
  const std::int32_t* counts = nullptr;     ///< [T, padded / 32]: sum of codes
  const std::int32_t* counts_16 = nullptr;  ///< [T, padded / 16]: likewise, of 16 columns
  const bf16* halves = nullptr;  ///< [T, padded], zero beyond M: BF16 weights, where the machine multiplies these
  std::ptrdiff_t padded = 0;     ///< M rounded up to 256, the widest unit of a packed matrix
};

/// What a product with weights of this kind reads.
struct activation_kinds {
  bool codes = false, halves = false;

  constexpr void add(weight_format f, execution::instruction_set set) {
    if (block_size(f) != 1 || f == weight_format::int8 || f == weight_format::int4) codes = true;
    if (f == weight_format::bf16 && set == execution::instruction_set::avx512_bf16) halves = true;
  }
};

constexpr std::ptrdiff_t padded_columns(std::ptrdiff_t columns) { return (columns + 255) / 256 * 256; }

/// What `prepare` needs for [rows, columns], at any alignment.
constexpr std::size_t activation_bytes(std::ptrdiff_t rows, std::ptrdiff_t columns) {
  const std::ptrdiff_t padded = padded_columns(columns);
  return rows > 0 && columns > 0 ? static_cast<std::size_t>(rows * (padded * 3 + padded / 32 * 20) + 63) : 0;
}

namespace detail {

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void narrow_codes(std::int8_t* p, const execution::detail::f32x16_memory& v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_maskz_cvtps_epi32(0xffff, v)));
}
#endif

struct quantize_row {
  struct args {
    const float* x;
    std::ptrdiff_t columns;
    std::ptrdiff_t padded;
    std::int8_t* codes;
    float* scales;
    float* sums;
    std::int32_t* counts;
    std::int32_t* counts_16;
  };

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const args& a) {
    using vector = execution::f32x16<Set>;
    for (std::ptrdiff_t first = 0; first < a.padded; first += 32) {
      vector low, high;
      const std::ptrdiff_t left = a.columns - first;
      if (left >= 32) {
        low = vector::load(a.x + first);
        high = vector::load(a.x + first + 16);
      } else {
        low = left >= 16 ? vector::load(a.x + first) : vector::load_first(a.x + first, left > 0 ? left : 0);
        high = vector::load_first(a.x + first + (left > 16 ? 16 : 0), left > 16 ? left - 16 : 0);
      }
      // x - x is zero, or NaN for a NaN or an infinity, whose codes would hide it.
      const float poison = ((low - low) + (high - high)).sum();
      const float greatest = max(abs(low), abs(high)).max_lane();
      const bool some = greatest > 0x1p-120f;  // 127 / greatest stays finite
      const vector inverse = vector::broadcast(some ? 127.0f / greatest : 0.0f);
      low = nearest(low * inverse);
      high = nearest(high * inverse);
      store_codes<Set>(a.codes + first, low);
      store_codes<Set>(a.codes + first + 16, high);
      const float scale = (some ? greatest / 127.0f : 0.0f) + poison;
      a.scales[first / 32] = scale;
      const float low_count = low.sum(), high_count = high.sum();  // whole numbers below 2^24: exact in any order
      a.sums[first / 32] = scale * (low_count + high_count);
      // A NaN's conversion would be undefined; its scale carries it.
      const bool whole = poison == 0.0f;
      a.counts_16[first / 16] = whole ? static_cast<std::int32_t>(low_count) : 0;
      a.counts_16[first / 16 + 1] = whole ? static_cast<std::int32_t>(high_count) : 0;
      a.counts[first / 32] = a.counts_16[first / 16] + a.counts_16[first / 16 + 1];
    }
  }

  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void store_codes(std::int8_t* p, const execution::f32x16<Set>& v) {
    if constexpr (Set == execution::instruction_set::avx512) {
      narrow_codes(p, v.lanes.v);
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
#endif

/// A row rounded to bf16.
struct round_row {
  static constexpr bool uses_avx512_bf16 = true;
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* x, std::ptrdiff_t columns, std::ptrdiff_t padded, bf16* out) {
    using vector = execution::f32x16<execution::base_of(Set)>;
    for (std::ptrdiff_t i = 0; i < padded; i += 16) {
      const std::ptrdiff_t left = columns - i;
      const vector v = left >= 16 ? vector::load(x + i) : vector::load_first(x + i, left > 0 ? left : 0);
      if constexpr (Set == execution::instruction_set::avx512_bf16) {
        round_to_bf16(out + i, v.lanes.v);
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
  p.padded = padded_columns(x.columns);
  if (x.rows <= 0 || x.columns <= 0 || !(kinds.codes || kinds.halves)) return p;
  if (workspace.size() < activation_bytes(x.rows, x.columns)) {
    throw error(
        error_code::limit, "quantization::prepare: workspace",
        std::to_string(workspace.size()) + " bytes, need " + std::to_string(activation_bytes(x.rows, x.columns)),
        "size it with matmul_workspace_bytes");
  }
  const auto address = reinterpret_cast<std::uintptr_t>(workspace.data());
  std::byte* start = workspace.data() + ((address + 63) / 64 * 64 - address);
  const std::ptrdiff_t blocks = p.padded / 32;
  auto* halves = reinterpret_cast<bf16*>(start);
  auto* codes = reinterpret_cast<std::int8_t*>(start + x.rows * p.padded * 2);
  auto* scales = reinterpret_cast<float*>(start + x.rows * p.padded * 3);
  float* sums = scales + x.rows * blocks;
  auto* counts = reinterpret_cast<std::int32_t*>(sums + x.rows * blocks);
  std::int32_t* counts_16 = counts + x.rows * blocks;
  // About 16 Ki values a part: less isn't worth a second thread.
  const std::ptrdiff_t grain = 1 + (1 << 14) / p.padded;
  exec.parallel_for(x.rows, grain, [&](std::ptrdiff_t begin, std::ptrdiff_t end) {
    for (std::ptrdiff_t t = begin; t < end; ++t) {
      if (kinds.codes) {
        const detail::quantize_row::args args{x.row(t),
                                              x.columns,
                                              p.padded,
                                              codes + t * p.padded,
                                              scales + t * blocks,
                                              sums + t * blocks,
                                              counts + t * blocks,
                                              counts_16 + t * blocks * 2};
        execution::dispatch<detail::quantize_row>(exec.set(), args);
      }
      if (kinds.halves) {
        execution::dispatch<detail::round_row>(exec.set(), x.row(t), x.columns, p.padded, halves + t * p.padded);
      }
    }
  });
  if (kinds.codes) p.codes = codes, p.scales = scales, p.sums = sums, p.counts = counts, p.counts_16 = counts_16;
  if (kinds.halves) p.halves = halves;
  return p;
}

}  // namespace effinfer::inline v0::quantization
