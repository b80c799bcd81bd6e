// expect: effinfer: attention::sliding_window<W> needs W >= 1: the window counts the token itself
#include <effinfer/attention/sliding_window.hpp>

namespace ei = effinfer;

#ifdef EFFINFER_BAD
constexpr ei::attention::sliding_window<0> window;
#else
constexpr ei::attention::sliding_window<1> window;
#endif

static_assert(sizeof(window) > 0);
