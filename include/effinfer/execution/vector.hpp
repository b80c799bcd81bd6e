#pragma once
// Sixteen floats at a time, one source for every instruction set: one register under AVX-512, two under AVX2,
// four of 128 bits (NEON, and the baseline of any architecture) otherwise.
//
//   struct scale {                                                   // execution::dispatch<scale>(set, x, y, n)
//     template <execution::instruction_set Set>
//     static EFFINFER_ALWAYS_INLINE void run(const float* x, float* y, std::ptrdiff_t n) {
//       using vector = execution::f32x16<Set>;
//       for (std::ptrdiff_t i = 0; i + 16 <= n; i += 16) (vector::load(x + i) * vector::broadcast(2)).store(y + i);
//     }
//   };
//
// Exact: every function gives the same bits under AVX2, AVX-512 and NEON. The portable set has no fused multiply-add,
// so `fma` and `exp` may differ there in the last place. Where rounding must not depend on the compiler's mood
// write fma(a, b, c), never a * b + c: g++ may or may not fuse the latter.

#include <effinfer/core/dtype.hpp>
#include <effinfer/execution/vector_register.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace effinfer::inline v0::execution {

namespace detail {
template <instruction_set Set>
using f32x16_registers =
    std::conditional_t<base_of(Set) == instruction_set::avx512, f32_register<Set, 16>,
                       std::conditional_t<base_of(Set) == instruction_set::avx2, f32_pair<f32_register<Set, 8>>,
                                          f32_pair<f32_pair<f32_register<Set, 4>>>>>;
}  // namespace detail

/// Sixteen floats. Lane i of a load is p[i]; pointers need no alignment.
template <instruction_set Set>
struct f32x16 {
  static constexpr int size = 16;
  detail::f32x16_registers<Set> lanes;

  static EFFINFER_ALWAYS_INLINE f32x16 zero() { return broadcast(0.0f); }
  static EFFINFER_ALWAYS_INLINE f32x16 broadcast(float s) {
    f32x16 r;
    r.lanes.set(s);
    return r;
  }
  static EFFINFER_ALWAYS_INLINE f32x16 load(const float* p) {
    f32x16 r;
    r.lanes.load(p);
    return r;
  }
  /// Exact.
  static EFFINFER_ALWAYS_INLINE f32x16 load(const f16* p) {
    f32x16 r;
    r.lanes.load(p);
    return r;
  }
  /// Exact.
  static EFFINFER_ALWAYS_INLINE f32x16 load(const bf16* p) {
    f32x16 r;
    r.lanes.load(p);
    return r;
  }
  static EFFINFER_ALWAYS_INLINE f32x16 load(const std::uint8_t* p) {
    f32x16 r;
    r.lanes.load(p);
    return r;
  }
  /// The first `n` < 16 lanes from p (any type that `load` takes), the rest `fill`. Reads nothing past p[n - 1].
  template <class T>
  static EFFINFER_ALWAYS_INLINE f32x16 load_first(const T* p, std::ptrdiff_t n, float fill = 0.0f) {
    float buffer[16];
    for (int i = 0; i < 16; ++i) {
      T value{};
      if (i < n) __builtin_memcpy(&value, p + i, sizeof(T));  // p need not be aligned
      buffer[i] = i < n ? static_cast<float>(value) : fill;
    }
    return load(buffer);
  }

  EFFINFER_ALWAYS_INLINE void store(float* p) const { lanes.store(p); }
  /// Rounds to nearest, ties to even.
  EFFINFER_ALWAYS_INLINE void store(f16* p) const { lanes.store(p); }
  /// Rounds to nearest, ties to even.
  EFFINFER_ALWAYS_INLINE void store(bf16* p) const { lanes.store(p); }
  /// Of whole numbers in [0, 255].
  EFFINFER_ALWAYS_INLINE void store(std::uint8_t* p) const { lanes.store(p); }
  /// Writes the first `n` < 16 lanes only.
  template <class T>
  EFFINFER_ALWAYS_INLINE void store_first(T* p, std::ptrdiff_t n) const {
    float buffer[16];
    store(buffer);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const auto value = static_cast<T>(buffer[i]);
      __builtin_memcpy(p + i, &value, sizeof(T));
    }
  }

  EFFINFER_ALWAYS_INLINE f32x16& operator+=(const f32x16& b) {
    lanes.add(b.lanes);
    return *this;
  }
  friend EFFINFER_ALWAYS_INLINE f32x16 operator+(f32x16 a, const f32x16& b) { return a += b; }
  friend EFFINFER_ALWAYS_INLINE f32x16 operator-(f32x16 a, const f32x16& b) {
    a.lanes.subtract(b.lanes);
    return a;
  }
  friend EFFINFER_ALWAYS_INLINE f32x16 operator*(f32x16 a, const f32x16& b) {
    a.lanes.multiply(b.lanes);
    return a;
  }
  friend EFFINFER_ALWAYS_INLINE f32x16 operator/(f32x16 a, const f32x16& b) {
    a.lanes.divide(b.lanes);
    return a;
  }
  /// a * b + c, rounded once (twice in the portable set).
  friend EFFINFER_ALWAYS_INLINE f32x16 fma(const f32x16& a, const f32x16& b, f32x16 c) {
    c.lanes.fma(a.lanes, b.lanes);
    return c;
  }
  /// a > b ? a : b in each lane: b where either is a NaN.
  friend EFFINFER_ALWAYS_INLINE f32x16 max(f32x16 a, const f32x16& b) {
    a.lanes.max(b.lanes);
    return a;
  }
  /// a < b ? a : b in each lane: b where either is a NaN.
  friend EFFINFER_ALWAYS_INLINE f32x16 min(f32x16 a, const f32x16& b) {
    a.lanes.min(b.lanes);
    return a;
  }
  /// a < b ? x : y in each lane: y where a or b is a NaN.
  friend EFFINFER_ALWAYS_INLINE f32x16 where_less(const f32x16& a, const f32x16& b, const f32x16& x, f32x16 y) {
    y.lanes.take_where_less(a.lanes, b.lanes, x.lanes);
    return y;
  }
  /// Lane i of a where bit i of `which` < 2^16 is set, else `other`.
  friend EFFINFER_ALWAYS_INLINE f32x16 keep(f32x16 a, std::uint64_t which, float other) {
    a.lanes.keep(static_cast<std::uint32_t>(which), other);
    return a;
  }
  friend EFFINFER_ALWAYS_INLINE f32x16 abs(f32x16 a) {
    a.lanes.abs();
    return a;
  }
  /// The nearest whole number, ties to even.
  friend EFFINFER_ALWAYS_INLINE f32x16 nearest(f32x16 a) {
    a.lanes.nearest();
    return a;
  }
  /// e^x to 1.5 units in the last place; 0 at -infinity, infinity from 88.73 on, NaN at NaN; subnormal results
  /// are kept.
  friend EFFINFER_ALWAYS_INLINE f32x16 exp(f32x16 a) {
    a.lanes.exp();
    return a;
  }
  /// The same for a <= 0, bit for bit where the result is above e^-87, and 0 below: a product that underflows takes a hundred
  /// cycles, and the weights of a softmax are full of them.
  friend EFFINFER_ALWAYS_INLINE f32x16 exp_nonpositive(f32x16 a) {
    a.lanes.exp_nonpositive();
    return a;
  }
  /// All lanes added, always in this order: lanes i and i + 8, then i and i + 4, i and i + 2, i and i + 1.
  [[nodiscard]] EFFINFER_ALWAYS_INLINE float sum() const {
    float r;
    lanes.sum(r);
    return r;
  }
  /// The greatest lane; what NaN lanes give is unspecified.
  [[nodiscard]] EFFINFER_ALWAYS_INLINE float max_lane() const {
    float r;
    lanes.max_lane(r);
    return r;
  }
};

}  // namespace effinfer::inline v0::execution
