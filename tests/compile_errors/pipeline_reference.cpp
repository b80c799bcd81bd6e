// expect: effinfer: pipeline<...> takes plain policy types: drop the const, & or * from this argument.
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<const ei::models::llama&>;
#else
using chat = ei::pipeline<ei::models::llama>;
#endif

static_assert(sizeof(chat) > 0);
