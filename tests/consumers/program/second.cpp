// The second source file of the program: includes and instantiates the same as the first.
#include <effinfer/effinfer.hpp>

#include <string>

std::string what_the_second_file_reads();

std::string what_the_second_file_reads() {
  namespace ei = effinfer;
  try {
    ei::pipeline<ei::models::llama, ei::quantization::int8, ei::decoding::top_p, ei::execution::cpu>::load(
        "no/such/model");
  } catch (const ei::error& e) {
    return e.what();
  }
  return "loaded";
}
