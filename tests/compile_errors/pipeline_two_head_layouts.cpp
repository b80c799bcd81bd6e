// expect: effinfer: pipeline<...> has two policies in the slot `attention_heads`: keep one of
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::attention::grouped_query<8, 4>, ei::attention::grouped_query<8, 2>>;
#else
using chat = ei::pipeline<ei::attention::grouped_query<8, 2>>;
#endif

static_assert(sizeof(chat) > 0);
