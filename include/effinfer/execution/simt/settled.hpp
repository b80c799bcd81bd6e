#pragma once
// Where compilers compute a number too early for the registers that there are.

#include <effinfer/core/config.hpp>

namespace effinfer::inline v0::execution::simt {

/// x, of which a compiler knows nothing: what is made of it is made then, and not kept in registers from one round of a loop to the next.
EFFINFER_HOST_DEVICE inline int settled(int x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+r"(x));
#endif
  return x;
}

}  // namespace effinfer::inline v0::execution::simt
