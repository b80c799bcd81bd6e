#pragma once
// Keys and values as a token of a tree of guesses sees them: those of the cache, and behind them those of the tokens that lead to it, which
// lie in memory of the tree's own. Positions are true ones, so that policies, tiles and sums are those of a sequence.

#include <effinfer/attention/cuda/cache_rows.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <cstdint>

namespace effinfer::inline v0::attention::cuda {

/// Tokens of a tree at most.
inline constexpr int most_branch_tokens = 16;

/// A cache_view whose rows from position `base` on are not one after another.
template <kv_cache::cache_view View>
struct branch_view {
  using element_type = typename View::element_type;

  View cache;
  kv_cache::view<element_type> branches;       ///< a row a token of the tree
  int base = 0;                                ///< the first position that is the tree's
  std::uint8_t path[most_branch_tokens] = {};  ///< [length - base] rows of `branches`
  std::ptrdiff_t row_stride = 0;               ///< the cache's
  int first = 0, length = 0;                   ///< as a view's

  [[nodiscard]] EFFINFER_HOST_DEVICE const element_type* key(int kv_head, int position) const {
    return position < base ? cache.key(kv_head, position) : branches.key(kv_head, path[position - base]);
  }
  [[nodiscard]] EFFINFER_HOST_DEVICE const element_type* value(int kv_head, int position) const {
    return position < base ? cache.value(kv_head, position) : branches.value(kv_head, path[position - base]);
  }
  [[nodiscard]] bool has_aligned_rows(int kv_heads, int bytes) const {
    return cache.has_aligned_rows(kv_heads, bytes) && branches.has_aligned_rows(kv_heads, bytes);
  }
};

/// Those of the cache are. Found by the kernels for this view alone.
template <class View>
EFFINFER_HOST_DEVICE bool are_rows_apart(const branch_view<View>& cache, int end) {
  return end <= cache.base;
}

static_assert(kv_cache::cache_view<branch_view<kv_cache::view<f16>>>);

}  // namespace effinfer::inline v0::attention::cuda
