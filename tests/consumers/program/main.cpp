// A program of somebody else's: the whole library, in two source files, behind the macros that windows.h and old C
// headers define.
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) < (b) ? (b) : (a))
#include <effinfer/effinfer.hpp>

#include <iostream>
#include <string>

std::string what_the_second_file_reads();

namespace ei = effinfer;

using reader = ei::pipeline<ei::models::llama, ei::quantization::int8, ei::decoding::top_p, ei::execution::cpu>;

int main() {
  try {
    reader::load("no/such/model");
  } catch (const ei::error& e) {
    const bool agree = e.code() == ei::error_code::io && what_the_second_file_reads() == e.what();
    std::cout << e.what() << (agree ? "\n" : "\nthe two files disagree\n");
    return agree ? 0 : 1;
  }
  std::cout << "a model that does not exist was loaded\n";
  return 1;
}
