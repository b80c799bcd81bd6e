// expect: effinfer: pipeline<...> has two policies in the slot `model`: keep one of
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::llama, ei::models::qwen2>;
#else
using chat = ei::pipeline<ei::models::qwen2>;
#endif

static_assert(sizeof(chat) > 0);
