// expect: effinfer: execution::cuda needs nvcc: compile this file with nvcc -std=c++20
#include <effinfer/model.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using llama = ei::model<ei::models::llama, ei::execution::cuda>;
#else
using llama = ei::model<ei::models::llama, ei::execution::cpu>;
#endif

static_assert(sizeof(llama) > 0);
