// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE float score(float s, position p) const;
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct scaled : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE double score(double s, ei::attention::position) const { return 2 * s; }
};
using mixer = ei::attention::softmax<scaled>;
#else
struct scaled : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position) const { return 2 * s; }
};
using mixer = ei::attention::softmax<scaled>;
#endif

static_assert(sizeof(mixer) > 0);
