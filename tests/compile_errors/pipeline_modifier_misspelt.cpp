// expect: effinfer: attention policy overrides no hook
#include <effinfer/effinfer.hpp>

namespace ei = effinfer;

struct misspelt : ei::attention::no_hooks {
  constexpr float scores(float s, ei::attention::position) const { return s * 0.5f; }
};
struct right : ei::attention::no_hooks {
  constexpr float score(float s, ei::attention::position) const { return s * 0.5f; }
};

#ifdef EFFINFER_BAD
using chat = ei::pipeline<misspelt>;
#else
using chat = ei::pipeline<right>;
#endif

static_assert(sizeof(chat) > 0);
