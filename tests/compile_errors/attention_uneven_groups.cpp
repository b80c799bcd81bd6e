// expect: effinfer: attention::grouped_query<H, KV> needs H % KV == 0
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using mixer = ei::attention::grouped_query<32, 5>;
#else
using mixer = ei::attention::grouped_query<32, 4>;
#endif

static_assert(sizeof(mixer) > 0);
