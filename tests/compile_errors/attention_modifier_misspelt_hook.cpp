// expect: effinfer: attention policy overrides no hook: write at least one of score, visible, keys or start
#include <effinfer/attention/softmax.hpp>

namespace ei = effinfer;

struct even_keys : ei::attention::no_hooks {
#ifdef EFFINFER_BAD
  constexpr bool visble(ei::attention::position p) const { return p.key % 2 == 0; }
#else
  constexpr bool visible(ei::attention::position p) const { return p.key % 2 == 0; }
#endif
};

static_assert(sizeof(ei::attention::softmax<even_keys>) > 0);
