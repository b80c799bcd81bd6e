// attention/cpu/split_products.hpp: a prompt's attention on AMX, against the oracle and bit for bit against itself.

#include "attention/problems.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/kv_cache/ring.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <type_traits>

namespace prompts_tests {

using namespace effinfer;
using namespace problems;

namespace {

bool has_tiles() { return execution::is_supported(execution::instruction_set::amx); }

/// With all the digits of a float, and what a cache of T makes of that.
template <class T>
problem make_stored(head_layout heads, int tokens, std::uint64_t seed) {
  problem p = make(heads, tokens, seed);
  p.key = testing::numbers(p.key.size(), seed + 1, 2.0f);
  p.value = testing::numbers(p.value.size(), seed + 2);
  for (floats* rows : {&p.key, &p.value}) {
    if constexpr (std::is_same_v<T, kv_cache::int8>) {
      const auto d = static_cast<std::size_t>(heads.head_size);
      for (std::size_t at = 0; at < rows->size(); at += d) {
        const std::span<float> row(rows->data() + at, d);
        float most = 0;
        for (const float v : row) most = std::max(most, std::abs(v));
        for (float& v : row) v = std::nearbyint(v * (127.0f / most)) * (most / 127.0f);
      }
    } else {
      for (float& v : *rows) v = static_cast<float>(static_cast<T>(v));
    }
  }
  return p;
}

/// Near the oracle, and as near as float32 but for the parts that are left out: some 2^-15 of the values, which are below 1.
template <class T, class Mixer>
void check_error(const Mixer& mixer, head_layout heads, int tokens, std::uint64_t seed) {
  CAPTURE(heads.heads);
  CAPTURE(heads.head_size);
  CAPTURE(tokens);
  CAPTURE(sizeof(T));
  const execution::cpu::context exec({.threads = 1});
  const problem p = make_stored<T>(heads, tokens, seed);
  const typename kv_cache::contiguous<T>::cache cache({1, heads.kv_heads, heads.head_size}, tokens);
  const auto want = testing::softmax_attention(mixer, p.heads, p.query, p.key, p.value, 0);
  const floats exact = in_chunks(exec, mixer, p, cache, tokens), split = in_chunks(exec, mixer, p, cache, tokens, true);
  const double of_f32 = worst(exact, want), of_parts = worst(split, want);
  CHECK(of_parts <= 2 * of_f32 + 0x1p-15);
}

}  // namespace

TEST_CASE("a prompt's attention from parts of bf16 is near float32: head sizes, shapes, caches") {
  if (!has_tiles()) return;
  const int tokens[] = {1, 2, 13, 31, 33, 64, 65, 97, 127, 131};
  const int groups[][2] = {{1, 1}, {4, 1}, {6, 2}, {7, 1}, {3, 3}};
  std::uint64_t i = 0;
  for (const int d : {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 40, 63, 64, 65, 80, 95, 96, 127, 128, 129, 200, 255, 256}) {
    const auto next = [&](auto type) {
      const auto& g = groups[i % std::size(groups)];
      check_error<decltype(type)>(attention::full{}, {g[0], g[1], d}, tokens[i % std::size(tokens)], i), i += 3;
    };
    next(float{}), next(f16{}), next(bf16{}), next(kv_cache::int8{}), next(fp8_e4m3{});
    i += 1;
  }
  check_error<f16>(attention::full{}, {32, 1, 64}, 40, 1);  // more heads that share a key than a tile of few rows has
  check_error<f16>(attention::full{}, {200, 1, 8}, 9, 2);   // ... than any tile has
  check_error<bf16>(attention::full{}, {2, 1, 48}, 1500, 3);
}

TEST_CASE("a prompt cut anywhere gives the same bits, on every cache, with any policy, on any number of threads") {
  if (!has_tiles()) return;
  const execution::cpu::context one({.threads = 1}), three({.threads = 3}), many({.threads = 16});
  const std::vector<float> slopes = attention::alibi_slopes(6), sink = testing::numbers(6, 9);
  const auto run = [&](const auto& mixer, auto type, head_layout heads, int tokens) {
    using T = decltype(type);
    const problem p = make_stored<T>(heads, tokens, 5);
    const kv_cache::shape shape{1, heads.kv_heads, heads.head_size};
    const typename kv_cache::contiguous<T>::cache cache(shape, tokens);
    const auto want = testing::softmax_attention(mixer, p.heads, p.query, p.key, p.value, 0);
    const floats whole = in_chunks(one, mixer, p, cache, tokens, true);
    CHECK(worst(whole, want) <= 2 * worst(in_chunks(one, mixer, p, cache, tokens), want) + 0x1p-15);
    for (const int chunk : {1, 5, 31, 63, 64, 200}) {
      CAPTURE(chunk);
      CHECK(same(whole, in_chunks(one, mixer, p, cache, chunk, true)));
    }
    CHECK(same(whole, in_chunks(three, mixer, p, cache, 100, true)));
    CHECK(same(whole, in_chunks(many, mixer, p, cache, tokens, true)));
    CHECK(same(whole, in_chunks(one, mixer, p, typename kv_cache::paged<T>::cache(shape, tokens), 77, true)));
  };
  attention::sliding_window<> window;
  window.window = 50;
  const attention::streaming_window streaming{.first = 4, .window = 70};
  run(attention::full{}, float{}, {6, 2, 48}, 333);
  run(attention::full{}, f16{}, {6, 2, 64}, 333);
  run(attention::full{}, bf16{}, {6, 2, 33}, 333);
  run(attention::full{}, kv_cache::int8{}, {3, 3, 7}, 200);
  run(attention::full{}, fp8_e4m3{}, {2, 1, 130}, 200);
  run(attention::softmax<attention::sliding_window<100>>{}, f16{}, {6, 2, 48}, 333);
  run(attention::softmax<attention::soft_cap, attention::sliding_window<>>{{3.0f}, window}, bf16{}, {6, 2, 48}, 333);
  run(attention::softmax<attention::alibi>{{slopes.data()}}, f16{}, {6, 2, 48}, 333);
  run(attention::softmax<attention::sinks, attention::alibi>{{sink.data()}, {slopes.data()}}, bf16{}, {6, 2, 48}, 333);
  run(attention::softmax<attention::streaming_window>{streaming}, bf16{}, {6, 2, 48}, 333);
  run(attention::full{}, bf16{}, {2, 1, 16}, 1500);  // beyond one segment
}

TEST_CASE("a prompt on a ring gives the same bits as on a cache that forgets nothing") {
  if (!has_tiles()) return;
  const execution::cpu::context exec({.threads = 2});
  const problem p = make({4, 2, 32}, 700, 8);
  const kv_cache::shape shape{1, 2, 32};
  const attention::softmax<attention::sliding_window<90>> mixer{};
  const floats want = in_chunks(exec, mixer, p, kv_cache::contiguous<bf16>::cache(shape, 700), 700, true);
  for (const int chunk : {1, 37, 64})
    CHECK(same(want, in_chunks(exec, mixer, p, kv_cache::ring<bf16>::cache(shape, 90, chunk), chunk, true)));
}

TEST_CASE("a long prompt's last tokens are shared by segments, with the same bits") {
  if (!has_tiles()) return;
  const execution::cpu::context one({.threads = 1}), eight({.threads = 8});
  const problem p = make({3, 1, 20}, 5000, 12);  // five segments, one tile
  const auto view = kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 1, 20, p.tokens);
  const auto last = [&](const auto& exec, int tokens) {
    floats out = attend(exec, attention::full{}, p, view, p.tokens - tokens, tokens, true);
    out.erase(out.begin(), out.end() - 4 * p.columns());
    return out;
  };
  CHECK(same(last(one, 4), last(eight, 4)));
  CHECK(same(last(one, 4), last(one, 300)));
  CHECK(same(last(one, 4), last(eight, 300)));
}

TEST_CASE("a prompt's query without a visible key gets zeros, and what the cache doesn't hold is never looked at") {
  if (!has_tiles()) return;
  const execution::cpu::context exec({.threads = 1});
  const auto check = [&](auto type) {
    using T = decltype(type);
    problem p = make({4, 2, 40}, 150, 10);
    const typename kv_cache::contiguous<T>::cache cache({1, 2, 40}, 150);
    const floats none = in_chunks(exec, attention::softmax<hide_all>{}, p, cache, 150, true);
    CHECK(std::all_of(none.begin(), none.end(), [](float v) { return v == 0.0f; }));
    const attention::softmax<hide_some> some;
    CHECK(worst(in_chunks(exec, some, p, cache, 150, true),
                testing::softmax_attention(some, p.heads, p.query, p.key, p.value, 0)) < 0x1p-15);

    std::vector<T> keys(256 * 80), values(256 * 80);  // 32 positions behind, as many in front
    const T bad(std::nanf(""));
    std::fill(keys.begin(), keys.end(), bad), std::fill(values.begin(), values.end(), bad);
    for (int i = 20 * 80; i < 150 * 80; ++i) {
      const auto n = static_cast<std::size_t>(i);
      keys[n] = T(p.key[n]), values[n] = T(p.value[n]);
    }
    auto view = kv_cache::view<T>::of_rows(keys.data(), values.data(), 2, 40, 150);
    view.first = 20;
    const attention::softmax<attention::sliding_window<30>> window;
    const floats got = attend(exec, window, p, view, 60, 90, true);
    const floats want = in_chunks(exec, window, p, cache, 150, true);
    CHECK(same(got, floats(want.begin() + 60 * p.columns(), want.end())));
  };
  check(float{}), check(f16{}), check(bf16{});
}

TEST_CASE("prompts beside other tokens: each gets its own bits; wide heads and other processors know no difference") {
  const execution::cpu::context exec({.threads = 2});
  const problem p = make({4, 2, 32}, 100, 13);
  using view = kv_cache::view<float>;
  const view cache = view::of_rows(p.key.data(), p.value.data(), 2, 32, 100);
  floats out[2] = {floats(p.query.size()), floats(p.query.size())};
  std::vector<attention::sequence<view>> both;
  for (const bool prompt : {false, true})
    both.push_back({{p.query.data(), 100, 128}, {out[prompt].data(), 100, 128}, cache, 0, 0, prompt});
  attention::attend(exec, attention::full{}, p.heads, std::span<const attention::sequence<view>>(both));
  for (const bool prompt : {false, true})
    CHECK(same(out[prompt], attend(exec, attention::full{}, p, cache, 0, 100, prompt)));
  CHECK(same(out[0], out[1]) == !has_tiles());

  const execution::cpu::context plain({.threads = 1, .set = execution::instruction_set::avx512});
  CHECK(same(out[0], attend(plain, attention::full{}, p, cache, 0, 100, true)));
  const problem wide = make({2, 1, 257}, 70, 14);
  const view of_wide = view::of_rows(wide.key.data(), wide.value.data(), 1, 257, 70);
  CHECK(same(attend(exec, attention::full{}, wide, of_wide, 0, 70, true),
             attend(exec, attention::full{}, wide, of_wide, 0, 70)));
}

}  // namespace prompts_tests
