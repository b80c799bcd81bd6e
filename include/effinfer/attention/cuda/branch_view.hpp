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

/// A cache_view whose rows from position `base` on are not one after another: fetch_rows knows it.
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

/// The same of the cache and the path. Found by the kernels for this view alone.
template <int Keys, int D, int Threads, int Pitch, class Simt, class View, class Shared>
EFFINFER_HOST_DEVICE void fetch_rows(Simt& t, const branch_view<View>& cache, int kv_head, int key, int begin, int end,
                                     Shared keys, Shared values) {
  using element = typename View::element_type;
  using row = cache_row<element, D>;
  constexpr int copy_words = row::copy_bytes / 4, pieces = row::words / copy_words;
  constexpr int copy_elements = row::copy_bytes / static_cast<int>(sizeof(element));
  const int low = key > begin ? key : begin, past = key + Keys < end ? key + Keys : end;
  EFFINFER_KEEP_ROLLED
  for (int i = t.thread() % Threads; i < Keys * pieces; i += Threads) {
    const int r = i / pieces, q = i % pieces;
    int p = key + r < low ? low : key + r;
    if (p >= past) p = past - 1;
    const std::ptrdiff_t from = q * copy_elements;
    const int to = r * Pitch + q * copy_words;
    t.template copy_async<row::copy_bytes>(keys, to,
                                           reinterpret_cast<const std::uint32_t*>(cache.key(kv_head, p) + from));
    t.template copy_async<row::copy_bytes>(values, to,
                                           reinterpret_cast<const std::uint32_t*>(cache.value(kv_head, p) + from));
  }
}

template <class View>
EFFINFER_HOST_DEVICE bool are_rows_apart(const branch_view<View>& cache, int end) {
  return end <= cache.base;
}

static_assert(kv_cache::cache_view<branch_view<kv_cache::view<f16>>>);

}  // namespace effinfer::inline v0::attention::cuda
