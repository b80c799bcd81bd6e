// Shipped models on the GPU beside the CPU: the same greedy tokens, logits near, and on the device the same bits in whatever passes, caches
// and trees.
//
//   check_model LLAMA [LINEAR]     folders of checkpoints whose heads are of 32

#include <effinfer/decoding/greedy.hpp>
#include <effinfer/model.hpp>
#include <effinfer/quantization/at_load.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <span>
#include <vector>

namespace ei = effinfer;

namespace {

int likeliest(std::span<const float> logits) {
  return static_cast<int>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

template <class Session>
std::vector<float> read(Session&& s, const std::vector<int>& tokens) {
  const auto logits = s.append(tokens);
  return {logits.begin(), logits.end()};
}

/// Heads of the shipped models: less to compile.
using on_gpu = ei::execution::on_cuda<ei::bf16, 32>;

std::vector<int> some_tokens(int count, int seed) {
  std::vector<int> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((seed * 7919 + i * i * 31) % 1000);
  return tokens;
}

/// How many of a model's greedy tokens on the GPU are the CPU's.
template <class Gpu, class Cpu>
int same_tokens(const Gpu& gpu, const Cpu& cpu, int steps) {
  auto a = gpu.start({.context_tokens = 128}), b = gpu.start({.context_tokens = 128, .prefill_chunk = 7});
  auto c = cpu.start({.context_tokens = 128});
  const std::vector<int> prompt = some_tokens(40, 3);
  int token = likeliest(read(c, prompt)), same = 0;
  if (read(a, prompt) != read(b, prompt)) return -1;
  for (int i = 0; i < steps; ++i) {
    const auto chosen = a.append_and_choose(token, ei::decoding::greedy{}, {});
    token = likeliest(c.append(std::span(&token, 1)));
    same += chosen && *chosen == token ? 1 : 0;
  }
  return same;
}

/// Logits of a tree are those of its paths, and what is kept is as if read alone.
template <class Model>
bool tree_is_paths(const Model& model) {
  auto session = model.start({.context_tokens = 128});
  session.append(some_tokens(70, 5));
  const std::vector<int> depths = {0, 1, 2, 1, 2, 0, 1}, tokens = some_tokens(7, 11);
  auto fork = session.fork();
  std::vector<std::vector<float>> rows;
  session.append_tree(tokens, depths, {},
                      [&](int, std::span<const float> logits) { rows.emplace_back(logits.begin(), logits.end()); });
  session.keep(std::vector<int>{0, 3, 4});
  bool same = true;
  for (const int row : {0, 3, 4})
    same = same && read(fork, {tokens[static_cast<std::size_t>(row)]}) == rows[static_cast<std::size_t>(row)];
  return same && read(session, {9}) == read(fork, {9});
}

}  // namespace

int main(int argc, char** argv) {
  try {
    using ei::quantization::at_load;
    const auto on_cpu = ei::model<ei::execution::cpu>::load(argv[1]);
    int failures = 0;
    const auto check = [&](bool good, const char* what) {
      std::printf("%-60s %s\n", what, good ? "yes" : "NO");
      failures += good ? 0 : 1;
    };
    for (const auto choice : {at_load::choice::none, at_load::choice::int8, at_load::choice::int4_32}) {
      const auto on_gpu = ei::model<at_load, ei::execution::cuda>::load(argv[1], {}, at_load{choice});
      double worst = 0, largest = 0;
      int same = 0, steps = 0;
      for (int seed = 0; seed < 8; ++seed) {
        std::vector<int> prompt;
        for (int i = 0; i < 40; ++i) prompt.push_back((seed * 7919 + i * i * 31) % 1000);
        auto a = on_gpu.start({.context_tokens = 256, .prefill_chunk = 64});
        auto b = on_cpu.start({.context_tokens = 256});
        auto got = read(a, prompt);
        const auto wanted = read(b, prompt);
        for (std::size_t i = 0; i < got.size(); ++i) {
          worst = std::max(worst, static_cast<double>(std::abs(got[i] - wanted[i])));
          largest = std::max(largest, static_cast<double>(std::abs(wanted[i])));
        }
        if (seed == 0) {
          check(read(on_gpu.start({.context_tokens = 256, .prefill_chunk = 7}), prompt) == got,
                "chunks of 7 give the bits of the whole");
        }
        int token = likeliest(wanted);
        for (int i = 0; i < 40; ++i, ++steps) {
          const auto chosen = a.append_and_choose(token, ei::decoding::greedy{}, {});
          token = likeliest(b.append(std::span(&token, 1)));
          same += chosen && *chosen == token ? 1 : 0;
        }
      }
      std::printf("greedy tokens: %d of %d the CPU's; logits: %.3g off at most, of %.3g\n", same, steps, worst,
                  largest);
      if (choice == at_load::choice::none) {
        check(worst < 0.02 * largest, "logits within 2 % of the largest");
        check(same >= steps * 95 / 100, "at least 95 % of greedy tokens (near ties may differ)");
      }
    }
    namespace kv = ei::kv_cache;
    const auto check_cache = [&]<class Cache>(Cache, const char* name) {
      using gpu = ei::model<on_gpu, Cache>;
      const auto model = gpu::load(argv[1]);
      const int same = same_tokens(model, on_cpu, 40);  // whose keys and values are in f16
      std::printf("%s: %d of 40 greedy tokens are the CPU's\n", name, same);
      check(same >= 36, "the same greedy tokens, and chunks of 7 give the bits of the whole");
      check(tree_is_paths(model), "a tree gives the bits of its paths");
    };
    check_cache(kv::contiguous<ei::bf16>(), "contiguous<bf16>");
    check_cache(kv::paged<kv::int8>(), "paged<int8>");
    check_cache(kv::ring<ei::fp8_e4m3>(), "ring<fp8_e4m3>");
    if (argc > 2) {
      using linear = ei::models::linear_llama;
      const auto model = ei::model<linear, on_gpu>::load(argv[2]);
      const int same = same_tokens(model, ei::model<linear, ei::execution::cpu>::load(argv[2]), 40);
      std::printf("linear attention: %d of 40 greedy tokens are the CPU's\n", same);
      check(same >= 38, "the same greedy tokens, and chunks of 7 give the bits of the whole");
      check(tree_is_paths(model), "a tree gives the bits of its paths");
    }
    return failures == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "check_model: %s\n", e.what());
    return 1;
  }
}
