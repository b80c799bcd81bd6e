// The second source file of the program parts: in one of the projects with the products compiled apart, so with all of them.
#include "product.hpp"

bool second_products_are_right();

#ifdef EFFINFER_COMPILED
// Bytes of 0 are weights of 0 in every format.
template <class Format>
static bool sums_zeros() {
  namespace ei = effinfer;
  constexpr int outputs = 43, inputs = 512;
  const int group = Format::name == ei::weight_format::int4 ? 32 : 0;
  const std::ptrdiff_t row_bytes = ei::quantization::row_bytes(Format::name, inputs, group);
  const std::vector<std::byte> bytes(static_cast<std::size_t>(outputs * row_bytes));
  const std::vector<float> scales(outputs, 1.0F);
  const auto weights = ei::quantization::pack(
      ei::execution::cpu::context(),
      ei::quantization::weight_matrix{Format::name, bytes.data(), outputs, inputs, scales.data(), group, row_bytes});
  return sums_are<ei::quantization::all_formats>(0, 0, weights.view());
}

template <class... Format>
static bool sum_zeros(effinfer::quantization::formats<Format...>) {
  return (sums_zeros<Format>() && ...);
}

bool second_products_are_right() { return sums_ones() && sum_zeros(effinfer::quantization::all_formats()); }
#else
bool second_products_are_right() { return sums_ones(); }
#endif
