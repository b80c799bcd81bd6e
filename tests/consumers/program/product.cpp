// The second source file of the program parts: in one of the projects with the products compiled apart, so with all of them.
#include "product.hpp"

bool second_products_are_right();

bool second_products_are_right() {
#ifdef EFFINFER_COMPILED
  return sums_ones() && give_zeros(effinfer::quantization::all_formats());
#else
  return sums_ones();
#endif
}
