#pragma once
// Rotary position embedding of queries and keys, and the new keys and values into the cache: a block a token. Source: as
// layers/rotary_embedding.hpp, whose angles it takes.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/kv_cache/view.hpp>

#include <cstddef>

namespace effinfer::inline v0::layers::cuda {

/// Turns each head of `query` in place and each head of `key` on its way into the cache, where `value` goes as it is.
///
/// Shapes: query [T, H*D], key, value [T, K*D], turns [T, R]: R/2 cosines, then R/2 sines (rotary_embedding::turns). Row t is written to
/// position first_position + t. Numbers: T is float, bf16 or f16, computed in float; C is what the cache stores, not int8.
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
    const int d = a.head_size, half = a.rotary_size / 2,
              pairs = d - half;  // of a head: half are turned, the rest is moved
    const int heads = static_cast<int>(a.query.columns) / d, kv_heads = static_cast<int>(a.key.columns) / d;
    const std::ptrdiff_t slot = (a.first_position + t.block()) % a.capacity;
    const float* const turns = a.turns.row(t.block());
    for (int at = t.thread(); at < (heads + kv_heads) * pairs; at += threads) {
      const int head = at / pairs, i = at % pairs;
      const bool is_query = head < heads;
      const std::ptrdiff_t first = std::ptrdiff_t{is_query ? head : head - heads} * d;
      const T* const from = (is_query ? a.query.row(t.block()) : a.key.row(t.block())) + first;
      const int p = i >= half ? half + i : a.interleaved ? 2 * i : i, q = a.interleaved ? 2 * i + 1 : half + i;
      const auto x = static_cast<float>(from[p]);
      float turned_p = x, turned_q = 0;
      if (i < half) {
        const auto y = static_cast<float>(from[q]);
        turned_p = x * turns[i] - y * turns[half + i];
        turned_q = y * turns[i] + x * turns[half + i];
      }
      if (is_query) {
        T* const to = a.query.row(t.block()) + first;
        if (i < half) to[p] = T(turned_p), to[q] = T(turned_q);
      } else {
        C* const to = a.keys + (head - heads) * a.head_stride + slot * a.row_stride;
        to[p] = C(turned_p);
        if (i < half) to[q] = C(turned_q);
      }
    }
    for (int at = t.thread(); at < kv_heads * d; at += threads)
      a.values[at / d * a.head_stride + slot * a.row_stride + at % d] =
          C(static_cast<float>(a.value.row(t.block())[at]));
  }

 private:
  static constexpr int threads = 128;
};

}  // namespace effinfer::inline v0::layers::cuda
