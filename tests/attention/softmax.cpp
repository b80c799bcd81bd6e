// attention/softmax.hpp and attention/cpu/softmax.hpp: against the oracle, and bit for bit against itself.

#include "attention/problems.hpp"
#include "execution/instruction_sets.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/paged.hpp>
#include <effinfer/kv_cache/ring.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

namespace softmax_tests {

using namespace effinfer;
using namespace problems;

namespace {

// Values are below 1 and weights sum to 1: an output's error is the scores' (64 roundings of terms up to 8, averaged)
// and the weights'. 1e-5 is some 80 units in the last place of 1.
constexpr double tolerance = 1e-5;

}  // namespace

TEST_CASE("every head size, grouping and instruction set agrees with the oracle") {
  for (const auto set : instruction_sets::supported_bases()) {
    const execution::cpu::context exec({.threads = 1, .set = set});
    for (const head_layout heads : {head_layout{1, 1, 1},
                                    {2, 1, 7},
                                    {3, 3, 8},
                                    {4, 2, 24},
                                    {6, 2, 16},
                                    {5, 1, 80},
                                    {8, 1, 64},
                                    {33, 1, 40},
                                    {2, 2, 128},
                                    {7, 7, 96},
                                    {4, 1, 256},
                                    {2, 1, 300},
                                    {3, 1, 512}}) {
      const problem p = make(heads, 150, 3);
      const auto want = testing::softmax_attention(attention::full{}, p.heads, p.query, p.key, p.value, 0);
      const auto view =
          kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), heads.kv_heads, heads.head_size, p.tokens);
      CHECK(worst(attend(exec, attention::full{}, p, view, 0, p.tokens), want) < tolerance);
      CHECK(same(attend(exec, attention::full{}, p, view, 0, p.tokens),
                 in_chunks(exec, attention::full{}, p,
                           kv_cache::contiguous<float>::cache({1, heads.kv_heads, heads.head_size}, 200), 64)));
    }
  }
}

TEST_CASE(
    "a prefill cut anywhere gives the same bits, on caches of every type, alone or in a batch, on any number of "
    "threads") {
  const execution::cpu::context one({.threads = 1}), three({.threads = 3});
  const std::vector<float> slopes = attention::alibi_slopes(6), sink = testing::numbers(6, 9);
  const auto run = [&](const auto& mixer, const problem& p, auto type) {
    using cache = typename kv_cache::contiguous<decltype(type)>::cache;
    const kv_cache::shape shape{1, p.heads.kv_heads, p.heads.head_size};
    const floats whole = in_chunks(one, mixer, p, cache(shape, p.tokens), p.tokens);
    CHECK(worst(whole, testing::softmax_attention(mixer, p.heads, p.query, p.key, p.value, 0)) < tolerance);
    for (const int chunk : {1, 5, 63, 64, 200}) {
      CAPTURE(chunk);
      CHECK(same(whole, in_chunks(one, mixer, p, cache(shape, p.tokens), chunk)));
    }
    CHECK(same(whole, in_chunks(three, mixer, p, cache(shape, p.tokens), 100)));
  };
  const problem p = make({6, 2, 48}, 333, 5);
  attention::sliding_window<> window;
  window.window = 50;
  run(attention::full{}, p, float{});
  run(attention::full{}, p, f16{});
  run(attention::full{}, p, bf16{});
  run(attention::softmax<attention::sliding_window<100>>{}, p, f16{});
  run(attention::softmax<attention::sliding_window<>>{window}, p, float{});
  run(attention::softmax<attention::soft_cap, attention::sliding_window<>>{{3.0f}, window}, p, f16{});
  run(attention::softmax<attention::alibi>{{slopes.data()}}, p, f16{});
  run(attention::softmax<attention::sinks, attention::alibi>{{sink.data()}, {slopes.data()}}, p, float{});
  run(attention::full{}, make({4, 1, 32}, 1500, 6), f16{});  // beyond one segment
}

TEST_CASE(
    "an int8 cache attends to what it stores: the same bits however cut, near the oracle, errors within its step") {
  const execution::cpu::context one({.threads = 1}), three({.threads = 3});
  for (const head_layout heads :
       {head_layout{6, 2, 48}, head_layout{4, 1, 64}, head_layout{3, 3, 7}, head_layout{2, 1, 200}}) {
    CAPTURE(heads.head_size);
    const problem p = make(heads, 333, 5);
    const kv_cache::shape shape{1, heads.kv_heads, heads.head_size};
    using cache = kv_cache::contiguous<kv_cache::int8>::cache;
    problem stored = p;
    const auto quantize = [&](floats& rows) {
      for (std::size_t at = 0; at < rows.size(); at += static_cast<std::size_t>(heads.head_size)) {
        const std::span<float> row(rows.data() + at, static_cast<std::size_t>(heads.head_size));
        float most = 0;
        for (const float v : row) most = std::max(most, std::abs(v));
        for (float& v : row) {
          const float value = std::nearbyint(v * (127.0f / most)) * (most / 127.0f);
          CHECK(std::abs(value - v) <= most / 254 * 1.0001f);
          v = value;
        }
      }
    };
    quantize(stored.key), quantize(stored.value);
    const floats whole = in_chunks(one, attention::full{}, p, cache(shape, p.tokens), p.tokens);
    const auto expected =
        testing::softmax_attention(attention::full{}, p.heads, stored.query, stored.key, stored.value, 0);
    CHECK(worst(whole, expected) < tolerance);
    for (const int chunk : {1, 5, 63, 64, 200})
      CHECK(same(whole, in_chunks(one, attention::full{}, p, cache(shape, p.tokens), chunk)));
    CHECK(same(whole, in_chunks(three, attention::full{}, p, cache(shape, p.tokens), 100)));
  }
}

TEST_CASE("an fp8 cache attends to what it stores, in rows and in pages: the same bits however cut") {
  const execution::cpu::context one({.threads = 1}), three({.threads = 3});
  for (const head_layout heads : {head_layout{6, 2, 48}, head_layout{3, 3, 7}, head_layout{2, 1, 200}}) {
    CAPTURE(heads.head_size);
    const problem p = make(heads, 200, 5);
    const kv_cache::shape shape{1, heads.kv_heads, heads.head_size};
    using cache = kv_cache::contiguous<fp8_e4m3>::cache;
    using paged = kv_cache::paged<fp8_e4m3>::cache;
    problem stored = p;
    for (floats* rows : {&stored.key, &stored.value}) {
      for (float& v : *rows) v = static_cast<float>(fp8_e4m3(v));
    }
    const floats whole = in_chunks(one, attention::full{}, p, cache(shape, p.tokens), p.tokens);
    const auto expected =
        testing::softmax_attention(attention::full{}, p.heads, stored.query, stored.key, stored.value, 0);
    CHECK(worst(whole, expected) < tolerance);
    for (const int chunk : {1, 64, 77}) {
      CHECK(same(whole, in_chunks(one, attention::full{}, p, cache(shape, p.tokens), chunk)));
      CHECK(same(whole, in_chunks(three, attention::full{}, p, paged(shape, p.tokens), chunk)));
    }
  }
}

TEST_CASE("a row of an int8 cache keeps a NaN, and is zero where all is zero; wide heads are refused") {
  const execution::cpu::context exec({.threads = 1});
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    kv_cache::contiguous<kv_cache::int8>::cache cache({1, 1, 3}, 2);
    const float key[6] = {1, bad, 2, 0, 0, 0};
    const auto view = cache.write(exec, 0, {key, 2, 3}, {key, 2, 3});
    float scale;
    std::memcpy(&scale, view.key(0, 0) + 3, sizeof scale);
    CHECK(std::isnan(scale));
    std::memcpy(&scale, view.key(0, 1) + 3, sizeof scale);
    CHECK(scale == 0.0f);
    CHECK(view.key(0, 1)[0].byte == 128);
  }
  const problem wide = make({1, 1, 257}, 2, 6);
  CHECK_THROWS_AS(
      in_chunks(exec, attention::full{}, wide, kv_cache::contiguous<kv_cache::int8>::cache({1, 1, 257}, 2), 2), error);
}

TEST_CASE("sequences of a batch get what they would get alone") {
  const execution::cpu::context exec({.threads = 3});
  std::vector<problem> problems;
  for (const int tokens : {1, 70, 17, 300})
    problems.push_back(make({4, 2, 32}, tokens, static_cast<std::uint64_t>(tokens)));
  using view = kv_cache::view<float>;
  std::vector<attention::sequence<view>> sequences;
  std::vector<floats> out;
  for (const problem& p : problems) out.emplace_back(p.query.size());
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const problem& p = problems[i];
    const int first = p.tokens / 2, n = p.tokens - first;
    sequences.push_back({{p.query.data() + std::ptrdiff_t{first} * p.columns(), n, p.columns()},
                         {out[i].data(), n, p.columns()},
                         view::of_rows(p.key.data(), p.value.data(), 2, 32, p.tokens),
                         first,
                         static_cast<int>(i)});
  }
  attention::attend(exec, attention::full{}, problems[0].heads, std::span<const attention::sequence<view>>(sequences));
  for (std::size_t i = 0; i < problems.size(); ++i) {
    const int first = problems[i].tokens / 2, n = problems[i].tokens - first;
    out[i].resize(static_cast<std::size_t>(n) * 128);
    CHECK(same(out[i], attend(exec, attention::full{}, problems[i], sequences[i].cache, first, n)));
  }
}

TEST_CASE("a long context with fewer key heads than threads is shared by segments, with the same bits") {
  const execution::cpu::context one({.threads = 1}), eight({.threads = 8});
  const problem p = make({3, 1, 20}, 5000, 12);  // five segments, one tile
  const auto view = kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 1, 20, p.tokens);
  const attention::softmax<attention::sliding_window<3100>> window{};
  CHECK(same(attend(one, attention::full{}, p, view, 4999, 1), attend(eight, attention::full{}, p, view, 4999, 1)));
  CHECK(same(attend(one, window, p, view, 4999, 1), attend(eight, window, p, view, 4999, 1)));
  const floats last = attend(eight, attention::full{}, p, view, 4996, 4);
  const problem tail = {p.heads, 5000, floats(p.query.end() - 4 * p.columns(), p.query.end()), p.key, p.value};
  CHECK(worst(last, testing::softmax_attention(attention::full{}, tail.heads, tail.query, tail.key, tail.value, 4996)) <
        tolerance);
}

namespace {
/// Counts the tiles that a kernel comes to.
struct counted : attention::no_hooks {
  std::atomic<int>* tiles = nullptr;
  bool visible(attention::position) const { return true; }
  bool any_visible(attention::tile) const { return ++*tiles > 0; }
};
/// streaming_window without its jump.
struct stepping : attention::no_hooks {
  attention::streaming_window window;
  bool visible(attention::position p) const { return window.visible(p); }
};
}  // namespace

TEST_CASE("a streaming window comes to as many tiles whatever the context, with the bits of one that looks at all") {
  const attention::streaming_window window{.first = 4, .window = 100};
  stepping step;
  step.window = window;
  for (const int threads : {1, 8}) {
    const execution::cpu::context exec({.threads = threads});
    for (const int tokens : {700, 5000, 20000}) {
      const problem p = make({3, 1, 20}, tokens, 12);
      const auto view = kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 1, 20, p.tokens);
      std::atomic<int> tiles = 0;
      counted counter;
      counter.tiles = &tiles;
      const attention::softmax<counted, attention::streaming_window> mixer{counter, window};
      const floats got = attend(exec, mixer, p, view, tokens - 1, 1);
      CHECK(tiles <= 4);  // that of the first four keys, and three of which the last hundred may lie in
      CHECK(tiles >= 3);
      CHECK(same(got, attend(exec, attention::softmax<stepping>{step}, p, view, tokens - 1, 1)));
    }
  }
}

TEST_CASE("a ring gives the same bits as a cache that forgets nothing") {
  const execution::cpu::context exec({.threads = 2});
  const problem p = make({4, 2, 32}, 700, 8);
  const kv_cache::shape shape{1, 2, 32};
  const attention::softmax<attention::sliding_window<90>> mixer{};
  const floats want = in_chunks(exec, mixer, p, kv_cache::contiguous<f16>::cache(shape, 700), 700);
  for (const int chunk : {1, 37, 64}) {
    CHECK(same(want, in_chunks(exec, mixer, p, kv_cache::ring<f16>::cache(shape, 90, chunk), chunk)));
  }
}

TEST_CASE("a query without a visible key gets zeros, and scores of -infinity count for nothing") {
  const execution::cpu::context exec({.threads = 1});
  const problem p = make({4, 2, 32}, 200, 9);
  const auto view = kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 2, 32, p.tokens);
  for (const float x : attend(exec, attention::softmax<hide_all>{}, p, view, 0, p.tokens)) CHECK(x == 0.0f);
  const attention::softmax<hide_some> some{};
  CHECK(worst(attend(exec, some, p, view, 0, p.tokens),
              testing::softmax_attention(some, p.heads, p.query, p.key, p.value, 0)) < tolerance);
}

TEST_CASE("what lies in the cache behind the query is never looked at") {
  const execution::cpu::context exec({.threads = 1});
  problem p = make({4, 2, 32}, 130, 10);
  const auto view = [&] { return kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 2, 32, p.tokens); };
  const floats clean = attend(exec, attention::full{}, p, view(), 0, 130);
  for (std::size_t i = 100 * 64; i < p.key.size(); ++i) p.key[i] = NAN, p.value[i] = INFINITY;
  floats dirty = attend(exec, attention::full{}, p, view(), 0, 130);
  CHECK(std::memcmp(clean.data(), dirty.data(), 100 * 128 * sizeof(float)) == 0);
}

TEST_CASE("bad shapes are refused before anything is computed") {
  const execution::cpu::context exec({.threads = 1});
  const problem p = make({4, 2, 32}, 20, 11);
  auto view = kv_cache::view<float>::of_rows(p.key.data(), p.value.data(), 2, 32, p.tokens);
  const auto code = [&](head_layout heads, int first) {
    floats out(p.query.size(), -7.0f);
    const attention::sequence<kv_cache::view<float>> s{
        {p.query.data(), 20, 128}, {out.data(), 20, 128}, view, first, 0};
    try {
      attention::attend(exec, attention::full{}, heads, std::span(&s, 1));
    } catch (const error& e) {
      CHECK(out[0] == -7.0f);
      return e.code();
    }
    return error_code::io;
  };
  CHECK(code({4, 3, 32}, 0) == error_code::invalid_argument);
  CHECK(code({4, 2, 0}, 0) == error_code::invalid_argument);
  CHECK(code({1, 1, 1024}, 0) == error_code::invalid_argument);
  CHECK(code({4, 2, 16}, 0) == error_code::mismatch);
  CHECK(code({4, 2, 32}, 3) == error_code::mismatch);
  CHECK(code({4, 2, 32}, 0) == error_code::io);  // nothing thrown
}

}  // namespace softmax_tests
