#pragma once
// Some tokens' keys and values from one place to another on a device: the path of a tree of guesses that stays.

#include <effinfer/execution/simt/context.hpp>
#include <effinfer/execution/simt/grid.hpp>
#include <effinfer/kv_cache/view.hpp>
#include <effinfer/layers/cuda/rotary_embedding.hpp>

#include <cstddef>

namespace effinfer::inline v0::kv_cache::cuda {

/// Copies the rows of all layers and heads of token t from from[t] to to[t]. Rows are of `row` elements. A block a layer and token.
template <element T>
struct copy_tokens {
  static constexpr int most = 16;
  struct args {
    layers::cuda::cache_place<T> from[most], to[most];
    int tokens = 0, layers = 0, kv_heads = 0, row = 0;
  };
  static constexpr int threads = 128;

  static execution::simt::grid plan(const args& a) { return {a.layers, a.tokens, threads, 0}; }

  template <class Simt>
  EFFINFER_HOST_DEVICE static void run(Simt& t, const args& a) {
    const layers::cuda::cache_place<T>&from = a.from[t.block_y()], &to = a.to[t.block_y()];
    const std::ptrdiff_t from_layer = t.block() * from.layer_stride, to_layer = t.block() * to.layer_stride;
    for (int i = t.thread(); i < a.kv_heads * a.row; i += threads) {
      const int head = i / a.row, e = i % a.row;
      const std::ptrdiff_t f = from_layer + head * from.head_stride + e, g = to_layer + head * to.head_stride + e;
      to.keys[g] = from.keys[f];
      to.values[g] = from.values[f];
    }
  }
};

}  // namespace effinfer::inline v0::kv_cache::cuda
