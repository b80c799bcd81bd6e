#pragma once
// How a kernel is started: what its `plan` answers, on the host, before anything runs.

#include <effinfer/core/error.hpp>

#include <string>

namespace effinfer::inline v0::execution::simt {

struct grid {
  int blocks = 0, blocks_y = 1;  ///< none of them: nothing to do
  int threads = 32;              ///< a block; whole warps
  int shared_bytes = 0;          ///< a block
};

/// What a plan must know of a device.
struct device_limits {
  int multiprocessors = 1;
  int shared_bytes = 48 * 1024;  ///< that a block may have (cudaDevAttrMaxSharedMemoryPerBlockOptin)
  bool wgmma = false;            ///< what hopper.hpp says: compute capability 9.0, and a program with code for sm_90a
};

/// Shared memory that a block may have on every device of compute capability 8.0 and above, and on every one with wgmma. Kernels that need no more
/// assert it, and their plans needn't ask.
inline constexpr int least_shared_bytes = 99 * 1024, hopper_shared_bytes = 227 * 1024;

/// Error: `unsupported`, where a block of `who` needs more shared memory than the device has for one.
inline void check_shared(const char* who, int needed, const device_limits& device) {
  if (needed <= device.shared_bytes) return;
  throw error(error_code::unsupported, who,
              "a block needs " + std::to_string(needed) + " bytes of shared memory, the device has " +
                  std::to_string(device.shared_bytes));
}

}  // namespace effinfer::inline v0::execution::simt
