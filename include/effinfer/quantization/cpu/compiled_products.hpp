#pragma once
// Products compiled once instead of in each file that uses them: more than half of what a pipeline takes to compile. The CMake
// target effinfer::compiled defines EFFINFER_COMPILED for those who link it, and holds what is declared here (compiled/*.cpp),
// compiled with the options of the program that it becomes a part of. Files compiled with and without it may be mixed.

#include <effinfer/quantization/cpu/matmul.hpp>

/// `extern` or nothing, and a format: declares or makes its products.
#define EFFINFER_PRODUCTS_OF(how, format_name)                                                               \
  how template void effinfer::quantization::detail::run_panels<effinfer::quantization::format::format_name>( \
      effinfer::execution::instruction_set, const effinfer::quantization::prepared_activations&,             \
      const effinfer::quantization::detail::panel_output&);

#ifdef EFFINFER_COMPILED
EFFINFER_PRODUCTS_OF(extern, f32)
EFFINFER_PRODUCTS_OF(extern, f16)
EFFINFER_PRODUCTS_OF(extern, bf16)
EFFINFER_PRODUCTS_OF(extern, q8_0)
EFFINFER_PRODUCTS_OF(extern, q4_0)
EFFINFER_PRODUCTS_OF(extern, q4_1)
EFFINFER_PRODUCTS_OF(extern, q5_0)
EFFINFER_PRODUCTS_OF(extern, q5_1)
EFFINFER_PRODUCTS_OF(extern, q4_k)
EFFINFER_PRODUCTS_OF(extern, q5_k)
EFFINFER_PRODUCTS_OF(extern, q6_k)
EFFINFER_PRODUCTS_OF(extern, int8)
EFFINFER_PRODUCTS_OF(extern, int4)
#endif
