// expect: effinfer: attention::sliding_window<W> needs W >= 1
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
using mixer = ei::attention::softmax<ei::attention::sliding_window<0>>;
#else
using mixer = ei::attention::softmax<ei::attention::sliding_window<1>>;
#endif

static_assert(sizeof(mixer) > 0);
