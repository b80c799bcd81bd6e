#pragma once
// Products of 64 weight codes with 64 activation codes, in sixteen lanes: lane i is the exact integer
// sum_{j<4} w[4 i + j] x[4 i + j], as a float (below 2^17, so exact). The same on every instruction set.
//
// AVX-512 has unsigned times signed bytes only (vpdpbusd): codes are taken unsigned, as files have them (8-bit ones with
// 128 added), and the offset times the lane's activations is subtracted, once for all rows. AVX2's
// unsigned times signed (vpmaddubsw) saturates at 16 bits: |w| times x with the sign of w stays below, as |x| <= 127.

#include <effinfer/quantization/cpu/codes.hpp>

namespace effinfer::inline v0::quantization::detail {

using execution::f32x16;
using execution::instruction_set;
using unpacking::bytes_of;

#if EFFINFER_X86
using f32x8_memory = execution::detail::f32x8_memory;
using f32x16_memory = execution::detail::f32x16_memory;
using i32x16_memory = execution::detail::lanes_of<std::int32_t, 16>::type;

inline EFFINFER_TARGET_AVX512 void minus_offset_sums(i32x16_memory& r, const bytes_of<64>& x, const int& offset) {
  const __m512i zero = _mm512_setzero_si512();
  const __m512i sums =
      _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(static_cast<char>(offset)), reinterpret_cast<__m512i>(x));
  r = reinterpret_cast<i32x16_memory>(_mm512_sub_epi32(zero, sums));
}
inline EFFINFER_TARGET_AVX512 void dot_avx512(f32x16_memory& r, const bytes_of<64>& w, const bytes_of<64>& x,
                                              const i32x16_memory& start) {
  const __m512i sums =
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(start), reinterpret_cast<__m512i>(w), reinterpret_cast<__m512i>(x));
  r = _mm512_maskz_cvtepi32_ps(0xffff, sums);
}
inline EFFINFER_TARGET_AVX512 void spread_4_avx512(f32x16_memory& r, const float* p) {
  const __m512i lanes = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  r = _mm512_maskz_permutexvar_ps(0xffff, lanes, _mm512_castps128_ps512(_mm_loadu_ps(p)));
}
inline EFFINFER_TARGET_AVX512 void spread_2_avx512(f32x16_memory& r, const float* p) {
  const __m512i lanes = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  const __m128 two = _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(p)));
  r = _mm512_maskz_permutexvar_ps(0xffff, lanes, _mm512_castps128_ps512(two));
}
inline EFFINFER_TARGET_AVX2 void dot_avx2(f32x8_memory& r, const bytes_of<32>& weights, const bytes_of<32>& x) {
  const auto w = reinterpret_cast<__m256i>(weights);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(reinterpret_cast<__m256i>(x), w));
  r = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
inline EFFINFER_TARGET_AVX2 void spread_4_avx2(f32x8_memory& low, f32x8_memory& high, const float* p) {
  const __m256 four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  low = _mm256_permutevar8x32_ps(four, _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0));
  high = _mm256_permutevar8x32_ps(four, _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2));
}
#endif

/// The scales of 64 columns to lanes: a lane stands for four columns. Columns a scale: 16 or 32.
template <instruction_set Set, int Columns>
EFFINFER_ALWAYS_INLINE void spread_scales(f32x16<Set>& r, const float* p) {
  static_assert(Columns == 16 || Columns == 32);
  if constexpr (Columns == 32) {
    if constexpr (Set == instruction_set::avx512) {
      spread_2_avx512(r.lanes.v, p);
    } else {
      r.lanes.low.set(p[0]), r.lanes.high.set(p[1]);
    }
  } else if constexpr (Set == instruction_set::avx512) {
    spread_4_avx512(r.lanes.v, p);
  } else if constexpr (Set == instruction_set::avx2) {
    spread_4_avx2(r.lanes.low.v, r.lanes.high.v, p);
  } else {
    r.lanes.low.low.set(p[0]), r.lanes.low.high.set(p[1]), r.lanes.high.low.set(p[2]), r.lanes.high.high.set(p[3]);
  }
}

/// Makes codes as a file has them, `Offset` above their meaning (128: signed bytes), ready for `dot` and for a panel.
template <instruction_set Set, int Offset>
EFFINFER_ALWAYS_INLINE void make_ready(code_vector<Set>& v) {
  if constexpr (Set == instruction_set::avx512) {
    if constexpr (Offset == 128) v.all ^= 0x80;
  } else if constexpr (Offset != 128) {
    constexpr auto offset = static_cast<std::uint8_t>(Offset);
    v.low -= offset;
    v.high -= offset;
  }
}
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void load_ready(code_vector<Set>& v, const std::int8_t* p) {
  if constexpr (Set == instruction_set::avx512) {
    unpacking::load_bytes<64>(v.all, p);
  } else {
    unpacking::load_pair<Set>(v, p, p + 32);
  }
}
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void store_ready(std::int8_t* p, const code_vector<Set>& v) {
  if constexpr (Set == instruction_set::avx512) {
    unpacking::store_bytes<64>(p, v.all);
  } else {
    unpacking::store_bytes<32>(p, v.low);
    unpacking::store_bytes<32>(p + 32, v.high);
  }
}

/// 64 codes of activations.
template <instruction_set Set>
struct activation_codes : code_vector<Set> {
  EFFINFER_ALWAYS_INLINE void load(const std::int8_t* p, int /*offset*/ = 0) { load_ready<Set>(*this, p); }
};
#if EFFINFER_X86
template <>
struct activation_codes<instruction_set::avx512> : code_vector<instruction_set::avx512> {
  i32x16_memory start;
  EFFINFER_ALWAYS_INLINE void load(const std::int8_t* p) {
    unpacking::load_bytes<64>(all, p);
    start = i32x16_memory{};
  }
  EFFINFER_ALWAYS_INLINE void load(const std::int8_t* p, int offset) {
    unpacking::load_bytes<64>(all, p);
    minus_offset_sums(start, all, offset);
  }
};
#endif

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void dot(f32x16<Set>& r, const code_vector<Set>& w, const activation_codes<Set>& x) {
  if constexpr (Set == instruction_set::avx512) {
    dot_avx512(r.lanes.v, w.all, x.all, x.start);
  } else if constexpr (Set == instruction_set::avx2) {
    dot_avx2(r.lanes.low.v, w.low, x.low);
    dot_avx2(r.lanes.high.v, w.high, x.high);
  } else {
    std::int8_t a[64], b[64];
    store_ready<Set>(a, w);
    store_ready<Set>(b, x);
    float lanes[16];
    for (int i = 0; i < 16; ++i) {
      int sum = 0;
      for (int j = 0; j < 4; ++j) sum += a[4 * i + j] * b[4 * i + j];
      lanes[i] = static_cast<float>(sum);
    }
    r.lanes.load(&lanes[0]);
  }
}

}  // namespace effinfer::inline v0::quantization::detail
