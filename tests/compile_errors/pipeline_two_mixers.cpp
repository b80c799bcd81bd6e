// expect: effinfer: pipeline<...> has two policies in the slot `attention`: keep one of
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::attention::full, ei::attention::softmax<ei::attention::sinks>>;
#else
using chat = ei::pipeline<ei::attention::softmax<ei::attention::sinks>>;
#endif

static_assert(sizeof(chat) > 0);
