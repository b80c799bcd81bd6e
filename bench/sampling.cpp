// What choosing a token costs, by rule and by vocabulary. The logits are read at least once, so bytes_per_second beside the
// machine's memory speed is the distance from the limit; a decode step of an 8B model takes some 50 to 100 ms on two cores.
//
// Logits of three shapes: `language`, probabilities that fall as 1 / (rank + 3)^1.5 over shuffled ids, about what a model gives in
// running text (entropy 4.3 nats, a nucleus of 0.9 has some 280 tokens); `wide`, normal with spread 2.5 and one token in a thousand
// raised by 6 (14,000); `flat`, normal with spread 1 (78,000).

#include <benchmark/benchmark.h>

#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/min_p.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>
#include <effinfer/decoding/top_p.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace ei = effinfer;

namespace {

enum shape { language, wide, flat };

std::vector<float> logits(std::int64_t vocabulary, shape s) {
  const ei::random_stream random{1};
  const auto size = static_cast<std::uint64_t>(vocabulary);
  std::vector<float> out(size);
  for (std::uint64_t i = 0; i < size; ++i) {
    const float radius = std::sqrt(-2 * std::log(1 - random.uniform(i, 0)));
    const float normal = radius * std::cos(6.2831853f * random.uniform(i, 1));
    if (s == flat) out[i] = normal;
    if (s == wide) out[i] = 2.5f * normal + (random.uniform(i, 2) < 1e-3f ? 6.0f : 0.0f);
    // 7919 is prime and divides no vocabulary here, so this shuffles.
    if (s == language) out[i * 7919 % size] = -1.5f * std::log(static_cast<float>(i + 3));
  }
  return out;
}

template <class Rule>
void choose(benchmark::State& state, const Rule& rule, shape s) {
  const auto row = logits(state.range(0), s);
  std::vector<int> history(1000);
  for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<int>(i * 37 % row.size());
  ei::decoding::workspace scratch;
  auto copy = row;
  std::uint64_t position = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(rule(copy, history, {7}, position++, scratch));
    state.PauseTiming();
    copy.assign(row.begin(), row.end());  // rules may write into the logits
    state.ResumeTiming();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0) * 4);
}

void vocabularies(benchmark::internal::Benchmark* b) { b->Arg(32000)->Arg(128256)->Unit(benchmark::kMicrosecond); }

using namespace ei::decoding;
BENCHMARK_CAPTURE(choose, greedy, greedy{}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, temperature, temperature{.value = 0.8f}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_k_40, top_k{.k = 40}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_k_40_flat, top_k{.k = 40}, flat)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_p, top_p{.p = 0.9f}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_p_temperature, top_p{.p = 0.9f, .temperature = 0.8f}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_p_wide, top_p{.p = 0.9f}, wide)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, top_p_flat, top_p{.p = 0.9f}, flat)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, min_p, min_p{.p = 0.05f}, language)->Apply(vocabularies);
BENCHMARK_CAPTURE(choose, sample_all,
                  sample{.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repetition_penalty = 1.1f},
                  language)
    ->Apply(vocabularies);

void score(benchmark::State& state) {
  const auto row = logits(state.range(0), language);
  for (auto _ : state) benchmark::DoNotOptimize(log_probability(row, 5));
  state.SetBytesProcessed(state.iterations() * state.range(0) * 4);
}
BENCHMARK(score)->Apply(vocabularies);

void look_up(benchmark::State& state) {
  std::vector<int> history(static_cast<std::size_t>(state.range(0)));
  for (std::size_t i = 0; i < history.size(); ++i) history[i] = static_cast<int>(i * i % 997);
  history.back() = -1;  // never seen before: the whole history is searched
  const prompt_lookup<3> drafter;
  for (auto _ : state) benchmark::DoNotOptimize(drafter.propose(history, 10));
}
BENCHMARK(look_up)->Arg(4096)->Arg(131072)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
