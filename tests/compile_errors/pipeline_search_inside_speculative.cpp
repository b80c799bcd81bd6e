// expect: effinfer: a search (beam, best_of, contrastive) can't be the rule of another strategy
#include <effinfer/decoding/beam.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/pipeline/composition.hpp>

using namespace effinfer::decoding;

#ifdef EFFINFER_BAD
using decoding = speculative<prompt_lookup<3>, beam<4>>;
#else
using decoding = beam<4>;
#endif

using checks = effinfer::detail::check_composition<decoding>;
static_assert(sizeof(checks) > 0);
