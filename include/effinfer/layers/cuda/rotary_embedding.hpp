#pragma once
// Rotary position embedding of queries and keys, and the new keys and values into the cache: a block a token. Source: as
// layers/rotary_embedding.hpp, whose angles it takes.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/kv_cache/cuda/store.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>
#include <type_traits>

namespace effinfer::inline v0::layers::cuda {

namespace detail {

/// One token's rows, and its place in the cache.
template <class T, class C>
struct rotary_token {
  T* query;
  const T *key, *value;
  const float* turns;
  C *keys, *values;  ///< of head 0 at the token's position
  std::ptrdiff_t head_stride;
  int heads, kv_heads, head_size, rotary_size;
  bool interleaved;
};

template <class Simt, class T, class C>
EFFINFER_HOST_DEVICE void rotate_and_store_token(Simt& t, const rotary_token<T, C>& a) {
  constexpr bool scaled = std::is_same_v<C, kv_cache::int8>;
  const int d = a.head_size, half = a.rotary_size / 2,
            pairs = d - half;  // of a head: half are turned, the rest is moved
  for (int at = t.thread(); at < (scaled ? a.heads : a.heads + a.kv_heads) * pairs; at += t.threads()) {
    const int head = at / pairs, i = at % pairs;
    const bool is_query = head < a.heads;
    const std::ptrdiff_t first = std::ptrdiff_t{is_query ? head : head - a.heads} * d;
    const T* const from = (is_query ? a.query : a.key) + first;
    const int p = i >= half ? half + i : a.interleaved ? 2 * i : i, q = a.interleaved ? 2 * i + 1 : half + i;
    const auto x = static_cast<float>(from[p]);
    float turned_p = x, turned_q = 0;
    if (i < half) {
      const auto y = static_cast<float>(from[q]);
      turned_p = x * a.turns[i] - y * a.turns[half + i];
      turned_q = y * a.turns[i] + x * a.turns[half + i];
    }
    if (is_query) {
      T* const to = a.query + first;
      if (i < half) to[p] = T(turned_p), to[q] = T(turned_q);
    } else if constexpr (!scaled) {
      C* const to = a.keys + (head - a.heads) * a.head_stride;
      to[p] = C(turned_p);
      if (i < half) to[q] = C(turned_q);
    }
  }
  if constexpr (!scaled) {
    for (int at = t.thread(); at < a.kv_heads * d; at += t.threads())
      a.values[at / d * a.head_stride + at % d] = C(static_cast<float>(a.value[at]));
  } else {  // a warp a row, whose scale must be known first
    for (int row = t.warp(); row < 2 * a.kv_heads; row += t.threads() / execution::simt::warp_size) {
      const int head = row / 2;
      const T* const from = (row % 2 == 0 ? a.key : a.value) + std::ptrdiff_t{head} * d;
      C* const to = (row % 2 == 0 ? a.keys : a.values) + head * a.head_stride;
      if (row % 2 != 0) {
        kv_cache::cuda::store_row(t, d, to, [from](int i) { return static_cast<float>(from[i]); });
        continue;
      }
      kv_cache::cuda::store_row(t, d, to, [&](int i) {
        const auto x = static_cast<float>(from[i]);
        if (i >= 2 * half) return x;
        const int pair = a.interleaved ? i / 2 : i % half;
        const bool second = a.interleaved ? i % 2 != 0 : i >= half;
        const auto y = static_cast<float>(from[a.interleaved ? i ^ 1 : second ? i - half : i + half]);
        const float c = a.turns[pair], s = a.turns[half + pair];
        return second ? x * c + y * s : x * c - y * s;
      });
    }
  }
}

}  // namespace detail

/// Turns each head of `query` in place and each head of `key` on its way into the cache, where `value` goes as it is.
///
/// Shapes: query [T, H*D], key, value [T, K*D], turns [T, R]: R/2 cosines, then R/2 sines (rotary_embedding::turns). Row t is written to
/// position first_position + t. Numbers: T is float, bf16 or f16, computed in float; C is what the cache stores.
template <class T, kv_cache::element C>
struct rotate_and_store {
  struct args {
    matrix_view<T> query;
    matrix_view<const T> key, value;
    matrix_view<const float> turns;
    C* keys;  ///< as kv_cache::view's, of all positions
    C* values;
    std::ptrdiff_t head_stride, row_stride;
    int capacity;
    int first_position, head_size, rotary_size;
    bool interleaved;
  };

  static execution::simt::grid plan(const args& a) { return {static_cast<int>(a.query.rows), 1, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t slot = (a.first_position + t.block()) % a.capacity * a.row_stride;
    detail::rotate_and_store_token(
        t, detail::rotary_token<T, C>{
               a.query.row(t.block()), a.key.row(t.block()), a.value.row(t.block()), a.turns.row(t.block()),
               a.keys + slot, a.values + slot, a.head_stride, static_cast<int>(a.query.columns) / a.head_size,
               static_cast<int>(a.key.columns) / a.head_size, a.head_size, a.rotary_size, a.interleaved});
  }

 private:
  static constexpr int threads = 128;
};

/// Where a token's keys and values go: what differs between the sequences of a pass, and between two steps.
template <kv_cache::element C>
struct cache_place {
  C* keys = nullptr;  ///< of layer 0, head 0, at the token's position
  C* values = nullptr;
  std::ptrdiff_t layer_stride = 0, head_stride = 0;  ///< in elements
};

/// The same for tokens of several sequences, whose places lie in device memory, so that one graph serves every step.
///
/// Shapes: qkv [T, (H + 2 K) * D]: a token's queries, keys, values; turns [T, R]; places [T].
template <class T, kv_cache::element C>
struct rotate_and_store_tokens {
  struct args {
    matrix_view<T> qkv;
    matrix_view<const float> turns;
    const cache_place<C>* places;
    int layer, heads, kv_heads, head_size, rotary_size;
    bool interleaved;
  };

  static execution::simt::grid plan(const args& a) { return {static_cast<int>(a.qkv.rows), 1, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const cache_place<C>& place = a.places[t.block()];
    T* const query = a.qkv.row(t.block());
    const T* const key = query + a.heads * a.head_size;
    const std::ptrdiff_t layer = a.layer * place.layer_stride;
    detail::rotate_and_store_token(
        t, detail::rotary_token<T, C>{query, key, key + a.kv_heads * a.head_size, a.turns.row(t.block()),
                                      place.keys + layer, place.values + layer, place.head_stride, a.heads, a.kv_heads,
                                      a.head_size, a.rotary_size, a.interleaved});
  }

 private:
  static constexpr int threads = 128;
};

}  // namespace effinfer::inline v0::layers::cuda
