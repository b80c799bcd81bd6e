// expect: effinfer: speculative<Drafter, Rule> can't be the rule of another: give it the rule inside.
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/top_p.hpp>

using namespace effinfer::decoding;

#ifdef EFFINFER_BAD
using policy = speculative<prompt_lookup<3>, speculative<prompt_lookup<2>, top_p>>;
#else
using policy = speculative<prompt_lookup<3>, top_p>;
#endif

static_assert(sizeof(policy) > 0);
