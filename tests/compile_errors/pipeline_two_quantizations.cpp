// expect: effinfer: pipeline<...> has two policies in the slot `quantization`: keep one of
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::quantization::int8, ei::quantization::int4<>>;
#else
using chat = ei::pipeline<ei::quantization::int4<>>;
#endif

static_assert(sizeof(chat) > 0);
