// expect: effinfer: attention::linear needs a model trained with it: add models::linear_llama to the pipeline.
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;
using linear = ei::attention::linear<ei::attention::elu_plus_one, ei::attention::decay_per_head>;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::llama, linear>;
#else
using chat = ei::pipeline<ei::models::linear_llama, linear>;
#endif

static_assert(sizeof(chat) > 0);
