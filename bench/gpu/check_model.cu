// A shipped model on the GPU beside the CPU: the same greedy tokens, logits near, and on the device the same bits in whatever passes.
//
//   check_model FOLDER

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

}  // namespace

int main(int, char** argv) {
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
    return failures == 0 ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "check_model: %s\n", e.what());
    return 1;
  }
}
