#pragma once
// The lanes of several vectors added at once: about three instructions a vector where f32x16::sum takes nine. Dot
// products of many short rows need it.

#include <effinfer/execution/vector.hpp>

namespace effinfer::inline v0::execution {

namespace detail {

/// Lanes added pairwise, (i, i + 8) and then (i, i + 4), until four are left.
template <instruction_set Set, int Lanes>
EFFINFER_ALWAYS_INLINE void four_lanes(const f32_register<Set, Lanes>& v, f32_register<Set, 4>& r) {
  if constexpr (Lanes == 4) {
    r = v;
  } else {
    f32_pair<f32_register<Set, Lanes / 2>> halves;
    split(v, halves);
    halves.low.add(halves.high);
    four_lanes(halves.low, r);
  }
}
template <instruction_set Set, class Half>
EFFINFER_ALWAYS_INLINE void four_lanes(const f32_pair<Half>& v, f32_register<Set, 4>& r) {
  Half t = v.low;
  t.add(v.high);
  four_lanes(t, r);
}

}  // namespace detail

/// out[i] = v[i].sum(), bit for bit, for four vectors.
template <instruction_set Set>
EFFINFER_ALWAYS_INLINE void sums(const f32x16<Set> (&v)[4], float* out) {
  detail::f32_register<Set, 4> a, b, c, d;
  detail::four_lanes(v[0].lanes, a);
  detail::four_lanes(v[1].lanes, b);
  detail::four_lanes(v[2].lanes, c);
  detail::four_lanes(v[3].lanes, d);
  const auto ab = __builtin_shufflevector(a.v, b.v, 0, 1, 4, 5) + __builtin_shufflevector(a.v, b.v, 2, 3, 6, 7);
  const auto cd = __builtin_shufflevector(c.v, d.v, 0, 1, 4, 5) + __builtin_shufflevector(c.v, d.v, 2, 3, 6, 7);
  detail::f32_register<Set, 4> r;
  r.v = __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
  r.store(out);
}

namespace detail {
/// Four lanes each of a, b, c, d.
template <class Register>
EFFINFER_ALWAYS_INLINE void four_lanes_each(const typename Register::vector& a, const typename Register::vector& b,
                                            const typename Register::vector& c, const typename Register::vector& d,
                                            typename Register::vector& r) {
  using vector = typename Register::vector;
  const vector ab = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                    __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  const vector cd = __builtin_shufflevector(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                    __builtin_shufflevector(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  r = __builtin_shufflevector(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
      __builtin_shufflevector(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
}  // namespace detail

/// The same for sixteen vectors in registers of sixteen lanes.
template <instruction_set Set>
  requires(Set == instruction_set::avx512)
EFFINFER_ALWAYS_INLINE void sums(const f32x16<Set> (&v)[16], float* out) {
  using one = detail::f32_register<Set, 16>;
  using vector = typename one::vector;
  // Of the vectors p, p + 4, p + 8, p + 12, so that the last steps leave the sums in order. No loop: at -O2 it would put all of
  // them into memory.
  vector w0, w1, w2, w3;
  detail::four_lanes_each<one>(v[0].lanes.v, v[4].lanes.v, v[8].lanes.v, v[12].lanes.v, w0);
  detail::four_lanes_each<one>(v[1].lanes.v, v[5].lanes.v, v[9].lanes.v, v[13].lanes.v, w1);
  detail::four_lanes_each<one>(v[2].lanes.v, v[6].lanes.v, v[10].lanes.v, v[14].lanes.v, w2);
  detail::four_lanes_each<one>(v[3].lanes.v, v[7].lanes.v, v[11].lanes.v, v[15].lanes.v, w3);
  const vector x = __builtin_shufflevector(w0, w1, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                   __builtin_shufflevector(w0, w1, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  const vector y = __builtin_shufflevector(w2, w3, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
                   __builtin_shufflevector(w2, w3, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  f32x16<Set> r;
  r.lanes.v = __builtin_shufflevector(x, y, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
              __builtin_shufflevector(x, y, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
  r.store(out);
}

}  // namespace effinfer::inline v0::execution
