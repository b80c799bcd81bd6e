#pragma once
// A KV cache that keeps the last positions only: for attention with a window, in memory and time proportional to the
// window, over any number of tokens.

#include <effinfer/kv_cache/policy.hpp>
#include <effinfer/kv_cache/positions.hpp>

#include <cstdint>
#include <limits>
#include <memory_resource>

namespace effinfer::inline v0::kv_cache {

/// Policy. T: float, f16, bf16, int8 or fp8_e4m3. The attention policy must hide what the ring lets go (sliding_window): where it
/// doesn't, what a query sees depends on the sizes below.
template <element T = f16>
struct ring {
  using slot = effinfer::slot::kv_cache;
  using element_type = T;
  using view = kv_cache::view<T>;

  /// Keys and values of one sequence; see detail::positions for what it does.
  class cache : public detail::positions<T> {
   public:
    /// Positions kept for a window (tokens that a query sees, itself among them) and passes of up to `slack` tokens:
    /// enough for each token of a pass to see its window, rounded up to whole tiles. More slack also lets `truncate`
    /// go further back.
    /// Errors: `invalid_argument`.
    static int positions_held(int window, int slack) {
      detail::check_positive(window, "kv_cache::ring window");
      detail::check_positive(slack, "kv_cache::ring slack");
      const std::int64_t rows =
          (std::int64_t{window} - 1 + slack + tile_positions - 1) / tile_positions * tile_positions;
      if (rows > std::numeric_limits<int>::max()) {
        throw error(error_code::limit, "kv_cache::ring", "window + slack is beyond 2^31 positions");
      }
      return static_cast<int>(rows);
    }
    /// Bytes that a cache takes, before it is made: 2 layers K positions_held row_elements<T>(D) sizeof(T). Errors:
    /// `invalid_argument`, `limit`.
    static std::uint64_t footprint(const shape& s, int window, int slack) {
      return detail::cache_bytes<T>(s, positions_held(window, slack));
    }
    /// A window of `window` tokens, `write` of up to `slack` at once, in memory of `from`, which must outlive it. Errors: as
    /// `footprint`, std::bad_alloc.
    cache(const shape& s, int window, int slack, std::pmr::memory_resource* from = std::pmr::get_default_resource())
        : detail::positions<T>(s, positions_held(window, slack), window, from) {}
  };
};

static_assert(check_kv_cache<ring<>>::complete && kv_cache_policy<ring<float>>);

}  // namespace effinfer::inline v0::kv_cache
