// A decoding rule of one's own: no token that the text already holds more than `times` times. One struct with three members;
// it goes into a chain with the library's own.
//
//   custom_sampler models/shakespeare-llama

#include <effinfer/effinfer.hpp>

#include <cmath>
#include <iostream>

namespace ei = effinfer;

struct at_most {
  std::size_t times = 12;
  void validate() const {}
  void apply(std::span<float> logits, std::span<const int> history, ei::decoding::workspace& scratch) const {
    scratch.count(history, logits.size(), [&](int id, std::uint32_t count) {
      if (count >= times) logits[static_cast<std::size_t>(id)] = -INFINITY;
    });
  }
};
static_assert(ei::decoding::check_rule<at_most>::complete);

int main(int argc, char** argv) {
  try {
    using pipeline = ei::pipeline<ei::decoding::chain<at_most, ei::decoding::top_p>>;
    const auto llm = pipeline::load(argc > 1 ? argv[1] : "models/shakespeare-llama");
    for (const std::string_view piece : llm.generate("JULIET:\n", {.max_tokens = 80, .seed = 3}))
      std::cout << piece << std::flush;
    std::cout << "\n";
  } catch (const ei::error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
