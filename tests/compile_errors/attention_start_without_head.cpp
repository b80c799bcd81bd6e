// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE softmax_start start(int head) const;
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct sink : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE ei::attention::softmax_start start() const { return {0.0f, 1.0f}; }
};
using mixer = ei::attention::softmax<sink>;
#else
struct sink : ei::attention::no_hooks {
  EFFINFER_HOST_DEVICE ei::attention::softmax_start start(int) const { return {0.0f, 1.0f}; }
};
using mixer = ei::attention::softmax<sink>;
#endif

static_assert(sizeof(mixer) > 0);
