#pragma once
// How the scales of a panel lie in memory. A unit of columns begins with the scales of its sixteen rows, one lane a row, and
// goes on with the codes (codes.hpp).
//
//   scale_a_row      one float a row, at the head of the panel and not in its units; applied to the finished sum
//   scale_a_block    f16 for each 32 columns (or for each group of 64 or 128), then minimums likewise, if there are any
//   scales_k         Q4_K, Q5_K: f16 d, f16 dmin for 256 columns; 8 x 8 bits of scale, 8 x 8 bits of minimum
//   scales_k_signed  Q6_K: f16 d for 256 columns; 16 x 8 bits of signed scale, one for each 16 columns

#include <effinfer/quantization/cpu/codes.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::quantization {

/// One row of an integer format, its parts side by side: between a file's blocks and a panel.
struct unpacked_row {
  std::uint8_t* codes;           ///< [columns], the format's offset added
  std::uint16_t* scales;         ///< f16, one for each block of the format
  std::uint16_t* minimums;       ///< f16, likewise, where the format has them
  std::uint8_t* block_scales;    ///< K formats
  std::uint8_t* block_minimums;  ///< K formats
  float row_scale;               ///< int8
};

namespace detail {

inline float half_to_float(const std::byte* p, int i) {
  std::uint16_t bits;
  __builtin_memcpy(&bits, p + 2 * i, 2);
  return static_cast<float>(f16::from_bits(bits));
}
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_halves(const std::byte* p, execution::f32x16<Set>& v) {
  v = execution::f32x16<Set>::load(reinterpret_cast<const f16*>(p));
}

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void widen_unsigned(execution::detail::f32x16_memory& v, const std::byte* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  v = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes));
}
inline EFFINFER_TARGET_AVX512 void widen_signed(execution::detail::f32x16_memory& v, const std::byte* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  v = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
}
inline EFFINFER_TARGET_AVX2 void widen_unsigned(execution::detail::f32x8_memory& v, const std::byte* p) {
  v = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
inline EFFINFER_TARGET_AVX2 void widen_signed(execution::detail::f32x8_memory& v, const std::byte* p) {
  v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#elif EFFINFER_ARM64
inline void widen_unsigned(execution::f32x16<instruction_set::neon>& v, const std::byte* p) {
  using lanes = execution::detail::f32x4_memory;
  const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const std::uint8_t*>(p));
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  v.lanes.low.low.v = reinterpret_cast<lanes>(vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))));
  v.lanes.low.high.v = reinterpret_cast<lanes>(vcvtq_f32_u32(vmovl_high_u16(low)));
  v.lanes.high.low.v = reinterpret_cast<lanes>(vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))));
  v.lanes.high.high.v = reinterpret_cast<lanes>(vcvtq_f32_u32(vmovl_high_u16(high)));
}
inline void widen_signed(execution::f32x16<instruction_set::neon>& v, const std::byte* p) {
  using lanes = execution::detail::f32x4_memory;
  const int8x16_t bytes = vld1q_s8(reinterpret_cast<const std::int8_t*>(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  v.lanes.low.low.v = reinterpret_cast<lanes>(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))));
  v.lanes.low.high.v = reinterpret_cast<lanes>(vcvtq_f32_s32(vmovl_high_s16(low)));
  v.lanes.high.low.v = reinterpret_cast<lanes>(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))));
  v.lanes.high.high.v = reinterpret_cast<lanes>(vcvtq_f32_s32(vmovl_high_s16(high)));
}
#endif
/// Sixteen bytes as floats.
template <instruction_set Set, bool Signed>
EFFINFER_ALWAYS_INLINE void load_byte_scales(const std::byte* p, execution::f32x16<Set>& v) {
#if EFFINFER_X86
  if constexpr (Set == instruction_set::avx512) {
    if constexpr (Signed) {
      widen_signed(v.lanes.v, p);
    } else {
      widen_unsigned(v.lanes.v, p);
    }
    return;
  } else if constexpr (Set == instruction_set::avx2) {
    if constexpr (Signed) {
      widen_signed(v.lanes.low.v, p), widen_signed(v.lanes.high.v, p + 8);
    } else {
      widen_unsigned(v.lanes.low.v, p), widen_unsigned(v.lanes.high.v, p + 8);
    }
    return;
  }
#elif EFFINFER_ARM64
  if constexpr (Set == instruction_set::neon) {
    if constexpr (Signed) {
      widen_signed(v, p);
    } else {
      widen_unsigned(v, p);
    }
    return;
  }
#endif
  float values[16];
  for (int i = 0; i < 16; ++i) {
    values[i] = Signed ? static_cast<float>(static_cast<std::int8_t>(p[i]))
                       : static_cast<float>(static_cast<std::uint8_t>(p[i]));
  }
  v = execution::f32x16<Set>::load(&values[0]);
}

}  // namespace detail

/// Each of these structs says how many columns a unit has and how many bytes its scales take, writes and reads a lane, and gives
/// the sixteen rows' scales (and minimums) of part `part` of a unit, of `columns_a_scale` columns.
struct scale_a_row {
  static constexpr bool in_row = true, has_minimum = false;
  static constexpr int columns_a_unit = 64, columns_a_scale = 32;
  static constexpr int bytes_a_unit(int /*group*/) { return 0; }
  static void store(std::byte*, int, const unpacked_row&, std::ptrdiff_t, int) {}
  static void fetch(const std::byte*, int, int, int, float& scale, float& minimum) { scale = 1, minimum = 0; }
};

template <bool HasMinimum, int ColumnsAUnit>
struct scale_a_block {
  static constexpr bool in_row = false, has_minimum = HasMinimum;
  static constexpr int columns_a_unit = ColumnsAUnit, columns_a_scale = 32;
  static constexpr int bytes_a_unit(int group) { return ColumnsAUnit / group * 32 * (HasMinimum ? 2 : 1); }
  static void store(std::byte* unit, int lane, const unpacked_row& row, std::ptrdiff_t first, int group) {
    const int groups = ColumnsAUnit / group;
    for (int i = 0; i < groups; ++i) {
      __builtin_memcpy(unit + i * 32 + lane * 2, row.scales + first / group + i, 2);
      if constexpr (HasMinimum)
        __builtin_memcpy(unit + (groups + i) * 32 + lane * 2, row.minimums + first / group + i, 2);
    }
  }
  static void fetch(const std::byte* unit, int lane, int part, int group, float& scale, float& minimum) {
    const int groups = ColumnsAUnit / group, i = part * 32 / group;
    scale = detail::half_to_float(unit + i * 32, lane);
    minimum = HasMinimum ? detail::half_to_float(unit + (groups + i) * 32, lane) : 0.0f;
  }
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* unit, int part, int group, execution::f32x16<Set>& scale,
                                          execution::f32x16<Set>& minimum) {
    const int groups = ColumnsAUnit / group, i = part * 32 / group;
    detail::load_halves<Set>(unit + i * 32, scale);
    if constexpr (HasMinimum) detail::load_halves<Set>(unit + (groups + i) * 32, minimum);
  }
};

struct scales_k {
  static constexpr bool in_row = false, has_minimum = true;
  static constexpr int columns_a_unit = 256, columns_a_scale = 32;
  static constexpr int bytes_a_unit(int /*group*/) { return 64 + 2 * 8 * 16; }
  static void store(std::byte* unit, int lane, const unpacked_row& row, std::ptrdiff_t first, int /*group*/) {
    __builtin_memcpy(unit + lane * 2, row.scales + first / 256, 2);
    __builtin_memcpy(unit + 32 + lane * 2, row.minimums + first / 256, 2);
    for (int i = 0; i < 8; ++i) {
      unit[64 + i * 16 + lane] = static_cast<std::byte>(row.block_scales[first / 32 + i]);
      unit[192 + i * 16 + lane] = static_cast<std::byte>(row.block_minimums[first / 32 + i]);
    }
  }
  static void fetch(const std::byte* unit, int lane, int part, int /*group*/, float& scale, float& minimum) {
    scale =
        detail::half_to_float(unit, lane) * static_cast<float>(static_cast<std::uint8_t>(unit[64 + part * 16 + lane]));
    minimum = -detail::half_to_float(unit + 32, lane) *
              static_cast<float>(static_cast<std::uint8_t>(unit[192 + part * 16 + lane]));
  }
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* unit, int part, int /*group*/, execution::f32x16<Set>& scale,
                                          execution::f32x16<Set>& minimum) {
    execution::f32x16<Set> d, codes;
    detail::load_halves<Set>(unit, d);
    detail::load_byte_scales<Set, false>(unit + 64 + part * 16, codes);
    scale = d * codes;
    detail::load_halves<Set>(unit + 32, d);
    detail::load_byte_scales<Set, false>(unit + 192 + part * 16, codes);
    minimum = execution::f32x16<Set>::zero() - d * codes;
  }
};

struct scales_k_signed {
  static constexpr bool in_row = false, has_minimum = false;
  static constexpr int columns_a_unit = 256, columns_a_scale = 16;
  static constexpr int bytes_a_unit(int /*group*/) { return 64 + 16 * 16; }  // d takes 32 bytes of the 64: whole lines
  static void store(std::byte* unit, int lane, const unpacked_row& row, std::ptrdiff_t first, int /*group*/) {
    __builtin_memcpy(unit + lane * 2, row.scales + first / 256, 2);
    for (int i = 0; i < 16; ++i) unit[64 + i * 16 + lane] = static_cast<std::byte>(row.block_scales[first / 16 + i]);
  }
  static void fetch(const std::byte* unit, int lane, int part, int /*group*/, float& scale, float& minimum) {
    scale =
        detail::half_to_float(unit, lane) * static_cast<float>(static_cast<std::int8_t>(unit[64 + part * 16 + lane]));
    minimum = 0;
  }
  template <instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void load(const std::byte* unit, int part, int /*group*/, execution::f32x16<Set>& scale,
                                          execution::f32x16<Set>& /*minimum*/) {
    execution::f32x16<Set> codes;
    detail::load_halves<Set>(unit, scale);
    detail::load_byte_scales<Set, true>(unit + 64 + part * 16, codes);
    scale = scale * codes;
  }
};

}  // namespace effinfer::inline v0::quantization
