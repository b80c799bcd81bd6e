#pragma once
// What execution/vector.hpp is made of: one native register of floats, and pairs of these.
//
// GNU vector types carry the arithmetic. The few functions with intrinsics (fused multiply-add under g++, which has
// no generic form of it; half floats) are plain inline functions with a `target` and take references: their
// caller, an always-inline kernel body, has that target only once it is inlined into the wrapper of
// instruction_set.hpp. always_inline on them too is an error in both compilers; a vector passed by value would change
// the ABI between caller and callee when nothing is inlined (-O0).

#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/instruction_set.hpp>

#include <cstddef>
#include <cstdint>

#if EFFINFER_X86
#include <immintrin.h>
#elif EFFINFER_ARM64
#include <arm_neon.h>
#endif

namespace effinfer::inline v0::execution::detail {

// Under g++ the alignment is kept at 16, so that no register type is over-aligned in a user's plain build: it notes an old
// change of the ABI for those (-Wpsabi). clang notes nothing, and loses such an attribute on its way through
// templates: it would store with an instruction that wants 64. g++ loses it where a template deduces the type, and unoptimized
// does the same: templates name these types.
#if defined(__clang__)
#define EFFINFER_REGISTER_ALIGNMENT
#else
#define EFFINFER_REGISTER_ALIGNMENT , aligned(16)
#endif
template <class T, int Lanes>
struct lanes_of {
  typedef T type __attribute__((vector_size(sizeof(T) * Lanes) EFFINFER_REGISTER_ALIGNMENT));
  typedef T unaligned __attribute__((vector_size(sizeof(T) * Lanes), aligned(1), may_alias));
};
#undef EFFINFER_REGISTER_ALIGNMENT

#if EFFINFER_X86
// Masked forms with all lanes on, which compile to the plain instruction: g++ 12 takes the undefined vector inside
// its own unmasked ones for a mistake of the user (-Wuninitialized).
using f32x8_memory = lanes_of<float, 8>::type;
using f32x16_memory = lanes_of<float, 16>::type;

inline EFFINFER_TARGET_AVX2 void broadcast(f32x8_memory& v, const float& s) { v = _mm256_set1_ps(s); }
inline EFFINFER_TARGET_AVX512 void broadcast(f32x16_memory& v, const float& s) { v = _mm512_set1_ps(s); }
inline EFFINFER_TARGET_AVX2 void fused(f32x8_memory& c, const f32x8_memory& a, const f32x8_memory& b) {
  c = _mm256_fmadd_ps(a, b, c);
}
inline EFFINFER_TARGET_AVX512 void fused(f32x16_memory& c, const f32x16_memory& a, const f32x16_memory& b) {
  c = _mm512_fmadd_ps(a, b, c);
}
// g++ 12 makes a comparison and a blend of a > b ? a : b where b is a constant.
inline EFFINFER_TARGET_AVX2 void greater(f32x8_memory& a, const f32x8_memory& b) { a = _mm256_max_ps(a, b); }
inline EFFINFER_TARGET_AVX512 void greater(f32x16_memory& a, const f32x16_memory& b) {
  a = _mm512_maskz_max_ps(0xffff, a, b);
}
inline EFFINFER_TARGET_AVX2 void lesser(f32x8_memory& a, const f32x8_memory& b) { a = _mm256_min_ps(a, b); }
inline EFFINFER_TARGET_AVX512 void lesser(f32x16_memory& a, const f32x16_memory& b) {
  a = _mm512_maskz_min_ps(0xffff, a, b);
}
// g++ 12 makes sixteen scalar ones of a comparison of integers.
inline EFFINFER_TARGET_AVX512 void keep_lanes(f32x16_memory& a, const std::uint32_t& which,
                                              const f32x16_memory& others) {
  a = _mm512_mask_blend_ps(static_cast<__mmask16>(which), others, a);
}
inline EFFINFER_TARGET_AVX2 void from_f16(f32x8_memory& r, const f16* p) {
  r = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline EFFINFER_TARGET_AVX512 void from_f16(f32x16_memory& r, const f16* p) {
  r = _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline EFFINFER_TARGET_AVX2 void to_f16(f16* p, const f32x8_memory& v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline EFFINFER_TARGET_AVX512 void to_f16(f16* p, const f32x16_memory& v) {
  const __m256i half = _mm512_maskz_cvtps_ph(0xffff, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
}
inline EFFINFER_TARGET_AVX2 void to_nearest(f32x8_memory& v) {
  v = _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline EFFINFER_TARGET_AVX512 void to_nearest(f32x16_memory& v) {
  v = _mm512_maskz_roundscale_ps(0xffff, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline EFFINFER_TARGET_AVX2 void from_bf16(f32x8_memory& r, const bf16* p) {
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  r = _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
inline EFFINFER_TARGET_AVX512 void from_bf16(f32x16_memory& r, const bf16* p) {
  const __m512i words = _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  r = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, words, 16));
}
#elif EFFINFER_ARM64
// Every processor has these: no target attribute.
using f32x4_memory = lanes_of<float, 4>::type;

inline void broadcast(f32x4_memory& v, const float& s) { v = reinterpret_cast<f32x4_memory>(vdupq_n_f32(s)); }
inline void fused(f32x4_memory& c, const f32x4_memory& a, const f32x4_memory& b) {
  c = reinterpret_cast<f32x4_memory>(
      vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
}
inline void from_f16(f32x4_memory& r, const f16* p) {
  const uint16x4_t bits = vld1_u16(reinterpret_cast<const std::uint16_t*>(p));
  r = reinterpret_cast<f32x4_memory>(vcvt_f32_f16(vreinterpret_f16_u16(bits)));
}
inline void to_f16(f16* p, const f32x4_memory& v) {
  const float16x4_t half = vcvt_f16_f32(reinterpret_cast<float32x4_t>(v));
  vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(half));
}
inline void to_nearest(f32x4_memory& v) {
  v = reinterpret_cast<f32x4_memory>(vrndnq_f32(reinterpret_cast<float32x4_t>(v)));
}
inline void from_bf16(f32x4_memory& r, const bf16* p) {
  const uint16x4_t bits = vld1_u16(reinterpret_cast<const std::uint16_t*>(p));
  r = reinterpret_cast<f32x4_memory>(vshll_n_u16(bits, 16));
}
#endif

/// One register. Operations change `*this`, as a value returned would be one more vector across a call.
template <instruction_set Set, int Lanes>
struct f32_register {
  static constexpr int size = Lanes;
  static constexpr bool native = Set != instruction_set::portable;
  using vector = typename lanes_of<float, Lanes>::type;
  using memory = typename lanes_of<float, Lanes>::unaligned;
  using words = typename lanes_of<std::uint32_t, Lanes>::type;
  using integers = typename lanes_of<std::int32_t, Lanes>::type;
  vector v;

  EFFINFER_ALWAYS_INLINE void set(float s) {
    if constexpr (native) {
      broadcast(v, s);
    } else {
      v = s - vector{};
    }
  }
  EFFINFER_ALWAYS_INLINE void load(const float* p) { v = *reinterpret_cast<const memory*>(p); }
  EFFINFER_ALWAYS_INLINE void store(float* p) const { *reinterpret_cast<memory*>(p) = v; }

  EFFINFER_ALWAYS_INLINE void load(const f16* p) {
    if constexpr (native) {
      from_f16(v, p);
    } else {
      // Shifted into a float's place the exponent is short by 112; a multiplication mends it, for subnormals too.
      words half{};
      for (int i = 0; i < Lanes; ++i) half[i] = bits_at(p + i);
      const words magnitude = (half & 0x7fffu) << 13;
      const vector scaled = reinterpret_cast<vector>(magnitude) * 0x1p112f;
      const words infinite = reinterpret_cast<words>(magnitude >= 0x0f800000u) & 0x7f800000u;
      const words bits = reinterpret_cast<words>(scaled) | infinite | ((half & 0x8000u) << 16);
      v = reinterpret_cast<vector>(bits);
    }
  }
  EFFINFER_ALWAYS_INLINE void load(const bf16* p) {
    if constexpr (native) {
      from_bf16(v, p);
    } else {
      words bits{};
      for (int i = 0; i < Lanes; ++i) bits[i] = bits_at(p + i);
      bits <<= 16;
      v = reinterpret_cast<vector>(bits);
    }
  }
  EFFINFER_ALWAYS_INLINE void load(const std::uint8_t* p) {
    typename lanes_of<std::uint8_t, Lanes>::type bytes;
    __builtin_memcpy(&bytes, p, Lanes);
    v = __builtin_convertvector(__builtin_convertvector(bytes, integers), vector);
  }
  EFFINFER_ALWAYS_INLINE void store(f16* p) const {
    if constexpr (native) {
      to_f16(p, v);
    } else {
      for (int i = 0; i < Lanes; ++i) write(p + i, f16(v[i]));
    }
  }
  EFFINFER_ALWAYS_INLINE void store(bf16* p) const {
    for (int i = 0; i < Lanes; ++i) write(p + i, bf16(v[i]));
  }
  EFFINFER_ALWAYS_INLINE void store(std::uint8_t* p) const {
    using bytes = typename lanes_of<std::uint8_t, Lanes>::type;
    const bytes b = __builtin_convertvector(__builtin_convertvector(v, integers), bytes);
    __builtin_memcpy(p, &b, Lanes);
  }

  // p need not be aligned, so it is never dereferenced.
  template <class T>
  static EFFINFER_ALWAYS_INLINE std::uint16_t bits_at(const T* p) {
    std::uint16_t bits;
    __builtin_memcpy(&bits, p, sizeof bits);
    return bits;
  }
  template <class T>
  static EFFINFER_ALWAYS_INLINE void write(T* p, T value) {
    __builtin_memcpy(p, &value, sizeof value);
  }

  EFFINFER_ALWAYS_INLINE void add(const f32_register& b) { v += b.v; }
  EFFINFER_ALWAYS_INLINE void subtract(const f32_register& b) { v -= b.v; }
  EFFINFER_ALWAYS_INLINE void multiply(const f32_register& b) { v *= b.v; }
  EFFINFER_ALWAYS_INLINE void divide(const f32_register& b) { v /= b.v; }
  EFFINFER_ALWAYS_INLINE void max(const f32_register& b) {
    if constexpr (native && Lanes > 4) {
      greater(v, b.v);
    } else {
      v = v > b.v ? v : b.v;
    }
  }
  EFFINFER_ALWAYS_INLINE void min(const f32_register& b) {
    if constexpr (native && Lanes > 4) {
      lesser(v, b.v);
    } else {
      v = v < b.v ? v : b.v;
    }
  }
  EFFINFER_ALWAYS_INLINE void take_where_less(const f32_register& a, const f32_register& b, const f32_register& x) {
    v = a.v < b.v ? x.v : v;
  }
  EFFINFER_ALWAYS_INLINE void keep(std::uint32_t which, float other) {
    const vector others = other - vector{};
    if constexpr (native && Lanes == 16) {
      keep_lanes(v, which, others);
    } else {
      words bit{};
      for (int i = 0; i < Lanes; ++i) bit[i] = 1u << i;
      v = (bit & which) == bit ? v : others;
    }
  }
  EFFINFER_ALWAYS_INLINE void abs() {
    const words bits = reinterpret_cast<words>(v) & 0x7fffffffu;
    v = reinterpret_cast<vector>(bits);
  }
  EFFINFER_ALWAYS_INLINE void nearest() {
    if constexpr (native) {
      to_nearest(v);
    } else {
      for (int i = 0; i < Lanes; ++i) v[i] = __builtin_nearbyintf(v[i]);
    }
  }
  EFFINFER_ALWAYS_INLINE void fma(const f32_register& a, const f32_register& b) {
    if constexpr (native) {
      fused(v, a.v, b.v);
    } else {
      v += a.v * b.v;
    }
  }

  // e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2; e^r by its Taylor series to r^7, whose rest
  // is below 2^-27. ln 2 in two parts, the first short enough for n * part to be exact. 2^n in two factors, as n
  // reaches -150 and 129; in one where n stays in [-126, 0].
  EFFINFER_ALWAYS_INLINE void exp() {
    const vector zero{};
    const vector low = -104.0f - zero, high = 89.0f - zero;
    integers n;
    reduced_exp(v < low ? low : (v > high ? high : v), n);
    const integers half = n >> 1;
    const words first = (reinterpret_cast<words>(half) + 127u) << 23;
    const integers other = n - half;
    const words second = (reinterpret_cast<words>(other) + 127u) << 23;
    v = v * reinterpret_cast<vector>(first) * reinterpret_cast<vector>(second);
  }
  EFFINFER_ALWAYS_INLINE void exp_nonpositive() {
    const vector zero{};
    const vector low = -87.0f - zero, x = v;
    integers n;
    reduced_exp(x < low ? low : x, n);
    const words power = (reinterpret_cast<words>(n) + 127u) << 23;
    const vector e = v * reinterpret_cast<vector>(power);
    v = x < low ? zero : e;
  }

  EFFINFER_ALWAYS_INLINE void sum(float& r) const;
  EFFINFER_ALWAYS_INLINE void max_lane(float& r) const;

 private:
  /// v becomes e^r, with x = n ln 2 + r.
  EFFINFER_ALWAYS_INLINE void reduced_exp(const vector& x, integers& n) {
    const vector zero{};
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    f32_register t{rounder - zero};
    t.fma({x}, {1.44269504088896341f - zero});
    n = reinterpret_cast<integers>(t.v) - 0x4b400000;
    const vector minus_n = -__builtin_convertvector(n, vector);
    f32_register r{x};
    r.fma({minus_n}, {0.693145751953125f - zero});
    r.fma({minus_n}, {1.428606820309417e-6f - zero});
    f32_register p{1.0f / 5040 - zero};
    p = step(p, r, 1.0f / 720);
    p = step(p, r, 1.0f / 120);
    p = step(p, r, 1.0f / 24);
    p = step(p, r, 1.0f / 6);
    p = step(p, r, 0.5f);
    p = step(p, r, 1.0f);
    v = step(p, r, 1.0f).v;
  }
  static EFFINFER_ALWAYS_INLINE f32_register step(const f32_register& p, const f32_register& r, float coefficient) {
    f32_register next{coefficient - vector{}};
    next.fma(p, r);
    return next;
  }
};

/// Twice as many lanes: every operation on the lower half, then on the upper.
template <class Half>
struct f32_pair {
  static constexpr int size = 2 * Half::size;
  Half low, high;

  EFFINFER_ALWAYS_INLINE void set(float s) { low.set(s), high.set(s); }
  template <class T>
  EFFINFER_ALWAYS_INLINE void load(const T* p) {
    low.load(p), high.load(p + Half::size);
  }
  template <class T>
  EFFINFER_ALWAYS_INLINE void store(T* p) const {
    low.store(p), high.store(p + Half::size);
  }
  EFFINFER_ALWAYS_INLINE void add(const f32_pair& b) { low.add(b.low), high.add(b.high); }
  EFFINFER_ALWAYS_INLINE void subtract(const f32_pair& b) { low.subtract(b.low), high.subtract(b.high); }
  EFFINFER_ALWAYS_INLINE void multiply(const f32_pair& b) { low.multiply(b.low), high.multiply(b.high); }
  EFFINFER_ALWAYS_INLINE void divide(const f32_pair& b) { low.divide(b.low), high.divide(b.high); }
  EFFINFER_ALWAYS_INLINE void max(const f32_pair& b) { low.max(b.low), high.max(b.high); }
  EFFINFER_ALWAYS_INLINE void min(const f32_pair& b) { low.min(b.low), high.min(b.high); }
  EFFINFER_ALWAYS_INLINE void take_where_less(const f32_pair& a, const f32_pair& b, const f32_pair& x) {
    low.take_where_less(a.low, b.low, x.low), high.take_where_less(a.high, b.high, x.high);
  }
  EFFINFER_ALWAYS_INLINE void keep(std::uint32_t which, float other) {
    low.keep(which & ((1u << Half::size) - 1), other), high.keep(which >> Half::size, other);
  }
  EFFINFER_ALWAYS_INLINE void abs() { low.abs(), high.abs(); }
  EFFINFER_ALWAYS_INLINE void fma(const f32_pair& a, const f32_pair& b) {
    low.fma(a.low, b.low), high.fma(a.high, b.high);
  }
  EFFINFER_ALWAYS_INLINE void exp() { low.exp(), high.exp(); }
  EFFINFER_ALWAYS_INLINE void exp_nonpositive() { low.exp_nonpositive(), high.exp_nonpositive(); }
  EFFINFER_ALWAYS_INLINE void nearest() { low.nearest(), high.nearest(); }
  EFFINFER_ALWAYS_INLINE void sum(float& r) const {
    Half t = low;
    t.add(high);
    t.sum(r);
  }
  EFFINFER_ALWAYS_INLINE void max_lane(float& r) const {
    Half t = low;
    t.max(high);
    t.max_lane(r);
  }
};

/// The halves of a register as registers of half the size.
template <instruction_set Set, int Lanes>
EFFINFER_ALWAYS_INLINE void split(const f32_register<Set, Lanes>& v, f32_pair<f32_register<Set, Lanes / 2>>& halves) {
  if constexpr (Lanes == 16) {
    halves.low.v = __builtin_shufflevector(v.v, v.v, 0, 1, 2, 3, 4, 5, 6, 7);
    halves.high.v = __builtin_shufflevector(v.v, v.v, 8, 9, 10, 11, 12, 13, 14, 15);
  } else {
    halves.low.v = __builtin_shufflevector(v.v, v.v, 0, 1, 2, 3);
    halves.high.v = __builtin_shufflevector(v.v, v.v, 4, 5, 6, 7);
  }
}

template <instruction_set Set, int Lanes>
EFFINFER_ALWAYS_INLINE void f32_register<Set, Lanes>::sum(float& r) const {
  if constexpr (Lanes > 4) {
    f32_pair<f32_register<Set, Lanes / 2>> halves;
    split(*this, halves);
    halves.sum(r);
  } else {
    const vector two = v + __builtin_shufflevector(v, v, 2, 3, 0, 1);
    r = two[0] + two[1];
  }
}

template <instruction_set Set, int Lanes>
EFFINFER_ALWAYS_INLINE void f32_register<Set, Lanes>::max_lane(float& r) const {
  if constexpr (Lanes > 4) {
    f32_pair<f32_register<Set, Lanes / 2>> halves;
    split(*this, halves);
    halves.max_lane(r);
  } else {
    f32_register two{__builtin_shufflevector(v, v, 2, 3, 0, 1)};
    two.max(*this);
    r = two.v[0] > two.v[1] ? two.v[0] : two.v[1];
  }
}

}  // namespace effinfer::inline v0::execution::detail
