// One checkpoint, several pipelines: change one policy, leave the rest.
//
//   compose models/shakespeare-llama

#include <effinfer/effinfer.hpp>

#include <iostream>

namespace ei = effinfer;

template <class Pipeline>
void show(const char* name, const std::string& path) {
  const auto bytes = Pipeline::memory_footprint(path);
  const auto llm = Pipeline::load(path);
  auto generation = llm.generate("ROMEO:\n", {.max_tokens = 40, .seed = 1});
  std::cout << "--- " << name << ": " << bytes.owned_bytes << " bytes of own weights, " << bytes.state_bytes
            << " of cache\n"
            << generation.text() << "\n";
}

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "models/shakespeare-llama";
  try {
    show<ei::pipeline<>>("as the checkpoint says", path);
    show<ei::pipeline<ei::decoding::greedy>>("greedy", path);
    show<ei::pipeline<ei::decoding::greedy, ei::quantization::int8>>("int8 weights", path);
    show<ei::pipeline<ei::quantization::int4<32>, ei::attention::sliding_window<64>, ei::decoding::greedy>>(
        "int4 weights, a window of 64 on a ring cache", path);
  } catch (const ei::error& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
