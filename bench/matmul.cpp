// Products of activations with weights in every format, beside what the machine could do at most.
//
// T = 1 (decoding): bytes of weights read a second, and the ratio to the read bandwidth measured in the same
// run, slice by slice of 128 MiB of weights, which no cache holds (machine_limits.hpp). T = 512 (prefill): operations a second,
// and the ratio to the f32 peak; integer formats may pass 1, their own peak being 8-bit dot products. Counters are of the
// best run, as limits are; Google Benchmark's times stand beside them.
//
//   bench_matmul --benchmark_repetitions=5 --benchmark_report_aggregates_only=true

#include "machine_limits.hpp"

#include <effinfer/quantization/matmul.hpp>
#include <effinfer/quantization/policy.hpp>

#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
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
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
