// Products of activations with weights in every format, beside what the machine could do at most.
//
// T = 1 (decoding): bytes of weights read a second, and the ratio to the read bandwidth measured in the same
// run, slice by slice of 128 MiB of weights, which no cache holds (machine_limits.hpp). T = 512 (prefill): operations a second,
// and the ratio to the f32 peak; integer formats may pass 1, their own peak being 8-bit dot products. Counters are of the
// best run, as limits are; Google Benchmark's times stand beside them.
// In the cache: one thread, activations and weights that the second-level cache holds: what the instructions of a kernel allow
// at most, as the median of ratios to the peak of the dot products (f32: of multiply-adds) measured right before each.
//
//   bench_matmul --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//   bench_matmul --benchmark_filter=in_cache

#include "machine_limits.hpp"

#include <effinfer/quantization/matmul.hpp>
#include <effinfer/quantization/policy.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace {

namespace ei = effinfer;
namespace eq = effinfer::quantization;
using ei::weight_format;

const ei::execution::cpu::context& all_threads() {
  static const ei::execution::cpu::context exec;
  return exec;
}

struct matrix {
  std::vector<std::byte> bytes;
  std::vector<float> scales;
  eq::weight_matrix view;
};

/// Random codes; scales are halves near 0.01.
matrix random_matrix(eq::storage s, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  matrix m;
  m.view = {s.format, nullptr, rows, columns, nullptr, s.group, eq::row_bytes(s.format, columns, s.group)};
  m.bytes.resize(static_cast<std::size_t>(rows * m.view.row_bytes));
  m.scales.assign(static_cast<std::size_t>(rows), 0.01f);
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i + 8 <= m.bytes.size(); i += 8) {
    const std::uint64_t bits = random() & 0x3fff3fff3fff3fffu;  // as f16, bf16, f32 and scales: nothing infinite
    std::memcpy(m.bytes.data() + i, &bits, 8);
  }
  m.view.data = m.bytes.data();
  m.view.scales = m.scales.data();
  return m;
}

constexpr std::ptrdiff_t columns = 4096;

void decode(benchmark::State& state, eq::storage s) {
  const auto& exec = all_threads();
  const std::ptrdiff_t rows = machine_limits::slice_bytes / eq::row_bytes(s.format, columns, s.group) / 32 * 32;
  const matrix m = random_matrix(s, rows * machine_limits::slices, columns);
  std::vector<float> x(columns), y(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(1, columns));
  const auto packed = eq::pack(exec, m.view);
  eq::packed_matrix slice = packed.view();
  slice.rows = rows;
  const auto bytes = static_cast<double>(slice.bytes());
  double limit = 0, best = 0;
  std::int64_t i = 0;
  for (auto _ : state) {
    if (i % machine_limits::slices == 0) {
      state.PauseTiming();
      limit = std::max(limit, machine_limits::read_bandwidth(exec, 1));
      state.ResumeTiming();
    }
    slice.data = packed.view().panel(i++ % machine_limits::slices * rows / 32);
    best = std::max(best, bytes / machine_limits::best_seconds(1, [&] {
                            eq::matmul(exec, ei::matrix_view<const float>(x.data(), 1, columns), slice,
                                       ei::matrix_view<float>(y.data(), 1, rows), workspace);
                          }));
  }
  state.counters["GB/s"] = best * 1e-9;
  state.counters["limit_GB/s"] = limit * 1e-9;
  state.counters["ratio"] = best / limit;
}

void prefill(benchmark::State& state, eq::storage s) {
  const auto& exec = all_threads();
  const std::ptrdiff_t tokens = 512, rows = 2048;
  const matrix m = random_matrix(s, rows, columns);
  std::vector<float> x(static_cast<std::size_t>(tokens * columns)), y(static_cast<std::size_t>(tokens * rows));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, columns));
  const auto packed = eq::pack(exec, m.view);
  const auto product = [&] {
    eq::matmul(exec, ei::matrix_view<const float>(x.data(), tokens, columns), packed,
               ei::matrix_view<float>(y.data(), tokens, rows), workspace);
  };
  const double operations = 2.0 * static_cast<double>(tokens * rows * columns);
  double best = 0;
  for (auto _ : state) best = std::max(best, operations / machine_limits::best_seconds(1, product));
  const double f32 = machine_limits::fma_peak(exec), bytes = machine_limits::byte_dot_peak(exec);
  state.counters["GFLOP/s"] = best * 1e-9;
  state.counters["f32_peak"] = f32 * 1e-9;
  state.counters["ratio_f32"] = best / f32;
  if (bytes > 0) state.counters["ratio_int8"] = best / bytes;
}

void in_cache(benchmark::State& state, eq::storage s) {
  static const ei::execution::cpu::context one({.threads = 1});
  const std::ptrdiff_t tokens = 96, rows = 128, depth = 2048;
  const matrix m = random_matrix(s, rows, depth);
  std::vector<float> x(static_cast<std::size_t>(tokens * depth)), y(static_cast<std::size_t>(tokens * rows));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) - 8.0f;
  std::vector<std::byte> workspace(eq::matmul_workspace_bytes(tokens, depth));
  const auto packed = eq::pack(one, m.view);
  eq::activation_kinds kinds;
  kinds.add(packed.view().format, one.set());
  const auto prepared = eq::prepare(one, ei::matrix_view<const float>(x.data(), tokens, depth), workspace, kinds);
  const eq::product out{&packed.view(), ei::matrix_view<float>(y.data(), tokens, rows), nullptr};
  const bool is_float = s.format == weight_format::f32 || s.format == weight_format::f16;
  const auto peak = [&] {
    if (is_float) return machine_limits::fma_peak(one, 20);
    return s.format == weight_format::bf16 ? machine_limits::bf16_dot_peak(one, 20)
                                           : machine_limits::byte_dot_peak(one, 20);
  };
  const double operations = 2.0 * static_cast<double>(tokens * rows * depth);
  std::vector<double> ratios;
  double limit = 0;
  for (auto _ : state) {
    limit = peak();
    const double seconds = machine_limits::best_seconds(20, [&] { eq::matmul(one, prepared, std::span(&out, 1)); });
    if (limit > 0) ratios.push_back(operations / seconds / limit);
  }
  if (ratios.empty()) return;  // a machine without such an instruction
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<std::ptrdiff_t>(ratios.size() / 2), ratios.end());
  state.counters["peak_GOP/s"] = limit * 1e-9;
  state.counters["ratio"] = ratios[ratios.size() / 2];
}

const eq::storage storages[] = {{weight_format::f32, 0},   {weight_format::f16, 0},   {weight_format::bf16, 0},
                                {weight_format::q8_0, 0},  {weight_format::q4_0, 0},  {weight_format::q4_1, 0},
                                {weight_format::q5_0, 0},  {weight_format::q5_1, 0},  {weight_format::q4_k, 0},
                                {weight_format::q5_k, 0},  {weight_format::q6_k, 0},  {weight_format::int8, 0},
                                {weight_format::int4, 32}, {weight_format::int4, 128}};

std::string name_of(eq::storage s) {
  std::string name(ei::to_string(s.format));
  if (s.group != 0) name.append("g").append(std::to_string(s.group));
  return name;
}

}  // namespace

int main(int argc, char** argv) {
  for (const eq::storage s : storages) {
    const std::string name = name_of(s);
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), [s](benchmark::State& st) { decode(st, s); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
  for (const eq::storage s : storages) {
    const std::string name = name_of(s);
    benchmark::RegisterBenchmark(("prefill/" + name).c_str(), [s](benchmark::State& st) { prefill(st, s); })
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
  for (const eq::storage s : storages) {
    const std::string name = name_of(s);
    benchmark::RegisterBenchmark(("in_cache/" + name).c_str(), [s](benchmark::State& st) { in_cache(st, s); })
        ->Iterations(15)
        ->Unit(benchmark::kMillisecond)
        ->UseRealTime();
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
