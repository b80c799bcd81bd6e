// Prefill attention in its form for Hopper: against the oracle, and against itself cut, batched and copied otherwise.

#include "simt/prefill_runs.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/kv_cache/paged_view.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace prefill_wgmma_tests {

using namespace simt_host;
using ei::bf16;
using ei::f16;
using namespace ei::attention;
namespace cuda = ei::attention::cuda;

namespace {

constexpr simt::device_limits hopper_limits{.multiprocessors = 1, .shared_bytes = 227 * 1024, .wgmma = true};

template <int D, class T, class View, class Mixer>
void prefill(const Mixer& mixer, const head_layout& h, const std::vector<cuda::prefill_sequence<T, View>>& sequences,
             thread_order order, bool with_maps) {
  run_prefill<D>(mixer, h, sequences, hopper_limits, order, with_maps);
}

template <int D, class T, class Mixer>
void check(const Mixer& mixer, int heads, int kv_heads, const std::vector<std::pair<int, int>>& sizes, bool maps) {
  check_prefill<D, T>(mixer, heads, kv_heads, sizes, hopper_limits, maps);
}

}  // namespace

TEST_CASE("prefill on warpgroups: head sizes, types, groups, odd lengths, sequences in one launch") {
  check<128, bf16>(full{}, 1, 1, {{131, 150}}, true);
  check<128, f16>(full{}, 2, 1, {{1, 0}, {67, 131}}, false);
  check<64, bf16>(full{}, 2, 2, {{1, 0}, {127, 0}, {3, 260}}, true);
  check<64, f16>(full{}, 3, 1, {{43, 5}, {0, 9}, {1, 128}}, true);
  check<256, bf16>(full{}, 2, 1, {{37, 95}}, true);
  check<256, f16>(full{}, 1, 1, {{33, 32}}, false);
}

TEST_CASE("prefill on warpgroups: every policy") {
  const std::vector<std::pair<int, int>> sizes = {{70, 0}, {9, 290}};
  const std::vector<float> slopes = {0.5F, 0.1F}, sink = {1.5F, -2};
  check<64, bf16>(softmax<sliding_window<50>>{}, 2, 1, sizes, true);
  check<64, f16>(softmax<sliding_window<>>{sliding_window<>{.window = 3}}, 2, 1, sizes, true);
  check<64, f16>(softmax<soft_cap>{soft_cap{.cap = 2}}, 2, 1, sizes, false);
  check<64, f16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, sizes, true);
  check<64, bf16>(softmax<sinks>{sinks{sink.data()}}, 2, 1, sizes, true);
  check<64, f16>(softmax<own_policy>{own_policy{}}, 2, 1, sizes, true);
  check<128, f16>(softmax<streaming_window>{streaming_window{.first = 4, .window = 20}}, 2, 2, {{9, 390}}, true);
  check<128, f16>(softmax<sliding_window<30>, soft_cap, sinks>{{}, {.cap = 3}, {sink.data()}}, 2, 1, {{70, 100}}, true);
  check<256, f16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, {{11, 100}}, true);
}

TEST_CASE_TEMPLATE(
    "prefill on warpgroups in chunks is prefill at once, and a sequence in a batch is itself alone, bit for bit", Mixer,
    full, softmax<streaming_window>, softmax<own_policy>) {
  using T = bf16;
  constexpr int d = 64, tokens = 290;
  const head_layout h = layout(2, 1, d);
  Mixer mixer{};
  if constexpr (std::is_same_v<Mixer, softmax<streaming_window>>) mixer.first = {.first = 2, .window = 40};
  random_sequence<T> whole(h, tokens, 0, 7), other(h, 40, 11, 8);
  prefill<d>(mixer, h, std::vector{in_call(whole, h, rows_of(whole, h))}, thread_order::forward, true);

  std::vector<T> out;
  int first = 0;
  for (const int n : {1, 127, 162}) {
    random_sequence<T> part = whole;
    part.first_position = first, part.tokens = n;
    part.query.assign(whole.query.begin() + first * h.heads * d, whole.query.begin() + (first + n) * h.heads * d);
    part.poison();
    // What lies behind the chunk isn't there yet.
    std::fill(part.keys.begin() + part.length() * d, part.keys.end(), T(not_a_number));
    std::fill(part.values.begin() + part.length() * d, part.values.end(), T(not_a_number));
    auto call = in_call(part, h, rows_of(part, h));
    call.cache.capacity = tokens;
    prefill<d>(mixer, h, std::vector{call}, thread_order::reverse, n != 127);
    out.insert(out.end(), part.out.begin(), part.out.end());
    first += n;
  }
  CHECK(out == whole.out);

  random_sequence<T> again = whole;
  again.poison();
  prefill<d>(mixer, h, std::vector{in_call(other, h, rows_of(other, h)), in_call(again, h, rows_of(again, h))},
             thread_order::shuffled, false);
  CHECK(again.out == whole.out);
}

TEST_CASE("prefill on warpgroups from a ring, heads one behind the other, is prefill from all positions, bit for bit") {
  using T = f16;
  constexpr int d = 64, ring = 192, columns = 2 * d;
  const head_layout h = layout(4, 2, d);
  const softmax<sliding_window<50>> mixer;
  random_sequence<T> s(h, 70, 200, 3);
  prefill<d>(mixer, h, std::vector{in_call(s, h, rows_of(s, h))}, thread_order::shuffled, true);
  for (const bool with_maps : {true, false}) {
    random_sequence<T> in_ring = s;
    std::vector<T> keys(ring * columns, T(not_a_number)), values = keys;
    cache_of<T> cache = rows_of(s, h);
    cache.capacity = ring, cache.first = s.length() - 130, cache.keys = keys.data(), cache.values = values.data();
    cache.head_stride = ring * d, cache.row_stride = d;
    for (int p = cache.first; p < s.length(); ++p) {
      for (int head = 0; head < 2; ++head) {
        std::copy_n(s.keys.begin() + p * columns + head * d, d, keys.begin() + (head * ring + p % ring) * d);
        std::copy_n(s.values.begin() + p * columns + head * d, d, values.begin() + (head * ring + p % ring) * d);
      }
    }
    auto call = in_call(in_ring, h, cache);
    call.out.data = in_ring.query.data();  // outputs may take the queries' place
    prefill<d>(mixer, h, std::vector{call}, thread_order::shuffled, with_maps);
    CHECK(in_ring.query == s.out);
  }
}

TEST_CASE("prefill on warpgroups from blocks of a pool is prefill from all positions, bit for bit") {
  using T = bf16;
  constexpr int d = 64, columns = 2 * d, block = 64 * columns;
  const head_layout h = layout(2, 2, d);
  random_sequence<T> s(h, 90, 140, 5);  // four blocks, the last one not full
  prefill<d>(full{}, h, std::vector{in_call(s, h, rows_of(s, h))}, thread_order::shuffled, true);
  // A block has the keys of 64 positions, then their values; only what is held is a number.
  const std::vector<int> table = {4, 0, 5, 2};
  std::vector<T> pool(6 * 2 * block, T(not_a_number));
  for (int p = 0; p < s.length(); ++p) {
    const auto to = pool.begin() + table[static_cast<std::size_t>(p / 64)] * 2 * block + p % 64 * columns;
    std::copy_n(s.keys.begin() + p * columns, columns, to);
    std::copy_n(s.values.begin() + p * columns, columns, to + block);
  }
  ei::kv_cache::paged_view<T> cache;
  cache.keys = pool.data(), cache.values = pool.data() + block, cache.table = table.data();
  cache.block_stride = 2 * block, cache.head_stride = d, cache.row_stride = columns, cache.length = s.length();
  const std::vector maps = {cuda::map_cache(cache.keys, cache.values, columns, 6 * 2 * 64 - 64,
                                            [](const simt::box_source& m) { return make_tensor_map(m); })};
  for (const bool with_maps : {true, false}) {
    random_sequence<T> paged = s;
    paged.poison();
    const auto like = in_call(paged, h, rows_of(paged, h));
    std::vector<cuda::prefill_sequence<T, ei::kv_cache::paged_view<T>>> call = {
        {like.query, like.out, cache, like.first_position, 0, with_maps ? maps.data() : nullptr}};
    run_prefill<d>(full{}, h, call, hopper_limits);
    CHECK(paged.out == s.out);
  }
}

TEST_CASE("prefill on warpgroups is the same however many multiprocessors share a sequence, bit for bit") {
  using T = bf16;
  constexpr int d = 64;
  const head_layout h = layout(4, 2, d);
  random_sequence<T> s(h, 150, 60, 11);  // 5 tiles for each of two heads
  std::vector<std::vector<T>> outs;
  for (const int multiprocessors : {1, 2, 3, 7, 132}) {
    s.poison();
    auto limits = hopper_limits;
    limits.multiprocessors = multiprocessors;
    run_prefill<d>(full{}, h, std::vector{in_call(s, h, rows_of(s, h))}, limits, thread_order::shuffled,
                   multiprocessors % 2 != 0);
    outs.push_back(s.out);
  }
  for (const auto& out : outs) CHECK(out == outs[0]);
}

TEST_CASE("the plan tells which form of prefill a call gets") {
  using T = bf16;
  const auto form = [](auto element, int d, const simt::device_limits& limits) {
    using view = cache_of<decltype(element)>;
    const head_layout h = layout(2, 1, d);
    std::vector<cuda::prefill_sequence<T, view>> none;
    return cuda::plan_prefill(full{}, h, std::span(none), limits).form;
  };
  CHECK(form(T{}, 128, hopper_limits) == cuda::prefill_form::wgmma);
  CHECK(form(T{}, 64, hopper_limits) == cuda::prefill_form::wgmma);
  CHECK(form(T{}, 96, hopper_limits) == cuda::prefill_form::mma);
  CHECK(form(T{}, 128, {}) == cuda::prefill_form::mma);
  CHECK(form(T{}, 128, {.shared_bytes = 163 * 1024, .wgmma = true}) == cuda::prefill_form::mma);
  CHECK(form(ei::kv_cache::int8{}, 128, hopper_limits) == cuda::prefill_form::mma);
  CHECK(form(ei::fp8_e4m3{}, 128, hopper_limits) == cuda::prefill_form::mma);
  using kernel = cuda::prefill_wgmma<full, T, cache_of<T>, 128>;
  CHECK_THROWS_AS((void)kernel::plan({full{}, layout(2, 2, 128), nullptr, {1, 3, 0}}), ei::error);
  CHECK_THROWS_AS((void)kernel::plan({full{}, layout(2, 2, 64), nullptr, {1, 3, 0, cuda::prefill_form::wgmma}}),
                  ei::error);
  CHECK(kernel::plan({full{}, layout(2, 2, 128), nullptr, {1, 3, 0, cuda::prefill_form::wgmma, 4}}).blocks == 4);
  CHECK(kernel::plan({full{}, layout(2, 2, 128), nullptr, {2, 3, 0, cuda::prefill_form::wgmma, 4}}).blocks == 6);
  CHECK(kernel::plan({full{}, layout(2, 2, 128), nullptr, {1, 3, 0, cuda::prefill_form::wgmma, 132}}).blocks == 6);
  CHECK(kernel::plan({full{}, layout(2, 2, 128), nullptr, {1, 300, 0, cuda::prefill_form::wgmma, 4}}).blocks == 600);
  std::vector<T> some(512);
  cache_of<T> cache = cache_of<T>::of_rows(some.data(), some.data(), 2, 64, 4);
  cache.head_stride = 136, cache.row_stride = 64;
  CHECK_THROWS_AS((void)maps_of(cache, 2), ei::error);
  using first = cuda::prefill<full, T, cache_of<T>, 128>;
  CHECK_THROWS_AS((void)first::plan({full{}, layout(2, 2, 128), nullptr, {1, 3, 0, cuda::prefill_form::wgmma}}),
                  ei::error);
}

}  // namespace prefill_wgmma_tests
