// expect: effinfer: attention policy needs  EFFINFER_HOST_DEVICE bool visible(position p) const;
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

struct gentle {
  using slot = ei::slot::attention_modifier;
  constexpr float score(float s, ei::attention::position) const { return s * 0.5f; }
#ifndef EFFINFER_BAD
  constexpr bool visible(ei::attention::position) const { return true; }
#endif
  constexpr ei::attention::key_range keys(int, int cached) const { return {0, cached}; }
};

static_assert(sizeof(ei::attention::softmax<gentle>) > 0);
