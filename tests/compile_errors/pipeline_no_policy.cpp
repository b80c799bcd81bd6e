// expect: effinfer: pipeline<...> takes policies only, and this type is none
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::models::llama, int>;
#else
using chat = ei::pipeline<ei::models::llama>;
#endif

static_assert(sizeof(chat) > 0);
