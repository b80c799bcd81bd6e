// The README's first program. The checkpoint's path may be given as an argument.
// clang-format off
// [first-program]
#include <effinfer/effinfer.hpp>
#include <iostream>
namespace ei = effinfer;

using chat = ei::pipeline<
    ei::models::llama,
    ei::attention::sliding_window<4096>,
    ei::quantization::int4<128>,
    ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::top_p>,
    ei::execution::cpu>;

int main(int argc, char** argv) {
  chat llm = chat::load(argc > 1 ? argv[1] : "path/to/checkpoint");  // Hugging Face folder or .gguf file
  for (std::string_view piece : llm.generate("Once upon a time", {.max_tokens = 64}))
    std::cout << piece << std::flush;
}
// [first-program]
