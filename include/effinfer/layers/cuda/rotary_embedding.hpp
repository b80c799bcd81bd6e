#pragma once
// Rotary position embedding of queries and keys, and the new keys and values into the cache: some blocks a token. Source: as
// layers/rotary_embedding.hpp, whose angles it takes.

#include <effinfer/core/matrix_view.hpp>
#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/execution/simt/pack.hpp>
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

/// Numbers that a thread turns, loads and stores at once, where all of a token's rows take packs.
inline constexpr int rotary_width = 8, rotary_threads = 64;

/// Blocks that share a token: a thread has 8 pairs, or 8 numbers that are only moved.
EFFINFER_HOST_DEVICE inline int rotary_blocks(int heads, int kv_heads, int head_size, int rotary_size) {
  const int pairs = rotary_size / 2, moved = kv_heads * (2 * head_size - 2 * pairs);
  const int packs = ((heads + kv_heads) * pairs + moved) / rotary_width;
  return packs > rotary_threads ? (packs + rotary_threads - 1) / rotary_threads : 1;
}

/// Block `share` of rotary_blocks.
template <class Simt, class T, class C>
EFFINFER_HOST_DEVICE void rotate_and_store_token(Simt& t, const rotary_token<T, C>& a, int share) {
  using execution::simt::load_pack;
  using execution::simt::pack;
  using execution::simt::store_pack;
  using execution::simt::takes_packs;
  constexpr bool scaled = std::is_same_v<C, kv_cache::int8>;
  constexpr int width = rotary_width;
  const int d = a.head_size, half = a.rotary_size / 2;
  const int step = rotary_blocks(a.heads, a.kv_heads, d, a.rotary_size) * t.threads();
  const int own = share * t.threads() + t.thread();
  const auto turned = [](float x, float y, float c, float s) { return x * c - y * s; };
  const auto turned_too = [](float x, float y, float c, float s) { return y * c + x * s; };
  if (!scaled && half % width == 0 && d % width == 0 && takes_packs(a.query) && takes_packs(a.key) &&
      takes_packs(a.value) && takes_packs(a.turns) && takes_packs(a.keys, a.head_stride) &&
      takes_packs(a.values, a.head_stride)) {
    const int of_head = half / width, turning = (a.heads + a.kv_heads) * of_head;
    const int still = (d - 2 * half) / width, moving = a.kv_heads * still,
              all = turning + moving + a.kv_heads * (d / width);
    for (int at = own; at < all; at += step) {
      if (at < turning) {
        const int head = at / of_head, i = at % of_head * width;
        const bool is_query = head < a.heads;
        const std::ptrdiff_t first = std::ptrdiff_t{is_query ? head : head - a.heads} * d;
        const int p = a.interleaved ? 2 * i : i, q = a.interleaved ? p + width : half + i;
        const T* const from = (is_query ? a.query : a.key) + first;
        const pack<T> low = load_pack(from + p), high = load_pack(from + q);
        const auto c = load_pack(a.turns + i), s = load_pack(a.turns + half + i);
        float low_turned[width], high_turned[width];
        EFFINFER_UNROLL
        for (int k = 0; k < width; ++k) {
          if (a.interleaved) {  // the first four pairs lie in `low`
            const auto& both = k < width / 2 ? low : high;
            auto& to = k < width / 2 ? low_turned : high_turned;
            const int at_pair = 2 * k % width;
            const auto x = static_cast<float>(both.v[at_pair]), y = static_cast<float>(both.v[at_pair + 1]);
            to[at_pair] = turned(x, y, c.v[k], s.v[k]);
            to[at_pair + 1] = turned_too(x, y, c.v[k], s.v[k]);
          } else {
            const auto x = static_cast<float>(low.v[k]), y = static_cast<float>(high.v[k]);
            low_turned[k] = turned(x, y, c.v[k], s.v[k]);
            high_turned[k] = turned_too(x, y, c.v[k], s.v[k]);
          }
        }
        const auto store = [&](auto* to) {
          using number = std::remove_reference_t<decltype(*to)>;
          pack<number> first_pack, second_pack;
          EFFINFER_UNROLL
          for (int k = 0; k < width; ++k)
            first_pack.v[k] = number(low_turned[k]), second_pack.v[k] = number(high_turned[k]);
          store_pack(to + p, first_pack);
          store_pack(to + q, second_pack);
        };
        if (is_query) {
          store(a.query + first);
        } else if constexpr (!scaled) {
          store(a.keys + (head - a.heads) * a.head_stride);
        }
      } else if constexpr (!scaled) {
        const bool is_value = at >= turning + moving;
        const int i = at - turning - (is_value ? moving : 0), of_row = is_value ? d / width : still;
        const int head = i / of_row, e = (is_value ? 0 : 2 * half) + i % of_row * width;
        const pack<T> from = load_pack((is_value ? a.value : a.key) + std::ptrdiff_t{head} * d + e);
        pack<C> to;
        EFFINFER_UNROLL
        for (int k = 0; k < width; ++k) to.v[k] = C(static_cast<float>(from.v[k]));
        store_pack((is_value ? a.values : a.keys) + head * a.head_stride + e, to);
      }
    }
    return;
  }
  const int pairs = d - half;  // of a head: half are turned, the rest is moved
  for (int at = own; at < (scaled ? a.heads : a.heads + a.kv_heads) * pairs; at += step) {
    const int head = at / pairs, i = at % pairs;
    const bool is_query = head < a.heads;
    const std::ptrdiff_t first = std::ptrdiff_t{is_query ? head : head - a.heads} * d;
    const T* const from = (is_query ? a.query : a.key) + first;
    const int p = i >= half ? half + i : a.interleaved ? 2 * i : i, q = a.interleaved ? 2 * i + 1 : half + i;
    const auto x = static_cast<float>(from[p]);
    float turned_p = x, turned_q = 0;
    if (i < half) {
      const auto y = static_cast<float>(from[q]);
      turned_p = turned(x, y, a.turns[i], a.turns[half + i]);
      turned_q = turned_too(x, y, a.turns[i], a.turns[half + i]);
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
    for (int at = own; at < a.kv_heads * d; at += step)
      a.values[at / d * a.head_stride + at % d] = C(static_cast<float>(a.value[at]));
  } else {  // a warp a row, whose scale must be known first
    for (int row = own / execution::simt::warp_size; row < 2 * a.kv_heads; row += step / execution::simt::warp_size) {
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

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.query.rows),
            detail::rotary_blocks(static_cast<int>(a.query.columns) / a.head_size,
                                  static_cast<int>(a.key.columns) / a.head_size, a.head_size, a.rotary_size),
            detail::rotary_threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const std::ptrdiff_t slot = (a.first_position + t.block()) % a.capacity * a.row_stride;
    detail::rotate_and_store_token(
        t,
        detail::rotary_token<T, C>{
            a.query.row(t.block()), a.key.row(t.block()), a.value.row(t.block()), a.turns.row(t.block()), a.keys + slot,
            a.values + slot, a.head_stride, static_cast<int>(a.query.columns) / a.head_size,
            static_cast<int>(a.key.columns) / a.head_size, a.head_size, a.rotary_size, a.interleaved},
        t.block_y());
  }
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

  static execution::simt::grid plan(const args& a) {
    return {static_cast<int>(a.qkv.rows), detail::rotary_blocks(a.heads, a.kv_heads, a.head_size, a.rotary_size),
            detail::rotary_threads, 0};
  }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const cache_place<C>& place = a.places[t.block()];
    T* const query = a.qkv.row(t.block());
    const T* const key = query + a.heads * a.head_size;
    const std::ptrdiff_t layer = a.layer * place.layer_stride;
    detail::rotate_and_store_token(
        t,
        detail::rotary_token<T, C>{query, key, key + a.kv_heads * a.head_size, a.turns.row(t.block()),
                                   place.keys + layer, place.values + layer, place.head_stride, a.heads, a.kv_heads,
                                   a.head_size, a.rotary_size, a.interleaved},
        t.block_y());
  }
};

}  // namespace effinfer::inline v0::layers::cuda
