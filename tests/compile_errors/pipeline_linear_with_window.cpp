// expect: effinfer: attention::linear and an attention modifier (sliding_window, alibi, soft_cap, sinks ...) do not go together
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;
using linear = ei::attention::linear<ei::attention::elu_plus_one, ei::attention::decay_per_head>;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::linear_llama, linear, ei::attention::sliding_window<64>>;
#else
using chat = ei::pipeline<ei::models::linear_llama, linear>;
#endif

static_assert(sizeof(chat) > 0);
