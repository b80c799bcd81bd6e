#pragma once
// New keys and values into any cache, of any number type, on a GPU: the bits are those of the CPU's caches (cpu/write.hpp).

#include <effinfer/core/dtype.hpp>
#include <effinfer/core/error.hpp>
#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace effinfer::inline v0::kv_cache::cuda {

/// A warp writes the row of one head: number d is number(d), which may be asked for twice. Of int8 a NaN or an infinity makes the scale, and so
/// all of the row's numbers, NaN.
template <class Simt, element C, class Number>
EFFINFER_HOST_DEVICE void store_row(Simt& t, int size, C* to, const Number& number) {
  if constexpr (!std::is_same_v<C, int8>) {
    for (int d = t.lane(); d < size; d += execution::simt::warp_size) to[d] = C(number(d));
  } else {
    float greatest = 0, poison = 0;
    for (int d = t.lane(); d < size; d += execution::simt::warp_size) {
      const float v = number(d);
      greatest = std::fmax(greatest, std::fabs(v));
      poison += v - v;  // zero, or NaN for a NaN or an infinity
    }
    greatest = execution::simt::warp_max(t, greatest);
    poison = execution::simt::warp_sum(t, poison);
    const bool whole = poison == 0.0F, some = whole && greatest > 0x1p-120F;  // 127 / greatest stays finite
    const float inverse = some ? 127.0F / greatest : 0.0F;
    for (int d = t.lane(); d < size; d += execution::simt::warp_size) {
      const float code = whole ? std::rint(number(d) * inverse) + 128.0F : 128.0F;
      to[d].byte = static_cast<std::uint8_t>(code);
    }
    if (t.lane() != 0) return;
    const float scale = (some ? greatest / 127.0F : 0.0F) + poison;
    __builtin_memcpy(to + size, &scale, sizeof scale);
  }
}

/// Stores row t of `key` and `value` at position positions[t] of caches[sequences[t]], whose memory must be writable. Tokens of several
/// sequences may stand in any order; what differs between two steps lies in device memory, so that one graph serves all.
///
/// Shapes: key [T, K*D], position embedding applied, value [T, K*D]; sequences, positions [T]. T: float, bf16 or f16. A warp writes a row.
template <class T, cache_view View>
struct store_rows {
  struct args {
    matrix_view<const T> key, value;
    const View* caches;
    const int* sequences;
    const int* positions;
    int head_size;
  };
  static constexpr int threads = 128;

  /// Errors: `invalid_argument` (head_size < 1), `mismatch` (shapes).
  static execution::simt::grid plan(const args& a) {
    if (a.head_size < 1) {
      throw error(error_code::invalid_argument, "kv_cache::cuda::store_rows",
                  "head_size = " + std::to_string(a.head_size) + " is below 1");
    }
    if (a.key.rows != a.value.rows || a.key.columns != a.value.columns || a.key.columns % a.head_size != 0) {
      throw error(error_code::mismatch, "kv_cache::cuda::store_rows",
                  "key is " + std::to_string(a.key.rows) + " x " + std::to_string(a.key.columns) + ", value " +
                      std::to_string(a.value.rows) + " x " + std::to_string(a.value.columns) + ", heads are of " +
                      std::to_string(a.head_size));
    }
    return {static_cast<int>(a.key.rows), 1, threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    using element = typename View::element_type;
    const View& cache = a.caches[a.sequences[t.block()]];
    const int position = a.positions[t.block()], heads = static_cast<int>(a.key.columns) / a.head_size;
    for (int i = t.warp(); i < 2 * heads; i += threads / execution::simt::warp_size) {
      const int head = i / 2;
      const bool is_key = i % 2 == 0;
      const T* const from = (is_key ? a.key : a.value).row(t.block()) + std::ptrdiff_t{head} * a.head_size;
      auto* const to = const_cast<element*>(is_key ? cache.key(head, position) : cache.value(head, position));
      store_row(t, a.head_size, to, [from](int d) { return static_cast<float>(from[d]); });
    }
  }
};

}  // namespace effinfer::inline v0::kv_cache::cuda
