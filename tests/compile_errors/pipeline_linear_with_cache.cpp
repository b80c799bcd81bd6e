// expect: effinfer: attention::linear and a kv_cache policy do not go together
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;
using linear = ei::attention::linear<ei::attention::elu_plus_one, ei::attention::decay_per_head>;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::linear_llama, linear, ei::kv_cache::ring<float>>;
#else
using chat = ei::pipeline<ei::models::linear_llama, linear>;
#endif

static_assert(sizeof(chat) > 0);
