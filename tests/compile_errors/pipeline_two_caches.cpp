// expect: effinfer: pipeline<...> has two policies in the slot `kv_cache`: keep one of
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::kv_cache::contiguous<float>, ei::kv_cache::ring<float>>;
#else
using chat = ei::pipeline<ei::kv_cache::ring<float>>;
#endif

static_assert(sizeof(chat) > 0);
