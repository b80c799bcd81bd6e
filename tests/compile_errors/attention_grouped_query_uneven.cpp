// expect: effinfer: attention::grouped_query<H, KV> needs H % KV == 0: every key head serves as many query heads
#include <effinfer/attention/grouped_query.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
constexpr ei::attention::grouped_query<8, 3> heads;
#else
constexpr ei::attention::grouped_query<8, 2> heads;
#endif

static_assert(sizeof(heads) > 0);
