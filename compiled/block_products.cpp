#include <effinfer/quantization/cpu/compiled_products.hpp>

EFFINFER_PRODUCTS_OF(, q8_0)
EFFINFER_PRODUCTS_OF(, q4_0)
EFFINFER_PRODUCTS_OF(, q4_1)
EFFINFER_PRODUCTS_OF(, q5_0)
EFFINFER_PRODUCTS_OF(, q5_1)
