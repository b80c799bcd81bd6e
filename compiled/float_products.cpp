#include <effinfer/quantization/cpu/compiled_products.hpp>

EFFINFER_PRODUCTS_OF(, f32)
EFFINFER_PRODUCTS_OF(, f16)
EFFINFER_PRODUCTS_OF(, bf16)
