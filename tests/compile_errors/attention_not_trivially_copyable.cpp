// expect: effinfer: attention policy must be trivially copyable
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
#include <vector>
struct biased : ei::attention::no_hooks {
  std::vector<float> bias;
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position p) const {
    return s + bias[static_cast<std::size_t>(p.head)];
  }
};
using mixer = ei::attention::softmax<biased>;
#else
struct biased : ei::attention::no_hooks {
  const float* bias = nullptr;
  EFFINFER_HOST_DEVICE float score(float s, ei::attention::position p) const { return s + bias[p.head]; }
};
using mixer = ei::attention::softmax<biased>;
#endif

static_assert(sizeof(mixer) > 0);
