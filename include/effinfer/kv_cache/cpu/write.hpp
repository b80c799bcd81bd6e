#pragma once
// Rows of floats into a cache's number type.

#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstdint>

namespace effinfer::inline v0::kv_cache {

/// n floats to T, rounded to nearest, ties to even.
template <element T>
struct convert_row {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* from, T* to, std::ptrdiff_t n) {
    using vector = execution::f32x16<Set>;
    std::ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16) vector::load(from + i).store(to + i);
    if (i < n) vector::load_first(from + i, n - i).store_first(to + i, n - i);
  }
};

/// n floats to a row of an int8 cache. A NaN or an infinity makes the row's scale, and so all of its numbers, NaN.
template <>
struct convert_row<int8> {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* from, int8* to, std::ptrdiff_t n) {
    using vector = execution::f32x16<Set>;
    vector most = vector::zero(), poison = most;
    for (std::ptrdiff_t i = 0; i < n; i += 16) {
      const vector v = load<Set>(from, i, n);
      most = max(most, abs(v));
      poison += v - v;  // zero, or NaN for a NaN or an infinity
    }
    const float greatest = most.max_lane(), nan = poison.sum();
    const bool whole = nan == 0.0f, some = whole && greatest > 0x1p-120f;  // 127 / greatest stays finite
    const vector inverse = vector::broadcast(some ? 127.0f / greatest : 0.0f), middle = vector::broadcast(128.0f);
    auto* codes = reinterpret_cast<std::uint8_t*>(to);
    for (std::ptrdiff_t i = 0; i < n; i += 16) {
      const vector code = whole ? nearest(load<Set>(from, i, n) * inverse) + middle : middle;
      if (i + 16 <= n) {
        code.store(codes + i);
      } else {
        code.store_first(codes + i, n - i);
      }
    }
    const float scale = (some ? greatest / 127.0f : 0.0f) + nan;
    __builtin_memcpy(codes + n, &scale, sizeof scale);
  }

 private:
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE execution::f32x16<Set> load(const float* from, std::ptrdiff_t i, std::ptrdiff_t n) {
    using vector = execution::f32x16<Set>;
    return i + 16 <= n ? vector::load(from + i) : vector::load_first(from + i, n - i);
  }
};

/// n floats to fp8, rounded to nearest, ties to even; beyond 448: 448.
template <>
struct convert_row<fp8_e4m3> {
  template <execution::instruction_set Set>
  static EFFINFER_ALWAYS_INLINE void run(const float* from, fp8_e4m3* to, std::ptrdiff_t n) {
    for (std::ptrdiff_t i = 0; i < n; ++i) to[i] = fp8_e4m3(from[i]);
  }
};

}  // namespace effinfer::inline v0::kv_cache
