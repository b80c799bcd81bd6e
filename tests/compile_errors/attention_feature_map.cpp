// expect: effinfer: attention::linear needs a feature map with  EFFINFER_HOST_DEVICE float operator()(float x) const;
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
struct relu {
  EFFINFER_HOST_DEVICE float map(float x) const { return x > 0 ? x : 0; }
};
using mixer = ei::attention::linear<relu>;
#else
struct relu {
  EFFINFER_HOST_DEVICE float operator()(float x) const { return x > 0 ? x : 0; }
};
using mixer = ei::attention::linear<relu>;
#endif

static_assert(sizeof(mixer) > 0);
