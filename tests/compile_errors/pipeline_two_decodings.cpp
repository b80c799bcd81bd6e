// expect: effinfer: pipeline<...> has two policies in the slot `decoding`: put one inside the other
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using chat =
    ei::pipeline<ei::decoding::top_p, ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::top_p>>;
#else
using chat = ei::pipeline<ei::decoding::speculative<ei::decoding::prompt_lookup<3>, ei::decoding::top_p>>;
#endif

static_assert(sizeof(chat) > 0);
