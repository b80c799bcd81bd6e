// Whole models: loading, prefill and decode on a checkpoint of real shape with random weights (bench/random_checkpoint.hpp), beside
// the machine's limits measured between the passes of the same run.
//
// decode: tokens/s, and the bytes that a token reads (weights and cache) a second as a share of the read bandwidth.
// prefill: tokens/s, and operations a second (two a weight and token) as a share of the f32 peak.
// Medians over the passes; limits are the median of measurements taken between them, as a busy machine slows both.
//
//   bench_whole_model [--shape=qwen2-0.5b|llama-3.2-1b] [--folder=DIR] [Google Benchmark's options]

#include "machine_limits.hpp"
#include "random_checkpoint.hpp"

#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace ei = effinfer;
using weights = ei::quantization::at_load;
using model = ei::model<weights>;

std::string folder;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

const model& loaded(weights::choice choice) {
  static std::unique_ptr<model> held;
  static weights::choice which{};
  if (!held || which != choice) {
    held.reset();
    held = std::make_unique<model>(
        model::load(folder, {.progress = {}, .session = {.context_tokens = 1024}}, weights{choice}));
    which = choice;
  }
  return *held;
}

std::vector<int> some_tokens(int count) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 7919 + 13) % 100000);
  return tokens;
}

void decode(benchmark::State& state, weights::choice choice) {
  const model& m = loaded(choice);
  auto session = m.start();
  session.append(some_tokens(16));
  std::vector<double> seconds, limits;
  for (auto _ : state) {
    const auto token = some_tokens(1);
    const double start = machine_limits::seconds_now();
    benchmark::DoNotOptimize(session.append(token).data());
    seconds.push_back(machine_limits::seconds_now() - start);
    if (seconds.size() % 8 == 1) {
      state.PauseTiming();
      limits.push_back(machine_limits::read_bandwidth(m.decoder_model().execution(), 1));
      state.ResumeTiming();
    }
    if (session.room() == 0) session.truncate(16);
  }
  const auto bytes = static_cast<double>(m.decoder_model().weights().bytes_per_token);
  state.counters["tokens/s"] = 1.0 / median(seconds);
  state.counters["GB/token"] = bytes / 1e9;
  state.counters["read GB/s"] = bytes / median(seconds) / 1e9;
  state.counters["limit GB/s"] = median(limits) / 1e9;
  state.counters["of limit"] = bytes / median(seconds) / median(limits);
}

void prefill(benchmark::State& state, weights::choice choice) {
  const model& m = loaded(choice);
  auto session = m.start({.context_tokens = 1024, .prefill_chunk = 512});
  const auto tokens = some_tokens(512);
  std::vector<double> seconds, limits;
  for (auto _ : state) {
    session.truncate(0);
    const double start = machine_limits::seconds_now();
    benchmark::DoNotOptimize(session.prefill(tokens).data());
    seconds.push_back(machine_limits::seconds_now() - start);
    state.PauseTiming();
    limits.push_back(machine_limits::fma_peak(m.decoder_model().execution(), 1));
    state.ResumeTiming();
  }
  double weights_read = 0;
  for (const auto& b : m.decoder_model().weights().blocks) {
    for (const auto* l : {&b.query, &b.key, &b.value, &b.mixer_output, &b.gate, &b.up, &b.down}) {
      weights_read += static_cast<double>(l->weight.rows * l->weight.columns);
    }
  }
  const double rate = 2 * weights_read * 512 / median(seconds);
  state.counters["tokens/s"] = 512 / median(seconds);
  state.counters["GFLOP/s"] = rate / 1e9;
  state.counters["f32 peak GFLOP/s"] = median(limits) / 1e9;
  state.counters["of f32 peak"] = rate / median(limits);
}

void load(benchmark::State& state, weights::choice choice) {
  for (auto _ : state) benchmark::DoNotOptimize(model::load(folder, {}, weights{choice}).config().layers);
  state.counters["file GB"] = static_cast<double>(std::filesystem::file_size(folder + "/model.safetensors")) / 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  random_checkpoint::shape shape = random_checkpoint::qwen2_0_5b;
  std::string name = "qwen2-0.5b";
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    const std::string a = argv[i];
    if (a.rfind("--shape=", 0) == 0) {
      name = a.substr(8);
      if (name != "qwen2-0.5b" && name != "llama-3.2-1b")
        return std::fprintf(stderr, "unknown shape %s\n", name.c_str()), 2;
      if (name == "llama-3.2-1b") shape = random_checkpoint::llama_3_2_1b;
    } else if (a.rfind("--folder=", 0) == 0) {
      folder = a.substr(9);
    } else {
      rest.push_back(argv[i]);
    }
  }
  if (folder.empty()) folder = (std::filesystem::temp_directory_path() / ("effinfer-bench-" + name)).string();
  random_checkpoint::write(folder, shape);
  using choice = weights::choice;
  const std::pair<const char*, choice> all[] = {
      {"bf16", choice::none}, {"int8", choice::int8}, {"int4-32", choice::int4_32}};
  for (const auto& [label, c] : all) {
    const choice chosen = c;
    const auto add = [&](const char* what, auto f) {
      return benchmark::RegisterBenchmark((std::string(what) + "/" + label).c_str(),
                                          [f, chosen](benchmark::State& s) { f(s, chosen); })
          ->Unit(benchmark::kMillisecond)
          ->UseRealTime();
    };
    add("load", load)->Iterations(1);
    add("decode", decode)->Iterations(48);
    add("prefill-512", prefill)->Iterations(5);
  }
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  benchmark::RunSpecifiedBenchmarks();
}
