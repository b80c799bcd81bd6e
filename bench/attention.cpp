// Attention beside what the machine could do at most.
//
// decode: one new token over S cached ones. Bytes of visited keys and values a second, and the ratio to the read
// bandwidth measured in this run; the whole cache (128 MiB where it isn't bounded by a window) fits no cache of the
// machine. With a window the time goes with the window and not with S. prefill: S tokens at once. Operations (two a
// multiply-add, both products, visible pairs only) a second, and the ratio to the f32 peak. linear: operations of the
// recurrence, 4 D^2 a token and head.
//
//   bench_attention --benchmark_repetitions=5 --benchmark_report_aggregates_only=true

#include "machine_limits.hpp"

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/cpu/linear.hpp>
#include <effinfer/attention/cpu/linear_chunked.hpp>
#include <effinfer/attention/cpu/linear_parallel.hpp>
#include <effinfer/attention/cpu/softmax.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/kv_cache/contiguous.hpp>
#include <effinfer/kv_cache/ring.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

namespace ei = effinfer;
namespace ea = effinfer::attention;
using ei::matrix_view;

const ei::execution::cpu::context& all_threads() {
  static const ei::execution::cpu::context exec;
  return exec;
}
double read_limit() {
  static const double limit = machine_limits::read_bandwidth(all_threads());
  return limit;
}
double operations_limit() {
  static const double limit = machine_limits::fma_peak(all_threads());
  return limit;
}

std::vector<float> numbers(std::ptrdiff_t n) {
  std::vector<float> v(static_cast<std::size_t>(n));
  std::uint32_t state = 1;
  for (float& x : v) state = state * 1664525u + 1013904223u, x = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  return v;
}

template <class Work>
void measure(benchmark::State& state, double amount, double limit, const char* unit, const Work& work) {
  for (auto _ : state) work();
  const double best = amount / machine_limits::best_seconds(10, work);
  state.counters[unit] = best * 1e-9;
  state.counters["limit"] = limit * 1e-9;
  state.counters["ratio"] = best / limit;
}

/// S tokens read into `cache`, in passes of `pass`.
template <class Cache>
void fill(Cache& cache, int tokens, int pass, int columns) {
  const std::vector<float> rows = numbers(std::ptrdiff_t{pass} * columns);
  for (int done = 0; done < tokens; done += pass) {
    const int n = std::min(pass, tokens - done);
    const matrix_view<const float> m(rows.data(), n, columns);
    cache.write(all_threads(), 0, m, m);
    cache.commit(n);
  }
}

template <class Mixer, class Cache>
void decode(benchmark::State& state, const Mixer& mixer, Cache cache, ea::head_layout heads, int tokens) {
  using view = ei::kv_cache::view<typename decltype(cache.view(0))::element_type>;
  const int columns = heads.heads * heads.head_size, kv_columns = heads.kv_heads * heads.head_size;
  heads.scale = 1.0f / std::sqrt(static_cast<float>(heads.head_size));
  fill(cache, tokens, 64, kv_columns);
  const std::vector<float> query = numbers(columns);
  std::vector<float> out(query.size());
  const ea::sequence<view> s{{query.data(), 1, columns}, {out.data(), 1, columns}, cache.view(0), tokens - 1, 0};
  const auto visited = mixer.keys(tokens - 1, tokens);
  const double bytes = 2.0 * kv_columns * sizeof(typename view::element_type) * (visited.end - visited.begin);
  measure(state, bytes, read_limit(), "GB/s", [&] { ea::attend(all_threads(), mixer, heads, std::span(&s, 1)); });
}

template <class T, class Mixer>
void prefill(benchmark::State& state, const Mixer& mixer, ea::head_layout heads, int tokens) {
  using view = ei::kv_cache::view<T>;
  const int columns = heads.heads * heads.head_size, kv_columns = heads.kv_heads * heads.head_size;
  heads.scale = 1.0f / std::sqrt(static_cast<float>(heads.head_size));
  typename ei::kv_cache::contiguous<T>::cache cache({1, heads.kv_heads, heads.head_size}, tokens);
  fill(cache, tokens, 64, kv_columns);
  const std::vector<float> query = numbers(std::ptrdiff_t{tokens} * columns);
  std::vector<float> out(query.size());
  const ea::sequence<view> s{{query.data(), tokens, columns}, {out.data(), tokens, columns}, cache.view(0), 0, 0};
  double pairs = 0;
  for (int q = 0; q < tokens; ++q) pairs += q + 1 - mixer.keys(q, q + 1).begin;
  measure(state, 4.0 * pairs * columns, operations_limit(), "Gop/s",
          [&] { ea::attend(all_threads(), mixer, heads, std::span(&s, 1)); });
}

template <class Attend>
void linear(benchmark::State& state, ea::head_layout heads, int tokens, const Attend& attend) {
  const int columns = heads.heads * heads.head_size;
  const std::vector<float> input = numbers(std::ptrdiff_t{tokens} * columns);
  std::vector<float> out(input.size());
  const std::vector<float> rates(static_cast<std::size_t>(heads.heads), 0.98f);
  ei::kv_cache::recurrent_state memory(1, heads.heads, heads.head_size);
  const matrix_view<const float> in(input.data(), tokens, columns);
  const ea::recurrent_sequence s{in, in, in, {out.data(), tokens, columns}, memory.view(0)};
  ea::linear<ea::elu_plus_one, ea::decay_per_head> mixer;
  mixer.decay.rates = rates.data();
  measure(state, 4.0 * heads.head_size * heads.head_size * heads.heads * tokens, operations_limit(), "Gop/s",
          [&] { attend(mixer, heads, std::span(&s, 1)); });
}

template <int W>
using window = ea::softmax<ea::sliding_window<W>>;

void register_all() {
  const auto add = [](const char* name, auto body) {
    benchmark::RegisterBenchmark(name, body)->Unit(benchmark::kMicrosecond);
  };
  using contiguous = ei::kv_cache::contiguous<ei::f16>::cache;
  using contiguous_f32 = ei::kv_cache::contiguous<float>::cache;
  using ring = ei::kv_cache::ring<ei::f16>::cache;
  const ea::head_layout grouped{32, 8, 128}, each{8, 8, 128}, one{32, 1, 128}, small{32, 8, 64};
  const int long_context = 32768;

  add("decode/full/f16/32:8x128/32768", [=](auto& s) {
    decode(s, ea::full{}, contiguous({1, 8, 128}, long_context), grouped, long_context);
  });
  add("decode/full/f32/32:8x128/16384", [=](auto& s) {
    decode(s, ea::full{}, contiguous_f32({1, 8, 128}, 16384), grouped, 16384);
  });
  add("decode/full/f16/8:8x128/32768", [=](auto& s) {
    decode(s, ea::full{}, contiguous({1, 8, 128}, long_context), each, long_context);
  });
  add("decode/full/f16/32:1x128/262144", [=](auto& s) {
    decode(s, ea::full{}, contiguous({1, 1, 128}, 262144), one, 262144);
  });
  add("decode/full/f16/32:8x64/65536", [=](auto& s) {
    decode(s, ea::full{}, contiguous({1, 8, 64}, 65536), small, 65536);
  });
  add("decode/window4096/f16/32:8x128/32768", [=](auto& s) {
    decode(s, window<4096>{}, contiguous({1, 8, 128}, long_context), grouped, long_context);
  });
  add("decode/window1024/f16/32:8x128/32768", [=](auto& s) {
    decode(s, window<1024>{}, contiguous({1, 8, 128}, long_context), grouped, long_context);
  });
  add("decode/window1024/ring/f16/32:8x128/32768", [=](auto& s) {
    decode(s, window<1024>{}, ring({1, 8, 128}, 1024, 64), grouped, long_context);
  });
  add("decode/soft_cap/f16/32:8x128/32768", [=](auto& s) {
    decode(s, ea::softmax<ea::soft_cap>{}, contiguous({1, 8, 128}, long_context), grouped, long_context);
  });
  add("decode/full/f16/32:8x128/512", [=](auto& s) {
    decode(s, ea::full{}, contiguous({1, 8, 128}, 512), grouped, 512);
  });

  add("prefill/full/f16/8:2x128/2048", [=](auto& s) { prefill<ei::f16>(s, ea::full{}, {8, 2, 128}, 2048); });
  add("prefill/full/f32/8:2x128/2048", [=](auto& s) { prefill<float>(s, ea::full{}, {8, 2, 128}, 2048); });
  add("prefill/full/f16/8:2x64/2048", [=](auto& s) { prefill<ei::f16>(s, ea::full{}, {8, 2, 64}, 2048); });
  add("prefill/window512/f16/8:2x128/2048", [=](auto& s) { prefill<ei::f16>(s, window<512>{}, {8, 2, 128}, 2048); });
  add("prefill/window512/f16/8:2x128/8192", [=](auto& s) { prefill<ei::f16>(s, window<512>{}, {8, 2, 128}, 8192); });
  add("prefill/soft_cap/f16/8:2x128/2048", [=](auto& s) {
    prefill<ei::f16>(s, ea::softmax<ea::soft_cap>{}, {8, 2, 128}, 2048);
  });

  const auto recurrent = [](const auto& mixer, const auto& heads, auto sequences) {
    ea::attend(all_threads(), mixer, heads, std::span<const ea::recurrent_sequence>(sequences));
  };
  add("linear/recurrent/8:8x128/1024", [=](auto& s) { linear(s, {8, 8, 128, 1.0f}, 1024, recurrent); });
  const auto chunked = [](const auto& mixer, const auto& heads, auto sequences) {
    ea::attend_chunked(all_threads(), mixer, heads, std::span<const ea::recurrent_sequence>(sequences));
  };
  const auto parallel = [](const auto& mixer, const auto& heads, auto sequences) {
    ea::attend_parallel(all_threads(), mixer, heads, std::span<const ea::recurrent_sequence>(sequences));
  };
  add("linear/chunked/8:8x128/1024", [=](auto& s) { linear(s, {8, 8, 128, 1.0f}, 1024, chunked); });
  add("linear/parallel/8:8x128/1024", [=](auto& s) { linear(s, {8, 8, 128, 1.0f}, 1024, parallel); });
  add("linear/recurrent/8:8x128/1", [=](auto& s) { linear(s, {8, 8, 128, 1.0f}, 1, recurrent); });
}

}  // namespace

int main(int argc, char** argv) {
  register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
