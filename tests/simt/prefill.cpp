// Prefill attention on the host context: against the oracle, and against itself cut and batched otherwise.

#include "simt/prefill_runs.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/cuda/prefill.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/execution/cpu.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace prefill_tests {

using namespace simt_host;
using ei::bf16;
using ei::f16;
using namespace ei::attention;
namespace cuda = ei::attention::cuda;

namespace {

template <int D, class T, class View, class Mixer>
void prefill(const Mixer& mixer, const head_layout& h, const std::vector<cuda::prefill_sequence<T, View>>& sequences,
             thread_order order = thread_order::shuffled) {
  run_prefill<D>(mixer, h, sequences, {}, order);
}

template <int D, class T, class Mixer>
void check(const Mixer& mixer, int heads, int kv_heads, const std::vector<std::pair<int, int>>& sizes) {
  check_prefill<D, T>(mixer, heads, kv_heads, sizes, {}, false);
}

}  // namespace

TEST_CASE("prefill: head sizes, types, groups, odd lengths, sequences in one launch") {
  check<64, bf16>(full{}, 2, 2, {{1, 0}, {63, 0}, {65, 0}, {3, 130}});
  check<64, f16>(full{}, 3, 1, {{67, 5}, {0, 9}, {1, 64}});
  check<96, bf16>(full{}, 5, 1, {{29, 0}, {2, 33}});
  check<128, f16>(full{}, 2, 1, {{70, 31}});
  check<128, bf16>(full{}, 1, 1, {{131, 0}});
  check<256, bf16>(full{}, 2, 1, {{37, 1}});
  check<256, f16>(full{}, 1, 1, {{33, 32}});
}

TEST_CASE("prefill: every policy") {
  const std::vector<std::pair<int, int>> sizes = {{70, 0}, {9, 150}};
  const std::vector<float> slopes = {0.5F, 0.1F}, sink = {1.5F, -2};
  check<64, bf16>(softmax<sliding_window<50>>{}, 2, 1, sizes);
  check<64, f16>(softmax<sliding_window<>>{sliding_window<>{.window = 3}}, 2, 1, sizes);
  check<64, f16>(softmax<soft_cap>{soft_cap{.cap = 2}}, 2, 1, sizes);
  check<64, f16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, sizes);
  check<64, bf16>(softmax<sinks>{sinks{sink.data()}}, 2, 1, sizes);
  check<128, f16>(softmax<streaming_window>{streaming_window{.first = 4, .window = 20}}, 2, 2, sizes);
  check<64, f16>(softmax<own_policy>{own_policy{}}, 2, 1, sizes);
  check<128, f16>(softmax<sliding_window<30>, soft_cap, sinks>{{}, {.cap = 3}, {sink.data()}}, 2, 1, sizes);
  check<96, f16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, {{11, 100}});
  check<256, f16>(softmax<alibi>{alibi{slopes.data()}}, 2, 1, {{11, 30}});
}

TEST_CASE_TEMPLATE("prefill in chunks is prefill at once, and a sequence in a batch is itself alone, bit for bit",
                   Mixer, full, softmax<sliding_window<50>>, softmax<streaming_window>, softmax<own_policy>) {
  using T = bf16;
  constexpr int d = 64, tokens = 150;
  const head_layout h = layout(3, 1, d);
  Mixer mixer{};
  if constexpr (std::is_same_v<Mixer, softmax<streaming_window>>) mixer.first = {.first = 2, .window = 40};
  random_sequence<T> whole(h, tokens, 0, 7), other(h, 40, 11, 8);
  prefill<d>(mixer, h, std::vector{in_call(whole, h, rows_of(whole, h))}, thread_order::forward);

  for (const std::vector<int>& chunks : {std::vector<int>{1, 63, 86}, {149, 1}}) {
    std::vector<T> out;
    int first = 0;
    for (const int n : chunks) {
      random_sequence<T> part = whole;
      part.first_position = first, part.tokens = n;
      part.query.assign(whole.query.begin() + first * h.heads * d, whole.query.begin() + (first + n) * h.heads * d);
      part.poison();
      // What lies behind the chunk isn't there yet.
      std::fill(part.keys.begin() + part.length() * d, part.keys.end(), T(not_a_number));
      std::fill(part.values.begin() + part.length() * d, part.values.end(), T(not_a_number));
      prefill<d>(mixer, h, std::vector{in_call(part, h, rows_of(part, h))}, thread_order::reverse);
      out.insert(out.end(), part.out.begin(), part.out.end());
      first += n;
    }
    CHECK(out == whole.out);
  }

  random_sequence<T> again = whole;
  again.poison();
  prefill<d>(mixer, h, std::vector{in_call(other, h, rows_of(other, h)), in_call(again, h, rows_of(again, h))});
  CHECK(again.out == whole.out);
}

TEST_CASE("prefill is near the CPU's attention on the same numbers") {
  using T = f16;
  constexpr int d = 64;
  const head_layout h = layout(4, 2, d);
  const softmax<sliding_window<50>, soft_cap> mixer{{}, {.cap = 3}};
  random_sequence<T> s(h, 40, 60, 5);
  prefill<d>(mixer, h, std::vector{in_call(s, h, rows_of(s, h))});
  const std::vector<float> query = floats(s.query);
  std::vector<float> out(query.size());
  const sequence<cache_of<T>> on_cpu{
      {query.data(), s.tokens, 4 * d}, {out.data(), s.tokens, 4 * d}, rows_of(s, h), s.first_position};
  attend(ei::execution::cpu::context(ei::execution::cpu{.threads = 1}), mixer, h, std::span(&on_cpu, 1));
  for (std::size_t i = 0; i < out.size(); ++i) {
    // The roundings of weights and outputs, of values below 1.
    CHECK(std::abs(static_cast<float>(s.out[i]) - out[i]) <= 2 * 0x1p-11F);
  }
}

TEST_CASE("prefill from a ring is prefill from all positions, bit for bit; outputs may take the queries' place") {
  using T = f16;
  constexpr int d = 64, ring = 128, columns = 2 * d;
  const head_layout h = layout(4, 2, d);
  const softmax<sliding_window<50>> mixer;
  random_sequence<T> s(h, 60, 170, 3);
  prefill<d>(mixer, h, std::vector{in_call(s, h, rows_of(s, h))});
  random_sequence<T> in_ring = s;
  std::vector<T> keys(ring * columns, T(not_a_number)), values = keys;
  cache_of<T> cache = rows_of(s, h);
  cache.capacity = ring, cache.first = s.length() - ring, cache.keys = keys.data(), cache.values = values.data();
  for (int p = cache.first; p < s.length(); ++p) {
    std::copy_n(s.keys.begin() + p * columns, columns, keys.begin() + p % ring * columns);
    std::copy_n(s.values.begin() + p * columns, columns, values.begin() + p % ring * columns);
  }
  auto call = in_call(in_ring, h, cache);
  call.out.data = in_ring.query.data();
  prefill<d>(mixer, h, std::vector{call});
  CHECK(in_ring.query == s.out);
}

TEST_CASE("what prefill can't do is said by its plan") {
  using T = bf16;
  random_sequence<T> s(layout(2, 2, 64), 4, 2, 1);
  const auto refused = [&](const head_layout& h, ei::error_code code, auto change) {
    auto call = in_call(s, layout(2, 2, 64), rows_of(s, layout(2, 2, 64)));
    change(call);
    try {
      (void)cuda::plan_prefill(full{}, h, std::span(&call, 1));
      return false;
    } catch (const ei::error& e) {
      return e.code() == code;
    }
  };
  const auto nothing = [](auto&) {};
  const head_layout h = layout(2, 2, 64);
  CHECK(!refused(h, ei::error_code::unsupported, nothing));
  CHECK(refused({3, 2, 64, 1}, ei::error_code::invalid_argument, nothing));
  CHECK(refused({2, 2, 64, 0}, ei::error_code::invalid_argument, nothing));
  CHECK(refused({2, 2, 80, 1}, ei::error_code::unsupported, nothing));
  CHECK(refused({65536, 65536, 64, 1}, ei::error_code::limit, nothing));
  CHECK(refused({4, 2, 64, 1}, ei::error_code::mismatch, nothing));
  CHECK(refused(h, ei::error_code::mismatch, [](auto& c) { c.out.rows = 3; }));
  CHECK(refused(h, ei::error_code::mismatch, [](auto& c) { c.first_position = 1; }));
  CHECK(refused(h, ei::error_code::mismatch, [](auto& c) { c.cache.first = 3; }));
  CHECK(refused(h, ei::error_code::unsupported, [](auto& c) { c.cache.keys += 1; }));
  CHECK(refused(h, ei::error_code::unsupported, [](auto& c) { c.cache.row_stride += 1; }));
  CHECK(refused(h, ei::error_code::unsupported, [](auto& c) { c.query.data += 1; }));
  CHECK(refused(h, ei::error_code::unsupported, [](auto& c) { c.out.stride += 1; }));
  CHECK(refused(h, ei::error_code::limit, [](auto& c) {
    c.query.rows = c.out.rows = std::ptrdiff_t{1} << 31;
    c.cache.length = 2;
  }));
  using kernel = cuda::prefill<full, T, cache_of<T>, 128>;
  CHECK_THROWS_AS(kernel::plan({full{}, h, nullptr, {1, 1, 0}}), ei::error);
  CHECK(kernel::plan({full{}, layout(2, 2, 128), nullptr, {1, 3, 0}}).blocks == 3);
}

}  // namespace prefill_tests
