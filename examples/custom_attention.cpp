// An attention policy of one's own: dilated attention (Child et al. 2019), where a token sees its near past whole and
// every fourth token of what lies further back. One struct; the kernels are the library's.
//
//   custom_attention models/shakespeare-llama

#include <effinfer/effinfer.hpp>

#include <iostream>

namespace ei = effinfer;

struct dilated : ei::attention::no_hooks {
  int near = 32;
  EFFINFER_HOST_DEVICE constexpr bool visible(ei::attention::position p) const {
    return p.query - p.key < near || p.key % 4 == 0;
  }
};
static_assert(ei::attention::attention_variant<dilated>);

int main(int argc, char** argv) {
  try {
    using pipeline = ei::pipeline<dilated, ei::decoding::greedy>;
    const auto llm = pipeline::load(argc > 1 ? argv[1] : "models/shakespeare-llama", {}, dilated{{}, 48});
    for (const std::string_view piece : llm.generate("First Citizen:\n", {.max_tokens = 80}))
      std::cout << piece << std::flush;
    std::cout << "\n";
  } catch (const ei::error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
