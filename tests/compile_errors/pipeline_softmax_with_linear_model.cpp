// expect: effinfer: models::linear_llama was trained with linear attention: drop the softmax attention policy
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::linear_llama, ei::attention::full>;
#else
using chat = ei::pipeline<ei::models::linear_llama>;
#endif

static_assert(sizeof(chat) > 0);
