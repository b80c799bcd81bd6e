// Tokens in, logits out: the models floor, without text and without sampling.
//
//   logits models/shakespeare-llama 1 2 3        prints the five likeliest next tokens

#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/model.hpp>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <numeric>
#include <vector>

namespace ei = effinfer;

int main(int argc, char** argv) {
  try {
    const auto model = ei::model<>::load(argc > 1 ? argv[1] : "models/shakespeare-llama");
    std::vector<int> tokens;
    for (int i = 2; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
    if (tokens.empty()) tokens = {0, 42, 7};

    auto session = model.start({.context_tokens = 64});
    const auto logits = session.append(tokens);

    std::vector<int> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::partial_sort(ids.begin(), ids.begin() + 5, ids.end(), [&](int a, int b) {
      return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    for (int i = 0; i < 5; ++i) {
      const int id = ids[static_cast<std::size_t>(i)];
      std::cout << id << "  log p = " << ei::decoding::log_probability(logits, id) << "\n";
    }
  } catch (const ei::error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
