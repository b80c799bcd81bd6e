#pragma once
// Sixteen 32-bit sums, one a row of a half panel, and the step that adds four columns: lane i gains
// sum_{j<4} w[i][j] x[j], exactly.
//
// VNNI multiplies unsigned by signed bytes: weight codes are taken as they lie, offset included, and the sum starts at minus
// the offset times the sum of the activations. Without VNNI, AVX2's unsigned times signed (vpmaddubsw) gives sums of two
// products in 16 bits, where it saturates. Codes of up to 6 bits stay below, as |x| <= 127, for some steps together: these
// are added in 16 bits, and the sum goes to 32 once (pair_sums): half the multiplications. Of codes of 8 bits |w| times x with
// the sign of w stays below, one step at a time; so there the offset is taken off the codes.
//
// Arm multiplies signed bytes (unsigned by signed with I8MM only): codes below 128 are both and keep their offset. A dot
// product takes its four activations from a quarter of a register: they are loaded, and not broadcast.

#include <effinfer/quantization/cpu/codes.hpp>

namespace effinfer::inline v0::quantization::detail {

/// Steps that add up in 16 bits without overflow, |x| being at most 127: sums of two products each.
template <instruction_set Set, class Codes>
inline constexpr int steps_in_pair_sums = Set == instruction_set::avx2 ? 32767 / (2 * 127 * Codes::largest) : 0;

/// Whether codes keep their offset.
template <instruction_set Set, class Codes>
inline constexpr bool unsigned_codes =
    Set == instruction_set::avx2_vnni || Set == instruction_set::neon_i8mm ||
    execution::base_of(Set) == instruction_set::avx512 ||
    (execution::base_of(Set) == instruction_set::neon && Codes::largest < 128) || steps_in_pair_sums<Set, Codes> != 0;

template <int Lanes>
using i32_of = typename execution::detail::lanes_of<std::int32_t, Lanes>::type;
template <int Lanes>
using i16_of = typename execution::detail::lanes_of<std::int16_t, Lanes>::type;

/// Whether four activations are a float's bits, in the lowest lane of a register.
template <instruction_set Set>
inline constexpr bool takes_one_lane = execution::base_of(Set) == instruction_set::neon&& Set != instruction_set::neon;

template <int Lanes, bool InOneLane>
struct four_activations {
  using type = bytes_of<Lanes>;
};
template <int Lanes>
struct four_activations<Lanes, true> {
  using type = float;
};

/// Four activations, in every lane.
template <instruction_set Set>
struct activation_lanes {
  static constexpr int lanes = code_group<Set>::lanes;
  typename four_activations<lanes, takes_one_lane<Set>>::type v;
  EFFINFER_ALWAYS_INLINE void load(const std::int8_t* p);
};

/// Sums of two products in 16 bits each, of which two make a row's: at most steps_in_pair_sums steps of them.
struct pair_sums {
  i16_of<16> part[2];
  template <bool First>
  EFFINFER_ALWAYS_INLINE void add(const code_group<instruction_set::avx2>& w,
                                  const activation_lanes<instruction_set::avx2>& x);
};

template <instruction_set Set>
struct integer_sums {
  static constexpr int registers = code_group<Set>::registers;
  static constexpr int lanes = code_group<Set>::lanes / 4;
  i32_of<lanes> part[registers];

  /// Sums are kept as the bits of the float 1.5 * 2^23 + sum: below 2^22 (a block's are below 2^20) a subtraction makes them floats.
  static constexpr std::int32_t zero = 0x4b400000;
  EFFINFER_ALWAYS_INLINE void set(const std::int32_t& value);
  EFFINFER_ALWAYS_INLINE void add(const code_group<Set>& w, const activation_lanes<Set>& x);
  EFFINFER_ALWAYS_INLINE void add(const pair_sums& pairs);
  EFFINFER_ALWAYS_INLINE void to_floats(execution::f32x16<execution::base_of(Set)>& v) const;
};

#if EFFINFER_X86
inline EFFINFER_TARGET_AVX512 void broadcast_word(bytes_of<64>& v, const std::int8_t* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, 4);
  v = reinterpret_cast<bytes_of<64>>(_mm512_set1_epi32(word));
}
inline EFFINFER_TARGET_AVX2 void broadcast_word(bytes_of<32>& v, const std::int8_t* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, 4);
  v = reinterpret_cast<bytes_of<32>>(_mm256_set1_epi32(word));
}
inline EFFINFER_TARGET_AVX512 void broadcast_word(i32_of<16>& v, const std::int32_t& value) {
  v = reinterpret_cast<i32_of<16>>(_mm512_set1_epi32(value));
}
inline EFFINFER_TARGET_AVX2 void broadcast_word(i32_of<8>& v, const std::int32_t& value) {
  v = reinterpret_cast<i32_of<8>>(_mm256_set1_epi32(value));
}
inline EFFINFER_TARGET_AVX512 void add_dot_avx512(i32_of<16>& sums, const bytes_of<64>& w, const bytes_of<64>& x) {
  sums = reinterpret_cast<i32_of<16>>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(w), reinterpret_cast<__m512i>(x)));
}
inline EFFINFER_TARGET_AVX2_VNNI void add_dot_avx2_vnni(i32_of<8>& sums, const bytes_of<32>& w, const bytes_of<32>& x) {
  sums = reinterpret_cast<i32_of<8>>(_mm256_dpbusd_avx_epi32(
      reinterpret_cast<__m256i>(sums), reinterpret_cast<__m256i>(w), reinterpret_cast<__m256i>(x)));
}
inline EFFINFER_TARGET_AVX2 void widen_pairs_avx2(i32_of<8>& sums, const i16_of<16>& pairs) {
  const __m256i fours = _mm256_madd_epi16(reinterpret_cast<__m256i>(pairs), _mm256_set1_epi16(1));
  sums = reinterpret_cast<i32_of<8>>(_mm256_add_epi32(reinterpret_cast<__m256i>(sums), fours));
  __asm__("" : "+x"(sums));  // one by one: g++ would add products first, until it is out of registers
}
inline EFFINFER_TARGET_AVX2 void add_dot_avx2(i32_of<8>& sums, const bytes_of<32>& weights, const bytes_of<32>& x) {
  const auto w = reinterpret_cast<__m256i>(weights);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(reinterpret_cast<__m256i>(x), w));
  widen_pairs_avx2(sums, reinterpret_cast<i16_of<16>>(pairs));
}
template <bool First>
inline EFFINFER_TARGET_AVX2 void add_pairs_avx2(i16_of<16>& sums, const bytes_of<32>& w, const bytes_of<32>& x) {
  const __m256i pairs = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(w), reinterpret_cast<__m256i>(x));
  sums = reinterpret_cast<i16_of<16>>(First ? pairs : _mm256_add_epi16(reinterpret_cast<__m256i>(sums), pairs));
  __asm__("" : "+x"(sums));  // one by one: g++ would add products first, until it is out of registers
}
template <bool First>
EFFINFER_ALWAYS_INLINE void pair_sums::add(const code_group<instruction_set::avx2>& w,
                                           const activation_lanes<instruction_set::avx2>& x) {
  add_pairs_avx2<First>(part[0], w.part[0], x.v);
  add_pairs_avx2<First>(part[1], w.part[1], x.v);
}
template <>
EFFINFER_ALWAYS_INLINE void integer_sums<instruction_set::avx2>::add(const pair_sums& pairs) {
  widen_pairs_avx2(part[0], pairs.part[0]);
  widen_pairs_avx2(part[1], pairs.part[1]);
}
#elif EFFINFER_ARM64
inline void broadcast_word(bytes_of<16>& v, const std::int8_t* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, 4);
  v = reinterpret_cast<bytes_of<16>>(vdupq_n_u32(word));
}
inline void broadcast_word(i32_of<4>& v, const std::int32_t& value) {
  v = reinterpret_cast<i32_of<4>>(vdupq_n_s32(value));
}
// Not intrinsics: before version 16 clang has those only in files compiled for the extension. Volatile keeps them in this
// order: g++ would move loads up until it is out of registers, a third more instructions.
inline void add_dot_neon(i32_of<4>& sums, const bytes_of<16>& w, const bytes_of<16>& x) {
  bytes_of<16> low, high;  // sums of two products are at most 2 * 128 * 127, below 2^15
  __asm__ volatile(
      "smull %1.8h, %3.8b, %4.8b\n\t"
      "smull2 %2.8h, %3.16b, %4.16b\n\t"
      "addp %1.8h, %1.8h, %2.8h\n\t"
      "sadalp %0.4s, %1.8h"
      : "+w"(sums), "=&w"(low), "=&w"(high)
      : "w"(w), "w"(x));
}
inline EFFINFER_TARGET_NEON_DOTPROD void add_dot_neon_dotprod(i32_of<4>& sums, const bytes_of<16>& w, const float& x) {
  __asm__ volatile("sdot %0.4s, %1.16b, %2.4b[0]" : "+w"(sums) : "w"(w), "w"(x));
}
inline EFFINFER_TARGET_NEON_I8MM void add_dot_neon_i8mm(i32_of<4>& sums, const bytes_of<16>& w, const float& x) {
  __asm__ volatile("usdot %0.4s, %1.16b, %2.4b[0]" : "+w"(sums) : "w"(w), "w"(x));
}
#endif

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void activation_lanes<Set>::load(const std::int8_t* p) {
  if constexpr (Set == instruction_set::portable || takes_one_lane<Set>) {
    __builtin_memcpy(&v, p, 4);  // the rest is never read
  } else {
    broadcast_word(v, p);
  }
}

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void integer_sums<Set>::set(const std::int32_t& value) {
  if constexpr (Set == instruction_set::portable) {
    for (int i = 0; i < registers; ++i) part[i] = value - i32_of<lanes>{};
  } else {
    broadcast_word(part[0], value);
    if constexpr (registers > 1) part[1] = part[0];
    if constexpr (registers > 2) part[2] = part[3] = part[0];
  }
}

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void integer_sums<Set>::add(const code_group<Set>& w, const activation_lanes<Set>& x) {
  if constexpr (Set == instruction_set::avx512) {
    add_dot_avx512(part[0], w.part[0], x.v);
  } else if constexpr (Set == instruction_set::avx2_vnni) {
    add_dot_avx2_vnni(part[0], w.part[0], x.v);
    add_dot_avx2_vnni(part[1], w.part[1], x.v);
  } else if constexpr (Set == instruction_set::avx2) {
    add_dot_avx2(part[0], w.part[0], x.v);
    add_dot_avx2(part[1], w.part[1], x.v);
  } else if constexpr (Set == instruction_set::neon) {
    add_dot_neon(part[0], w.part[0], x.v), add_dot_neon(part[1], w.part[1], x.v);
    add_dot_neon(part[2], w.part[2], x.v), add_dot_neon(part[3], w.part[3], x.v);
  } else if constexpr (Set == instruction_set::neon_dotprod) {
    add_dot_neon_dotprod(part[0], w.part[0], x.v), add_dot_neon_dotprod(part[1], w.part[1], x.v);
    add_dot_neon_dotprod(part[2], w.part[2], x.v), add_dot_neon_dotprod(part[3], w.part[3], x.v);
  } else if constexpr (Set == instruction_set::neon_i8mm) {
    add_dot_neon_i8mm(part[0], w.part[0], x.v), add_dot_neon_i8mm(part[1], w.part[1], x.v);
    add_dot_neon_i8mm(part[2], w.part[2], x.v), add_dot_neon_i8mm(part[3], w.part[3], x.v);
  } else {
    for (int r = 0; r < registers; ++r) {
      for (int i = 0; i < lanes; ++i) {
        int sum = 0;
        for (int j = 0; j < 4; ++j) {
          sum += static_cast<std::int8_t>(w.part[r][i * 4 + j]) * static_cast<std::int8_t>(x.v[j]);
        }
        part[r][i] += sum;
      }
    }
  }
}

template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void integer_sums<Set>::to_floats(execution::f32x16<execution::base_of(Set)>& v) const {
  using floats = typename execution::detail::lanes_of<float, lanes>::type;
  if constexpr (registers == 1) {
    v.lanes.v = reinterpret_cast<floats>(part[0]);
  } else if constexpr (registers == 2) {
    v.lanes.low.v = reinterpret_cast<floats>(part[0]);
    v.lanes.high.v = reinterpret_cast<floats>(part[1]);
  } else {
    v.lanes.low.low.v = reinterpret_cast<floats>(part[0]);
    v.lanes.low.high.v = reinterpret_cast<floats>(part[1]);
    v.lanes.high.low.v = reinterpret_cast<floats>(part[2]);
    v.lanes.high.high.v = reinterpret_cast<floats>(part[3]);
  }
  v = v - execution::f32x16<execution::base_of(Set)>::broadcast(0x1.8p23f);
}

}  // namespace effinfer::inline v0::quantization::detail
