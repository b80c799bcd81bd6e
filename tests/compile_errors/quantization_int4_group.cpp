// expect: effinfer: quantization::int4<Group> takes a Group of 32, 64 or 128 input columns
#include <effinfer/quantization/int4.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
constexpr ei::quantization::int4<7> weights;
#else
constexpr ei::quantization::int4<64> weights;
#endif

static_assert(sizeof(weights) > 0);
