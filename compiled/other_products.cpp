#include <effinfer/quantization/cpu/compiled_products.hpp>

EFFINFER_PRODUCTS_OF(, q4_k)
EFFINFER_PRODUCTS_OF(, q5_k)
EFFINFER_PRODUCTS_OF(, q6_k)
EFFINFER_PRODUCTS_OF(, int8)
EFFINFER_PRODUCTS_OF(, int4)
