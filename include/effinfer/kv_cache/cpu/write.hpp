#pragma once
// Rows of floats into a cache's number type.

#include <effinfer/execution/cpu.hpp>
#include <effinfer/execution/vector.hpp>
#include <effinfer/kv_cache/view.hpp>

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

}  // namespace effinfer::inline v0::kv_cache
