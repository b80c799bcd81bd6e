// A program of somebody else's that uses parts of the library, in two source files: a tokenizer, which needs all that is
// linked, and products.
#include <effinfer/effinfer.hpp>

#include "product.hpp"

#include <iostream>

bool second_products_are_right();

int main() {
  namespace ei = effinfer;
  try {
    ei::text::tokenizer::load(ei::checkpoint::model_files::open("no/such/model"));
  } catch (const ei::error& e) {
    std::cout << e.what() << "\n";
    return e.code() == ei::error_code::io && sums_ones() && second_products_are_right() ? 0 : 1;
  }
  std::cout << "a model that does not exist was loaded\n";
  return 1;
}
