// expect: effinfer: execution::cuda needs nvcc: compile this file with nvcc -std=c++20
#include <effinfer/model.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using wrong = ei::model<ei::models::llama, ei::execution::cuda>;
wrong* load() { return new wrong(wrong::load("path")); }
#else
using right = ei::model<ei::models::llama, ei::execution::cpu>;
right* load() { return new right(right::load("path")); }
#endif
