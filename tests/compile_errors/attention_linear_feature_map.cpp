// expect: effinfer: attention::linear needs a feature map with  EFFINFER_HOST_DEVICE float operator()(float x) const;
#include <effinfer/attention/linear.hpp>

namespace ei = effinfer;

struct squared {
#ifdef EFFINFER_BAD
  static constexpr float apply(float x) { return x * x; }
#else
  constexpr float operator()(float x) const { return x * x; }
#endif
};

static_assert(sizeof(ei::attention::linear<squared>) > 0);
