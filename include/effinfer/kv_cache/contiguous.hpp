#pragma once
// A KV cache that keeps every position, up to a capacity fixed when it is made.

#include <effinfer/kv_cache/policy.hpp>
#include <effinfer/kv_cache/positions.hpp>

#include <cstdint>
#include <memory_resource>

namespace effinfer::inline v0::kv_cache {

/// Policy. T: float, f16, bf16, int8 or fp8_e4m3.
template <element T = f16>
struct contiguous {
  using slot = effinfer::slot::kv_cache;
  using element_type = T;
  using view = kv_cache::view<T>;

  /// Keys and values of one sequence; see detail::positions for what it does.
  class cache : public detail::positions<T> {
   public:
    /// Bytes that a cache takes, before it is made: 2 layers K capacity row_elements<T>(D) sizeof(T). Errors: `invalid_argument`,
    /// `limit`.
    static std::uint64_t footprint(const shape& s, int capacity) { return detail::cache_bytes<T>(s, capacity); }
    /// Room for `capacity` tokens, in memory of `from`, which must outlive it. Errors: as `footprint`, std::bad_alloc.
    cache(const shape& s, int capacity, std::pmr::memory_resource* from = std::pmr::get_default_resource())
        : detail::positions<T>(s, capacity, 0, from) {}
  };
};

static_assert(check_kv_cache<contiguous<>>::complete && kv_cache_policy<contiguous<float>>);

}  // namespace effinfer::inline v0::kv_cache
