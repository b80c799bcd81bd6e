// expect: effinfer: quantization::fp8 runs with execution::cuda only
#include <effinfer/model.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using any = ei::model<ei::quantization::fp8, ei::execution::cpu>;
#else
using any = ei::model<ei::quantization::int8, ei::execution::cpu>;
#endif

static_assert(sizeof(any) > 0);
