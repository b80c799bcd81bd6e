// expect: effinfer: prompt_lookup<N> needs N >= 1: the number of tokens to look up.
#include <effinfer/decoding/prompt_lookup.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
constexpr ei::decoding::prompt_lookup<0> drafter;
#else
constexpr ei::decoding::prompt_lookup<1> drafter;
#endif

static_assert(sizeof(drafter) > 0);
