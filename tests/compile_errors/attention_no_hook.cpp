// expect: effinfer: attention policy overrides no hook
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct block : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE bool visable(ei::attention::position p) const { return p.key % 2 == 0; }
};
using mixer = ei::attention::softmax<block>;
#else
struct block : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE bool visible(ei::attention::position p) const { return p.key % 2 == 0; }
};
using mixer = ei::attention::softmax<block>;
#endif

static_assert(sizeof(mixer) > 0);
