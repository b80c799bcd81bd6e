#pragma once
// What the tests of both forms of prefill attention share: calls made of random sequences, a call started in the form that its
// plan names, and looked at beside the oracle.

#include "simt/attention_runs.hpp"
#include "simt/hopper.hpp"

#include <effinfer/attention/cuda/prefill_wgmma.hpp>
#include <effinfer/execution/simt/grid.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace simt_host {

template <class T>
using cache_of = ei::kv_cache::view<T>;

inline ei::attention::head_layout layout(int heads, int kv_heads, int d) {
  return {heads, kv_heads, d, 1 / std::sqrt(static_cast<float>(d))};
}

template <class T>
cache_of<T> rows_of(const random_sequence<T>& s, const ei::attention::head_layout& h) {
  return cache_of<T>::of_rows(s.keys.data(), s.values.data(), h.kv_heads, h.head_size, s.length());
}

template <class T>
ei::attention::cuda::prefill_sequence<T, cache_of<T>> in_call(random_sequence<T>& s,
                                                              const ei::attention::head_layout& h,
                                                              const cache_of<T>& cache, int index = 0) {
  const std::ptrdiff_t columns = std::ptrdiff_t{h.heads} * h.head_size;
  return {{s.query.data(), s.tokens, columns}, {s.out.data(), s.tokens, columns}, cache, s.first_position, index};
}

template <class T>
ei::attention::cuda::prefill_maps maps_of(const cache_of<T>& cache, int kv_heads) {
  return ei::attention::cuda::map_cache(cache, kv_heads, [](const simt::box_source& s) { return make_tensor_map(s); });
}

/// With maps: each sequence is given that of its cache.
template <int D, class T, class View, class Mixer>
void run_prefill(const Mixer& mixer, const ei::attention::head_layout& h,
                 std::vector<ei::attention::cuda::prefill_sequence<T, View>> sequences,
                 const simt::device_limits& limits, thread_order order = thread_order::shuffled,
                 bool with_maps = false) {
  namespace cuda = ei::attention::cuda;
  std::vector<cuda::prefill_maps> maps;
  if constexpr (std::is_same_v<View, cache_of<T>>) {
    for (std::size_t i = 0; with_maps && i < sequences.size(); ++i)
      maps.push_back(maps_of(sequences[i].cache, h.kv_heads));
    for (std::size_t i = 0; i < maps.size(); ++i) sequences[i].maps = &maps[i];
  }
  const cuda::prefill_plan plan = cuda::plan_prefill(mixer, h, std::span(sequences), limits);
  cuda::start_prefill<Mixer, T, View, D>({mixer, h, sequences.data(), plan}, [&](auto kernel, const auto& args) {
    start<typename decltype(kernel)::type>(args, order);
  });
}

/// All sequences {new tokens, tokens before them} in one call.
template <int D, class T, class Mixer>
void check_prefill(const Mixer& mixer, int heads, int kv_heads, const std::vector<std::pair<int, int>>& sizes,
                   const simt::device_limits& limits, bool with_maps) {
  const ei::attention::head_layout h = layout(heads, kv_heads, D);
  std::vector<random_sequence<T>> all;
  std::vector<ei::attention::cuda::prefill_sequence<T, cache_of<T>>> call;
  for (const auto& [tokens, before] : sizes) all.emplace_back(h, tokens, before, all.size() + 1);
  for (std::size_t i = 0; i < all.size(); ++i)
    call.push_back(in_call(all[i], h, rows_of(all[i], h), static_cast<int>(i)));
  run_prefill<D>(mixer, h, call, limits, thread_order::shuffled, with_maps);
  for (std::size_t i = 0; i < all.size(); ++i) check_against_oracle(mixer, h, all[i], static_cast<int>(i), rounding<T>);
}

/// A user's own: near keys and every third one behind them, and a score that knows its head and sequence.
struct own_policy : ei::attention::no_hooks {
  int near = 5;
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position p) const {
    return s * 0.5F + 0.25F * static_cast<float>(p.head - p.kv_head - p.sequence) + (p.key % 2 == 0 ? 0.5F : 0.0F);
  }
  EFFINFER_HOST_DEVICE bool visible(ei::attention::position p) const {
    return p.query - p.key < near || p.key % 3 == 0;
  }
};

}  // namespace simt_host
