// expect: effinfer: pipeline<...> has two sliding windows: keep the narrower one.
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat = ei::pipeline<ei::attention::sliding_window<64>, ei::attention::sliding_window<128>>;
#else
using chat = ei::pipeline<ei::attention::sliding_window<64>>;
#endif

static_assert(sizeof(chat) > 0);
