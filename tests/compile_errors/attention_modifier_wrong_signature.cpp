// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE float score(float s, position p) const;
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

struct gentle : ei::attention::no_hooks {
#ifdef EFFINFER_BAD
  constexpr float score(float s) const { return s * 0.5f; }
#else
  constexpr float score(float s, ei::attention::position) const { return s * 0.5f; }
#endif
};

static_assert(sizeof(ei::attention::softmax<gentle>) > 0);
