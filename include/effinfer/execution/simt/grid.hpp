#pragma once
// How a kernel is started: what its `plan` answers, on the host, before anything runs.

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

}  // namespace effinfer::inline v0::execution::simt
